"""`unveil train`: a training stage, or its continuation."""

from pathlib import Path
from typing import Annotated

import typer

from unveil.cli.output import note, say
from unveil.errors import DivergenceError


def train(recipe: Annotated[Path, typer.Argument(help="A YAML file such as recipes/tiny/backbone.yaml.")]) -> None:
    """Train as RECIPE says. Stopped at any moment, the same command goes on from the last checkpoint."""
    from unveil.config import read
    from unveil.config.run import RunConfig

    read(RunConfig, recipe)  # a bad recipe is reported before PyTorch is imported
    from unveil.runs import start

    try:
        complete = start(recipe)
    except DivergenceError as error:
        note(f"unveil: training diverged: {error}; lower optim.lr and start again from the last checkpoint")
        raise typer.Exit(3) from None
    if not complete:
        raise typer.Exit(130)
    say(f"{recipe}: complete")
