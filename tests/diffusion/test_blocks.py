"""Each mask is compared with the drawing in its own docstring."""

from collections.abc import Callable

import torch

from unveil.diffusion.blocks import block_of, visible_block_causal, visible_streams, visible_two_stream


def drawing(function: Callable[..., torch.Tensor], columns: int) -> torch.Tensor:
    """The rows of a docstring that end in `columns` cells of 1 or dot, after a label."""
    rows = [line.split() for line in (function.__doc__ or "").splitlines()]
    cells = [row[-columns:] for row in rows if len(row) > columns and set(row[-columns:]) <= {"1", "."}]
    return torch.tensor([[cell == "1" for cell in row] for row in cells])


def test_a_block_is_a_run_of_positions_counted_from_zero() -> None:
    assert block_of(torch.tensor([0, 3, 4, 7, 8, 100]), 4).tolist() == [0, 0, 1, 1, 2, 25]


def test_block_causal_equals_its_drawing() -> None:
    blocks = torch.tensor([0, 0, 1, 1, 2])
    assert torch.equal(visible_block_causal(blocks, blocks), drawing(visible_block_causal, 5))


def test_block_causal_rows_of_new_positions_equal_the_tail_of_the_whole_mask() -> None:
    blocks = block_of(torch.arange(11), 4).expand(2, 11)
    whole = visible_block_causal(blocks, blocks)
    assert torch.equal(visible_block_causal(blocks[:, 8:], blocks), whole[:, 8:])


def test_two_stream_equals_its_drawing() -> None:
    assert torch.equal(visible_two_stream(torch.tensor([0, 0, 1, 1])), drawing(visible_two_stream, 8))


def test_two_stream_keeps_leading_batch_dimensions_apart() -> None:
    blocks = torch.tensor([[0, 0, 1, 1], [0, 1, 1, 2]])
    both = visible_two_stream(blocks)
    assert torch.equal(both[0], visible_two_stream(blocks[0]))
    assert torch.equal(both[1], visible_two_stream(blocks[1]))


def test_streams_equal_their_drawing() -> None:
    blocks = torch.tensor([0, 0, 1, 1, 0, 1, 7])
    noised = torch.tensor([0, 0, 1, 1, 0, 1, 0], dtype=torch.bool)
    documents = torch.tensor([0, 0, 0, 0, 1, 1, -1])
    assert torch.equal(visible_streams(blocks, noised, documents), drawing(visible_streams, 7))


def test_two_paddings_do_not_see_each_other() -> None:
    visible = visible_streams(torch.zeros(3).long(), torch.zeros(3).bool(), torch.tensor([0, -1, -1]))
    assert torch.equal(visible, torch.eye(3, dtype=torch.bool))


def test_the_order_of_the_streams_only_permutes_the_mask() -> None:
    blocks = torch.tensor([0, 0, 1, 1, 2])
    noised_first = visible_two_stream(blocks)
    order = torch.cat((torch.arange(5, 10), torch.arange(5)))
    clean_first = visible_streams(torch.cat((blocks, blocks)), torch.arange(10) >= 5)
    assert torch.equal(clean_first, noised_first[order][:, order])
