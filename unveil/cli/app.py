"""All verbs under one name."""

from typing import Any

import typer

from unveil.cli.bench import bench
from unveil.cli.chat import chat
from unveil.cli.config import config
from unveil.cli.convert import convert
from unveil.cli.doctor import doctor
from unveil.cli.edit import edit
from unveil.cli.eval import evaluate
from unveil.cli.fetch import fetch
from unveil.cli.generate import generate
from unveil.cli.infill import infill
from unveil.cli.inspect import inspect
from unveil.cli.interleave import interleave
from unveil.cli.parity import parity
from unveil.cli.plan import plan
from unveil.cli.replay import replay
from unveil.cli.retrieve import retrieve
from unveil.cli.train import train
from unveil.cli.understand import understand
from unveil.cli.verify import verify
from unveil.version import VERSION

__all__ = ["Abort", "UsageProblem", "app"]

Abort = typer.Abort
UsageProblem: Any = typer.BadParameter.__mro__[2]  # ClickException, click's own or the copy inside newer typers

app = typer.Typer(
    help="One model that reads, draws and edits pictures and writes text by unmasking.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)


def _version(wanted: bool) -> None:
    if wanted:
        print(f"unveil {VERSION}")
        raise typer.Exit


@app.callback()
def top(
    version: bool = typer.Option(False, "--version", callback=_version, is_eager=True, help="Show the version."),
) -> None:
    """What all verbs share."""


for _verb in (
    generate,
    understand,
    infill,
    edit,
    interleave,
    chat,
    retrieve,
    replay,
    train,
    fetch,
    convert,
    inspect,
    verify,
    parity,
    plan,
    bench,
    doctor,
):
    app.command()(_verb)
app.add_typer(evaluate, name="eval")
app.add_typer(config, name="config")
