"""Tokens from the scores of many requests at once: those who choose alike are one tensor."""

from collections.abc import Iterable

import torch

from unveil.diffusion.guidance import guide
from unveil.engine.filling import Filling
from unveil.sampling.choices import choose_among
from unveil.sampling.draw import Allowed, draw, draw_at, hide
from unveil.shapes import Float, Int, Tensor

Group = list[tuple[int, Filling]]
"""Requests that choose alike, each with the row at which its scores begin."""


def alike(fillings: Iterable[tuple[int, Filling]]) -> list[Group]:
    """The requests by how they choose: guidance, allowed ids and draw."""
    groups: dict[object, Group] = {}
    for start, filling in fillings:
        task, policy = filling.task, filling.policy
        alone = filling.handle.number if task.choices else None  # choices are looked up on a line of their own
        groups.setdefault((task.guidance, task.allowed, policy.draw, alone), []).append((start, filling))
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
    elif filling.task.choices:
        return among_choices(filling, hide(guided, allowed, mask), mask)
    else:
        tokens, confidence = (x[0] for x in draw(narrow(guided, allowed, mask)[None], policy.draw, ()))
    return tokens + allowed.first, confidence


def among_choices(
    filling: Filling, guided: Float[Tensor, "n V"], mask: int
) -> tuple[Int[Tensor, " n"], Float[Tensor, " n"]]:
    """Candidates that together make one of the texts which this request may become."""
    start, end = filling.canvas.bounds(filling.block)
    first = max(start, filling.canvas.prefix)  # behind the prompt
    at = filling.masked + (start - first)
    tokens, chances = (
        guided.new_zeros(1, end - first, dtype=torch.long),
        guided.new_zeros(1, end - first, guided.shape[1]),
    )
    tokens[0, at], chances[0, at] = guided.argmax(-1), guided.softmax(-1)
    line = filling.ids[:1, filling.canvas.prefix : end].to(guided.device)
    found = choose_among(filling.task.choices, line, mask, tokens, chances)
    return found[0][0, at], found[1][0, at]


def narrow(logits: Float[Tensor, "n V"], allowed: Allowed, mask: int) -> Float[Tensor, "n A"]:
    """The allowed ids' columns alone: what `hide` leaves, without computing with the others. Changes its argument."""
    part = logits[:, allowed.first : allowed.last]
    if allowed.first <= mask < allowed.last and not allowed.mask:
        part[:, mask - allowed.first] = -torch.inf
    return part
