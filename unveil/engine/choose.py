"""Tokens from the scores of many requests at once: those who choose alike are one tensor."""

from collections.abc import Iterable

import torch

from unveil.diffusion.guidance import guide
from unveil.engine.filling import Filling
from unveil.sampling.draw import Allowed, draw, draw_at
from unveil.shapes import Float, Int, Tensor

Group = list[tuple[int, Filling]]
"""Requests that choose alike, each with the row at which its scores begin."""


def alike(fillings: Iterable[tuple[int, Filling]]) -> list[Group]:
    """The requests by how they choose: guidance, allowed ids and draw."""
    groups: dict[object, Group] = {}
    for start, filling in fillings:
        task, policy = filling.task, filling.policy
        groups.setdefault((task.guidance, task.allowed, policy.draw), []).append((start, filling))
    return list(groups.values())


def order(groups: Iterable[Group]) -> Int[Tensor, " M"]:
    """Where the rows of each group's scores lie: branch by branch, in each the requests one after the other.

    A request's rows come in the order of its branches, all of the same number.
    """
    return torch.cat(
        [
            torch.arange(len(filling.masked)) + start + branch * len(filling.masked)
            for group in groups
            for branch in range(group[0][1].branches)
            for start, filling in group
        ]
    )


def choose(group: Group, logits: Float[Tensor, "R*n V"], mask: int) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """A candidate for every masked position of the group, and its confidence: guide, keep what is allowed, draw."""
    filling = group[0][1]
    guided = guide(logits.unflatten(0, (filling.branches, -1)), filling.task.guidance)
    allowed, policy = filling.task.allowed, filling.policy
    if policy.counts:
        numbers = torch.cat([f.numbers() for _, f in group]).to(logits.device)
        tokens, confidence = draw_at(narrow(guided, allowed, mask), policy.draw, numbers)
    else:
        tokens, confidence = (x[0] for x in draw(narrow(guided, allowed, mask)[None], policy.draw, ()))
    return tokens + allowed.first, confidence


def narrow(logits: Float[Tensor, "n V"], allowed: Allowed, mask: int) -> Float[Tensor, "n A"]:
    """The allowed ids' columns alone: what `hide` leaves, without computing with the others. Changes its argument."""
    part = logits[:, allowed.first : allowed.last]
    if allowed.first <= mask < allowed.last and not allowed.mask:
        part[:, mask - allowed.first] = -torch.inf
    return part
