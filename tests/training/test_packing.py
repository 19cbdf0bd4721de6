"""A packed row asks exactly what sampling asks: the parity law with shared prefix, branches and two copies."""

import pytest
import torch

from unveil.config import ModelConfig
from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.model.backbone import Backbone
from unveil.training.packing import Branch, Packed, Row, mask_rows, pack

SIZE, MASK = 4, 735


@pytest.fixture(scope="module")
def backbone(small: ModelConfig) -> Backbone:
    config = small.backbone.model_copy(update={"layers": 3, "initializer_range": 0.2})
    model = Backbone(config, small.vocab).double().initialize(torch.Generator().manual_seed(0))
    return model.requires_grad_(False)


def numbers(count: int, seed: int) -> list[int]:
    return torch.randint(0, 700, (count,), generator=torch.Generator().manual_seed(seed)).tolist()


ROWS = [
    # a prefix of two and a half blocks; branches that begin at once, after given ids, and over several blocks
    Row(numbers(10, 1), [Branch([], numbers(2, 2)), Branch(numbers(5, 3), numbers(9, 4)), Branch(numbers(1, 5), [7])]),
    # a prefix of whole blocks
    Row(numbers(8, 6), [Branch([], numbers(11, 7)), Branch(numbers(4, 8), numbers(4, 9))]),
    # a prefix shorter than a block, one branch
    Row(numbers(3, 10), [Branch(numbers(2, 11), numbers(6, 12))]),
]


def branch_lines(row: Row) -> list[tuple[list[int], int]]:
    """All ids of each branch from position 0, and where its response begins."""
    return [(row.prefix + b.given + b.response, len(row.prefix) + len(b.given)) for b in row.branches]


def sampled(backbone: Backbone, clean: list[int], canvas: torch.Tensor, start: int) -> torch.Tensor:
    """Logits of the block that begins at `start`: finished blocks before it, the canvas in it, block-causal."""
    window = torch.cat((torch.tensor(clean[:start]), canvas))[None]
    blocks = block_of(torch.arange(window.shape[1]), SIZE)
    visible = visible_block_causal(blocks, blocks)
    return backbone(window, torch.arange(window.shape[1]), visible)[0, start:]


@pytest.mark.parametrize("copies", [1, 2])
def test_logits_of_every_noised_block_equal_sampling_on_the_same_canvas(backbone: Backbone, copies: int) -> None:
    packed = pack(ROWS, SIZE, copies)
    masked, _ = mask_rows(packed, (0.0, 1.0), torch.Generator().manual_seed(5))
    noised = packed.ids.masked_fill(masked, MASK)
    trained = backbone(noised, packed.positions, packed.visible)
    assert trained.isfinite().all()
    compared = 0
    for r, row in enumerate(ROWS):
        lines = branch_lines(row)
        for group in range(1, int(packed.groups[r].max()) + 1):
            at = (packed.groups[r] == group).nonzero().flatten()
            line, _ = lines[int(packed.branches[r, at[0]]) - 1]
            for block in packed.blocks[r, at].unique().tolist():
                here = at[packed.blocks[r, at] == block]
                expected = sampled(backbone, line, noised[r, here], block * SIZE)
                assert (trained[r, here] - expected).abs().max() <= 1e-12 * expected.abs().max()
                compared += len(here)
    assert compared == int((packed.groups > 0).sum())


def test_the_parity_test_sees_a_branch_that_looks_at_its_sibling(backbone: Backbone) -> None:
    packed = pack(ROWS[:1], SIZE, 1)
    leaky = packed.visible | (packed.groups[0, :, None] > 0) & (packed.branches == 1)[:, None]
    right = backbone(packed.ids, packed.positions, packed.visible)
    wrong = backbone(packed.ids, packed.positions, leaky)
    second = packed.branches[0] == 2
    assert (right[0, second] - wrong[0, second]).abs().max() > 1e-3


