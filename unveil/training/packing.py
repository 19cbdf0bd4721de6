"""Rows for block diffusion: clean prefixes shared by branches, noised copies only of blocks that carry a loss.

One row is one prefix (say, a picture) and several branches that continue it (say, questions with answers):

    shared    whole blocks of the prefix, clean, seen by every branch
    branch 1  clean: the rest of the prefix, what is given, the response, without its last block (nobody asks for it)
              noised: every block that holds a response position, once or as two complementary copies
    branch 2  ...

Every noised block computes exactly what sampling computes for the same canvas (the parity law in the tests).
"""

from dataclasses import dataclass, field

import torch

from unveil.diffusion.blocks import visible_branches
from unveil.diffusion.masking import complementary, mask_blocks, sample_times
from unveil.scenes.scene import Scene
from unveil.shapes import Bool, Float, Int, Tensor


@dataclass(frozen=True)
class Branch:
    """A continuation of a row's prefix: `given` ids, then the `response` that the model must learn to fill in.

    `asked` says which ids of the response may be masked; None: all.
    """

    given: list[int]
    response: list[int]
    asked: list[bool] | None = None


@dataclass(frozen=True)
class Row:
    """A prefix and its branches; and the scene of the picture that its words speak of, if there is one."""

    prefix: list[int]
    branches: list[Branch]
    scene: Scene | None = None

    @property
    def lines(self) -> list[list[int]]:
        """All ids of each branch, the prefix first: the index of an id is its position."""
        return [[*self.prefix, *branch.given, *branch.response] for branch in self.branches]


@dataclass(frozen=True)
class Packed:
    """A batch of rows as tensors; padding has branch -1."""

    ids: Int[Tensor, "B L"]  # clean ids everywhere
    positions: Int[Tensor, "B L"]
    blocks: Int[Tensor, "B L"]
    branches: Int[Tensor, "B L"]
    groups: Int[Tensor, "B L"]  # 0 = clean; else the noised copy that the token belongs to
    segments: Int[Tensor, "B L"]  # the (branch, block) that shares one masking rate, counted per row
    twins: Int[Tensor, "B L"]  # for a token of a second copy, its index in the first; else its own index
    maskable: Bool[Tensor, "B L"]

    @property
    def visible(self) -> Bool[Tensor, "B L L"]:
        """Who may look at whom."""
        return visible_branches(self.blocks, self.branches, self.groups)


@dataclass
class _Columns:
    """The growing lists of one row."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)
    branches: list[int] = field(default_factory=list)
    groups: list[int] = field(default_factory=list)
    segments: list[int] = field(default_factory=list)
    twins: list[int] = field(default_factory=list)
    maskable: list[bool] = field(default_factory=list)

    def extend(self, ids: list[int], first: int, branch: int, group: int, segment: int, asked: list[bool]) -> None:
        """Add ids at positions from `first` on; those `asked` for are maskable if the copy is noised."""
        count, place = len(ids), len(self.ids)
        self.ids += ids
        self.positions += range(first, first + count)
        self.branches += [branch] * count
        self.groups += [group] * count
        self.segments += [segment] * count
        self.twins += range(place, place + count)
        self.maskable += [group > 0 and one for one in asked]


def pack(rows: list[Row], block_size: int, copies: int) -> Packed:
    """Lay rows out, padded to the longest. `copies` is 1, or 2 for complementary masks."""
    columns = [_lay_out(row, block_size, copies) for row in rows]
    longest = max(len(c.ids) for c in columns)
    fills = {"ids": 0, "positions": 0, "branches": -1, "groups": 0, "segments": 0, "twins": 0, "maskable": False}
    t = {
        name: torch.tensor([getattr(c, name) + [fill] * (longest - len(c.ids)) for c in columns])
        for name, fill in fills.items()
    }
    return Packed(blocks=t["positions"] // block_size, **t)


def _lay_out(row: Row, size: int, copies: int) -> _Columns:
    columns = _Columns()
    shared = len(row.prefix) // size * size
    columns.extend(row.prefix[:shared], 0, 0, 0, 0, [False] * shared)
    group = segment = 0
    for number, branch in enumerate(row.branches, start=1):
        own = row.prefix[shared:] + branch.given + branch.response  # from position `shared` on
        response = len(row.prefix) + len(branch.given)
        asked = [False] * (response - shared) + (branch.asked or [True] * len(branch.response))
        first, last = response // size, (shared + len(own) - 1) // size
        clean = last * size - shared
        columns.extend(own[:clean], shared, number, 0, 0, asked[:clean])
        noised, start = own[first * size - shared :], first * size
        before = len(columns.ids)
        for copy in range(copies):
            group += 1
            for block in range(first, last + 1):
                chunk = slice(block * size - shared, (block + 1) * size - shared)
                columns.extend(own[chunk], block * size, number, group, segment + block - first, asked[chunk])
            if copy:
                columns.twins[-len(noised) :] = range(before, before + len(noised))
        assert start + len(noised) == shared + len(own)
        segment += last - first + 1
    return columns


def mask_rows(
    packed: Packed,
    rates: tuple[float, float],
    generator: torch.Generator,
    leaders: Int[Tensor, "B L"] | None = None,
) -> tuple[Bool[Tensor, "B L"], Float[Tensor, "B L"]]:
    """Which positions hold MASK, and the time t of the block of each (complements have 1 - t).

    Positions with the same leader are masked together, as far as they share a block.
    """
    count = int(packed.segments.max()) + 1
    times = sample_times(len(packed.ids), count, generator, rates=rates, stratified=True)
    second = packed.twins != torch.arange(packed.ids.shape[1])
    first_masked = mask_blocks(packed.maskable & ~second, packed.segments, times, generator, leaders)
    twin_masked = first_masked.gather(1, packed.twins)
    masked = torch.where(second, complementary(twin_masked, packed.maskable), first_masked)
    here = times.gather(1, packed.segments)
    return masked, torch.where(second, 1 - here, here)
