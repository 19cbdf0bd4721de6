"""The engine: requests join and leave one batch at every denoise step."""

import itertools
import threading
import time
import warnings
from collections.abc import Callable, Sequence
from typing import Protocol

import torch

from unveil.engine.choose import alike, choose, order
from unveil.engine.events import Event, Kind, Listener, deaf
from unveil.engine.filling import Filling
from unveil.engine.prefixes import Prefixes
from unveil.engine.queue import Queue
from unveil.engine.request import Handle, Request
from unveil.errors import BusyError, CancelledError, PromptError, RequestError
from unveil.model.backbone.packed import Segment
from unveil.sampling import OnStep, Policy, Task
from unveil.sampling.step import check_choices
from unveil.shapes import Float, Int, Tensor
from unveil.vocab.layout import Layout

TILE = 32  # rows of every matrix product of a batch-invariant engine


class Model(Protocol):
    """What the engine needs of a backbone."""

    def allocate(self, branches: int, length: int) -> Float[Tensor, "R layers 2 KV L head"]:
        """Room for keys and values."""
        ...

    def packed(
        self, tokens: Int[Tensor, " N"], positions: Int[Tensor, " N"], segments: Sequence[Segment], tile: int | None
    ) -> Float[Tensor, "M D"]:
        """States of the wanted tokens; keys and values go into the segments' caches."""
        ...

    def logits(self, states: Float[Tensor, "M D"], tile: int | None) -> Float[Tensor, "M V"]:
        """Scores over the vocabulary, float32."""
        ...


