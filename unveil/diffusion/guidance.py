"""Guidance: several branches of one forward pass, mixed into one prediction."""

import math
from dataclasses import dataclass
from typing import Self

import torch

from unveil.errors import RequestError
from unveil.shapes import Float, Tensor


@dataclass(frozen=True)
class Guidance:
    """How strongly each branch counts. The first weight is the conditional branch's; all of them sum to 1.

    Both official formulas (spec backbone 5.4) are such sums:
        simple   u + s (c - u)                     weights c: s, u: 1 - s
        edit     n + t (f - n) + i (n - m)         weights f: t, n: 1 - t + i, m: -i
    with c or f everything known, u nothing known, n no text, m no image.
    A branch of weight zero is never computed. The default is no guidance.
    """

    weights: tuple[float, ...] = (1.0,)
    rescale: float = 0.0

    def __post_init__(self) -> None:
        if not all(math.isfinite(w) for w in self.weights) or abs(sum(self.weights) - 1) > 1e-6:
            raise RequestError(f"guidance weights must be finite numbers that sum to 1, got {self.weights}")
        if not 0 <= self.rescale <= 1:
            raise RequestError(f"guidance rescale must lie between 0 and 1, got {self.rescale}")

    @classmethod
    def simple(cls, scale: float, rescale: float) -> Self:
        """Away from the unconditional branch; scale 1 is no guidance, 0 is the unconditional branch alone."""
        return cls((scale, 1 - scale), rescale)

    @classmethod
    def edit(cls, text: float, image: float, rescale: float) -> Self:
        """Away from the branch without text, and from there away from the one without image; (0, 0) is no guidance.

        Raises RequestError for negative scales.
        """
        if text < 0 or image < 0:
            raise RequestError(f"edit guidance must not be negative, got text {text}, image {image}")
        if text == image == 0:
            return cls((1.0, 0.0, 0.0), rescale)
        return cls((text, 1 - text + image, -image), rescale)

    @property
    def used(self) -> tuple[int, ...]:
        """The branches that must run: the conditional one always, since the rescaling measures it."""
        return (0, *(i for i, weight in enumerate(self.weights) if i and weight))


def guide(logits: Float[Tensor, "R *batch V"], guidance: Guidance) -> Float[Tensor, "*batch V"]:
    """The weighted sum of the used branches' logits (in the order of `guidance.used`), its spread pulled back.

    Guidance makes logits wider, hence overconfident. With g the sum and c the conditional branch the result is
    rescale * g * std(c) / (std(g) + 1e-6) + (1 - rescale) * g; spreads are over the whole vocabulary (spec
    backbone 5.4).
    """
    if len(guidance.used) == 1:
        return logits[0]
    guided = logits[0] * guidance.weights[0]  # (*batch, V)
    for branch, i in zip(logits[1:], guidance.used[1:], strict=True):
        guided = guided.add_(branch, alpha=guidance.weights[i])
    if guidance.rescale == 0:
        return guided
    ratio = spread(logits[0]) / (spread(guided) + 1e-6)
    return guided * (guidance.rescale * ratio + (1 - guidance.rescale))


def spread(logits: Float[Tensor, "*batch V"]) -> Float[Tensor, "*batch 1"]:
    """The standard deviation over the vocabulary, in two passes: much faster than `Tensor.std` on a CPU."""
    centred = logits - logits.mean(-1, keepdim=True)
    return torch.linalg.vector_norm(centred, dim=-1, keepdim=True) / max(1, logits.shape[-1] - 1) ** 0.5
