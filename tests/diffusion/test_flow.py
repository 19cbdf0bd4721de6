"""The path between noise and data, and how training times are drawn."""

import math

import pytest
import torch

from unveil.diffusion.flow import (
    clean_estimate,
    denormalize_latents,
    draw_pair,
    drop_condition,
    flow_loss,
    interpolate,
    normalize_latents,
    sample_times,
    shift_times,
    velocity_target,
)
from unveil.errors import ConfigError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pair():
    return torch.randn(3, 2, 4, generator=generator(1)), torch.randn(3, 2, 4, generator=generator(2))


def test_the_path_is_noise_at_time_zero_and_data_at_time_one():
    clean, noise = pair()
    assert torch.equal(interpolate(clean, noise, torch.zeros(3)), noise)
    assert torch.equal(interpolate(clean, noise, torch.ones(3)), clean)


def test_each_sample_has_its_own_time_and_its_velocity_leads_to_the_data():
    clean, noise = pair()
    t = torch.tensor([0.1, 0.5, 0.9])
    x = interpolate(clean, noise, t)
    torch.testing.assert_close(x[2], 0.9 * clean[2] + 0.1 * noise[2])
    torch.testing.assert_close(clean_estimate(x, velocity_target(clean, noise), t), clean)


def test_shift_moves_times_towards_noise_and_keeps_both_ends():
    t = torch.tensor([0.0, 1 / 49, 24 / 49, 48 / 49, 1.0])
    expected = torch.tensor([0.0, 0.003460, 0.137931, 0.888889, 1.0])  # spec image 6.3, alpha 6
    torch.testing.assert_close(shift_times(t, 6.0), expected, atol=1e-6, rtol=0)
    assert torch.equal(shift_times(t, 1.0), t)


def test_times_follow_the_law_asked_for():
    uniform = sample_times(20000, generator())
    assert uniform.mean() == pytest.approx(0.5, abs=0.01)
    assert uniform.min() >= 0 and uniform.max() < 1
    assert (uniform < 0.25).float().mean() == pytest.approx(0.25, abs=0.01)
    lognorm = sample_times(20000, generator(), "lognorm")
    assert (lognorm < 1 / (1 + math.e)).float().mean() == pytest.approx(0.1587, abs=0.01)  # one deviation below
    shifted = sample_times(20000, generator(), "uniform", 3.0)
    assert shifted.median() == pytest.approx(0.25, abs=0.01)


def test_an_unknown_law_is_refused_with_the_known_ones():
    with pytest.raises(ConfigError, match="laws: uniform, lognorm"):
        sample_times(1, generator(), "beta")


def test_a_training_pair_draws_the_noise_first_then_the_times():
    clean, _ = pair()
    x, t, velocity = draw_pair(clean, generator(4), "uniform", 2.0)
    again = generator(4)
    noise = torch.randn(clean.shape, generator=again)
    times = shift_times(torch.rand(3, generator=again), 2.0)
    assert torch.equal(t, times)
    assert torch.equal(velocity, clean - noise)
    assert torch.equal(x, interpolate(clean, noise, times))


def test_the_loss_is_the_mean_square_of_each_sample():
    target = torch.zeros(2, 3, 2, 2)
    predicted = torch.stack([torch.full((3, 2, 2), 2.0), torch.full((3, 2, 2), 0.5)])
    assert flow_loss(predicted, target).tolist() == [4.0, 0.25]
    assert flow_loss(predicted.bfloat16(), target).dtype == torch.float32


def test_dropped_conditions_are_whole_samples_of_zeros_at_the_asked_rate():
    condition = torch.ones(2000, 3, 2)
    dropped = drop_condition(condition, 0.1, generator())
    per_sample = dropped.flatten(1).mean(1)
    assert set(per_sample.tolist()) == {0.0, 1.0}
    assert 1 - per_sample.mean() == pytest.approx(0.1, abs=0.02)
    assert torch.equal(drop_condition(condition, 0.0, generator()), condition)


def test_normalized_latents_come_back():
    raw = torch.tensor([0.1159, 1.0])
    normal = normalize_latents(raw, 0.3611, 0.1159)
    torch.testing.assert_close(normal, torch.tensor([0.0, 0.3611 * 0.8841]))
    torch.testing.assert_close(denormalize_latents(normal, 0.3611, 0.1159), raw)
