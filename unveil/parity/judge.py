"""From what a case yields to its verdict."""

from collections.abc import Iterable
from dataclasses import dataclass
from math import isfinite
from typing import Literal

import torch

from unveil.parity.compare import Finding, Tolerance, Value, compare
from unveil.parity.golden import Case
from unveil.shapes import Bool, Tensor

Status = Literal["passed", "failed", "skipped"]
_FLOATS, _BYTES = "relative 1e-4", "absolute 1"


@dataclass(frozen=True)
class Check:
    """A value of ours to compare with the case's output of this name, or with `theirs`.

    What the case did not record is not compared: a case's code may give more than was asked for.
    """

    name: str
    ours: Value
    theirs: Value | None = None
    counted: Bool[Tensor, "..."] | None = None
    tolerance: str | None = None  # the manifest's unless told


@dataclass(frozen=True)
class Skip:
    """A part of a case that is not compared, and why."""

    name: str
    reason: str


@dataclass(frozen=True)
class Result:
    """The verdict on one case. `deviation` is the worst, by the measure of `tolerance`; None where it is no number."""

    name: str
    status: Status
    detail: str
    tensor: str | None = None
    deviation: float | None = None
    tolerance: float | None = None

    @property
    def line(self) -> str:
        """For people."""
        return f"{self.name}  {self.status}  {self.detail}"


def judge(case: Case, checks: Iterable[Check | Skip]) -> list[Result]:
    """The verdict on a case, and a line for each part that is left out.

    It passes when every recorded output was compared, something was, and all of it lies within its tolerance.
    """
    findings, compared, skips = list[Finding](), set[str](), list[Result]()
    for check in checks:
        if isinstance(check, Skip):
            skips.append(Result(f"{case.name}/{check.name}", "skipped", check.reason))
            continue
        theirs = case.outputs.get(check.name) if check.theirs is None else check.theirs
        if theirs is not None:
            tolerance = Tolerance.read(check.tolerance or _tolerance(case, check.name, theirs))
            findings.append(compare(check.name, check.ours, theirs, tolerance, check.counted))
            compared.add(check.name)
    lost = [name for name in case.outputs if name not in compared]
    return [_verdict(case.name, findings, lost), *skips]


def _verdict(name: str, findings: list[Finding], lost: list[str]) -> Result:
    wrong = [f for f in findings if f.where]
    if lost:
        return Result(name, "failed", f"not compared, since nothing here computes it: {', '.join(lost)}")
    if not findings:
        return Result(name, "failed", "nothing was compared")
    inexact = [f for f in findings if f.tolerance.measure != "exact"]
    worst = max(wrong or inexact or findings, key=lambda f: f.share)
    shown = (worst.name, worst.deviation if isfinite(worst.deviation) else None, worst.tolerance.bound)
    apart = f"worst {worst.deviation:.1e} of {worst.tolerance.bound:.0e}"
    if any(not f.tolerance.informative for f in wrong):
        first = next(f for f in wrong if not f.tolerance.informative)
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        return Result(name, "failed", f"{first.where}{more}; {apart} ({worst.name})", *shown)
    if wrong:
        return Result(name, "skipped", f"its tolerance is informative: {worst.where}; {apart}", *shown)
    if not inexact:
        return Result(name, "passed", "exact", *shown)
    return Result(name, "passed", f"{apart} ({worst.name})", *shown)


def _tolerance(case: Case, name: str, theirs: Value) -> str:
    """The manifest's words; else floats nearly, bytes of pictures within one level, all other values exactly."""
    if name in case.tolerance or "*" in case.tolerance:
        return case.tolerance.get(name, case.tolerance.get("*", ""))
    if isinstance(theirs, Tensor) and theirs.dtype == torch.uint8:
        return _BYTES
    return _FLOATS if isinstance(theirs, Tensor) and theirs.is_floating_point() else "exact"