def responses(packed: Packed, r: int, branch: int) -> list[int]:
    """Positions of a branch that may be masked, once per copy."""
    return packed.positions[r][packed.maskable[r] & (packed.branches[r] == branch)].sort().values.tolist()


@pytest.mark.parametrize("copies", [1, 2])
def test_exactly_the_response_may_be_masked_and_its_last_block_is_not_lost(copies: int) -> None:
    packed = pack(ROWS, SIZE, copies)
    for r, row in enumerate(ROWS):
        for number, (line, first) in enumerate(branch_lines(row), start=1):
            assert responses(packed, r, number) == sorted([*range(first, len(line))] * copies)
            here = packed.maskable[r] & (packed.branches[r] == number)
            assert packed.ids[r, here].tolist() == line[first:] * copies
    assert not packed.maskable[packed.groups == 0].any()


@pytest.mark.parametrize("copies", [1, 2])
def test_of_a_response_only_what_is_asked_may_be_masked(copies: int) -> None:
    given, response = numbers(5, 20), numbers(9, 21)
    asked = [i in (0, 3, 8) for i in range(9)]
    some, everything = (Row(numbers(6, 22), [Branch(given, response, mask)]) for mask in (asked, None))
    for row, wanted in ((some, [11, 14, 19]), (everything, list(range(11, 20)))):
        packed = pack([row], SIZE, copies)
        assert packed.positions[packed.maskable].tolist() == wanted * copies
        assert (packed.groups[packed.maskable] > 0).all()
    assert torch.equal(pack([some], SIZE, copies).ids, pack([everything], SIZE, copies).ids)


def test_complementary_copies_cover_every_response_position_exactly_once() -> None:
    packed = pack(ROWS, SIZE, 2)
    for seed in range(20):
        masked, times = mask_rows(packed, (0.0, 1.0), torch.Generator().manual_seed(seed))
        assert not masked[~packed.maskable].any()
        for r, row in enumerate(ROWS):
            for number, (line, first) in enumerate(branch_lines(row), start=1):
                covered = packed.positions[r][masked[r] & (packed.branches[r] == number)]
                assert covered.sort().values.tolist() == list(range(first, len(line)))
        second = (packed.twins != torch.arange(packed.ids.shape[1])) & (packed.groups > 0)
        rows, places = second.nonzero(as_tuple=True)
        twins = packed.twins[rows, places]
        assert torch.equal(packed.positions[rows, twins], packed.positions[rows, places])
        assert torch.allclose(times[rows, twins] + times[rows, places], torch.ones(len(rows)))


def test_each_block_of_each_branch_has_its_own_time_and_its_rate_is_kept() -> None:
    packed = pack([Row(numbers(4, 0), [Branch([], numbers(400, 1))] * 2)], 40, 1)
    masked, times = mask_rows(packed, (0.3, 0.8), torch.Generator().manual_seed(0))
    here = packed.maskable[0]
    found = {}
    for segment in packed.segments[0, here].unique().tolist():
        inside = here & (packed.segments[0] == segment)
        (time,) = times[0, inside].unique().tolist()
        found[segment] = time
        assert 0.2 <= time <= 0.7
        share = masked[0, inside].float().mean()
        assert abs(share - (1 - time)) < 0.3
    assert len(set(found.values())) == len(found) == 22


def test_padding_sees_itself_only_and_carries_nothing(backbone: Backbone) -> None:
    packed, alone = pack(ROWS, SIZE, 2), pack(ROWS[2:], SIZE, 2)
    length = alone.ids.shape[1]
    padding = packed.branches[2] < 0
    assert padding.nonzero().flatten().tolist() == list(range(length, packed.ids.shape[1]))
    assert torch.equal(packed.visible[2, padding], torch.eye(packed.ids.shape[1], dtype=torch.bool)[padding])
    beside = backbone(packed.ids, packed.positions, packed.visible)[2, :length]
    apart = backbone(alone.ids, alone.positions, alone.visible)[0]
    assert (beside - apart).abs().max() < 1e-12
