"""`unveil verify`: whether every file of a model directory is as its manifest says."""

from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import progress, say, say_json


def verify(
    model: options.AnyModel,
    write: Annotated[bool, typer.Option("--write", help="Record the files as they are, where no manifest is.")] = False,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Compare size and sha256 of every file with the manifest; exit code 1 when one is damaged, missing or extra."""
    from unveil.pipeline.place import model_directory
    from unveil.weights.verify import verify as check
    from unveil.weights.verify import write_manifest

    path, problems = model_directory(model), list[str]()
    if write:
        count = write_manifest(path, progress(quiet))
    else:
        count, problems = check(path, progress(quiet))
    if as_json:
        say_json({"path": str(path), "files": count, "problems": problems})
    else:
        verdict = f"{len(problems)} problems" if problems else "recorded" if write else "whole"
        say("\n".join([*problems, f"{path}: {count} files, {verdict}"]))
    if problems:
        raise typer.Exit(1)
