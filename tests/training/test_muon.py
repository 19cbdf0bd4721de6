"""Orthogonal steps: every direction of a matrix moves alike, whatever its gradient's size."""

import pytest
import torch
from torch import nn

from unveil.config.run import OptimConfig
from unveil.training.muon import Muon, orthogonalize
from unveil.training.optim import build_optimizer


@pytest.mark.parametrize("shape", [(12, 12), (8, 20), (20, 8), (3, 6, 10)])
def test_singular_values_end_near_one_and_singular_vectors_stay(shape: tuple[int, ...]) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    turned = orthogonalize(matrix)
    values = torch.linalg.svdvals(turned)
    assert values.min() > 0.5 and values.max() < 1.3
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.mT @ turned @ v.mT  # diagonal where the vectors are kept
    assert torch.allclose(inner, torch.diag_embed(inner.diagonal(dim1=-2, dim2=-1)), atol=1e-4)
    assert torch.allclose(orthogonalize(matrix * 1e-4), turned, atol=1e-3)  # the size of a gradient does not count


def test_a_stack_is_turned_matrix_by_matrix() -> None:
    stack = (
        torch.randn(4, 5, 7, generator=torch.Generator().manual_seed(0)) * torch.tensor([1, 10, 0.1, 1])[:, None, None]
    )
    assert torch.allclose(orthogonalize(stack), torch.stack([orthogonalize(m) for m in stack]), atol=1e-5)


def test_the_first_step_is_the_formula() -> None:
    layers = nn.Sequential(nn.Linear(6, 4, bias=False))
    weight = nn.ModuleDict({"layers": layers}).get_parameter("layers.0.weight")
    before, gradient = weight.detach().clone(), torch.randn(4, 6, generator=torch.Generator().manual_seed(0))
    config = OptimConfig(lr=0.1, orthogonal=2.0, weight_decay=0.5, momentum=0.9)
    optimizer = build_optimizer(nn.ModuleDict({"layers": layers}), config)
    assert isinstance(optimizer, Muon)
    for group in optimizer.param_groups:
        group["lr"] = 0.1 * group["scale"]
    weight.grad = gradient.clone()
    optimizer.step()
    # Nesterov at the first step: a positive multiple of the gradient, so the direction is the gradient's
    expected = before * (1 - 0.2 * 0.5) - 0.2 * 0.2 * 6**0.5 * orthogonalize(gradient)
    assert torch.allclose(weight, expected, atol=1e-5)


def test_only_matrices_of_numbered_modules_are_turned() -> None:
    module = nn.ModuleDict(
        {
            "layers": nn.ModuleList([nn.ModuleDict({"in": nn.Linear(4, 4), "conv": nn.Conv2d(2, 2, 1)})]),
            "head": nn.Linear(4, 4),
            "words": nn.Embedding(5, 4),
        }
    )
    turned = {
        id(p)
        for g in build_optimizer(module, OptimConfig(lr=1, orthogonal=1.0)).param_groups
        if g["orthogonal"]
        for p in g["params"]
    }
    assert [n for n, p in module.named_parameters() if id(p) in turned] == ["layers.0.in.weight"]
    plain = build_optimizer(module, OptimConfig(lr=1))
    assert not any(group["orthogonal"] for group in plain.param_groups)


def test_momentum_carries_an_older_gradient_on() -> None:
    weight = nn.Parameter(torch.zeros(2, 2))
    group = {"params": [weight], "orthogonal": True, "momentum": 0.5, "weight_decay": 0.0}
    optimizer = Muon([group], lr=1.0)
    for gradient in (torch.eye(2), torch.tensor([[0.0, 1.0], [-1.0, 0.0]])):
        weight.grad = gradient.clone()
        optimizer.step()
    # momentum 0.5 e, then 0.25 e + 0.5 r; the step uses the mean of that and r
    second = orthogonalize(0.125 * torch.eye(2) + 0.75 * torch.tensor([[0.0, 1.0], [-1.0, 0.0]]))
    assert torch.allclose(weight, -0.2 * 2**0.5 * (orthogonalize(torch.eye(2)) + second), atol=1e-4)
