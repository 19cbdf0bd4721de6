"""Choices: the few texts that an answer may become, in whatever order its positions are filled.

A choice is still possible while it agrees with every token that was committed. Below, `|` ends a text and `.` is a
position behind the end, where anything may stand:

    canvas        _ _ _ _      _ b _ _      a b _ _
    a | . .       possible     no           no
    a b c |       possible     possible     possible
    d b | .       possible     possible     no
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch

from unveil.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Choices:
    """S texts over the first M positions of a canvas; `bound` is False behind the end of each."""

    ids: Int[Tensor, "S M"]
    bound: Bool[Tensor, "S M"]

    @classmethod
    def over(cls, texts: Sequence[Sequence[int]], length: int, device: torch.device) -> Self:
        """The choices, cut or continued to a length: a position that a text does not reach binds nothing."""
        rows = [list(text[:length]) for text in texts]
        ids = torch.tensor([row + [0] * (length - len(row)) for row in rows], device=device)
        ends = torch.tensor([len(row) for row in rows], device=device)
        return cls(ids, torch.arange(length, device=device) < ends[:, None])

    def possible(self, line: Int[Tensor, "B M"], mask: int) -> Bool[Tensor, "B S"]:
        """Which choices agree with what the canvas holds, where it holds something."""
        seen = line[:, None]
        return ((seen == self.ids) | (seen == mask) | ~self.bound).all(-1)


def choose_among(
    texts: Sequence[Sequence[int]],
    line: Int[Tensor, "B M"],
    mask: int,
    tokens: Int[Tensor, "B N"],
    chances: Float[Tensor, "B N V"],
) -> tuple[Int[Tensor, "B N"], Float[Tensor, "B N"]]:
    """Candidates for the last N positions of the canvas that together make one of the texts, and their probabilities.

    One masked position after another gets its token, the surest first: the likeliest that a still possible choice has
    there, or where one has ended, what the model would say (`tokens`). Each rules out the choices that differ. So any
    of the candidates may be committed together. And an answer that is among the choices is found as it would be
    without them: while it is possible, its surest position is the surest of all.
    """
    b, n = tokens.shape
    rows = torch.arange(b, device=line.device)
    choices = Choices.over(texts, line.shape[1], line.device)
    possible, left = choices.possible(line, mask), line[:, -n:] == mask
    ids, bound = choices.ids[:, -n:], choices.bound[:, -n:]  # (S, N)
    known = chances.gather(-1, ids.T.expand(b, -1, -1)).transpose(1, 2)  # (B, S, N)
    free = chances.gather(-1, tokens[..., None]).squeeze(-1)
    worth = torch.where(bound, known, free[:, None])
    candidates, confidence = tokens.clone(), torch.zeros_like(free)
    for _ in range(n):
        best, which = worth.masked_fill(~(possible[..., None] & left[:, None]), -1).max(dim=1)  # (B, N)
        at = best.argmax(-1)  # of equal ones the lower position, as when committing
        choice, waits = which[rows, at], left[rows, at]
        token = torch.where(bound[choice, at], ids[choice, at], tokens[rows, at])
        candidates[rows, at] = torch.where(waits, token, candidates[rows, at])
        confidence[rows, at] = torch.where(waits, best[rows, at], confidence[rows, at])
        agree = ~bound[:, at].T | (token[:, None] == ids[:, at].T)  # (B, S)
        possible = possible & (agree | ~waits[:, None])
        left[rows, at] = False
    return candidates, confidence
