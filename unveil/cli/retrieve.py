"""`unveil retrieve`: the pictures of a directory, the one that fits the words best first."""

from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import note, open_model, say, say_json
from unveil.errors import PictureError, RequestError


def retrieve(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="Where the pictures are.")],
    text: Annotated[str, typer.Argument(help='What to look for, e.g. "two green trees".')],
    top: Annotated[int | None, typer.Option("--top", help="Only the best K.")] = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Rank the pictures in DIR by how well they fit TEXT."""
    if top is not None and top < 1:
        raise RequestError(f"--top must be at least 1, not {top}; leave it out to see all")
    from unveil.pipeline.inputs import pictures_in

    files = list(_readable(pictures_in(directory)))
    if not files:
        raise PictureError(f"{directory}: none of its pictures can be read; give another directory")
    with open_model(model, device, quiet, memory=memory, dtype=dtype) as uni:
        ranking = uni.retrieve(files, text)[:top]
    if as_json:
        say_json([{"file": str(files[i]), "score": round(score, 4)} for i, score in ranking])
    else:
        say("\n".join(f"{score:7.4f}  {files[i]}" for i, score in ranking))


def _readable(files: Iterable[Path]) -> Iterator[Path]:
    """The files that hold pictures; of the others it is noted why not."""
    from unveil.pictures import load_picture

    for file in files:
        try:
            load_picture(file)
        except PictureError as error:
            note(f"left out: {error}")
        else:
            yield file
