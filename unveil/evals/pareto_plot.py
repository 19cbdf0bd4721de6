"""The points of a sweep as one picture: quality against forward passes, positions and seconds."""

import io
from collections.abc import Sequence

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from unveil.evals.pareto import CACHES, Point, best

_COSTS = (
    ("passes", "forward passes a picture"),
    ("positions", "positions a picture"),
    ("seconds", "seconds a picture"),
)
_MARKS = dict(zip(CACHES, "osD^", strict=True))


def plot(points: Sequence[Point], title: str) -> bytes:
    """A PNG. A cross bar is a 95% interval; the points that none beats are joined, and show steps and threshold."""
    figure = Figure(figsize=(13, 4.5), layout="constrained")
    figure.suptitle(title, fontsize=10)
    for axes, (cost, label) in zip(figure.subplots(1, len(_COSTS), sharey=True), _COSTS, strict=True):
        front = best(points, cost)
        axes.plot([getattr(p, cost) for p in front], [p.quality for p in front], color="0.6", drawstyle="steps-post")
        for cache, mark in _MARKS.items():
            for who, color in (("guidance 1", "tab:orange"), ("guided", "tab:blue")):
                some = [p for p in points if p.cache == cache and (p.guidance > 1) == (who == "guided")]
                if some:
                    x, y = [getattr(p, cost) for p in some], [p.quality for p in some]
                    bars = [[p.quality - p.low for p in some], [p.high - p.quality for p in some]]
                    look = {"alpha": 0.7, "elinewidth": 0.5, "markersize": 5}
                    axes.errorbar(x, y, yerr=bars, fmt=mark, color=color, label=f"{cache}, {who}", **look)
        for p in front:
            where, name = (getattr(p, cost), p.quality), f"{p.steps}, {p.threshold:g}"
            axes.annotate(name, where, textcoords="offset points", xytext=(-3, 4), ha="right", size=7)
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlabel(label)
        axes.grid(alpha=0.3)
    figure.axes[0].set_ylabel("pictures the oracle finds right")
    figure.axes[0].legend(fontsize=7)
    out = io.BytesIO()
    figure.savefig(out, format="png", dpi=100)
    return out.getvalue()
