"""`unveil convert`: a model in another layout, and the one file of the release that is no safetensors file."""

from pathlib import Path
from typing import Annotated, Literal

import typer

from unveil.cli import options
from unveil.cli.output import progress, say, say_json
from unveil.errors import OutputError, RequestError


def convert(
    model: options.AnyModel,
    target: Annotated[Path | None, typer.Argument(metavar="TARGET", help="A new directory, for --layout.")] = None,
    layout: Annotated[
        Literal["official", "unveil", "diffusers-decoder"] | None, typer.Option("--layout", help="What TARGET is in.")
    ] = None,
    sigvq: Annotated[bool, typer.Option("--sigvq", help="Write sigvq_embedding.pt as safetensors, beside it.")] = False,
    force: Annotated[bool, typer.Option("--force", help="Write that one also where it is already.")] = False,
    decoder: options.Decoder = "normal",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Write a model anew in another layout, byte for byte, or make a released directory ready to load."""
    if not sigvq == (layout is None) == (target is None):
        raise RequestError("say what to convert: MODEL --sigvq, or MODEL TARGET --layout LAYOUT")
    from unveil.pipeline.place import model_directory

    source = model_directory(model)
    if target is not None and layout is not None:
        from unveil.weights.convert import convert as write

        write(source, target, layout, progress(quiet), decoder=decoder)
        made = [file for file in target.rglob("*") if file.is_file()]
    else:
        from unveil.weights.names import SIGVQ_FILE
        from unveil.weights.sigvq import convert_sigvq
        from unveil.weights.verify import record

        target = source / SIGVQ_FILE
        if target.exists() and not force:
            raise OutputError(f"{target}: is there already; --force writes it anew")
        convert_sigvq(target.with_suffix(".pt"), target)
        record(source, SIGVQ_FILE.as_posix())
        made = [target]
    size = sum(file.stat().st_size for file in made)
    if as_json:
        say_json({"file": str(target), "bytes": size})
    else:
        say(f"{target}  {size} bytes")
