"""Events of the sampling loop as a story of one canvas: at each moment every cell is masked or committed.

moment 0   . . . .        a cell holds its token (or none), how sure the model was or is, and whether it
moment 1   . 7 . .        was committed in this very step
moment 2   3 7 . 9
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace

from PIL import Image

from unveil.sampling.step import StepEvent

Show = Callable[[int], str]
"""A token as text."""


@dataclass(frozen=True)
class Cell:
    """One position of the canvas at one moment."""

    token: int | None = None  # None is masked
    confidence: float = 0.0  # of the token when it was committed; of the present candidate while masked
    fresh: bool = False  # committed in this step


@dataclass(frozen=True)
class Step:
    """What one denoise step left of a block: its cells, and the canvas position of the first."""

    block: int
    step: int
    first: int
    cells: tuple[Cell, ...]


@dataclass(frozen=True)
class Stage:
    """One canvas from all masked to filled: words, or the codes of a picture."""

    steps: tuple[Step, ...]
    labels: tuple[str, ...]  # the final token of each position as text; a picture's are numbers
    grid: tuple[int, int] | None = None  # of a picture
    picture: Image.Image | None = None  # what the codes were rendered to
    start: tuple[Cell, ...] = ()  # the canvas before the first step; all masked if empty

    def moments(self) -> Iterator[list[Cell]]:
        """The whole canvas before the first step and after each."""
        canvas = list(self.start) or [Cell() for _ in self.labels]
        yield list(canvas)
        for step in self.steps:
            canvas = [replace(cell, fresh=False) for cell in canvas]
            for position, cell in enumerate(step.cells, step.first):
                if canvas[position].token is None:
                    canvas[position] = cell
            yield list(canvas)

    def colors(self) -> list[tuple[int, int, int]]:
        """The mean color of each code's place in the finished picture."""
        assert self.grid is not None and self.picture is not None, "words have no colors"
        small = self.picture.resize((self.grid[1], self.grid[0]), Image.Resampling.BOX).tobytes()
        return [(small[i], small[i + 1], small[i + 2]) for i in range(0, len(small), 3)]


@dataclass(frozen=True)
class Trace:
    """All stages of one request: words and pictures in the order in which they were made."""

    title: str
    stages: tuple[Stage, ...]


def word_stage(
    events: Sequence[StepEvent], row: int, mask: int, length: int, show: Show, given: Sequence[int] = ()
) -> Stage:
    """The stage of `length` written tokens of one row; `given` is what its canvas held before, if not MASK alone."""
    steps, start = _steps(events, row, mask, length), _start(given, mask)
    return Stage(steps, tuple(show(token) for token in _final(steps, length, start)), start=start)


def picture_stage(
    events: Sequence[StepEvent],
    row: int,
    mask: int,
    grid: tuple[int, int],
    picture: Image.Image,
    given: Sequence[int] = (),
) -> Stage:
    """The stage of one picture's codes of one row; `given` is what its canvas held before, if not MASK alone."""
    length = grid[0] * grid[1]
    steps, start = _steps(events, row, mask, length), _start(given, mask)
    return Stage(steps, tuple(str(token) for token in _final(steps, length, start)), grid, picture, start)


def runs(events: Sequence[StepEvent]) -> list[list[StepEvent]]:
    """Events of several canvases one after another, apart: each canvas begins behind a longer prefix."""
    parts: list[list[StepEvent]] = []
    for event in events:
        if not parts or parts[-1][-1].prefix != event.prefix:
            parts.append([])
        parts[-1].append(event)
    return parts


def _steps(events: Sequence[StepEvent], row: int, mask: int, length: int) -> tuple[Step, ...]:
    """Steps of one row, cut to the first `length` positions of the canvas; steps that did nothing there are left out.

    A block may begin in the prefix and reach beyond what was asked for.
    """
    steps = []
    for event in events:
        skip = max(event.prefix - event.start, 0)
        first = event.start + skip - event.prefix
        columns = (event.ids[row], event.confidence[row], event.committed[row])
        ids, sure, fresh = (column[skip : skip + max(length - first, 0)].tolist() for column in columns)
        cells = tuple(Cell(None if i == mask else i, s, f) for i, s, f in zip(ids, sure, fresh, strict=True))
        if any(cell.fresh for cell in cells):
            steps.append(Step(event.block, event.step, first, cells))
    return tuple(steps)


def _start(given: Sequence[int], mask: int) -> tuple[Cell, ...]:
    return tuple(Cell() if token == mask else Cell(token, 1.0) for token in given)


def _final(steps: Sequence[Step], length: int, start: Sequence[Cell] = ()) -> list[int]:
    """The token that each position got in the end, or had from the start."""
    tokens = {i: cell.token for i, cell in enumerate(start) if cell.token is not None}
    tokens |= {step.first + i: c.token for step in steps for i, c in enumerate(step.cells) if c.token is not None}
    return [tokens[i] for i in range(length)]
