"""The curves of a training run as a picture."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from unveil.errors import TrainingError

_BESIDE = ("step", "step_seconds", "lr")


def plot_log(log: Path, out: Path) -> Path:
    """Draw the curves in a run's `log.jsonl` into a PNG: losses (log scale), shares between 0 and 1, learning rate.

    Raises TrainingError when the log is missing or empty, or matplotlib is not installed.
    """
    try:
        from matplotlib.backends.backend_agg import FigureCanvasAgg
        from matplotlib.figure import Figure
    except ImportError:
        raise TrainingError("curves need matplotlib; install it with: pip install matplotlib") from None
    steps, columns = read_log(log)
    shares = {name: values for name, values in columns.items() if is_share(name)}
    losses = {name: values for name, values in columns.items() if name not in shares and name not in _BESIDE}
    panels = {"loss": losses, "share right": shares, "learning rate": {"lr": columns["lr"]} if "lr" in columns else {}}
    panels = {title: curves for title, curves in panels.items() if curves}
    figure = Figure(figsize=(5 * len(panels), 4), layout="constrained")
    FigureCanvasAgg(figure)
    figure.suptitle(f"{log.parent.name}, {steps[-1]} train steps")
    for place, (title, curves) in enumerate(panels.items(), start=1):
        axes = figure.add_subplot(1, len(panels), place)
        for name, values in curves.items():
            axes.plot(steps, values, label=name, linewidth=1)
        if title == "loss":
            axes.set_yscale("symlog", linthresh=1e-4)
        axes.set_title(title)
        axes.set_xlabel("train step")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="x-small")
    out.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(out, dpi=100)
    return out


def read_log(log: Path) -> tuple[Sequence[int], Mapping[str, Sequence[float]]]:
    """Steps, and each number of a run over these steps; nan where a line lacks it. A last, broken line is left out."""
    try:
        text = log.read_text(encoding="utf-8")
    except OSError as error:
        raise TrainingError(f"{log}: cannot be read ({error.strerror}); give the log.jsonl of a run") from None
    try:
        lines = [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith("\n")]
        steps = [int(line["step"]) for line in lines]
    except (ValueError, KeyError, TypeError):
        raise TrainingError(f"{log}: not the log of a run; give its log.jsonl") from None
    if not steps:
        raise TrainingError(f"{log}: no line yet; wait for the run's first")
    names = dict.fromkeys(name for line in lines for name in line)
    return steps, {name: [float(line.get(name, "nan")) for line in lines] for name in names}


def is_share(name: str) -> bool:
    """Whether a number of the log is a share between 0 and 1: exactness, use of the codebook, and the like."""
    return name.endswith("exact") or name in ("use", "same", "first")
