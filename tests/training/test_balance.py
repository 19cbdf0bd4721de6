"""The router bias balances the experts, and would not with the sign as printed in the paper."""

from collections.abc import Callable

import torch

from unveil.training.balance import balance_bias

EXPERTS, TOKENS, CHOSEN = 8, 400, 2


def printed(bias: torch.Tensor, load: torch.Tensor, rate: float) -> None:
    """The paper's F - Q with F read as the load: what is overloaded gains."""
    excess = load.float() - load.float().mean()
    bias += rate * excess / excess.square().mean().sqrt().clamp_min(1e-6)


def crowding(rule: Callable[[torch.Tensor, torch.Tensor, float], None]) -> tuple[float, float]:
    """Load of the fullest expert over the mean, at first and after 300 steps, for scores that favour some experts."""
    generator = torch.Generator().manual_seed(0)
    liked, bias = torch.linspace(0.3, 0.7, EXPERTS), torch.zeros(EXPERTS)
    seen = []
    for _ in range(300):
        scores = (liked + 0.15 * torch.randn(TOKENS, EXPERTS, generator=generator)).clamp(0, 1)
        load = torch.bincount((scores + bias).topk(CHOSEN).indices.flatten(), minlength=EXPERTS)
        seen.append(float(load.max() / load.float().mean()))
        rule(bias, load, 0.003)
    return seen[0], sum(seen[-20:]) / 20


def test_the_bias_balances_what_was_crowded() -> None:
    first, last = crowding(balance_bias)
    assert first > 2
    assert last < 1.25


def test_the_sign_as_printed_feeds_the_crowded_expert() -> None:
    first, last = crowding(printed)
    assert last > first
    assert last > 3.5  # nearly all tokens visit the same two experts


def test_one_update_moves_by_the_rate_and_sums_to_zero() -> None:
    bias = torch.zeros(3)
    balance_bias(bias, torch.tensor([0, 3, 6]), 0.1)
    assert torch.allclose(bias, torch.tensor([1.0, 0.0, -1.0]) * 0.1 * (1.5**0.5))
    assert abs(float(bias.sum())) < 1e-7


def test_a_balanced_load_changes_nothing() -> None:
    bias = torch.tensor([0.5, -0.5])
    balance_bias(bias, torch.tensor([4, 4]), 0.1)
    assert bias.tolist() == [0.5, -0.5]
