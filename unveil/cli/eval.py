"""`unveil eval`: scores of a model against the oracle."""

from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_picture_target, open_model, progress, say, say_json
from unveil.errors import RequestError

evaluate = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)


@evaluate.callback()
def top() -> None:
    """Score a model."""


@evaluate.command()
def scenes(
    n: Annotated[int, typer.Option("--n", help="Held-out items a score.")] = 500,
    split: Annotated[list[str] | None, typer.Option("--split", help="Held-out splits to play as well.")] = None,
    failures: Annotated[Path | None, typer.Option("--failures", metavar="FILE", help="A picture of failures.")] = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = None,
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw, read, edit and find held-out scenes; the oracle judges."""
    if n < 1:
        raise RequestError(f"--n must be at least 1, not {n}")
    if failures is not None:
        check_picture_target(failures)
    from unveil.evals.failures import write_failures
    from unveil.evals.report import table
    from unveil.evals.scenes import evaluate as play
    from unveil.pipeline.watch import silent

    with open_model(model, device, quiet, memory=memory, dtype=dtype) as uni:
        uni.heard = silent  # the progress is that of the items
        found = play(uni, n, progress(quiet), split or ())
    if failures is not None:
        write_failures(found.failures, failures)
    if as_json:
        say_json(found.as_dict())
    else:
        say(table(found))
