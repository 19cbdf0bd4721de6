"""One denoise step: look at the window through every branch, choose tokens, commit the sure ones."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace

import torch

from unveil.diffusion.guidance import guide
from unveil.errors import RequestError
from unveil.sampling.canvas import Canvas, Denoiser, Past, Task
from unveil.sampling.chance import step_numbers
from unveil.sampling.choices import choose_among
from unveil.sampling.commit import Quota
from unveil.sampling.draw import Draw, draw, draw_at, hide
from unveil.sampling.sprint import Sprint, candidates, importance, kept_by_kind, kept_count, kept_places
from unveil.shapes import Bool, Float, Int, Tensor

_RUN = 256  # positions whose logits SPRINT holds at once


@dataclass(frozen=True)
class Policy:
    """How to sample, whatever the task.

    reuse_prefix: keys and values of finished blocks are kept instead of computed again at every step; exact.
    whole_blocks: the last block of a picture is filled to its end and the surplus dropped, as the official model does
    and was trained to; without, the canvas ends with the last code. Texts always fill whole blocks.
    official: MASK may be predicted (and may then remain), text may hold codes, a plan keeps the header it wrote:
    what the official code does, for comparison with it.
    sprint: prune what later steps of a block look at; approximate. None looks at everything. Without reuse_prefix the
    first steps of each block compute the whole window, as the official code does: the same tokens, slower.
    """

    quota: Quota
    block_size: int
    draw: Draw = field(default_factory=Draw)
    reuse_prefix: bool = True
    whole_blocks: bool = True
    official: bool = False
    sprint: Sprint | None = None

    @property
    def draws(self) -> bool:
        """Whether random numbers are needed."""
        return self.draw.temperature > 0 or (self.sprint is not None and self.sprint.score == "random")

    @property
    def counts(self) -> bool:
        """Whether they come by counter; the official code and SPRINT draw one after the other."""
        return self.draw.temperature > 0 and self.sprint is None and not self.official


def check_choices(task: Task, policy: Policy) -> None:
    """Raise RequestError unless the policy can choose among the task's choices, if it has any."""
    if task.choices and (policy.draws or policy.sprint is not None):
        raise RequestError("choices are compared, not drawn; leave out the temperature (and SPRINT)")


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
    """Keys and values of the first `length` positions, which are final, for these rows of the batch.

    With SPRINT also how sure the model was at each of them, and what the later steps of the block still see.
    """

    past: Past | None
    length: int
    rows: Int[Tensor, " B"]
    confidence: Float[Tensor, "R*B P"] | None = None
    pruned: "Pruned | None" = None

    def of(self, rows: Int[Tensor, " B"]) -> Past | None:
        """The part for a subset of the rows, in every branch."""
        if self.past is None or len(rows) == len(self.rows):
            return self.past
        chosen = among(rows, self.rows, self.past[0][0].shape[0])
        return tuple((k.index_select(0, chosen), v.index_select(0, chosen)) for k, v in self.past)


@dataclass(frozen=True)
class Pruned:
    """What SPRINT kept of the finished positions: K of them in every layer, some there only to fill a row up."""

    cache: Cache
    seen: Bool[Tensor, "R*B K"]

    def of(self, rows: Int[Tensor, " B"]) -> Bool[Tensor, "R*B K"]:
        """Which are seen, for a subset of the rows."""
        return self.seen.index_select(0, among(rows, self.cache.rows, len(self.seen)))


