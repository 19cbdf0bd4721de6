"""The parity law of block diffusion: training asks exactly the question that sampling asks."""

import pytest
import torch

from unveil.config import load_preset
from unveil.diffusion.blocks import block_of, visible_block_causal, visible_streams, visible_two_stream
from unveil.diffusion.masking import mask_blocks
from unveil.model.backbone import Backbone

TINY = load_preset("tiny")
SIZE, LENGTH = 4, 16
POSITIONS = torch.arange(LENGTH)
BLOCKS = block_of(POSITIONS, SIZE)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    config = TINY.backbone.model_copy(update={"layers": 3, "initializer_range": 0.1})
    return Backbone(config, TINY.vocab).double().initialize(torch.Generator().manual_seed(0)).requires_grad_(False)


@pytest.fixture(scope="module")
def clean() -> torch.Tensor:
    return torch.randint(0, 700, (2, LENGTH), generator=torch.Generator().manual_seed(1))


@pytest.fixture(scope="module")
def noised(clean: torch.Tensor) -> torch.Tensor:
    everything = torch.ones_like(clean, dtype=torch.bool)
    times = torch.full((2, LENGTH // SIZE), 0.5)
    masked = mask_blocks(everything, BLOCKS.expand(2, LENGTH), times, torch.Generator().manual_seed(2))
    return clean.masked_fill(masked, TINY.vocab.mask)


def sampled(backbone: Backbone, clean: torch.Tensor, noised: torch.Tensor, block: int) -> torch.Tensor:
    """Logits of one block as sampling computes them: earlier blocks in the cache, the block itself as canvas."""
    start, end = block * SIZE, (block + 1) * SIZE
    past = None
    if start:
        prefix = BLOCKS[:start]
        _, past = backbone.hidden(clean[:, :start], POSITIONS[:start], visible_block_causal(prefix, prefix))
    visible = visible_block_causal(BLOCKS[start:end], BLOCKS[:end])
    return backbone(noised[:, start:end], POSITIONS[start:end], visible, past)


def equal(a: torch.Tensor, b: torch.Tensor) -> bool:
    return bool((a - b).abs().max() <= 1e-12 * b.abs().max())


@pytest.mark.parametrize("block", range(LENGTH // SIZE))
def test_two_stream_logits_of_a_noised_block_equal_cached_sampling(
    backbone: Backbone, clean: torch.Tensor, noised: torch.Tensor, block: int
) -> None:
    both = torch.cat((noised, clean), 1)
    trained = backbone(both, torch.cat((POSITIONS, POSITIONS)), visible_two_stream(BLOCKS))
    here = slice(block * SIZE, (block + 1) * SIZE)
    assert equal(trained[:, here], sampled(backbone, clean, noised, block))


@pytest.mark.parametrize("block", range(LENGTH // SIZE))
def test_cached_sampling_equals_sampling_without_a_cache(
    backbone: Backbone, clean: torch.Tensor, noised: torch.Tensor, block: int
) -> None:
    start, end = block * SIZE, (block + 1) * SIZE
    window = torch.cat((clean[:, :start], noised[:, start:end]), 1)
    visible = visible_block_causal(BLOCKS[:end], BLOCKS[:end])
    whole = backbone(window, POSITIONS[:end], visible, at=slice(start, end))
    assert equal(whole, sampled(backbone, clean, noised, block))


def test_a_noised_copy_of_the_response_alone_after_a_clean_copy_without_the_last_block_changes_nothing(
    backbone: Backbone, clean: torch.Tensor, noised: torch.Tensor
) -> None:
    kept, response = LENGTH - SIZE, 2 * SIZE  # clean blocks 0..2, noised blocks 2 and 3
    tokens = torch.cat((clean[:, :kept], noised[:, response:]), 1)
    positions = torch.cat((POSITIONS[:kept], POSITIONS[response:]))
    visible = visible_streams(BLOCKS[positions], torch.arange(len(positions)) >= kept)
    trained = backbone(tokens, positions, visible, at=slice(kept, None))
    expected = torch.cat([sampled(backbone, clean, noised, block) for block in (2, 3)], 1)
    assert equal(trained, expected)


def test_two_documents_and_padding_in_one_row_equal_each_document_alone(
    backbone: Backbone, clean: torch.Tensor, noised: torch.Tensor
) -> None:
    parts = [torch.cat((noised[i], clean[i])) for i in range(2)]
    packed = torch.cat((*parts, torch.full((3,), TINY.vocab.pad)))[None]
    positions = torch.cat([POSITIONS] * 4 + [torch.zeros(3, dtype=torch.long)])
    noised_half = (torch.arange(len(positions)) // LENGTH) % 2 == 0
    documents = torch.cat((torch.arange(2).repeat_interleave(2 * LENGTH), torch.full((3,), -1)))
    trained = backbone(packed, positions, visible_streams(block_of(positions, SIZE), noised_half, documents))
    for i in range(2):
        alone = torch.cat([sampled(backbone, clean[i : i + 1], noised[i : i + 1], b) for b in range(4)], 1)
        start = 2 * LENGTH * i
        assert equal(trained[:, start : start + LENGTH], alone)
    assert trained.isfinite().all()
