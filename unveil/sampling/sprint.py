"""SPRINT: later denoise steps of a block look at the most important part of what is finished (spec backbone 5.6).

An approximation. The first steps of a block look at everything; the keys and values of the finished positions are
then pruned, each layer on its own, and the other steps of the block see what is left. Nothing is carried over to the
next block.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch

from unveil.errors import RequestError
from unveil.shapes import Bool, Float, Int, Tensor

Score = Literal["low_confidence", "top_k_margin", "neg_entropy", "random"]
Rule = Literal["official", "paper"]


@dataclass(frozen=True)
class Sprint:
    """How much is kept, and which positions go first.

    rule "official": a ratio below 1 for text or codes only takes away that they are always kept; `keep_ratio` says how
    many remain. Text is always kept unless told otherwise, codes are not.
    rule "paper" (eq. 1): each of text and codes keeps its own share of its most important positions; a ratio that is
    not given is `keep_ratio`. Nothing is infinitely important.
    With `keep_ratio` 1, or `warmup` 0, nothing is pruned: what is left is the adaptive quota, over the exact cache.
    """

    keep_ratio: float = 0.7
    warmup: int = 2  # steps of each block that look at everything; 0 never prunes
    alpha: float = 0.5  # weight of the length of keys against the confidence at their positions
    score: Score = "low_confidence"
    image_keep_ratio: float | None = None
    text_keep_ratio: float | None = None
    least: int = 1  # positions filled per step, at least
    rule: Rule = "official"

    def __post_init__(self) -> None:
        if self.score not in get_args(Score):
            raise RequestError(f"no way to rank positions named '{self.score}'; there are {', '.join(get_args(Score))}")
        if not (self.keep_ratio > 0 and 0 <= self.alpha <= 1):
            raise RequestError(f"keep_ratio must be above 0 and alpha from 0 to 1, not {self.keep_ratio}, {self.alpha}")
        if self.rule not in get_args(Rule):
            raise RequestError(f"no rule of pruning named '{self.rule}'; there are {', '.join(get_args(Rule))}")
        if any(ratio is not None and not ratio >= 0 for ratio in (self.image_keep_ratio, self.text_keep_ratio)):
            raise RequestError("the ratios of text and codes must be 0 or more; leave them out for keep_ratio")
        if self.warmup < 0 or self.least < 1:
            raise RequestError(f"warmup must be 0 or more and least 1 or more, not {self.warmup}, {self.least}")

    def pinned(self, ids: Int[Tensor, "B P"], image_offset: int) -> Bool[Tensor, "B P"]:
        """Positions that are always kept."""
        text = self.text_keep_ratio is None or self.text_keep_ratio >= 1
        image = self.image_keep_ratio is not None and self.image_keep_ratio >= 1
        is_image = ids >= image_offset
        return (is_image & image) | (~is_image & text)


def importance(
    keys: Float[Tensor, "B KV P head"],
    confidence: Float[Tensor, "B P"],
    pinned: Bool[Tensor, "B P"],
    real: Bool[Tensor, "B P"],
    alpha: float,
    *,
    official: bool = False,
) -> Float[Tensor, "B P"]:
    """How much each finished position matters to one layer: long keys, and what the model was sure of.

    alpha * |k| / mean |k| + (1 - alpha) * confidence, with |k| averaged over heads. Pinned positions get infinity,
    positions that are not `real` (pads) minus infinity. The mean is over positions that compete. `official` takes it
    over all, infinities included: with anything pinned the length of keys then counts nothing (spec backbone 10.1).
    """
    length = keys.float().norm(dim=-1).mean(dim=1)  # (B, P)
    if alpha < 1:
        rivals = real & ~pinned
        mean = (length * rivals).sum(-1, keepdim=True) / rivals.sum(-1, keepdim=True).clamp_min(1)
        relative = length / mean.clamp_min(torch.finfo(length.dtype).tiny)
        if official:
            relative = relative.masked_fill(pinned.any(-1, keepdim=True), 0)
        length = alpha * relative + (1 - alpha) * confidence
    return length.masked_fill(pinned, torch.inf).masked_fill(~real, -torch.inf)


def kept_by_kind(
    rank: Float[Tensor, "B P"], codes: Bool[Tensor, "B P"], real: Bool[Tensor, "B P"], sprint: Sprint
) -> Bool[Tensor, "B P"]:
    """What the paper's rule keeps: of text and of codes, each, the most important floor(ratio * number) (eq. 1)."""
    kept = torch.zeros_like(real)
    for kind, ratio in ((~codes & real, sprint.text_keep_ratio), (codes & real, sprint.image_keep_ratio)):
        count = (kind.sum(-1).double() * (sprint.keep_ratio if ratio is None else ratio)).floor()
        best = rank.masked_fill(~kind, -torch.inf).argsort(dim=-1, descending=True, stable=True)
        kept |= kind & (best.argsort(dim=-1) < count[:, None])
    return kept


