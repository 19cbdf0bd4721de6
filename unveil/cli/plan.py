"""`unveil plan`: what a model needs on the device and on the host, and what to choose when that is too much."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import typer

from unveil.cli import options
from unveil.cli.output import say, say_json

if TYPE_CHECKING:
    from unveil.config import ModelConfig
    from unveil.memory.plan import Need, Plan

Precision = Literal["float32", "bfloat16", "float16", "int8", "int4"]
Amount = "24GB (thousand million bytes) or 24GiB."


def plan(
    model: Annotated[str, typer.Argument(help="A preset (needs no weights) or a model directory.")],
    gpu: Annotated[str, typer.Option("--gpu", help="Memory of the device: " + Amount)],
    ram: Annotated[str, typer.Option("--ram", help="Memory of the host: " + Amount)],
    task: Annotated[Literal["generate", "understand"], typer.Option("--task", help="What is asked for.")] = "generate",
    size: Annotated[int | None, typer.Option("--size", help="Side of the picture to make, in pixels.")] = None,
    dtype: Annotated[Precision, typer.Option("--dtype", help="Of the weights.")] = "bfloat16",
    as_json: options.AsJson = False,
) -> None:
    """What MODEL would need, part by part, and whether it fits. Reads no weights."""
    from unveil.memory.moments import Work
    from unveil.memory.plan import parse_bytes, plans

    device, host, config = parse_bytes(gpu), parse_bytes(ram), _config(model)
    every = plans(config, Work.of(config, task, size), dtype)
    asked = [next(every), next(every)]  # all resident, then staged
    chosen = asked[0] if asked[0].fits(device, host) else asked[1]
    fits = chosen.fits(device, host)
    better = [] if fits else [other for other in every if other.fits(device, host)]
    if as_json:
        parts = [_row(need, chosen) for need in chosen.needs]
        said = {"precision": chosen.precision, "residency": chosen.residency, "parts": parts, "fits": fits}
        fitting = [[other.precision, other.residency] for other in better]
        say_json({**said, "device_peak": chosen.device, "host_peak": chosen.host, "would_fit": fitting})
        return
    say("\n".join(_table(chosen)))
    verdict = "fits" if fits else "does not fit"
    say(f"{verdict} {gpu} on the device and {ram} on the host: {_peaks(chosen)}")
    for other in better:
        say(f"would fit: --dtype {other.precision}, {_peaks(other)}")
    if not fits and not better:
        say("nothing that is known here would fit")


def _config(model: str) -> "ModelConfig":
    """The configuration of a preset or of a directory, ours or as released."""
    from unveil.config import load_config, load_preset, preset_names
    from unveil.files import check_links
    from unveil.vocab.text import Text
    from unveil.weights.names import CONFIG_FILE, TOKENIZER_FILE
    from unveil.weights.official_config import official_model_config
    from unveil.weights.official_model import is_official

    path = Path(model)
    if model in preset_names() or not path.is_dir():
        return load_preset(model)
    check_links(path)
    if is_official(path):
        return official_model_config(path, Text.load(path / TOKENIZER_FILE))
    return load_config(path / CONFIG_FILE)


def _row(need: "Need", plan: "Plan") -> dict[str, object]:
    where = plan.residency if need.used else "not loaded"
    numbers = {"weights": need.weights, "activations": need.activations, "cache": need.cache}
    return {"part": need.name, "dtype": need.dtype, "where": where, **numbers, "peak": need.peak if need.used else 0}


def _table(plan: "Plan") -> list[str]:
    rows = [_row(need, plan) for need in plan.needs]
    shown = [list(rows[0]), *([_cell(value) for value in row.values()] for row in rows)]
    return ["".join(cell.ljust(17) if i < 3 else cell.rjust(13) for i, cell in enumerate(line)) for line in shown]


def _cell(value: object) -> str:
    return f"{value / 1e9:.3f} GB" if isinstance(value, int) else str(value)


def _peaks(plan: "Plan") -> str:
    return f"{plan.residency}, {plan.device / 1e9:.2f} GB on the device, {plan.host / 1e9:.2f} GB on the host"
