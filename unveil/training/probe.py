"""What all probes share: linear readings of a state in the middle of the backbone, dropped after training."""

import torch
import torch.nn.functional as F
from torch import nn

from unveil.shapes import Float, Int, Tensor


def initialize_readings(*heads: nn.Linear, generator: torch.Generator) -> None:
    """Small random weights, biases zero."""
    for head in heads:
        nn.init.normal_(head.weight, std=0.02, generator=generator)
        if head.bias is not None:
            nn.init.zeros_(head.bias)


def even_loss(scores: Float[Tensor, "N C"], wanted: Int[Tensor, " N"]) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """Cross-entropy and the share guessed right, in both of which every value that is wanted weighs the same."""
    weights = 1 / torch.bincount(wanted)[wanted]
    weights = weights / weights.sum()
    losses = F.cross_entropy(scores, wanted, reduction="none")
    return (losses * weights).sum(), ((scores.argmax(-1) == wanted) * weights).sum()
