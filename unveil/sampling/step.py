"""One denoise step: look at the window through every branch, choose tokens, commit the sure ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import torch

from unveil.diffusion.guidance import guide
from unveil.sampling.canvas import Canvas, Denoiser, Past, Task
from unveil.sampling.commit import Quota, commit_confident
from unveil.sampling.draw import Draw, draw, hide
from unveil.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Policy:
    """How to sample, whatever the task.

    reuse_prefix: keys and values of finished blocks are kept instead of computed again at every step; exact.
    whole_blocks: the last block of a picture is filled to its end and the surplus dropped, as the official model does
    and was trained to; without, the canvas ends with the last code. Texts always fill whole blocks.
    official: MASK may be predicted (and may then remain), text may hold codes, a plan keeps the header it wrote:
    what the official code does, for comparison with it.
    """

    quota: Quota
    block_size: int
    draw: Draw = field(default_factory=Draw)
    reuse_prefix: bool = True
    whole_blocks: bool = True
    official: bool = False


@dataclass(frozen=True)
class StepEvent:
    """What one denoise step did to the active block, for drawing traces. The tensors are copies."""

    block: int  # counted from position 0 of the line
    step: int  # within the block, from 0
    prefix: int  # positions before the canvas
    start: int  # the active block is start..end of the line
    end: int
    ids: Int[Tensor, "B N"]  # after the step; MASK where nothing was chosen yet
    committed: Bool[Tensor, "B N"]  # filled in this very step
    confidence: Float[Tensor, "B N"]  # of the candidate wherever it was masked before the step, else 0


OnStep = Callable[[StepEvent], None]


@dataclass(frozen=True)
class Cache:
    """Keys and values of the first `length` positions, which are final, for these rows of the batch."""

    past: Past | None
    length: int
    rows: Int[Tensor, " B"]

    def of(self, rows: Int[Tensor, " B"]) -> Past | None:
        """The part for a subset of the rows, in every branch. The batch holds branch 0 of all rows, then branch 1..."""
        if self.past is None or len(rows) == len(self.rows):
            return self.past
        branches = self.past[0][0].shape[0] // len(self.rows)
        starts = torch.arange(branches, device=rows.device)[:, None] * len(self.rows)
        chosen = (starts + torch.searchsorted(self.rows, rows)).flatten()
        return tuple((k.index_select(0, chosen), v.index_select(0, chosen)) for k, v in self.past)


@dataclass(frozen=True)
class Job:
    """Everything that stays the same while one canvas is filled."""

    denoiser: Denoiser
    task: Task
    policy: Policy
    generators: Sequence[torch.Generator]  # one per row; none needed at temperature 0
    on_step: OnStep | None


def look(
    denoiser: Denoiser, canvas: Canvas, rows: Int[Tensor, " B"], cache: Cache, start: int, end: int
) -> tuple[Float[Tensor, "R B N V"], Past]:
    """Logits of the block from `start` to `end`, in every branch, and the keys and values of all before `end`.

    All branches run as one batch. What the cache does not hold is computed along, under the block-causal mask, so
    its keys and values are exact. The head runs on the active block alone.
    """
    ids = canvas.tokens(rows, cache.length, end)
    positions, visible = canvas.positions(rows, cache.length, end), canvas.visible(rows, cache.length, end)
    states, past = denoiser.hidden(ids.flatten(0, 1), positions.flatten(0, 1), visible.flatten(0, 1), cache.of(rows))
    return denoiser.logits(states[:, start - end :]).unflatten(0, ids.shape[:2]), past


def crop(past: Past, length: int, rows: Int[Tensor, " B"]) -> Cache:
    """Keep what lies before the active block."""
    return Cache(tuple((k[:, :, :length], v[:, :, :length]) for k, v in past), length, rows)


def choose(
    job: Job, canvas: Canvas, logits: Float[Tensor, "R B N V"], rows: Int[Tensor, " B"]
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """A candidate for each position and its confidence: guide, hide what is not allowed, draw."""
    guided = hide(guide(logits, job.task.guidance), job.task.allowed, canvas.mask)
    generators = [job.generators[i] for i in rows.tolist()] if job.policy.draw.temperature else []
    return draw(guided, job.policy.draw, generators)


def denoise(
    job: Job, canvas: Canvas, rows: Int[Tensor, " B"], cache: Cache, block: int, step: int, at_least: int
) -> Cache:
    """One denoise step of `rows` in a block; writes to the canvas and gives the cache for the next step."""
    start, end = canvas.bounds(block)
    logits, past = look(job.denoiser, canvas, rows, cache, start, end)
    if job.policy.reuse_prefix and cache.length < start:
        cache = crop(past, start, rows)
    tokens, confidence = choose(job, canvas, logits, rows)
    before = canvas.ids[rows, start:end]
    masked = before == canvas.mask
    committed = commit_confident(confidence, masked, job.policy.quota.threshold, at_least)
    canvas.ids[rows, start:end] = torch.where(committed, tokens, before)
    if job.on_step is not None:
        confidence = confidence.masked_fill(~masked, 0)
        job.on_step(_event(canvas, rows, committed, confidence, block, step))
    return cache


def _event(
    canvas: Canvas,
    rows: Int[Tensor, " B"],
    committed: Bool[Tensor, "B N"],
    confidence: Float[Tensor, "B N"],
    block: int,
    step: int,
) -> StepEvent:
    """The event of a step, over the whole batch: rows that did not take part committed nothing."""
    start, end = canvas.bounds(block)
    ids = canvas.ids[:, start:end].clone()
    everyone = torch.zeros_like(ids, dtype=torch.bool).index_copy(0, rows, committed)
    sure = torch.zeros_like(ids, dtype=confidence.dtype).index_copy(0, rows, confidence)
    return StepEvent(block, step, canvas.prefix, start, end, ids, everyone, sure)
