"""The router: which experts each token visits, and how much each one counts."""

from typing import NamedTuple

import torch
from torch import nn
from torch.nn import functional as F

from unveil.config.tree import BackboneConfig
from unveil.shapes import Float, Int, Tensor


class Routing(NamedTuple):
    """One routing decision for N tokens."""

    logits: Float[Tensor, "N E"]
    chosen: Int[Tensor, "N K"]
    weights: Float[Tensor, "N K"]

    def load(self) -> Int[Tensor, " E"]:
        """Tokens that each expert received; sums to N * K."""
        return torch.bincount(self.chosen.flatten(), minlength=self.logits.shape[-1])


class Router(nn.Module):
    """Sigmoid scores, a bias that only steers the choice, and groups that are kept or dropped whole.

    Everything here runs in at least float32, also under autocast: near-ties flip in lower precision and a flipped
    expert changes the token (spec backbone 3.6).
    """

    expert_bias: Float[Tensor, " E"]

    def __init__(self, config: BackboneConfig) -> None:
        super().__init__()
        self.config = config
        self.weight = nn.Parameter(torch.empty(config.experts, config.width))
        self.register_buffer("expert_bias", torch.zeros(config.experts, dtype=torch.float32))

    def forward(self, x: Float[Tensor, "N D"]) -> Routing:
        """Score, choose, weigh."""
        wide = torch.promote_types(x.dtype, torch.float32)
        device = x.device.type if torch.amp.is_autocast_available(x.device.type) else "cpu"  # meta has none
        with torch.autocast(device, enabled=False):
            logits = F.linear(x.to(wide), self.weight.to(wide))  # (N, E)
            scores = logits.sigmoid()
            chosen = choose_experts(scores.detach() + self.expert_bias, self.config)
            return Routing(logits, chosen, weigh_experts(scores, chosen, self.config.routed_scale))


def choose_experts(biased: Float[Tensor, "N E"], config: BackboneConfig) -> Int[Tensor, "N K"]:
    """The best experts inside the best groups, by biased score.

    A group is as good as the sum of its two best experts. Experts of dropped groups get -inf, not 0: the bias can
    push a kept expert below zero, and a dropped one must still lose.
    """
    grouped = biased.unflatten(-1, (config.groups, -1))  # (N, groups, E / groups)
    best_two = grouped.topk(min(2, grouped.shape[-1]), dim=-1).values.sum(-1)  # (N, groups)
    kept = best_two.topk(config.kept_groups, dim=-1).indices
    dropped = torch.ones_like(best_two, dtype=torch.bool).scatter_(-1, kept, False)
    allowed = grouped.masked_fill(dropped[..., None], -torch.inf).flatten(-2)  # (N, E)
    return allowed.topk(config.chosen_experts, dim=-1).indices


def weigh_experts(scores: Float[Tensor, "N E"], chosen: Int[Tensor, "N K"], scale: float) -> Float[Tensor, "N K"]:
    """The chosen experts' unbiased scores, normalised to sum to `scale`."""
    picked = scores.gather(-1, chosen)  # (N, K)
    return picked / (picked.sum(-1, keepdim=True) + 1e-20) * scale