def kept_count(pinned: Bool[Tensor, "B P"], real: Bool[Tensor, "B P"], keep_ratio: float) -> Int[Tensor, " B"]:
    """How many positions each row keeps: its share of the real ones, at least one, and all that are pinned."""
    there = real.sum(-1)
    share = (there.double() * keep_ratio).floor().long().clamp_min(1)
    return torch.minimum(torch.maximum(share, (pinned & real).sum(-1)), there)


def kept_places(rank: Float[Tensor, "B P"], count: Int[Tensor, " B"]) -> tuple[Int[Tensor, "B K"], Bool[Tensor, "B K"]]:
    """The `count` most important positions of each row in ascending order, and which of the K are really kept.

    K is the largest count; rows that keep fewer are filled up with positions to be hidden.
    """
    most, length = int(count.max()), rank.shape[-1]
    best = rank.argsort(dim=-1, descending=True, stable=True)[:, :most]
    beyond = torch.arange(most, device=rank.device) >= count[:, None]
    places = best.masked_fill(beyond, length).sort(-1).values
    return places.clamp_max(length - 1), places < length


def share_of_rest(masked: Int[Tensor, " B"], steps_left: int, least: int) -> Int[Tensor, "B 1"]:
    """The quota of a step: the masked positions spread over the steps that are left, at least `least`."""
    return (-(-masked // steps_left)).clamp_min(least)[:, None]


def candidates(
    logits: Float[Tensor, "B L V"],
    masked: Bool[Tensor, "B L"],
    score: Score,
    temperature: float = 0.0,
    generators: Sequence[torch.Generator] = (),
) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L"], Float[Tensor, "B L"]]:
    """A token for each position, the score by which positions are ranked, and the largest probability there.

    Above temperature 0 the token is the argmax of logit - temperature * ln(-ln u), in float64. Probabilities are
    those of temperature 1, and top-k and top-p have no effect: the largest entry survives both (spec backbone 10.1).
    """
    chances = logits.softmax(-1)
    tokens = logits.argmax(-1)
    if temperature > 0:
        shape = (1, *logits.shape[1:])
        drawn = [torch.rand(shape, dtype=torch.float64, device=g.device, generator=g) for g in generators]
        noise = torch.cat(drawn).to(logits.device).log().neg().log()
        tokens = (logits.double() - temperature * noise).argmax(-1)
    surest = chances.amax(-1)
    if score == "top_k_margin":
        best = chances.topk(2, dim=-1).values
        ranked = best[..., 0] - best[..., 1]
    elif score == "neg_entropy":
        ranked = 1 + (chances * (chances + 1e-10).log()).sum(-1) / torch.tensor(float(logits.shape[-1])).log()
    elif score == "random":
        ranked = torch.zeros_like(surest)
        for row, generator in enumerate(generators):
            places = masked[row].nonzero().squeeze(-1)
            drawn_row = torch.rand(len(places), generator=generator, device=generator.device)
            ranked[row, places] = drawn_row.to(ranked)
    else:
        ranked = chances.gather(-1, tokens[..., None]).squeeze(-1)
    return tokens, ranked, surest
