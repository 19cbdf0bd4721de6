"""Norm, rotary positions and attention against hand-computed values and each other."""

import math

import pytest
import torch

from unveil.model.layers.attend import ATTENTION, attend, attend_reference
from unveil.model.layers.norm import RMSNorm
from unveil.model.layers.rotary import rotary_tables, rotate


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64)


def test_norm_divides_by_the_root_mean_square_and_scales() -> None:
    norm = RMSNorm(2, eps=0.5).double()
    norm.weight.data = torch.tensor([2.0, 3.0], dtype=torch.float64)
    root = math.sqrt((9 + 16) / 2 + 0.5)
    assert torch.allclose(norm(torch.tensor([3.0, 4.0]).double()), torch.tensor([6 / root, 12 / root]).double())


def test_norm_in_bfloat16_measures_in_float32_and_rounds_before_the_weight() -> None:
    norm = RMSNorm(64, eps=1e-6).bfloat16()
    norm.weight.data = normal(64, seed=1).bfloat16()
    x = (normal(16, 64) * 100).bfloat16()
    wide = x.float()
    expected = (wide * torch.rsqrt((wide * wide).mean(-1, keepdim=True) + 1e-6)).bfloat16() * norm.weight
    assert torch.equal(norm(x), expected)


def test_rotation_pairs_dimension_j_with_j_plus_half_and_leaves_the_rest() -> None:
    cos, sin = rotary_tables(torch.tensor([3]), 4, 100.0, torch.float64)
    c, s = [math.cos(3), math.cos(0.3)], [math.sin(3), math.sin(0.3)]
    turned = rotate(torch.tensor([[1.0, 2.0, 3.0, 4.0, 5.0, 6.0]]).double(), cos, sin)
    expected = [1 * c[0] - 3 * s[0], 2 * c[1] - 4 * s[1], 3 * c[0] + 1 * s[0], 4 * c[1] + 2 * s[1], 5.0, 6.0]
    assert turned[0].tolist() == pytest.approx(expected, rel=1e-12)


def test_a_product_of_rotated_vectors_depends_only_on_their_distance() -> None:
    q, k = normal(1, 8), normal(1, 8, seed=1)

    def product(q_at: int, k_at: int) -> float:
        turned = [
            rotate(x, *rotary_tables(torch.tensor([p]), 8, 1e4, torch.float64)) for x, p in ((q, q_at), (k, k_at))
        ]
        return (turned[0] @ turned[1].T).item()

    assert product(7, 3) == pytest.approx(product(107, 103), rel=1e-9)
    assert product(7, 3) != pytest.approx(product(8, 3), rel=1e-3)


def test_bfloat16_tables_are_float32_tables_rounded_once() -> None:
    positions = torch.tensor([8191, 5003])
    narrow = rotary_tables(positions, 64, 6e5, torch.bfloat16)
    wide = rotary_tables(positions, 64, 6e5, torch.float32)
    assert all(torch.equal(n, w.bfloat16()) for n, w in zip(narrow, wide, strict=True))


def test_the_reference_equals_attention_written_for_one_query_at_a_time() -> None:
    q, k, v = normal(1, 4, 3, 8), normal(1, 2, 5, 8, seed=1), normal(1, 2, 5, 8, seed=2)
    visible = torch.rand(3, 5, generator=torch.Generator().manual_seed(3)) > 0.4
    visible[:, 0] = True
    mixed = attend_reference(q, k, v, visible[None, None])
    for head in range(4):
        for row in range(3):
            keys = [j for j in range(5) if visible[row, j]]
            scores = torch.stack([q[0, head, row] @ k[0, head // 2, j] / math.sqrt(8) for j in keys])
            expected = scores.softmax(0) @ v[0, head // 2, keys]
            assert torch.allclose(mixed[0, head, row], expected, atol=1e-12)


@pytest.mark.parametrize("name", sorted(ATTENTION))
@pytest.mark.parametrize("kv_heads", [1, 2, 6])
def test_every_attention_entry_equals_the_reference_in_value_and_gradient(name: str, kv_heads: int) -> None:
    inputs = [normal(2, heads, 9, 8, seed=i).requires_grad_() for i, heads in enumerate((6, kv_heads, kv_heads))]
    visible = torch.rand(2, 1, 9, 9, generator=torch.Generator().manual_seed(3)) > 0.5
    visible[1, 0, 4] = False
    results = []
    for entry in (ATTENTION[name], attend_reference):
        mixed = entry(inputs[0], inputs[1], inputs[2], visible)
        results.append((mixed, *torch.autograd.grad((mixed * normal(2, 6, 9, 8, seed=7)).sum(), inputs)))
    assert all(torch.allclose(a, b, atol=1e-12) for a, b in zip(*results, strict=True))


@pytest.mark.parametrize("name", sorted(ATTENTION))
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_a_row_that_sees_nothing_is_exactly_zero_with_finite_gradients(name: str, dtype: torch.dtype) -> None:
    q, k, v = (normal(1, 2, 4, 8, seed=i).to(dtype).requires_grad_() for i in range(3))
    visible = torch.ones(1, 1, 4, 4, dtype=torch.bool).tril(-1)
    mixed = ATTENTION[name](q, k, v, visible)
    mixed.float().square().sum().backward()
    assert torch.equal(mixed[:, :, 0], torch.zeros(1, 2, 8, dtype=dtype))
    assert mixed[:, :, 1:].abs().min() > 0
    assert all(x.grad is not None and x.grad.isfinite().all() for x in (q, k, v))
    assert torch.equal(q.grad[:, :, 0], torch.zeros(1, 2, 8, dtype=dtype))  # type: ignore[index]


def test_invisible_keys_change_nothing() -> None:
    q, k, v = (normal(1, 2, 4, 8, seed=i) for i in range(3))
    visible = torch.tensor([True, True, False, True]).expand(1, 1, 4, 4)
    before = attend(q, k, v, visible)
    k[:, :, 2], v[:, :, 2] = 1e3, -1e3
    assert torch.equal(attend(q, k, v, visible), before)
