"""Looking on while a request runs: progress for whoever waits, events for a trace, the canvas for whoever shows it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

from unveil.engine import Engine
from unveil.sampling import StepEvent
from unveil.shapes import Tensor

Heard = Callable[[str, int, int], None]
"""Called with (what is going on, how much of it is done, how much there is)."""


@dataclass(frozen=True)
class Moment:
    """The canvas of a request's first row after one denoise step: its tokens so far, in order."""

    what: str  # draw, think, write, or fill for blanks
    tokens: tuple[int, ...]  # MASK where nothing was chosen yet
    grid: tuple[int, int] | None = None  # of a picture


Seen = Callable[[Moment], None]
"""Called after every denoise step."""


def silent(what: str, done: int, total: int) -> None:
    """Says nothing."""


@dataclass
class Watch:
    """Hears of every denoise and solver step of one batch and keeps the denoise steps if a trace is wanted.

    `engine` is who does the steps; without one every batch has its own.
    """

    heard: Heard = silent
    keep: bool = False
    seen: Seen | None = None
    engine: Engine | None = None
    events: list[StepEvent] = field(default_factory=list)

    def tokens(
        self, what: str, start: Sequence[Sequence[int]], mask: int, grid: tuple[int, int] | None = None
    ) -> Callable[[StepEvent], None]:
        """A listener for one call of the sampling loop that fills the MASK in `start`, one canvas for each row."""
        line, total = list(start[0]), sum(row.count(mask) for row in start)
        on_step = self.filling(what, total)

        def on_canvas(event: StepEvent) -> None:
            on_step(event)
            if self.seen is not None:
                skip = max(event.prefix - event.start, 0)
                first = event.start + skip - event.prefix
                ids = event.ids[0, skip : skip + len(line) - first].tolist()
                line[first : first + len(ids)] = ids
                self.seen(Moment(what, tuple(line), grid))

        return on_canvas

    def filling(self, what: str, total: int) -> Callable[[StepEvent], None]:
        """A listener for one or more calls of the sampling loop, with `total` positions to fill at most."""
        self.events = []
        done = 0

        def on_step(event: StepEvent) -> None:
            nonlocal done
            done += int(event.committed.sum())
            self.heard(what, min(done, total), total)
            if self.keep:
                self.events.append(event)

        return on_step

    def solver(self, total: int) -> Callable[[int, float, Tensor], None]:
        """A listener for one rendering of `total` solver steps."""

        def on_step(number: int, time: float, clean: Tensor) -> None:
            self.heard("render", number + 1, total)

        return on_step


def stops_at(tokens: Sequence[int], stops: Sequence[int]) -> int:
    """How many tokens there are through the first stop."""
    return next((i + 1 for i, token in enumerate(tokens) if token in stops), len(tokens))
