"""Loading into the memory there is: the precision, the plan that fits, and what was really used."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias, get_args

import torch

from unveil.errors import RequestError
from unveil.memory.measure import Meter, free_memory, is_process
from unveil.memory.moments import PARTS, Task, Work
from unveil.memory.plan import Machine, Plan, down_from, fitting, plans
from unveil.memory.residency import settle
from unveil.model.hold import Precision, floats_of, format_of
from unveil.pipeline.place import check_fp8, check_precision
from unveil.weights.fp8 import FLOAT8
from unveil.weights.read import Parts, Unread, filled
from unveil.weights.tensors import stored

Dtype: TypeAlias = Literal["auto"] | Precision
_ROOM = 0.8
"""Share of the free memory that weights may take when no plan says what else is needed."""


@dataclass(frozen=True)
class Placed:
    """How a model was put where it runs."""

    device: torch.device
    precision: Precision
    why: str  # of the precision, when it is not what the files hold; else empty
    plan: Plan | None = None
    meter: Meter | None = None

    @property
    def planned(self) -> int | None:
        """Bytes that the plan foresees at most: on a GPU, or of the whole process."""
        if self.plan is None or self.meter is None:
            return None
        return self.plan.device + self.meter.base

    @property
    def line(self) -> str | None:
        """What to tell, if there is anything."""
        where = f"{self.precision} on {self.device}"
        if self.plan is not None:
            tiled = ", the VAE in tiles" if self.plan.tiled else ""
            again = ", read again for each turn" if self.plan.rereads else ""
            return f"{where}, {self.plan.residency}{again}{tiled}: {gb(self.planned)} planned"
        return f"{where}: {self.why}" if self.why else None

    @property
    def peak(self) -> str | None:
        """The measured peak beside the planned one."""
        if self.meter is None:
            return None
        return f"peak {gb(self.meter.peak())}, planned {gb(self.planned)}"


@dataclass(frozen=True)
class Budget:
    """How much memory a model may use, and for what."""

    bytes: int  # of the device, or of the process where that is the device
    task: Task
    size: int | None = None  # of pictures to make, in pixels along a side

    def __post_init__(self) -> None:
        if self.task not in PARTS:
            raise RequestError(f"no task '{self.task}'; use {', '.join(PARTS)}")


def place_parts(
    source: Unread, device: torch.device, dtype: str | torch.dtype, budget: Budget | None
) -> tuple[Parts, Placed]:
    """The model of a source on a device, and how it was placed: all of it, or within a budget as a plan says.

    Raises RequestError for an unknown dtype, and when nothing fits, with what the least would need.
    """
    asked = choose_precision(dtype)
    best, why = (asked, "") if asked is not None else _best(source, device, planned=budget is not None)
    check_precision(device, floats_of(best))
    if best == "fp8":
        check_fp8(device)
    if budget is None:
        parts = filled(source, device, floats_of(best), format_of(best))
        return replace(parts, precision=best), Placed(device, best, why)
    meter = Meter(device)
    precisions = down_from(best) if asked is None else (best,)
    plan = _fitting(source, meter, budget, precisions)
    parts = replace(settle(source, plan, device), precision=plan.precision)
    return parts, Placed(device, plan.precision, "", plan, meter)


def choose_precision(name: str | torch.dtype) -> Precision | None:
    """A precision by its name or as PyTorch has it; None for "auto". Raises RequestError for another."""
    short = str(name).removeprefix("torch.")
    found = next((known for known in get_args(Precision) if known == short), None)
    if found is None and short != "auto":
        raise RequestError(f"dtype '{short}' cannot be used; use auto, {', '.join(get_args(Precision))}")
    return found


def gb(size: int | None) -> str:
    """Bytes for people."""
    return f"{(size or 0) / 1e9:.2f} GB"


def _best(source: Unread, device: torch.device, *, planned: bool) -> tuple[Precision, str]:
    """The precision to hold a model in when none is asked for, and why, when that is not the one of its files.

    On a GPU that of the files. CPUs compute in float32, most of them several times faster than in half precision, so
    that is the choice there as long as it fits.
    """
    numbers = Counter[str]()
    for file in (file for files in source.files.values() for file in files):
        for entry in stored(file).values():
            numbers[entry.dtype] += entry.parameters
    most = numbers.most_common(1)[0][0] if numbers else "F32"
    halves: dict[str, Precision] = {"BF16": "bfloat16", "F16": "float16", FLOAT8: "bfloat16"}
    half = halves.get(most)
    if half is not None and device.type != "cpu":
        return half, ""
    if device.type != "cpu" or planned:
        return "float32", ""
    wanted, free = 4 * numbers.total(), free_memory(device)
    if wanted <= _ROOM * free:
        return "float32", "" if half is None else f"the files hold {half}, float32 is faster on a CPU"
    why = f"float32 would take {gb(wanted)}, free are {gb(free)}; --memory plans for less"
    return half or "bfloat16", why


def _fitting(source: Unread, meter: Meter, budget: Budget, precisions: Sequence[Precision]) -> Plan:
    """The first plan that fits. Raises RequestError when none does."""
    device, base, config = meter.device, meter.base, source.parts.config
    shared, free = is_process(device), free_memory(device)
    room = min(budget.bytes - base, free) if shared else min(budget.bytes, free)
    machine = Machine(room, None if shared else free_memory(torch.device("cpu")))
    work = Work.of(config, budget.task, budget.size)
    plan = fitting(config, work, machine, precisions)
    if plan is not None:
        return plan
    least = min(plans(config, work, machine, precisions), key=lambda each: each.device)
    needs = f"the least, {least.precision} {least.residency}, needs {gb(least.device)}"
    other = " or another dtype" if len(precisions) == 1 else ""
    held = f"the process holds {gb(base)} before, " if shared else ""
    there = f"of {gb(budget.bytes)} are left {gb(max(room, 0))} ({held}{gb(free)} are free)"
    raise RequestError(f"{config.name} does not fit: {needs}, {there}; allow more{other}")
