"""Solvers on fields whose flow is known."""

import pytest
import torch

from unveil.diffusion.solver import clip_guidance, draw_noise, euler, euler_times, turbo, turbo_times
from unveil.errors import RequestError


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def straight(data):
    """The field of all straight lines into `data`: (data - x) / (1 - t)."""
    return lambda x, t: ((data - x) / (1 - t.to(x).view(-1, 1))).float()


def test_fifty_official_steps_are_fifty_grid_points_and_49_evaluations():
    times = euler_times(50, 6.0)
    assert len(times) == 50
    picked = times[[0, 1, 2, 24, 25, 47, 48, 49]].tolist()
    expected = [0.0, 0.003460, 0.007042, 0.137931, 0.147929, 0.796610, 0.888889, 1.0]  # spec image 6.3
    assert picked == pytest.approx(expected, abs=1e-6)
    seen = []
    euler(lambda x, t: seen.append(t.item()) or torch.zeros_like(x), torch.zeros(1, 2), times)
    assert seen == times[:-1].tolist()


@pytest.mark.parametrize(("solver_steps", "shift"), [(2, 1.0), (7, 1.0), (20, 6.0)])
def test_euler_is_exact_on_a_straight_path(solver_steps, shift):
    data = torch.randn(3, 5, generator=generator(1))
    noise = torch.randn(3, 5, generator=generator(2))
    end = euler(straight(data), noise, euler_times(solver_steps, shift))
    torch.testing.assert_close(end, data, atol=1e-5, rtol=1e-5)


def test_euler_error_on_a_curved_path_falls_with_the_step():
    def growth(x, t):
        return x

    errors = [(euler(growth, torch.ones(1, 1), euler_times(n, 1.0)) - torch.e).abs().item() for n in (11, 101)]
    assert errors[0] == pytest.approx(torch.e - 1.1**10, abs=1e-5)
    assert errors[1] < errors[0] / 8


def test_on_step_sees_every_evaluation_and_the_foreseen_data():
    data, noise = torch.full((2, 3), 4.0), torch.randn(2, 3, generator=generator())
    seen = []
    euler(straight(data), noise, euler_times(4, 1.0), lambda k, t, x: seen.append((k, t, x)))
    assert [k for k, _, _ in seen] == [0, 1, 2]
    assert [t for _, t, _ in seen] == pytest.approx([1 / 3, 2 / 3, 1.0])
    for _, _, x in seen:
        torch.testing.assert_close(x, data, atol=1e-5, rtol=1e-5)


def test_turbo_has_as_many_evaluations_as_steps_on_an_even_grid():
    times = turbo_times(8)
    assert times.tolist() == [k / 8 for k in range(9)]


def test_turbo_mixes_fresh_noise_into_the_clean_estimate():
    noise, fresh = torch.randn(1, 4, generator=generator(1)), torch.randn(1, 4, generator=generator(2)).double()
    seen = []

    def field(x, t):
        seen.append(x)
        return torch.ones_like(x)

    end = turbo(field, noise, turbo_times(2), lambda: fresh)
    x = 0.5 * (noise.double() + 1) + 0.5 * fresh
    torch.testing.assert_close(seen[1], x)
    torch.testing.assert_close(end, x + 0.5)
    assert end.dtype == torch.float64


def test_turbo_draws_at_the_last_step_too():
    draws = []
    turbo(lambda x, t: x, torch.ones(1, 1), turbo_times(3), lambda: draws.append(1) or torch.zeros(1, 1).double())
    assert len(draws) == 3


def test_guidance_is_shortened_to_the_length_of_the_conditional_velocity_per_sample():
    positive = torch.tensor([[3.0, 4.0], [3.0, 4.0]])
    negative = torch.tensor([[0.0, 0.0], [6.0, 8.0]])
    guided = clip_guidance(positive, negative, 1.0)
    torch.testing.assert_close(guided, torch.tensor([[3.0, 4.0], [0.0, 0.0]]))  # [6, 8] clipped; [0, 0] is shorter
    sideways = clip_guidance(torch.tensor([[1.0, 0.0]]), torch.tensor([[1.0, -1.0]]), 1.0)
    torch.testing.assert_close(sideways, torch.tensor([[0.5**0.5, 0.5**0.5]]))
    torch.testing.assert_close(clip_guidance(positive, negative, 0.0), positive)
    assert clip_guidance(torch.zeros(1, 2), torch.zeros(1, 2), 1.0).tolist() == [[0.0, 0.0]]


def test_noise_of_a_sample_depends_on_its_own_generator_alone():
    together = draw_noise((2, 3), [generator(1), generator(2)])
    assert torch.equal(together[1], draw_noise((2, 3), [generator(2)])[0])
    assert not torch.equal(together[0], together[1])


@pytest.mark.parametrize(
    ("call", "words"),
    [
        (lambda: euler_times(1, 1.0), "at least 2"),
        (lambda: euler_times(10, 0.0), "above 0"),
        (lambda: euler_times(10, float("nan")), "above 0"),
        (lambda: turbo_times(0), "at least 1"),
    ],
)
def test_impossible_settings_are_refused_in_words(call, words):
    with pytest.raises(RequestError, match=words):
        call()