class Engine:
    """One model and the requests that it serves: `submit`, then `step` until everybody has a result.

    Every step is one forward pass for all running requests, whatever their task, length or progress. Each keeps its
    own canvas, cache and random numbers; nothing is shared but the pass (and prompts, between requests of one owner).
    Engines share nothing at all. `submit` and `cancel` may be called from any thread, also while another one steps.
    """

    def __init__(
        self,
        model: Model,
        layout: Layout,
        *,
        context: int | None = None,
        device: torch.device | str = "cpu",
        batch: int = 64,
        queue: int = 1024,
        cache_limit: int | None = None,
        shared_limit: int = 1 << 28,
        prefixes: Prefixes | None = None,
        batch_invariant: bool = False,
        owner: str | None = None,
        heard: Listener = deaf,
    ) -> None:
        """`context` limits prompt and canvas together; `cache_limit` and `shared_limit` are bytes.

        prefixes: what engines over one model have in common, if they do; else each has its own.
        owner: of the requests that come by `unmask`; they share what their prompts have in common.
        batch_invariant: a request's scores are the same bit for bit alone and in any company; slower.
        """
        self.model, self.layout, self.context, self.device = model, layout, context, torch.device(device)
        self.batch, self.cache_limit, self.owner, self.heard = batch, cache_limit, owner, heard
        self.tile = TILE if batch_invariant else None
        self.queue = Queue(queue)
        self.prefixes = Prefixes(shared_limit) if prefixes is None else prefixes
        self.running: list[Filling] = []
        self.positions = 0  # that went through the model's layers so far
        self.cache_bytes = self.most_cache_bytes = 0  # of keys and values held by running requests
        self._numbers = itertools.count()
        self._entry, self._stepping = threading.Lock(), threading.RLock()
        self._within = False  # a step

    def submit(self, request: Request) -> Handle:
        """Put a request into the queue.

        Raises BusyError when the queue is full, PromptError when prompt and canvas exceed the context.
        """
        policy = request.policy
        if policy.sprint is not None or policy.official or not policy.reuse_prefix:
            raise RequestError("the engine is exact; run SPRINT and the official rules with unveil.sampling.unmask")
        check_choices(request.task, policy)
        prompt, tokens = len(request.task.prompts[0]), request.task.tokens
        if self.context is not None and prompt + tokens > self.context:
            sizes = f"{prompt} + {tokens} > {self.context}"
            raise PromptError(f"{sizes}: prompt and canvas exceed the context; shorten the prompt or ask for less")
        with self._entry:
            handle = Handle(self, next(self._numbers), request)
            self.queue.push(handle)
        return handle

    def unmask(
        self, task: Task, policy: Policy, *, generators: Sequence[torch.Generator] = (), on_step: OnStep | None = None
    ) -> list[list[int]]:
        """The new ids of every row of a task, as `sampling.unmask` gives them; the rows run together.

        When one fails, or the caller is interrupted, the others are cancelled and nothing of them stays.
        """
        handles = [
            self.submit(Request(row, policy, generators[i] if generators else None, owner=self.owner, on_step=on_step))
            for i, row in enumerate(task.rows())
        ]
        try:
            return [handle.tokens() for handle in handles]
        finally:
            for handle in handles:
                handle.cancel()
            with self._stepping:
                self._leave()

    def run_until(self, done: Callable[[], bool]) -> None:
        """Step until something is done."""
        while not done():
            with self._stepping:
                idle = not done() and not self.step()
                assert not idle or done(), "nothing left to do, yet somebody waits"

    def step(self) -> bool:
        """One denoise step of everybody who runs; whether there was anything to do.

        Raises RequestError when a listener asks for it: it is called in the middle of one.
        """
        with self._stepping, torch.inference_mode():
            if self._within:
                raise RequestError("a listener cannot wait for what it asks of its own engine; ask after the step")
            self._within = True
            try:
                self._leave()
                self._join()
                if self.running:
                    self._pass(list(self.running))
                    return True
                return False
            finally:
                self._within = False

    def _leave(self) -> None:
        """Let go of those who were cancelled or are too late."""
        now = time.monotonic()
        for handle in self.queue:
            if handle.cancelled or now > handle.expires:
                self._dismiss(handle, _gone(handle))
        for filling in list(self.running):
            if filling.handle.cancelled or now > filling.handle.expires:
                self._end(filling, _gone(filling.handle))

    def _join(self) -> None:
        """Let in as many as there is room for, the next one first."""
        while len(self.running) < self.batch and (handle := self.queue.first) is not None:
            try:
                filling = Filling(handle, self.layout)
                fits = filling.complete or self._give_room(filling)
            except Exception as error:
                self._dismiss(handle, error)
                continue
            if not fits:
                return
            with self._entry:
                self.queue.remove(handle)
            if filling.complete:
                self._end(filling)
            else:
                filling.borrow(self.prefixes)
                self.running.append(filling)

    def _give_room(self, filling: Filling) -> bool:
        """Allocate the request's keys and values, or say that it must wait; BusyError when it never can have them."""
        try:
            room = self.model.allocate(filling.branches, filling.length)
            fits = self.cache_limit is None or self.cache_bytes + room.nbytes <= self.cache_limit
        except torch.OutOfMemoryError:
            fits = False
        if not fits and not self.running:
            sizes = f"{filling.branches} x {filling.length} positions of keys and values"
            raise BusyError(f"out of memory: {sizes} do not fit; ask for a smaller picture or a shorter text")
        if fits:
            filling.enter(room)
            self.cache_bytes += room.nbytes
            self.most_cache_bytes = max(self.most_cache_bytes, self.cache_bytes)
        return fits

    def _pass(self, fillings: list[Filling]) -> None:
        """One step of these requests together. If that fails, each half tries alone: only the culprit fails."""
        try:
            scored = self._score(fillings)
        except Exception as error:
            if len(fillings) == 1:
                self._end(fillings[0], _explained(error, fillings[0]))
                return
            if isinstance(error, torch.OutOfMemoryError):
                self.batch = max(1, len(fillings) // 2)
            self._pass(fillings[: len(fillings) // 2])
            self._pass(fillings[len(fillings) // 2 :])
            return
        for filling, tokens, confidence in scored:
            if filling in self.running:  # a listener may have let it go
                self._commit(filling, tokens, confidence)

    def _score(self, fillings: list[Filling]) -> list[tuple[Filling, Int[Tensor, " n"], Float[Tensor, " n"]]]:
        """Candidates and confidences for the masked positions of each request, on the CPU."""
        spans = [(filling, span) for filling in fillings for span in filling.spans()]
        starts = itertools.accumulate((f.branches * len(f.masked) for f in fillings), initial=0)
        groups = alike(zip(starts, fillings, strict=False))
        tokens = torch.cat([f.ids[s.line, s.start : s.end] for f, s in spans]).to(self.device)
        positions = torch.cat([f.positions[s.line, s.start : s.end] for f, s in spans]).to(self.device)
        rows = order(groups).to(self.device)  # now, while there is no work that the copy would wait for
        states = self.model.packed(tokens, positions, [f.segment(s) for f, s in spans], self.tile)
        self.positions += len(tokens)
        logits = self.model.logits(states.index_select(0, rows), self.tile)
        sizes = [sum(f.branches * len(f.masked) for _, f in group) for group in groups]
        out = []
        for group, scores in zip(groups, logits.split(sizes), strict=True):
            chosen = [x.cpu() for x in choose(group, scores, self.layout.mask)]
            parts = (x.split([len(f.masked) for _, f in group]) for x in chosen)
            out += [(f, *found) for (_, f), *found in zip(group, *parts, strict=True)]
        return out

    def _commit(self, filling: Filling, tokens: Int[Tensor, " n"], confidence: Float[Tensor, " n"]) -> None:
        """Write what is sure, tell the listeners, and let the request go when its canvas is full."""
        block, step, request = filling.block, filling.step, filling.handle.request
        try:
            event = filling.commit(tokens, confidence)
            if step == 0:
                filling.lend(self.prefixes)
            if event is not None and request.on_step is not None:
                request.on_step(event)
            self._tell(filling.handle, "step", block=block, step=step)
            if filling.complete or filling.block != block:
                self._tell(filling.handle, "block", block=block, step=step, tokens=filling.so_far(block))
            if filling.complete:
                self._end(filling)
        except Exception as error:
            self._end(filling, error)

    def _end(self, filling: Filling, error: Exception | None = None) -> None:
        """Free what the request held and tell how it went."""
        if filling in self.running:
            self.running.remove(filling)
            assert filling.cache is not None
            self.cache_bytes -= filling.cache.nbytes
            filling.cache = None
        if error is not None:
            return self._fail(filling.handle, error)
        tokens = filling.tokens
        if filling.task.allowed.first == self.layout.image_offset:
            try:
                self._tell(filling.handle, "picture", tokens=tuple(tokens))
            except Exception as raised:
                return self._fail(filling.handle, raised)
        filling.handle.finish(tokens)
        self._tell_last(filling.handle, "done", tokens=tuple(tokens))

    def _dismiss(self, handle: Handle, error: Exception) -> None:
        """Fail one who still waits."""
        with self._entry:
            self.queue.remove(handle)
        self._fail(handle, error)

    def _fail(self, handle: Handle, error: Exception) -> None:
        handle.finish([], error)
        self._tell_last(handle, "failed", error=error)

    def _tell_last(
        self, handle: Handle, kind: Kind, *, tokens: tuple[int, ...] = (), error: Exception | None = None
    ) -> None:
        """Tell how it went. A listener that raises now can change nothing, and must not harm the others."""
        try:
            self._tell(handle, kind, tokens=tokens, error=error)
        except Exception as raised:
            warnings.warn(f"a listener of request {handle.number} raised at '{kind}': {raised!r}", stacklevel=2)

    def _tell(
        self,
        handle: Handle,
        kind: Kind,
        *,
        block: int = 0,
        step: int = 0,
        tokens: tuple[int, ...] = (),
        error: Exception | None = None,
    ) -> None:
        event = Event(kind, handle.number, block, step, tokens, error)
        handle.request.heard(event)
        self.heard(event)


def _gone(handle: Handle) -> Exception:
    """Why a request is let go before it is done."""
    if handle.cancelled:
        return CancelledError("cancelled")
    return BusyError(f"deadline passed: no result after {handle.request.deadline} s; allow more time or ask for less")


def _explained(error: Exception, filling: Filling) -> Exception:
    """PyTorch's out-of-memory as one of ours."""
    if isinstance(error, torch.OutOfMemoryError):
        sizes = f"{filling.branches} branches of {filling.length} positions"
        return BusyError(f"out of memory: {sizes} do not fit even alone; ask for a smaller picture or a shorter text")
    return error
