"""Put the first table of docs/scores.md, and how long the backbone trained, into README.md: `python docs/readme.py`."""

import json
import re
from pathlib import Path

HERE = Path(__file__).parent
RUNS = ("backbone", "backbone_longer", "backbone_further", "backbone_beside")
"""The runs whose weights ship, one after another; each keeps its log in docs/runs."""


def train_steps() -> int:
    """How many train steps those runs made, by their logs."""
    logs = [(HERE / "runs" / run / "log.jsonl").read_text().splitlines() for run in RUNS]
    return sum(json.loads(lines[-1])["step"] for lines in logs)


def with_scores(readme: str, scores: str) -> str:
    """The README with the line of the weights, their train steps and the table of scores between its markers."""
    line, table = scores.split("\n\n")[:2]
    return re.sub(
        r"(<!-- scores -->\n).*?(<!-- end of scores -->)",
        lambda m: f"{m[1]}{line}; their backbone took {train_steps():,} train steps\n\n{table}\n{m[2]}",
        readme,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    file = HERE.parent / "README.md"
    file.write_text(with_scores(file.read_text(), (HERE / "scores.md").read_text()))
