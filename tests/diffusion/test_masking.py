"""The laws of masking."""

import math

import pytest
import torch

from unveil.diffusion.masking import complementary, inverse_rate_weights, mask_blocks, sample_times, sample_weights

ROWS, LENGTH, SIZE = 64, 96, 8
BLOCKS = (torch.arange(LENGTH) // SIZE).expand(ROWS, LENGTH)
COLUMNS = LENGTH // SIZE


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def maskable() -> torch.Tensor:
    """A prefix of two and a half blocks stays; the rest may be masked."""
    return (torch.arange(LENGTH) >= 20).expand(ROWS, LENGTH)


def test_at_time_zero_all_maskable_positions_are_masked() -> None:
    assert torch.equal(mask_blocks(maskable(), BLOCKS, torch.zeros(ROWS, COLUMNS), rng()), maskable())


def test_at_time_one_none_is_masked() -> None:
    assert not mask_blocks(maskable(), BLOCKS, torch.ones(ROWS, COLUMNS), rng()).any()


@pytest.mark.parametrize("time", [0.25, 0.7])
def test_the_share_of_masked_positions_is_one_minus_t(time: float) -> None:
    everything = torch.ones(ROWS, LENGTH, dtype=torch.bool)
    masked = mask_blocks(everything, BLOCKS, torch.full((ROWS, COLUMNS), time), rng())
    deviation = math.sqrt(time * (1 - time) / everything.numel())
    lone = time**SIZE / SIZE  # a block left without any gets one
    assert masked.float().mean().item() == pytest.approx(1 - time + lone, abs=4 * deviation)


def test_each_block_follows_its_own_time() -> None:
    times = torch.ones(ROWS, COLUMNS)
    times[:, 5] = 0.0
    masked = mask_blocks(maskable(), BLOCKS, times, rng())
    assert torch.equal(masked, BLOCKS == 5)


def test_every_block_with_maskable_positions_gets_at_least_one_mask_and_others_none() -> None:
    times = torch.full((ROWS, COLUMNS), 1 - 1e-6)
    masked = mask_blocks(maskable(), BLOCKS, times, rng())
    per_block = masked.view(ROWS, COLUMNS, SIZE).sum(-1)
    assert torch.equal(per_block, torch.tensor([0, 0] + [1] * 10).expand(ROWS, COLUMNS))
    assert not (masked & ~maskable()).any()


def test_the_lone_mask_is_not_always_the_same_position() -> None:
    masked = mask_blocks(maskable(), BLOCKS, torch.full((ROWS, COLUMNS), 1 - 1e-6), rng())
    places = masked.view(ROWS, COLUMNS, SIZE)[:, 3:].float().mean((0, 1))
    assert (places > 0.05).all()


def test_a_mask_and_its_complement_cover_every_maskable_position_exactly_once() -> None:
    masked = mask_blocks(maskable(), BLOCKS, sample_times(ROWS, COLUMNS, rng(1)), rng(2))
    other = complementary(masked, maskable())
    assert torch.equal(masked.int() + other.int(), maskable().int())


def test_the_same_generator_state_gives_the_same_mask_and_another_gives_another() -> None:
    times = sample_times(ROWS, COLUMNS, rng(1))
    again = sample_times(ROWS, COLUMNS, rng(1))
    assert torch.equal(times, again)
    assert torch.equal(mask_blocks(maskable(), BLOCKS, times, rng(3)), mask_blocks(maskable(), BLOCKS, times, rng(3)))
    assert not torch.equal(
        mask_blocks(maskable(), BLOCKS, times, rng(3)), mask_blocks(maskable(), BLOCKS, times, rng(4))
    )


@pytest.mark.parametrize("stratified", [False, True])
def test_rates_are_uniform_in_their_band(stratified: bool) -> None:
    rates = 1 - sample_times(200, 50, rng(), rates=(0.3, 0.8), stratified=stratified)
    assert 0.3 <= rates.min() < 0.301
    assert 0.799 < rates.max() <= 0.8 + 1e-6
    counts = torch.histc(rates, 10, 0.3, 0.8)
    assert (counts - 1000).abs().max() < (2 if stratified else 140)


def test_the_default_band_never_gives_a_rate_of_zero() -> None:
    times = sample_times(1000, 10, rng())
    assert times.min() >= 0
    assert times.max() < 1


def test_stratified_times_are_in_random_order() -> None:
    times = sample_times(1, 1000, rng(), stratified=True)[0]
    correlation = torch.corrcoef(torch.stack((times, torch.arange(1000.0))))[0, 1]
    assert abs(correlation.item()) < 0.1


def test_stratified_means_vary_far_less_than_independent_ones() -> None:
    def spread(stratified: bool) -> float:
        draws = rng()
        return torch.stack([sample_times(4, 8, draws, stratified=stratified).mean() for _ in range(50)]).std().item()

    assert spread(True) < spread(False) / 10


def test_the_inverse_rate_weight_is_one_over_one_minus_t() -> None:
    assert torch.allclose(inverse_rate_weights(torch.tensor([0.0, 0.5, 0.75])), torch.tensor([1.0, 2.0, 4.0]))


def test_sample_weights_follow_paper_equation_6() -> None:
    samples = torch.tensor([0, 0, 0, 0, 2])  # sample 1 has no masked position
    losses = torch.tensor([1.0, 2.0, 3.0, 4.0, 5.0])
    expected = (10.0 / 2 + 5.0 / 1) / (1 / 2 + 1 / 1)
    everything = torch.ones(5, dtype=torch.bool)
    assert (sample_weights(samples, everything) * losses).sum().item() == pytest.approx(expected)


def test_padding_does_not_make_a_sample_longer() -> None:
    samples = torch.tensor([0, 0, 0, 0, 1])
    words = torch.tensor([True, False, False, False, True])
    assert torch.allclose(sample_weights(samples, words), torch.full((5,), 0.5))  # one word each, so beta is alike
    assert torch.isfinite(sample_weights(samples, torch.zeros(5, dtype=torch.bool))).all()


def test_positions_with_one_leader_share_their_draw() -> None:
    everything = torch.ones(400, 8, dtype=torch.bool)
    blocks, times = torch.zeros(400, 8, dtype=torch.long), torch.full((400, 1), 0.5)
    leaders = torch.tensor([0, 0, 2, 0, 4, 5, 5, 5]).expand(400, 8)
    masked = mask_blocks(everything, blocks, times, rng(), leaders)
    assert torch.equal(masked, masked.gather(1, leaders))
    assert 0.45 < masked.float().mean() < 0.55
    assert 0.4 < (masked[:, 0] == masked[:, 2]).float().mean() < 0.6  # leaders are independent of each other
