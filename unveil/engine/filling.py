"""One request while its canvas is being filled: what it shows to the model next, and what it makes of the answer."""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import torch

from unveil.engine.prefixes import Prefixes
from unveil.engine.request import Handle
from unveil.errors import GenerationError
from unveil.model.backbone.packed import Segment
from unveil.sampling.canvas import open_canvas
from unveil.sampling.chance import canvas_keys, step_numbers
from unveil.sampling.loop import finish
from unveil.sampling.step import StepEvent
from unveil.shapes import Float, Int, Tensor
from unveil.vocab.layout import Layout

CPU = torch.device("cpu")


@dataclass(frozen=True)
class Span:
    """Positions `start` to `end` of branch `line`, with the rows that are asked for."""

    line: int
    start: int
    end: int
    wanted: Int[Tensor, " n"]


class Filling:
    """A canvas with one line per guidance branch; ids live on the CPU, keys and values with the model.

        line 0   prompt ............ | block | block | ...
        line 1   . . . other prefix  | the same ids ...        . = padding, not there

    `cached[r]` is the position up to which line r's keys and values are final.
    """

    def __init__(self, handle: Handle, layout: Layout) -> None:
        request = handle.request
        self.handle, self.task, self.policy = handle, request.task, request.policy
        canvas = open_canvas(self.task, layout, self.policy.block_size, CPU)
        row = torch.zeros(1, dtype=torch.long)
        self.ids = canvas.tokens(row, 0, canvas.ids.shape[1])[:, 0].clone()  # (R, L)
        self.positions = canvas.positions(row, 0, canvas.ids.shape[1])[:, 0]  # (R, L)
        self.canvas = replace(canvas, ids=self.ids[:1])  # the same memory
        self.pads: list[int] = canvas.pads[:, 0].tolist()
        self.cached = list(self.pads)
        self.cache: Float[Tensor, "R layers 2 KV L head"] | None = None
        self.schedule = self.policy.quota.schedule(canvas.block_size, self.task.tokens)
        self.block, self.step, self.complete = canvas.blocks.start, 0, False
        self.key = 0
        self.masked = self._masked()
        if not len(self.masked):
            self._next_block()

    def enter(self, room: Float[Tensor, "R layers 2 KV L head"]) -> None:
        """Begin, with room for keys and values; the request's generator gives its one number now, not while waiting."""
        self.cache, generator = room, self.handle.request.generator
        if generator is not None and self.policy.counts:
            (self.key,) = canvas_keys([generator])

    @property
    def branches(self) -> int:
        """R, the lines that the model sees."""
        return len(self.ids)

    @property
    def length(self) -> int:
        """Positions of a line."""
        return self.ids.shape[1]

    @property
    def tokens(self) -> list[int]:
        """The new ids, cut after the first stop id or the budget."""
        return finish(self.canvas, self.task)[0]

    def so_far(self, block: int) -> tuple[int, ...]:
        """The new ids up to the end of a block."""
        end = min(self.canvas.bounds(block)[1], self.canvas.prefix + self.task.tokens)
        return tuple(self.ids[0, self.canvas.prefix : end].tolist())

    def spans(self) -> Iterator[Span]:
        """What the next pass computes: all that is not cached yet, block by block, up to the end of the active one."""
        start, end = self.canvas.bounds(self.block)
        nothing = self.masked[:0]
        for line, cached in enumerate(self.cached):
            at = cached
            while at < end:
                until = min((at // self.canvas.block_size + 1) * self.canvas.block_size, end)
                yield Span(line, at, until, self.masked + (start - at) if until == end else nothing)
                at = until

    def segment(self, span: Span) -> Segment:
        """The span with the memory of its line."""
        assert self.cache is not None, "no room was given"
        return Segment(self.cache[span.line], self.pads[span.line], span.start, span.end, span.wanted)

    def numbers(self) -> Float[Tensor, " n"]:
        """A random number for each masked position."""
        start, end = self.canvas.bounds(self.block)
        return step_numbers([self.key], self.block, self.step, end - start)[0, self.masked]

    def commit(self, tokens: Int[Tensor, " n"], confidence: Float[Tensor, " n"]) -> StepEvent | None:
        """Fill the sure positions and go on to the next step or block; gives the event if somebody listens.

        Raises GenerationError when the model's scores were not numbers.
        """
        if not confidence.isfinite().all():
            raise GenerationError("the model gave scores that are not numbers; check the weights (unveil verify)")
        start, end = self.canvas.bounds(self.block)
        self.cached = [max(cached, start) for cached in self.cached]
        waiting = torch.ones_like(tokens, dtype=torch.bool)[None]
        sure = self.policy.quota.commits(confidence[None], waiting, self.schedule[self.step])[0]
        self.ids[:, self.masked[sure] + start] = tokens[sure]
        event = self._event(sure, confidence) if self.handle.request.on_step is not None else None
        self._advance(end)
        return event

    def _advance(self, end: int) -> None:
        stop, new = self.task.stop, self.ids[:1, self.canvas.prefix : end]
        self.step, self.masked = self.step + 1, self._masked()
        if stop.ids and stop.at_once and stop.reached(new, self.canvas.mask):
            self.complete = True
        elif not len(self.masked) or self.step == len(self.schedule):
            self._next_block()

    def _next_block(self) -> None:
        """Go on to the next block that has something to fill, unless the text has ended."""
        stop, canvas = self.task.stop, self.canvas
        while not self.complete:
            new = self.ids[:1, canvas.prefix : canvas.bounds(self.block)[1]]
            if (stop.ids and stop.places(new).any()) or self.block + 1 not in canvas.blocks:
                self.complete = True
                return
            self.block, self.step = self.block + 1, 0
            self.masked = self._masked()
            if len(self.masked):
                return

    def _masked(self) -> Int[Tensor, " n"]:
        """The positions of the active block that wait for a token, counted from its start."""
        return self.canvas.masked(*self.canvas.bounds(self.block))[0].nonzero().squeeze(-1)

    def _event(self, sure: Tensor, confidence: Float[Tensor, " n"]) -> StepEvent:
        start, end = self.canvas.bounds(self.block)
        committed = torch.zeros(1, end - start, dtype=torch.bool)
        committed[0, self.masked] = sure
        confident = torch.zeros(1, end - start, dtype=confidence.dtype)
        confident[0, self.masked] = confidence
        ids = self.ids[:1, start:end].clone()
        return StepEvent(self.block, self.step, self.canvas.prefix, start, end, ids, committed, confident)

    def borrow(self, prefixes: Prefixes) -> None:
        """Take over what an earlier request of the same owner has computed of these prompts."""
        for line, at, until, key in self._prompt_blocks():
            found = prefixes.find(key) if self.cached[line] == at else None
            if found is not None and self.cache is not None:
                self.cache[line, :, :, :, at:until] = found
                self.cached[line] = until

    def lend(self, prefixes: Prefixes) -> None:
        """Leave the prompts' finished blocks to later requests of the same owner."""
        for line, at, until, key in self._prompt_blocks():
            if self.cache is not None and self.cached[line] >= until:
                prefixes.keep(key, self.cache[line, :, :, :, at:until])

    def _prompt_blocks(self) -> Iterator[tuple[int, int, int, tuple[str, int, tuple[int, ...]]]]:
        """Line, start, end and key of every whole block of the prompts that someone may share."""
        owner, size = self.handle.request.owner, self.canvas.block_size
        if owner is None:
            return
        for line, pad in enumerate(self.pads):
            for until in range((pad // size + 1) * size, self.canvas.prefix + 1, size):
                key = (owner, pad % size, tuple(self.ids[line, pad:until].tolist()))
                yield line, max(pad, until - size), until, key
