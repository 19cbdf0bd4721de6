"""`unveil parity`: this implementation against recorded outputs of the official one."""

from collections import Counter
from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import say, say_json


def parity(
    directory: Annotated[Path, typer.Argument(metavar="DIR", help="manifest.json, goldens.safetensors, checkpoint/")],
    as_json: options.AsJson = False,
) -> None:
    """Compare with outputs recorded from the official code; exit code 1 when a case differs."""
    from unveil.parity import Runner

    runner, results = Runner(directory), []
    for result in runner.results():
        results.append(result)
        if not as_json:
            say(result.line)
    counts = Counter(result.status for result in results)
    if as_json:
        numbers = {status: counts[status] for status in ("passed", "failed", "skipped")}
        say_json({**numbers, "cases": [asdict(result) for result in results]})
    else:
        skipped = f", {counts['skipped']} skipped" if counts["skipped"] else ""
        say(f"{counts['passed']} passed, {counts['failed']} failed{skipped}")
    if counts["failed"] or not counts["passed"]:
        raise typer.Exit(1)