def among(rows: Int[Tensor, " B"], all_rows: Int[Tensor, " N"], size: int) -> Int[Tensor, "R*B"]:
    """Where the rows lie in a batch of `size` that holds branch 0 of `all_rows`, then branch 1, and so on."""
    starts = torch.arange(size // len(all_rows), device=rows.device)[:, None] * len(all_rows)
    return (starts + torch.searchsorted(all_rows, rows)).flatten()


@dataclass(frozen=True)
class Job:
    """Everything that stays the same while one canvas is filled."""

    denoiser: Denoiser
    task: Task
    policy: Policy
    generators: Sequence[torch.Generator]  # one per row; none needed at temperature 0
    on_step: OnStep | None
    image_offset: int = 0  # where codes begin; SPRINT keeps text and codes apart
    keys: Sequence[int] = ()  # one per row, of the random numbers by counter


def look(
    denoiser: Denoiser, canvas: Canvas, rows: Int[Tensor, " B"], cache: Cache, start: int, end: int
) -> tuple[Float[Tensor, "R B N V"], Past, Float[Tensor, "R*B M D"]]:
    """Logits of the block from `start` to `end`, in every branch; keys and values of all before `end`; new states.

    All branches run as one batch. What the cache does not hold is computed along, under the block-causal mask, so
    its keys and values are exact; its states come last. The head runs on the active block alone.
    """
    ids = canvas.tokens(rows, cache.length, end)
    positions, visible = canvas.positions(rows, cache.length, end), canvas.visible(rows, cache.length, end)
    states, past = denoiser.hidden(ids.flatten(0, 1), positions.flatten(0, 1), visible.flatten(0, 1), cache.of(rows))
    logits = denoiser.logits(states[:, start - end :]).unflatten(0, ids.shape[:2])
    return logits, past, states[:, : start - end]


def look_pruned(
    job: Job, canvas: Canvas, rows: Int[Tensor, " B"], pruned: Pruned, start: int, end: int
) -> Float[Tensor, "R B N V"]:
    """Logits of a block that sees itself and what SPRINT kept; the official block also sees its pads."""
    ids, positions = canvas.tokens(rows, start, end), canvas.positions(rows, start, end)
    itself = canvas.visible(rows, start, end)[..., start:].flatten(0, 1)  # (R * B, N, N)
    itself = torch.ones_like(itself) if job.policy.official else itself
    before = pruned.of(rows)[:, None].expand(-1, end - start, -1)
    visible = torch.cat((before, itself), dim=-1)
    states, _ = job.denoiser.hidden(ids.flatten(0, 1), positions.flatten(0, 1), visible, pruned.cache.of(rows))
    return job.denoiser.logits(states).unflatten(0, ids.shape[:2])


def crop(past: Past, length: int, rows: Int[Tensor, " B"]) -> Cache:
    """Keep what lies before the active block."""
    return Cache(tuple((k[:, :, :length], v[:, :, :length]) for k, v in past), length, rows)


def remember(
    job: Job, cache: Cache, past: Past, states: Float[Tensor, "R*B M D"], rows: Int[Tensor, " B"], start: int
) -> Cache:
    """The cache grown to all before the active block; SPRINT needs how sure the model was at the new positions."""
    grown = crop(past, start, rows)
    if job.policy.sprint is None:
        return grown
    runs = [job.denoiser.logits(part).softmax(-1).amax(-1) for part in states.split(_RUN, dim=1)]
    if cache.confidence is not None:
        runs.insert(0, cache.confidence.index_select(0, among(rows, cache.rows, len(cache.confidence))))
    return replace(grown, confidence=torch.cat(runs, dim=1))


def prune(job: Job, canvas: Canvas, cache: Cache, start: int) -> Cache:
    """The cache with what the later steps of this block will see of it (spec backbone 5.6)."""
    sprint, rows = job.policy.sprint, cache.rows
    if sprint is None or cache.past is None or cache.confidence is None:
        raise AssertionError("nothing to prune")
    ids = canvas.tokens(rows, 0, start).flatten(0, 1)
    line = torch.arange(start, device=ids.device)
    real = (line >= canvas.pads[:, rows, None]).flatten(0, 1) | job.policy.official
    codes, by_kind = ids >= job.image_offset, sprint.rule == "paper"
    pinned = torch.zeros_like(codes) if by_kind else sprint.pinned(ids, job.image_offset)
    count, kept, seen = kept_count(pinned, real, sprint.keep_ratio), [], real[:, :0]
    for keys, values in cache.past:
        rank = importance(keys, cache.confidence, pinned, real, sprint.alpha, official=job.policy.official)
        if by_kind:
            those = kept_by_kind(rank, codes, real, sprint)
            rank, count = those.double(), those.sum(-1)  # as many in every layer
        places, seen = kept_places(rank, count)
        at = places[:, None, :, None].expand(-1, keys.shape[1], -1, keys.shape[-1])
        kept.append((keys.gather(2, at), values.gather(2, at)))
    return replace(cache, pruned=Pruned(Cache(tuple(kept), seen.shape[-1], rows), seen))


def choose(
    job: Job,
    canvas: Canvas,
    logits: Float[Tensor, "R B N V"],
    rows: Int[Tensor, " B"],
    masked: Bool[Tensor, "B N"],
    at: tuple[int, int],
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"], Float[Tensor, "B N"]]:
    """A candidate for each position, its confidence and its rank: guide, hide what is not allowed, draw.

    `at` is (block, step), from which random numbers follow.
    """
    guided = hide(guide(logits, job.task.guidance), job.task.allowed, canvas.mask)
    policy = job.policy
    if policy.counts:
        numbers = step_numbers([job.keys[i] for i in rows.tolist()], *at, masked.shape[1])
        tokens, confidence = draw_at(guided, policy.draw, numbers.to(guided.device))
        return tokens, confidence, confidence
    generators = [job.generators[i] for i in rows.tolist()] if policy.draws else []
    if policy.sprint is not None:
        tokens, score, confidence = candidates(guided, masked, policy.sprint.score, policy.draw.temperature, generators)
        return tokens, confidence, score
    tokens, confidence = draw(guided, policy.draw, generators)
    if job.task.choices:
        end = canvas.bounds(at[0])[1]
        new, line = min(end - canvas.prefix, masked.shape[1]), canvas.ids[rows, canvas.prefix : end]
        among_them = choose_among(job.task.choices, line, canvas.mask, tokens[:, -new:], guided[:, -new:].softmax(-1))
        tokens[:, -new:], confidence[:, -new:] = among_them
    return tokens, confidence, confidence


def denoise(
    job: Job,
    canvas: Canvas,
    rows: Int[Tensor, " B"],
    cache: Cache,
    block: int,
    step: int,
    at_least: int | Int[Tensor, "B 1"],
) -> Cache:
    """One denoise step of `rows` in a block; writes to the canvas and gives the cache for the next step."""
    start, end = canvas.bounds(block)
    sprint = job.policy.sprint
    if sprint is not None and step >= sprint.warmup and start and cache.pruned is not None:
        logits = look_pruned(job, canvas, rows, cache.pruned, start, end)
    else:
        logits, past, states = look(job.denoiser, canvas, rows, cache, start, end)
        pruning = sprint is not None and step == sprint.warmup - 1 and start > 0
        grown = cache
        if cache.length < start and (job.policy.reuse_prefix or pruning):
            grown = remember(job, cache, past, states, rows, start)
        if pruning:
            grown = prune(job, canvas, grown, start)
        cache = grown if job.policy.reuse_prefix else replace(cache, pruned=grown.pruned)
    before = canvas.ids[rows, start:end]
    masked = before == canvas.mask
    tokens, confidence, score = choose(job, canvas, logits, rows, masked, (block, step))
    committed = job.policy.quota.commits(confidence, masked, at_least, score)
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
