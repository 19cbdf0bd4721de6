"""Which of the masked positions are filled now: the sure ones, or the quota's best."""

from dataclasses import dataclass
from typing import Literal, TypeAlias

import torch

from unveil.errors import RequestError
from unveil.shapes import Bool, Float, Int, Tensor

Order: TypeAlias = Literal["confidence", "left_to_right"]
"""Whose turn it is: the surest position's wherever it stands, or the first one's."""


@dataclass(frozen=True)
class Quota:
    """A block is filled in at most `steps` denoise steps; positions surer than `threshold` do not wait for their turn.

    A threshold of 1 or more leaves everything to the quota. From left to right a sure position still waits for those
    before it: a text that fixes its end first has to make what it says fit.
    """

    threshold: float
    steps: int
    order: Order = "confidence"

    def __post_init__(self) -> None:
        if self.steps < 1:
            raise RequestError(f"steps must be at least 1, got {self.steps}")
        if not self.threshold >= 0:
            raise RequestError(f"threshold must not be negative, got {self.threshold}")

    def schedule(self, block_size: int, tokens: int) -> tuple[int, ...]:
        """The quota of each step; never more steps than `tokens` to generate."""
        return quotas(block_size, min(self.steps, tokens))

    def commits(
        self,
        confidence: Float[Tensor, "B L"],
        masked: Bool[Tensor, "B L"],
        at_least: int | Int[Tensor, "B 1"],
        score: Float[Tensor, "B L"] | None = None,
    ) -> Bool[Tensor, "B L"]:
        """Positions to fill now. By confidence they may be ranked by another `score`."""
        if self.order == "left_to_right":
            return commit_leading(confidence, masked, self.threshold, at_least)
        return commit_confident(confidence, masked, self.threshold, at_least, score)


def quotas(block_size: int, steps: int) -> tuple[int, ...]:
    """The block size cut into `steps` nearly equal parts, larger ones first: (8, 3) gives 3, 3, 2 (spec backbone 5.1).

    Because they sum to the block size, a block has no masked position left after its last step.
    """
    base, larger = divmod(block_size, steps)
    return (base + 1,) * larger + (base,) * (steps - larger)


def commit_confident(
    confidence: Float[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    threshold: float,
    at_least: int | Int[Tensor, "B 1"],
    score: Float[Tensor, "B L"] | None = None,
) -> Bool[Tensor, "B L"]:
    """Positions to fill now: all above the threshold, or the best `at_least` when too few are (spec backbone 5.2).

    Positions are ranked by their confidence, or by another `score`. Of equal ones the lower comes first.
    """
    ranked = (confidence if score is None else score).masked_fill(~masked, -torch.inf)
    rank = ranked.argsort(dim=-1, descending=True, stable=True).argsort(dim=-1)
    return masked & ((confidence > threshold) | (rank < at_least))


def commit_leading(
    confidence: Float[Tensor, "B L"],
    masked: Bool[Tensor, "B L"],
    threshold: float,
    at_least: int | Int[Tensor, "B 1"],
) -> Bool[Tensor, "B L"]:
    """Positions to fill now: the first `at_least`, and all that follow them up to the first not above the threshold."""
    waits = masked & ~(confidence > threshold)
    return masked & ((waits.cumsum(-1) == 0) | (masked.cumsum(-1) <= at_least))
