"""Who stands beside each word of a packed batch, and the probe that asks for it."""

import pytest
import torch

from unveil.training.neighbours import NeighbourProbe, neighbour_loss, neighbours_of
from unveil.training.packing import Branch, Row, pack

CODE = 100  # ids from here on are codes


def test_a_word_sees_the_words_beside_it_in_its_own_block_and_before() -> None:
    packed = pack([Row([1, 2, 3, 4, 5, 6], [Branch([], [7, 8])])], 4, 1)
    # clean 1 2 3 4 | (5 6 7 8, the last block, only noised): one shared block, then the noised copy of the second
    assert packed.ids.tolist() == [[1, 2, 3, 4, 5, 6, 7, 8]]
    masked = torch.tensor([[False] * 6 + [True, False]])
    found = neighbours_of(packed, masked, CODE, 2)[0]
    none = -1
    assert found.tolist() == [
        [none, none, 2, 3],
        [none, 1, 3, 4],
        [1, 2, 4, none],
        [2, 3, none, none],
        [none, none, 6, none],  # 3 and 4 stand in the clean copy, 7 is masked
        [none, 5, none, 8],
        [5, 6, 8, none],  # a masked word may be asked for those it sees
        [6, none, none, none],
    ]


def test_a_word_sees_none_of_a_later_block_and_none_of_another_copy() -> None:
    packed = pack([Row([*range(1, 10)], [Branch([], [10])]), Row([1, 2], [Branch([3, 4, 5], [6])])], 4, 1)
    found = neighbours_of(packed, torch.zeros_like(packed.ids, dtype=torch.bool), CODE, 1)
    assert packed.ids[0].tolist() == [*range(1, 11)]  # two clean blocks and a noised one
    assert found[0, 3].tolist() == [3, -1] and found[0, 4].tolist() == [4, 6]
    assert packed.groups[1, 3:5].tolist() == [0, 1] and packed.branches[1, 3:5].tolist() == [1, 1]
    assert found[1, 3].tolist() == [3, -1] and found[1, 4].tolist() == [-1, 6]


def test_branches_copies_padding_and_codes_are_no_neighbours() -> None:
    rows = [Row([1, 2], [Branch([3], [4, CODE]), Branch([5], [6])]), Row([1], [Branch([], [9])])]
    packed = pack(rows, 8, 2)
    found = neighbours_of(packed, torch.zeros_like(packed.ids, dtype=torch.bool), CODE, 1)
    for row in range(2):
        for at, (before, after) in enumerate(found[row].tolist()):
            for there, seen in ((at - 1, before), (at + 1, after)):
                if seen >= 0:
                    assert packed.ids[row, there] == seen < CODE
                    assert packed.groups[row, at] == packed.groups[row, there]
                    assert packed.branches[row, at] == packed.branches[row, there] >= 0
    words = (packed.ids < CODE) & (packed.branches >= 0)
    assert ((found >= 0).any(-1) <= words).all()
    first = [3, 3, 1]  # pairs of words side by side in each noised copy: (1 2 3 4), (1 2 5 6) and (1 9)
    assert int((found[0, :, 1] >= 0).sum()) == 2 * (first[0] + first[1])
    assert int((found[1, :, 1] >= 0).sum()) == 2 * first[2]


def test_the_probe_reads_both_sides_and_passes_over_what_is_not_there() -> None:
    probe = NeighbourProbe(4, 3, 1)
    with torch.no_grad():  # the state is (is the one before 2?, is it 1?, is the one after 2?, is it 0?)
        probe.read.weight.zero_()
        for reading, entry in ((2, 0), (1, 1), (3 + 2, 2), (3 + 0, 3)):
            probe.read.weight[reading, entry] = 9.0
    states = torch.tensor([[[1.0, 0, 0, 1], [0, 1, 1, 0], [1, 0, 1, 0]]])
    loss, exact = neighbour_loss(probe, states, torch.tensor([[[2, 0], [1, -1], [-1, -1]]]), most=100)
    assert exact == 1.0 and loss < 0.01
    loss, exact = neighbour_loss(probe, states, torch.tensor([[[2, 0], [2, 2], [-1, -1]]]), most=100)
    assert exact.item() == pytest.approx((2 / 3 + 1) / 2) and loss > 1  # 2 is guessed twice of thrice, 0 always


def test_only_so_many_words_are_asked() -> None:
    seen = []

    class Watched(NeighbourProbe):
        def forward(self, states, targets):  # type: ignore[no-untyped-def]
            seen.append(len(states))
            return super().forward(states, targets)

    probe = Watched(4, 3, 1)
    for length in (10, 64, 200):
        neighbour_loss(probe, torch.zeros(2, length, 4), torch.ones(2, length, 2, dtype=torch.long), most=32)
    assert seen == [20, 32, 34]
