"""Logits to tokens: which ids may be chosen, and how one of them is."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.errors import RequestError
from unveil.shapes import Float, Int, Tensor
from unveil.vocab.layout import Layout


@dataclass(frozen=True)
class Allowed:
    """The ids that may be chosen: first <= id < last. MASK is never among them, unless `mask`.

    `mask` follows the official code, in which a predicted MASK leaves its position masked and uses up quota.
    """

    first: int
    last: int
    mask: bool = False

    @classmethod
    def text(cls, layout: Layout, official: bool = False) -> "Allowed":
        """Everything below the codes; the official code allows the codes and MASK as well."""
        return cls(0, layout.size if official else layout.image_offset, official)

    @classmethod
    def mixed(cls, layout: Layout, official: bool = False) -> "Allowed":
        """Words and codes: where a picture may begin inside a block, the positions after it are codes."""
        return cls(0, layout.size, official)

    @classmethod
    def codes(cls, layout: Layout, official: bool = False) -> "Allowed":
        """The codes alone."""
        return cls(layout.image_offset, layout.size, official)


@dataclass(frozen=True)
class Draw:
    """Temperature 0 takes the likeliest id; above it ids are drawn, after the top-k and then the top-p filter."""

    temperature: float = 0.0
    top_k: int | None = None
    top_p: float | None = None

    def __post_init__(self) -> None:
        if not (math.isfinite(self.temperature) and self.temperature >= 0):
            raise RequestError(f"temperature must be a number from 0 up, got {self.temperature}")
        if self.top_k is not None and self.top_k < 1:
            raise RequestError(f"top_k must be at least 1, got {self.top_k}; leave it out for no limit")
        if self.top_p is not None and not 0 < self.top_p <= 1:
            raise RequestError(f"top_p must lie above 0 and up to 1, got {self.top_p}; leave it out for no limit")


def hide(logits: Float[Tensor, "*batch V"], allowed: Allowed, mask: int) -> Float[Tensor, "*batch V"]:
    """-inf for every id that may not be chosen; `mask` is the id of MASK."""
    hidden = torch.ones(logits.shape[-1], dtype=torch.bool, device=logits.device)
    hidden[allowed.first : allowed.last] = False
    hidden[mask] |= not allowed.mask
    return logits.masked_fill(hidden, -torch.inf)


def draw(
    logits: Float[Tensor, "B L V"], policy: Draw, generators: Sequence[torch.Generator]
) -> tuple[Int[Tensor, "B L"], Float[Tensor, "B L"]]:
    """One id for each position, and the probability it had.

    Each row draws from its own generator, so no row's result depends on its neighbours. Of equally likely ids
    temperature 0 takes the lowest.
    """
    if policy.temperature == 0:
        chances = logits.softmax(-1)
        tokens = logits.argmax(-1)  # the first of equal maxima
    else:
        chances = probabilities(logits, policy)
        tokens = torch.stack([_draw_row(row, g) for row, g in zip(chances, generators, strict=True)])
    return tokens, chances.gather(-1, tokens[..., None]).squeeze(-1)


def draw_at(
    logits: Float[Tensor, "*batch V"], policy: Draw, numbers: Float[Tensor, "*batch"]
) -> tuple[Int[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """As `draw`, with one given number from [0, 1) for each position: the id at which the summed chances pass it.

    One number where `torch.multinomial` draws as many as there are ids.
    """
    chances = probabilities(logits, policy)
    sums = chances.double().cumsum(-1)
    below = torch.nextafter(sums[..., -1], sums.new_zeros(()))  # so that rounding never reaches the sum itself
    goal = torch.minimum(numbers.to(sums) * sums[..., -1], below)  # (*batch)
    tokens = torch.searchsorted(sums, goal[..., None], right=True).squeeze(-1)
    tokens = tokens.clamp_max(sums.shape[-1] - 1)  # past the end where the chances are NaN, as their confidence tells
    return tokens, chances.gather(-1, tokens[..., None]).squeeze(-1)


def probabilities(logits: Float[Tensor, "*batch V"], policy: Draw) -> Float[Tensor, "*batch V"]:
    """The distribution that temperature, then top-k, then top-p leave (spec backbone 5.2); needs temperature > 0.

    Top-k keeps all ids as likely as the k-th. Top-p keeps the fewest likeliest ids whose sum exceeds p.
    """
    logits = logits / policy.temperature
    if policy.top_k is not None:
        least = logits.topk(min(policy.top_k, logits.shape[-1])).values[..., -1:]
        logits = logits.masked_fill(logits < least, -torch.inf)
    if policy.top_p is not None and policy.top_p < 1:
        ordered, order = logits.sort(dim=-1, descending=True, stable=True)
        chances = ordered.softmax(-1)
        cut = (chances.cumsum(-1) > policy.top_p).roll(1, -1)  # the id that passes p is still kept
        cut[..., 0] = False
        logits = logits.masked_fill(torch.zeros_like(cut).scatter(-1, order, cut), -torch.inf)
    return logits.softmax(-1)


def _draw_row(chances: Float[Tensor, "L V"], generator: torch.Generator) -> Int[Tensor, " L"]:
    """One draw per position, made where the generator lives: a seed gives the same tokens on every device."""
    return torch.multinomial(chances.to(generator.device), 1, generator=generator).squeeze(-1).to(chances.device)
