"""`unveil eval`: scores of a model against the oracle."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from unveil.cli import options
from unveil.cli.output import open_model, say, say_json
from unveil.errors import RequestError

evaluate = typer.Typer(help="Score a model.", no_args_is_help=True, rich_markup_mode=None)


@evaluate.callback()
def top() -> None:
    """Score a model."""


@evaluate.command()
def scenes(
    n: Annotated[int, typer.Option("--n", help="Held-out items a score.")] = 500,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw, read, edit and find held-out scenes; the oracle judges."""
    if n < 1:
        raise RequestError(f"--n must be at least 1, not {n}")
    from unveil.evals.scenes import run

    uni = open_model(model, device, quiet)
    result = run(uni, n)
    if as_json:
        say_json(result)
    else:
        say(table(result))


def table(result: Mapping[str, Any]) -> str:
    """The scores as lines: name, value in percent, 95% interval."""
    intervals = result.get("intervals", {})
    lines = [f"{result['n']} items a score, weights {result['weights']}"]
    for name, value in result["scores"].items():
        low, high = intervals.get(name, (value, value))
        lines.append(f"{name:14} {100 * value:6.1f}%   {100 * low:.1f} to {100 * high:.1f}")
    return "\n".join(lines)
