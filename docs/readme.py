"""Put the first table of docs/scores.md, and how long the backbone trained, into README.md: `python docs/readme.py`."""

import json
import re
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).parent
RUNS = ("backbone", "backbone_longer", "backbone_further")
"""The runs whose weights ship, one after another; each keeps its log in docs/runs."""


def hours(log: Iterable[str]) -> float:
    """The hours of a training run: each line of its log tells how long the train steps since the last one took."""
    total, last = 0.0, 0
    for line in map(json.loads, log):
        total, last = total + (line["step"] - last) * line["step_seconds"], line["step"]
    return total / 3600


def with_scores(readme: str, scores: str, trained: float) -> str:
    """The README with the line of the weights, the hours and the table of scores between its markers."""
    line, table = scores.split("\n\n")[:2]
    return re.sub(
        r"(<!-- scores -->\n).*?(<!-- end of scores -->)",
        lambda m: f"{m[1]}{line}; their backbone trained {trained:.1f} hours on two cores\n\n{table}\n{m[2]}",
        readme,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    file = HERE.parent / "README.md"
    trained = sum(hours((HERE / "runs" / run / "log.jsonl").read_text().splitlines()) for run in RUNS)
    file.write_text(with_scores(file.read_text(), (HERE / "scores.md").read_text(), trained))
