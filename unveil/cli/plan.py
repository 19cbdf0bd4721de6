"""`unveil plan`: what a model needs on the device and on the host, and what to choose when that is too much."""

from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unveil.cli import options
from unveil.cli.config import find_config
from unveil.cli.output import say, say_json

if TYPE_CHECKING:
    from unveil.memory.plan import Need, Plan

TaskName = Literal["generate", "understand", "edit", "anything"]
Amount = "24GB (thousand million bytes) or 24GiB."


def plan(
    model: Annotated[str, typer.Argument(help="A preset or a YAML file (they need no weights), or a model directory.")],
    ram: Annotated[str, typer.Option("--ram", help="Memory of the host: " + Amount)],
    gpu: Annotated[str | None, typer.Option("--gpu", help="Memory of the GPU; none: plan for the CPU.")] = None,
    task: Annotated[TaskName, typer.Option("--task", help="What is asked for.")] = "generate",
    size: Annotated[int | None, typer.Option("--size", help="Side of the picture to make, in pixels.")] = None,
    dtype: Annotated[options.Precision, typer.Option("--dtype", help="Of the weights.")] = "bfloat16",
    as_json: options.AsJson = False,
) -> None:
    """What MODEL would need, part by part, and whether it fits. Reads no weights."""
    from unveil.memory.moments import Work
    from unveil.memory.plan import Machine, down_from, parse_bytes, plans

    host, config = parse_bytes(ram), find_config(model)
    machine, work = Machine(host, None) if gpu is None else Machine(parse_bytes(gpu), host), Work.of(config, task, size)
    asked = list(plans(config, work, machine, [dtype]))
    chosen = next((each for each in asked if each.fits), asked[1])  # the second is staged
    better: list[Plan] = []
    if not chosen.fits or chosen.residency == "streamed":
        better = [other for other in plans(config, work, machine, down_from(dtype)[1:]) if other.fits]
    if as_json:
        parts = [_row(need, chosen) for need in chosen.needs]
        said = {"precision": chosen.precision, "residency": chosen.residency, "tiled": chosen.tiled, "parts": parts}
        fitting = [[other.precision, other.residency] for other in better]
        peaks = {"device_peak": chosen.device, "host_peak": chosen.host}
        say_json({**said, "fits": chosen.fits, **peaks, "would_fit": fitting})
        return
    say("\n".join(_table(chosen)))
    verdict = "fits" if chosen.fits else "does not fit"
    where = f"{ram} of the process" if gpu is None else f"{gpu} on the device and {ram} on the host"
    say(f"{verdict} {where}: {_peaks(chosen)}")
    for other in better:
        say(f"{'faster' if chosen.fits else 'would fit'}: --dtype {other.precision}, {_peaks(other)}")
    if not chosen.fits and not better:
        say("nothing that is known here would fit")


def _row(need: "Need", plan: "Plan") -> dict[str, object]:
    where = plan.residency if need.used else "not loaded"
    lying = plan.lying(need) if need.used else 0
    numbers = {"weights": need.weights, "on device": lying, "activations": plan.active(need), "cache": need.cache}
    peak = lying + plan.active(need) + need.cache
    return {"part": need.name, "dtype": need.dtype, "where": where, **numbers, "peak": peak}


def _table(plan: "Plan") -> list[str]:
    rows = [_row(need, plan) for need in plan.needs]
    shown = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return ["".join(cell.ljust(17) if i < 3 else cell.rjust(13) for i, cell in enumerate(line)) for line in shown]


def _cell(value: object) -> str:
    return f"{value / 1e9:.3f} GB" if isinstance(value, int) else str(value)


def _peaks(plan: "Plan") -> str:
    tiles = ", VAE in tiles" if plan.tiled else ""
    if plan.machine.host is None:
        return f"{plan.residency}{tiles}, {plan.device / 1e9:.2f} GB besides Python and its libraries"
    return f"{plan.residency}{tiles}, {plan.device / 1e9:.2f} GB on the device, {plan.host / 1e9:.2f} GB on the host"
