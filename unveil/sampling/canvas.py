"""The canvas: a fixed prefix, then positions that hold MASK until a token is committed; seen through branches.

Some of these positions may be pinned: they hold their token from the start, and nothing is ever written there.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace
from typing import Protocol, TypeAlias

import torch

from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.diffusion.guidance import Guidance
from unveil.errors import PromptError, RequestError
from unveil.sampling.draw import Allowed
from unveil.sampling.stop import Stop
from unveil.shapes import Bool, Float, Int, Tensor
from unveil.vocab.layout import Layout

Past: TypeAlias = tuple[tuple[Float[Tensor, "B KV P head"], Float[Tensor, "B KV P head"]], ...]
"""Keys and values of what was seen before, one pair per layer."""


class Denoiser(Protocol):
    """What sampling needs of a model. A position that may look nowhere must still give finite states."""

    def hidden(
        self,
        tokens: Int[Tensor, "B L"],
        positions: Int[Tensor, "B L"],
        visible: Bool[Tensor, "B L S"],
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Past]:
        """States of the L tokens, and the keys and values of `past` and of these tokens together (S = P + L)."""
        ...

    def logits(self, states: Float[Tensor, "B N D"]) -> Float[Tensor, "B N V"]:
        """Scores over the vocabulary, float32."""
        ...


@dataclass(frozen=True)
class Task:
    """What is asked for, as data. The same loop turns all of these into tokens.

                 prompts                  branches          guidance   allowed   stop
        text     ... assistant            -                 -          text      end of sequence
        think    ... assistant            -                 -          text      end of sequence, begin of image
        picture  ... header               nothing           simple     codes     budget h * w
        edit     picture, words, header   no text, no image edit       codes     budget h * w

    All prompts of a batch have one length, so their blocks begin at the same positions.
    """

    prompts: Sequence[Sequence[int]]
    tokens: int  # budget of new ids
    allowed: Allowed
    stop: Stop = field(default_factory=Stop)
    branches: Sequence[Sequence[Sequence[int]]] = ()  # prefixes of the other branches: one list per branch, one per row
    guidance: Guidance = field(default_factory=Guidance)
    whole_blocks: bool = True  # the last block is filled to its end; else the line ends with the budget
    crop_branches: bool = True  # a longer branch keeps its last ids, as officially; else the prompt is padded to it
    choices: Sequence[Sequence[int]] = ()  # the only texts that a row may become, each with its stop id; none: any text
    given: Sequence[Sequence[int]] = ()  # what is pinned: `tokens` ids for each prompt, MASK where one is to be chosen

    def __post_init__(self) -> None:
        if not self.prompts:
            raise RequestError("nothing to generate: no prompt given")
        if len({len(p) for p in self.prompts}) > 1:
            raise RequestError("the prompts of one batch must have the same number of tokens")
        if self.tokens < 1:
            raise RequestError(f"the number of tokens to generate must be at least 1, got {self.tokens}")
        if max(self.guidance.used) > len(self.branches):
            raise RequestError(f"this guidance needs {max(self.guidance.used)} branches, got {len(self.branches)}")
        if any(len(branch) != len(self.prompts) for branch in self.branches):
            raise RequestError("every guidance branch needs one prefix for each prompt")
        if any(len(choice) > self.tokens for choice in self.choices):
            longest = max(len(choice) for choice in self.choices)
            raise RequestError(f"a choice has {longest} tokens, {self.tokens} may be written; shorten it or allow more")
        if self.given and (len(self.given) != len(self.prompts) or {len(row) for row in self.given} != {self.tokens}):
            raise RequestError(
                f"what is given must be {self.tokens} tokens for each of the {len(self.prompts)} prompts"
            )

    def rows(self) -> Iterator["Task"]:
        """One task for each prompt."""
        for i, prompt in enumerate(self.prompts):
            given = [self.given[i]] if self.given else ()
            yield replace(self, prompts=[prompt], branches=[[branch[i]] for branch in self.branches], given=given)


@dataclass(frozen=True)
class Canvas:
    """One line of positions per row: P of prefix, then blocks to fill. R branches share it and differ in their prefix.

    Blocks count from position 0 of the line, so the first block to fill may begin with the end of the prefix.
    Shorter prefixes lie at the right of the P positions. What lies left of them (the pads) nobody sees, and
    positions count from the first real token; block borders stay where they are (spec backbone 5.4).

        block 4, P = 6     0 1 2 3 | 4 5 _ _ | _ _ _ _      prompt of 6, then MASK
        other branch       . . . 0 | 1 2 _ _ | _ _ _ _      prefix of 3; . = pad
        some are given     0 1 2 3 | 4 5 a b | _ c _ _      a, b, c are pinned: the second block has nothing to fill
    """

    ids: Int[Tensor, "B L"]  # the only thing that changes: MASK becomes a token, once; what is pinned never was MASK
    prefixes: Int[Tensor, "R B P"]
    pads: Int[Tensor, "R B"]
    block_size: int
    mask: int

    @property
    def prefix(self) -> int:
        """P, the positions before the canvas."""
        return self.prefixes.shape[-1]

    @property
    def blocks(self) -> range:
        """The blocks that hold positions to fill."""
        return range(self.prefix // self.block_size, -(-self.ids.shape[1] // self.block_size))

    def bounds(self, block: int) -> tuple[int, int]:
        """First position of a block and the one after its last; the last block may be short."""
        return block * self.block_size, min((block + 1) * self.block_size, self.ids.shape[1])

    def masked(self, start: int, end: int) -> Bool[Tensor, "B N"]:
        """Which positions from `start` to `end` still wait for a token."""
        return self.ids[:, start:end] == self.mask

    def tokens(self, rows: Int[Tensor, " B"], start: int, end: int) -> Int[Tensor, "R B N"]:
        """What each branch reads from `start` to `end`: its own prefix, then what all branches share.

        The first branch is the canvas itself.
        """
        ids = self.ids[rows, start:end].expand(len(self.prefixes), -1, -1)
        if start >= self.prefix:
            return ids
        others = self.prefixes[1:, rows, start:end]
        shared = ids[1:, :, self.prefix - start :]
        return torch.cat((ids[:1], torch.cat((others, shared), dim=-1)))

    def positions(self, rows: Int[Tensor, " B"], start: int, end: int) -> Int[Tensor, "R B N"]:
        """Positions counted from each branch's first real token; 0 for pads."""
        line = torch.arange(start, end, device=self.ids.device)
        return (line - self.pads[:, rows, None]).clamp_min(0)

    def visible(self, rows: Int[Tensor, " B"], start: int, end: int) -> Bool[Tensor, "R B N S"]:
        """What positions `start` to `end` may look at: all of their own and of earlier blocks, save pads."""
        line = torch.arange(end, device=self.ids.device)
        blocks = block_of(line, self.block_size)
        causal = visible_block_causal(blocks[start:], blocks)  # (N, S)
        return causal & (line >= self.pads[:, rows, None])[:, :, None, :]


