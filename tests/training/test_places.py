"""Where each code of a packed batch stands in its picture, and the probe that asks for it."""

import torch

from unveil.training.packing import Branch, Row, pack
from unveil.training.places import PlaceProbe, place_loss, places_in_line, places_of, window_leaders

CODE = 100  # ids from here on are codes


def test_places_count_the_codes_of_each_picture_from_its_first() -> None:
    line = [7, 100, 101, 100, 8, 9, 105, 106]
    assert places_in_line(line, CODE) == [-1, 0, 1, 2, -1, -1, 0, 1]


def test_clean_and_noised_tokens_of_every_branch_know_their_place() -> None:
    picture = [CODE + i for i in range(6)]
    rows = [
        Row([1, *picture, 2], [Branch([3], [4, 5]), Branch([3, 3, 3, 3], [*picture, 6])]),
        Row([1, 2], [Branch([], picture)]),
    ]
    for copies in (1, 2):
        packed = pack(rows, 4, copies)
        places = places_of(rows, packed, CODE)
        is_code = (packed.ids >= CODE) & (packed.branches >= 0)
        assert torch.equal(places >= 0, is_code)
        assert torch.equal(places[is_code], packed.ids[is_code] - CODE)  # in each picture code i stands at place i


def test_the_probe_asks_for_row_and_column() -> None:
    probe = PlaceProbe(4, (2, 3))
    with torch.no_grad():  # the state is read as (row 0, row 1, column from the third entry up)
        probe.row.weight.copy_(torch.tensor([[9.0, 0, 0, 0], [0, 9, 0, 0]]))
        probe.column.weight.copy_(torch.tensor([[0.0, 0, 9, 0], [0, 0, 0, 9], [0, 0, -9, -9]]))
        probe.row.bias.zero_()
        probe.column.bias.zero_()
    states = torch.tensor([[[1.0, 0, 1, 0], [0, 1, 0, 1], [0, 1, -1, -1], [5, 5, 5, 5]]])
    loss, exact = place_loss(probe, states, torch.tensor([[0, 4, 5, -1]]))  # the last is no code
    assert exact == 1.0 and loss < 0.01
    wrong, exact = place_loss(probe, states, torch.tensor([[0, 4, 4, -1]]))  # one column wrong
    assert torch.isclose(exact, torch.tensor(2 / 3)) and wrong > 1


def test_codes_of_a_window_have_one_leader_in_every_picture_and_copy() -> None:
    grid, line = (3, 4), [CODE + i for i in range(12)]
    leaders = [0, 0, 2, 2, 0, 0, 2, 2, 8, 8, 10, 10]  # windows of 2 x 2, those of the last row cut
    assert window_leaders(torch.arange(12)[None], grid, 2).tolist() == [leaders]
    rows = [Row([1, 2, *line, 3], [Branch([4], [5, *line, 6, *line])]), Row([1], [Branch([], line)])]
    packed = pack(rows, 4, 2)
    places = places_of(rows, packed, CODE)
    found = window_leaders(places, grid, 2)
    whole = [[] for _ in rows]
    for i in range(len(rows)):
        at, members = 0, dict[int, list[int]]()
        for at in range(places.shape[1]):
            members.setdefault(int(found[i, at]), []).append(at)
        for leader, together in members.items():
            assert leader == together[0]
            if places[i, leader] < 0:
                assert together == [leader]
                continue
            windows = {(int(p) // 4 // 2, int(p) % 4 // 2) for p in places[i, together]}
            assert len(windows) == 1 and len(together) in (1, 2, 4) and together[-1] - leader <= 5
            whole[i].append(len(together))
    assert [w.count(4) for w in whole] == [
        14,
        6,
    ]  # two a picture: 3 pictures clean and twice two noised; 1 and two noised
