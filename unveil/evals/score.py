"""What playing an item gives, and scores with their 95% intervals."""

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from PIL import Image

_Z = 1.959963984540054  # two-sided 95% of the normal distribution


@dataclass(frozen=True)
class Outcome:
    """One item, played and judged. `value` lies in [0, 1]; `faults` says in the judge's words what is wrong."""

    score: str
    value: float
    prompt: str
    faults: tuple[str, ...] = ()
    family: str = ""
    given: Image.Image | None = None
    result: Image.Image | str | None = None


class Score(NamedTuple):
    """A mean with its 95% interval, over so many items."""

    value: float
    low: float
    high: float
    items: int


def wilson(mean: float, count: int) -> Score:
    """Wilson's interval of a share, (m + z^2/2n +- z sqrt(m(1-m)/n + z^2/4n^2)) / (1 + z^2/n).

    For values between 0 and 1 that are not just 0 or 1 (F1) it is too wide rather than too narrow.
    """
    if count == 0:
        return Score(0.0, 0.0, 1.0, 0)
    share = _Z**2 / count
    middle = (mean + share / 2) / (1 + share)
    half = _Z * math.sqrt(mean * (1 - mean) / count + share / (4 * count)) / (1 + share)
    return Score(mean, min(mean, max(0.0, middle - half)), max(mean, min(1.0, middle + half)), count)


def average(outcomes: Iterable[Outcome]) -> Score:
    """Mean value of items."""
    values = [o.value for o in outcomes]
    return wilson(sum(values) / len(values) if values else 0.0, len(values))


def by_family(outcomes: Sequence[Outcome]) -> dict[str, Score]:
    """The mean of each family, families in alphabetical order."""
    return {f: average(o for o in outcomes if o.family == f) for f in sorted({o.family for o in outcomes})}


def family_mean(outcomes: Sequence[Outcome]) -> Score:
    """Mean of the families' means, so that a frequent family does not count more."""
    families = by_family(outcomes)
    return wilson(sum(s.value for s in families.values()) / max(1, len(families)), len(outcomes))
