"""`visible_branches` is the drawing in its docstring, and `visible_streams` where there is one branch."""

import torch

from unveil.diffusion.blocks import visible_branches, visible_streams

BLOCKS = torch.tensor([0, 0, 1, 1, 1, 1, 1, 1, 0])
BRANCHES = torch.tensor([0, 0, 1, 1, 2, 2, 2, 2, -1])
GROUPS = torch.tensor([0, 0, 1, 1, 2, 2, 3, 3, 0])


def test_branches_equal_their_drawing() -> None:
    rows = [line.split() for line in (visible_branches.__doc__ or "").splitlines()]
    cells = [row[-9:] for row in rows if len(row) > 9 and set(row[-9:]) <= {"1", "."}]
    drawn = torch.tensor([[cell == "1" for cell in row] for row in cells])
    assert torch.equal(visible_branches(BLOCKS, BRANCHES, GROUPS), drawn)


def test_one_branch_in_one_copy_equals_the_streams() -> None:
    generator = torch.Generator().manual_seed(0)
    for _ in range(20):
        blocks = torch.randint(0, 5, (2, 40), generator=generator)
        noised = torch.rand(2, 40, generator=generator) < 0.5
        found = visible_branches(blocks, torch.ones_like(blocks), noised.long())
        assert torch.equal(found, visible_streams(blocks, noised))


def test_a_branch_sees_the_shared_prefix_and_itself_but_no_sibling_nor_a_copy_of_itself() -> None:
    visible = visible_branches(BLOCKS, BRANCHES, GROUPS)
    assert visible[2:8, :2].all()  # everyone sees the prefix
    assert not visible[:2, 2:].any()  # which sees no branch
    for copy in (slice(2, 4), slice(4, 6), slice(6, 8)):
        others = torch.ones(9, dtype=torch.bool)
        others[:2] = others[copy] = False
        assert not visible[copy][:, others].any()


def test_the_clean_part_of_a_branch_is_seen_by_its_own_later_blocks_only() -> None:
    #              shared  clean of branch 1   noised of branch 1, block 2   clean of branch 2
    blocks = torch.tensor([0, 1, 2, 1])
    branches = torch.tensor([0, 1, 1, 2])
    groups = torch.tensor([0, 0, 1, 0])
    expected = [[1, 0, 0, 0], [1, 1, 0, 0], [1, 1, 1, 0], [1, 0, 0, 1]]
    assert visible_branches(blocks, branches, groups).long().tolist() == expected


def test_rows_of_a_batch_keep_apart() -> None:
    both = visible_branches(*(torch.stack((t, t.flip(0))) for t in (BLOCKS, BRANCHES, GROUPS)))
    alone = visible_branches(BLOCKS, BRANCHES, GROUPS)
    assert torch.equal(both[0], alone)
    assert torch.equal(both[1], alone.flip(0, 1))