def open_canvas(task: Task, layout: Layout, block_size: int, device: torch.device) -> Canvas:
    """The prompts and the branches that count, then the budget: MASK or what is given, as a rule in whole blocks."""
    if not task.allowed.mask and any(layout.mask in prompt for prompt in task.prompts):
        raise PromptError("the prompt holds the MASK token, which only the canvas may hold")
    used = [task.prompts, *(task.branches[i - 1] for i in task.guidance.used[1:])]
    longest = task.prompts if task.crop_branches else [row for branch in used for row in branch]
    prefix = max(len(row) for row in longest)
    fills = (layout.pad, *(layout.mask for _ in used[1:]))  # pads of the others as officially; SPRINT may look at them
    aligned = [align(row, prefix, fill) for branch, fill in zip(used, fills, strict=True) for row in branch]
    prefixes = torch.tensor(aligned, dtype=torch.long, device=device).view(len(used), -1, prefix)
    pads = [max(0, prefix - len(row)) for branch in used for row in branch]
    length = prefix + task.tokens
    if task.whole_blocks:
        length = -(-length // block_size) * block_size
    ids = torch.full((len(task.prompts), length), layout.mask, dtype=torch.long, device=device)
    ids[:, :prefix] = prefixes[0]
    if task.given:
        ids[:, prefix : prefix + task.tokens] = torch.tensor(task.given, device=device)
    return Canvas(ids, prefixes, torch.tensor(pads, device=device).view(len(used), -1), block_size, layout.mask)


def align(row: Sequence[int], length: int, fill: int) -> list[int]:
    """The row at the right end of `length` positions: filled up on the left, or cut there."""
    return [fill] * (length - len(row)) + list(row[max(0, len(row) - length) :])
