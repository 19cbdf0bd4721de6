"""The learning rate over a run, what decays, and the running mean."""

import pytest
import torch
from torch import nn

from unveil.config.run import OptimConfig
from unveil.errors import TrainingError
from unveil.training.optim import build_optimizer, learning_rate, update_average

CONFIG = OptimConfig(lr=0.1, warmup=10, decay=0.25, weight_decay=0.5)


def test_the_rate_goes_up_stays_and_goes_down_to_nearly_zero() -> None:
    rates = [learning_rate(step, 100, CONFIG) for step in range(100)]
    assert rates[:10] == pytest.approx([0.01 * (i + 1) for i in range(10)])
    assert set(rates[10:76]) == {0.1}
    assert rates[76:] == pytest.approx([0.1 * (100 - s) / 25 for s in range(76, 100)])
    assert rates[-1] == pytest.approx(0.004)


def test_without_warmup_and_decay_the_rate_is_constant() -> None:
    plain = OptimConfig(lr=0.3, warmup=0, decay=0)
    assert {learning_rate(step, 7, plain) for step in range(7)} == {0.3}


def test_only_matrices_decay_and_frozen_parameters_are_left_out() -> None:
    module = nn.ModuleDict({"a": nn.Linear(3, 2), "norm": nn.LayerNorm(2), "frozen": nn.Linear(2, 2)})
    module["frozen"].requires_grad_(False)
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimizer = build_optimizer(module, CONFIG)
    for p in module.parameters():
        p.grad = torch.zeros_like(p) if p.requires_grad else None
    optimizer.step()
    after = dict(module.named_parameters())
    assert torch.allclose(after["a.weight"], before["a.weight"] * (1 - 0.1 * 0.5))
    unchanged = [name for name in before if name != "a.weight"]
    assert len(unchanged) == 5 and all(torch.equal(after[n], before[n]) for n in unchanged)


def test_the_betas_and_the_rate_are_the_configured_ones() -> None:
    optimizer = build_optimizer(nn.Linear(2, 2), OptimConfig(lr=0.1, betas=(0.8, 0.9)))
    assert all(group["betas"] == (0.8, 0.9) and group["lr"] == 0.1 for group in optimizer.param_groups)


def test_a_slow_name_that_no_parameter_has_is_refused() -> None:
    slow = {"nothing_like_it": 0.1}
    with pytest.raises(TrainingError, match="no parameter has 'nothing_like_it' in its name; use a part .* 'weight'"):
        build_optimizer(nn.Linear(2, 2), OptimConfig(lr=0.1, slow=slow))


def test_the_mean_forgets_the_start_and_then_moves_with_its_decay() -> None:
    module = nn.Linear(1, 1, bias=False)
    average = {"weight": torch.tensor([[100.0]])}
    nn.init.constant_(module.weight, 1.0)
    update_average(average, module, 0.9, step=0)
    assert average["weight"].item() == pytest.approx(0.1 * 100 + 0.9 * 1)  # min(0.9, 1 / 10)
    nn.init.constant_(module.weight, 3.0)
    update_average(average, module, 0.9, step=1000)
    assert average["weight"].item() == pytest.approx(0.9 * 10.9 + 0.1 * 3)


def test_counters_are_copied_not_averaged() -> None:
    module = nn.BatchNorm1d(1)
    average = {k: v.clone() for k, v in module.state_dict().items()}
    module.num_batches_tracked.fill_(7)
    update_average(average, module, 0.9, step=1000)
    assert average["num_batches_tracked"].item() == 7
