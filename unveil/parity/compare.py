"""How far two values may lie apart, how far they do, and where they first lie too far."""

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, Self, TypeAlias

import torch

from unveil.errors import RequestError
from unveil.shapes import Bool, Tensor

Value: TypeAlias = Tensor | Sequence[object] | float | str
Measure = Literal["exact", "absolute", "relative", "L2"]
_NUMBER = r"(\d+(?:\.\d*)?(?:[eE][+-]?\d+)?)"
_FORMS: tuple[tuple[Measure, str], ...] = (
    ("absolute", rf"absolute {_NUMBER}"),
    ("L2", rf"relative L2 {_NUMBER}"),
    ("relative", rf"relative {_NUMBER}"),
)


@dataclass(frozen=True)
class Tolerance:
    """The largest deviation that still agrees.

    relative: of the largest absolute value that was recorded; L2: length of the difference by length of the recorded.
    """

    measure: Measure
    bound: float = 0.0
    informative: bool = False  # the manifest says that a larger deviation proves nothing

    @classmethod
    def read(cls, text: str) -> Self:
        """A tolerance in the manifest's words. Raises RequestError for words that are not known."""
        informative = "informative" in text
        if text.startswith("exact"):
            return cls("exact", informative=informative)
        for measure, form in _FORMS:
            if found := re.match(form, text):
                return cls(measure, float(found[1]), informative)
        raise RequestError(f"the manifest's tolerance '{text}' is not known")


@dataclass(frozen=True)
class Finding:
    """One value compared: its deviation by the tolerance's measure, and where it differs if that is too much."""

    name: str
    deviation: float
    tolerance: Tolerance
    where: str = ""

    @property
    def share(self) -> float:
        """The deviation as a share of what is tolerated."""
        return self.deviation / self.tolerance.bound if self.tolerance.bound else self.deviation


def compare(
    name: str, ours: Value, theirs: Value, tolerance: Tolerance, counted: Bool[Tensor, "..."] | None = None
) -> Finding:
    """Our value against the recorded one; `counted` are the leading places that matter. NaN agrees with NaN alone."""
    if isinstance(ours, str) or isinstance(theirs, str):
        same = ours == theirs
        return Finding(name, 0.0 if same else math.inf, tolerance, "" if same else _texts(name, str(ours), str(theirs)))
    a, b = torch.as_tensor(ours), torch.as_tensor(theirs)
    if a.shape != b.shape:
        return Finding(name, math.inf, tolerance, f"{name} has the shape {_show(a)}, recorded {_show(b)}")
    if isinstance(ours, Tensor) and isinstance(theirs, Tensor) and b.is_floating_point() and a.dtype != b.dtype:
        return Finding(name, math.inf, tolerance, f"{name} is {a.dtype}, recorded {b.dtype}")
    a, b = a.double(), b.double()
    matters = torch.ones_like(b, dtype=torch.bool) if counted is None else _grown(counted.bool(), b)
    if counted is not None and not matters.any():
        return Finding(name, math.inf, tolerance, f"{name} has no place that counts")
    apart = (a - b).abs().nan_to_num(math.inf, math.inf)
    apart[(a == b) | (a.isnan() & b.isnan()) | ~matters] = 0
    recorded = b.where(matters & b.isfinite(), 0).abs()
    if tolerance.measure == "L2":
        length = recorded.norm().item() or 1.0
        deviation, limit = apart.norm().item() / length, 0.0
    else:
        scale = recorded.max().item() if tolerance.measure == "relative" and recorded.numel() else 1.0
        scale = scale or 1.0  # all zero: then the bound is absolute
        deviation, limit = apart.max().item() / scale if apart.numel() else 0.0, tolerance.bound * scale
    if deviation <= tolerance.bound:
        return Finding(name, deviation, tolerance)
    place = tuple((apart > limit).nonzero()[0].tolist()) if (apart > limit).any() else ()
    at = f"[{', '.join(map(str, place))}]" if place else ""
    return Finding(name, deviation, tolerance, f"{name}{at} is {a[place].item():g}, recorded {b[place].item():g}")


def _grown(counted: Bool[Tensor, "..."], like: Tensor) -> Bool[Tensor, "..."]:
    """Places of the leading axes as places of all axes."""
    return counted.reshape(*counted.shape, *[1] * (like.ndim - counted.ndim)).expand(like.shape)


def _texts(name: str, ours: str, theirs: str) -> str:
    """Where two texts part."""
    pairs = enumerate(zip(ours, theirs, strict=False))
    at = next((i for i, (a, b) in pairs if a != b), min(len(ours), len(theirs)))
    return f"{name}[{at}] goes on {ours[at : at + 20]!r}, recorded {theirs[at : at + 20]!r}"


def _show(tensor: Tensor) -> str:
    return "x".join(map(str, tensor.shape)) or "scalar"
