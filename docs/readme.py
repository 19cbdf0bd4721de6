"""Put the first table of docs/scores.md between the score markers of README.md: `python docs/readme.py`."""

import re
from pathlib import Path

HERE = Path(__file__).parent


def with_scores(readme: str, scores: str) -> str:
    """The README with the line of the weights and the table of scores between its markers."""
    line, table = scores.split("\n\n")[:2]
    return re.sub(
        r"(<!-- scores -->\n).*?(<!-- end of scores -->)",
        lambda m: f"{m[1]}{line}\n\n{table}\n{m[2]}",
        readme,
        flags=re.DOTALL,
    )


if __name__ == "__main__":
    file = HERE.parent / "README.md"
    file.write_text(with_scores(file.read_text(), (HERE / "scores.md").read_text()))
