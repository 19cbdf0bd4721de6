"""A picture of what went wrong: failed items with what was given, what came, and the oracle's words."""

import textwrap
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw

from unveil.evals.score import Outcome

_SIDE, _EDGE, _LINE, _WIDTH = 128, 8, 12, 45  # pixels, pixels, pixels, characters
_LINES = 9  # of text under the pictures


def write_failures(outcomes: Sequence[Outcome], path: Path, *, most: int = 8, columns: int = 4) -> int:
    """Up to `most` failed items of each score as one PNG; gives how many are shown (none: no file is written).

    Each cell shows the picture given (left, if any) and the one that came (right), then score, prompt and faults.
    """
    by_score: dict[str, list[Outcome]] = {}
    for outcome in outcomes:
        if outcome.value < 1 and len(by_score.setdefault(outcome.score, [])) < most:
            by_score[outcome.score].append(outcome)
    shown = [outcome for group in by_score.values() for outcome in group]
    if not shown:
        return 0
    cells = [_cell(outcome) for outcome in shown]
    width, height = cells[0].size
    grid = Image.new("RGB", (width * min(columns, len(cells)), height * -(-len(cells) // columns)), "white")
    for i, cell in enumerate(cells):
        grid.paste(cell, (i % columns * width, i // columns * height))
    path.parent.mkdir(parents=True, exist_ok=True)
    grid.save(path)
    return len(shown)


def _cell(outcome: Outcome) -> Image.Image:
    """One failed item."""
    cell = Image.new("RGB", (2 * _SIDE + 3 * _EDGE, _SIDE + 2 * _EDGE + _LINES * _LINE), "white")
    pen = ImageDraw.Draw(cell)
    pictures = (outcome.given, outcome.result if isinstance(outcome.result, Image.Image) else None)
    for place, picture in enumerate(pictures):
        x = _EDGE + place * (_SIDE + _EDGE)
        if picture is not None:
            cell.paste(picture.convert("RGB").resize((_SIDE, _SIDE)), (x, _EDGE))
        pen.rectangle((x - 1, _EDGE - 1, x + _SIDE, _EDGE + _SIDE), outline="gray" if picture else "white")
    words = [f"{outcome.score}: {outcome.prompt}", *outcome.faults]
    lines = [line for text in words for line in textwrap.wrap(text, _WIDTH)][:_LINES]
    for i, line in enumerate(lines):
        text = line.encode("latin-1", "replace").decode("latin-1")  # the built-in font knows no more
        pen.text((_EDGE, _SIDE + 2 * _EDGE + i * _LINE), text, fill="black", font_size=10)
    return cell
