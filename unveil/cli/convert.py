"""`unveil convert`: the one file of the release that is no safetensors file."""

from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import say, say_json
from unveil.errors import OutputError, RequestError


def convert(
    source: Annotated[Path, typer.Argument(metavar="MODEL", help="A directory as released.")],
    sigvq: Annotated[bool, typer.Option("--sigvq", help="Write sigvq_embedding.pt as safetensors, beside it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write it also where it is already.")] = False,
    as_json: options.AsJson = False,
) -> None:
    """Make a released directory ready to load."""
    if not sigvq:
        raise RequestError("say what to convert: --sigvq is all there is")
    from unveil.weights.official_model import SIGVQ_FILE
    from unveil.weights.sigvq import convert_sigvq

    target = source / SIGVQ_FILE
    if target.exists() and not force:
        raise OutputError(f"{target}: is there already; --force writes it anew")
    convert_sigvq(target.with_suffix(".pt"), target)
    if as_json:
        say_json({"file": str(target), "bytes": target.stat().st_size})
    else:
        say(f"{target}  {target.stat().st_size} bytes")
