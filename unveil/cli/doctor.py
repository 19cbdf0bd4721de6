"""`unveil doctor`: what this machine has, whether the weights are whole, what fits."""

import os
import platform
from collections.abc import Iterator
from importlib import metadata

import typer

from unveil.cli import options
from unveil.cli.output import note, say, say_json
from unveil.version import VERSION

MODELS = ("tiny", "official")
"""The presets that are models one can have."""
PACKAGES = ("torch", "diffusers", "tokenizers", "safetensors", "pillow", "pydantic", "typer")


def doctor(as_json: options.AsJson = False) -> None:
    """Say what this machine has, whether the weights are whole and what fits; exit code 2 when something is wrong."""
    note("looking at packages, weights and memory; planning takes some seconds")
    shipped = weights()
    findings = {**machine(), "weights": shipped, "needs": needs(), "fits": fits()}
    if as_json:
        say_json(findings)
    else:
        say("\n".join(_shown(findings)))
    if any(found != "whole" for found in shipped.values()):
        raise typer.Exit(2)


def machine() -> dict[str, object]:
    """Versions, processors, memory and devices."""
    import torch

    gpus = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())]
    return {
        "unveil": VERSION,
        "python": platform.python_version(),
        "system": platform.platform(),
        "packages": {name: _version(name) for name in PACKAGES},
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "memory_gib": _memory(),
        "gpus": [f"{gpu.name}, {gpu.total_memory / 2**30:.0f} GiB" for gpu in gpus],
    }


def weights() -> dict[str, str]:
    """Every model inside the package: "whole", or what is wrong with it."""
    from unveil.errors import WeightsError
    from unveil.pipeline.place import shipped_models
    from unveil.weights.manifest import damages, read_manifest

    found: dict[str, str] = {}
    for name, path in shipped_models().items():
        try:
            found[name] = "; ".join(damages(path, read_manifest(path), verify=True)) or "whole"
        except WeightsError as error:
            found[name] = str(error)
    return found


def needs() -> dict[str, str]:
    """Memory that the weights of each preset take."""
    from unveil.config import load_preset, preset_names
    from unveil.weights.read import build

    def gib(name: str) -> float:
        modules = build(load_preset(name)).values()
        return sum(p.numel() for module in modules for p in module.parameters()) / 2**30

    sizes = {name: gib(name) for name in preset_names()}
    return {name: f"{4 * n:.2g} GiB in float32, {2 * n:.2g} GiB in bfloat16" for name, n in sizes.items()}


def fits() -> dict[str, str]:
    """How each model fits the memory that is free now, for a picture and for an answer, placed as by `--memory`."""
    import torch

    from unveil.config import load_preset
    from unveil.memory.measure import free_memory, is_process
    from unveil.memory.moments import Task, Work
    from unveil.memory.plan import Machine, down_from, fitting
    from unveil.pipeline.place import choose_device

    device = choose_device("auto")
    room = Machine(free_memory(device), None if is_process(device) else free_memory(torch.device("cpu")))
    tasks: tuple[Task, ...] = ("generate", "understand")
    found = dict[str, str]()
    for name in MODELS:
        for task in tasks:
            config = load_preset(name)
            precisions = down_from("float32" if device.type == "cpu" else "bfloat16")
            plan = fitting(config, Work.of(config, task), room, precisions)
            verdict = (
                "nothing does" if plan is None else f"{plan.precision} {plan.residency}, {plan.device / 1e9:.2f} GB"
            )
            found[f"{name}, {task}"] = f"{verdict} of {room.device / 1e9:.2f} GB free on {device}"
    return found


def _version(package: str) -> str:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return "missing"


def _memory() -> float | None:
    """GiB of main memory; None where the system does not say."""
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _shown(findings: dict[str, object]) -> Iterator[str]:
    """The findings as lines."""
    for name, value in findings.items():
        if isinstance(value, dict):
            yield f"{name}:" if value else f"{name}: none"
            yield from (f"  {key}: {inner}" for key, inner in value.items())
        else:
            yield f"{name}: {', '.join(value) or 'none' if isinstance(value, list) else value}"
