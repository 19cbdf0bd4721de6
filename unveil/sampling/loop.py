"""The one sampling loop: block after block from left to right, each filled in a few denoise steps."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

import torch

from unveil.errors import GenerationError, RequestError
from unveil.sampling.canvas import Canvas, Denoiser, Task, open_canvas
from unveil.sampling.chance import canvas_keys
from unveil.sampling.sprint import share_of_rest
from unveil.sampling.step import Cache, Job, OnStep, Policy, check_choices, denoise
from unveil.sampling.stop import first
from unveil.shapes import Bool, Tensor
from unveil.vocab.layout import Layout


def unmask(
    denoiser: Denoiser,
    task: Task,
    policy: Policy,
    layout: Layout,
    *,
    generators: Sequence[torch.Generator] = (),
    on_step: OnStep | None = None,
    device: torch.device | str = "cpu",
) -> list[list[int]]:
    """The new ids of every row: through its stop id, or as many as the budget says (spec backbone 5.1).

    A denoise step fills some masked positions of the active block; what is filled never changes. Rows leave the
    batch when their block is full or they reached a stop id, and draw from their own generator only while they
    are in it: what a row gets does not depend on the others. Raises GenerationError should a MASK be left.
    """
    canvas = fill(denoiser, task, policy, layout, generators=generators, on_step=on_step, device=device)
    return finish(canvas, task)


class Filler(Protocol):
    """Whatever fills canvases: the engine, or the plain loop."""

    def unmask(
        self, task: Task, policy: Policy, *, generators: Sequence[torch.Generator] = (), on_step: OnStep | None = None
    ) -> list[list[int]]:
        """The new ids of every row."""
        ...


@dataclass(frozen=True)
class Loop:
    """The plain loop over one model, as a filler: the reference that the engine is held to."""

    denoiser: Denoiser
    layout: Layout
    device: torch.device | str = "cpu"

    def unmask(
        self, task: Task, policy: Policy, *, generators: Sequence[torch.Generator] = (), on_step: OnStep | None = None
    ) -> list[list[int]]:
        """As the function `unmask`."""
        return unmask(
            self.denoiser, task, policy, self.layout, generators=generators, on_step=on_step, device=self.device
        )


@torch.inference_mode()
def fill(
    denoiser: Denoiser,
    task: Task,
    policy: Policy,
    layout: Layout,
    *,
    generators: Sequence[torch.Generator] = (),
    on_step: OnStep | None = None,
    device: torch.device | str = "cpu",
) -> Canvas:
    """The canvas as `unmask` leaves it, before the rows are cut out of it."""
    if policy.draws and len(generators) != len(task.prompts):
        raise RequestError("temperature above 0 needs one random generator for each prompt")
    check_choices(task, policy)
    keys = canvas_keys(generators) if policy.counts else ()
    job = Job(denoiser, task, policy, generators, on_step, layout.image_offset, keys)
    canvas = open_canvas(task, layout, policy.block_size, torch.device(device))
    everyone = torch.arange(len(task.prompts), device=device)
    cache, ended = Cache(None, 0, everyone), torch.zeros_like(everyone, dtype=torch.bool)
    for block in canvas.blocks:
        cache, ended = fill_block(job, canvas, cache, ended, block)
        if ended.all():
            break
    return canvas


def fill_block(
    job: Job, canvas: Canvas, cache: Cache, ended: Bool[Tensor, " B"], block: int
) -> tuple[Cache, Bool[Tensor, " B"]]:
    """Denoise one block of every row that has not ended; gives the cache and the rows that have ended now."""
    stop, sprint, (start, end) = job.task.stop, job.policy.sprint, canvas.bounds(block)
    schedule = job.policy.quota.schedule(canvas.block_size, job.task.tokens)
    for step, share in enumerate(schedule):
        masked = canvas.masked(start, end)
        rows = (masked.any(-1) & ~ended).nonzero().squeeze(-1)  # the only time a step waits for the device
        if len(rows) == 0:
            break
        if step == 0 and not torch.isin(rows, cache.rows).all():
            cache = Cache(None, 0, rows)  # a row that had nothing to fill in an earlier block takes part again
        rest = None if sprint is None else share_of_rest(masked[rows].sum(-1), len(schedule) - step, sprint.least)
        old = stop.places(canvas.ids[:, start:end])
        cache = denoise(job, canvas, rows, cache, block, step, share if rest is None else rest)
        if stop.ids and stop.at_once:
            ended = ended | _stopped(job, canvas, old, block)
    if stop.ids:
        ended = ended | stop.places(canvas.ids[:, canvas.prefix : end]).any(-1)
    return cache, ended


def _stopped(job: Job, canvas: Canvas, old: Bool[Tensor, "B N"], block: int) -> Bool[Tensor, " B"]:
    """Rows that end in the middle of their block.

    The official code looks only when a stop id was written in this very step, and from the start of the line: with
    one in the prompt it ends wherever the new one lies (spec backbone 10.1).
    """
    stop, (start, end) = job.task.stop, canvas.bounds(block)
    reached = stop.reached(canvas.ids[:, canvas.prefix : end], canvas.mask)
    if not job.policy.official:
        return reached
    fresh = (stop.places(canvas.ids[:, start:end]) & ~old).any(-1)
    return fresh & (reached | stop.places(canvas.ids[:, : canvas.prefix]).any(-1))


def finish(canvas: Canvas, task: Task) -> list[list[int]]:
    """Cut each row after its first stop id or its budget, and check that no MASK leaves."""
    new = canvas.ids[:, canvas.prefix : canvas.prefix + task.tokens]
    lengths = (first(task.stop.places(new)) + 1).tolist()
    rows = [row[:length] for row, length in zip(new.tolist(), lengths, strict=True)]
    if not task.allowed.mask and any(canvas.mask in row for row in rows):
        raise GenerationError("a position was left masked; please report this with the prompt, seed and settings")
    return rows
