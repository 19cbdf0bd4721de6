"""`unveil fetch`: the released weights from a hub; the one verb that uses the network."""

from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import note, progress, say, say_json


def fetch(
    repository: Annotated[str, typer.Argument(metavar="REPO", help="OWNER/NAME on the hub, or on HF_ENDPOINT.")],
    revision: Annotated[str | None, typer.Option("--revision", help="A branch, tag or commit; main if none.")] = None,
    to: Annotated[Path | None, typer.Option("--to", metavar="DIR", help="A new directory; NAME if none.")] = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Bring safetensors and JSON files, and no code, from a hub; again after an interruption, it goes on."""
    from huggingface_hub.utils import logging

    from unveil.weights.fetch import fetch as bring
    from unveil.weights.names import SIGVQ_FILE

    logging.set_verbosity_error()  # what goes wrong is told once, in one line
    target = Path(repository.rsplit("/", 1)[-1]) if to is None else to
    source = bring(repository, revision, target, progress(quiet))
    if as_json:
        say_json({"path": str(target), **source.model_dump()})
    else:
        say(f"{target}  {source.repository} at {source.commit}")
    if (target / SIGVQ_FILE).with_suffix(".pt").exists() and not (target / SIGVQ_FILE).exists():
        note(f"before the first picture, run: unveil convert --sigvq {target}")
