"""The router's choice and weights, and every way of applying the experts."""

import pytest
import torch
from torch.overrides import TorchFunctionMode

from unveil.config import load_preset
from unveil.model.backbone import experts as module
from unveil.model.backbone.experts import EXPERTS, ExpertWeights, apply_experts_reference, gated_mlp
from unveil.model.backbone.router import Router, choose_experts, weigh_experts

CONFIG = load_preset("tiny").backbone.model_copy(
    update={"width": 16, "experts": 16, "groups": 4, "kept_groups": 2, "chosen_experts": 4, "expert_width": 8}
)


def normal(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def router() -> Router:
    made = Router(CONFIG)
    made.weight.data = normal(CONFIG.experts, CONFIG.width, seed=1) * 0.3
    return made


def test_weights_sum_to_the_routed_scale() -> None:
    routing = router()(normal(50, 16))
    assert torch.allclose(routing.weights.sum(-1), torch.full((50,), CONFIG.routed_scale))


def test_no_choice_leaves_the_kept_groups() -> None:
    for seed in range(5):
        chosen = choose_experts(normal(40, 16, seed=seed) - 3.0, CONFIG)
        assert all(len({int(e) // 4 for e in row}) <= CONFIG.kept_groups for row in chosen)
        assert all(len(set(row.tolist())) == CONFIG.chosen_experts for row in chosen)


def test_groups_are_ranked_by_the_sum_of_their_two_best() -> None:
    scores = torch.zeros(1, 16)
    scores[0, [0]] = 1.0  # the best single expert, alone in its group: 1.0
    scores[0, [4, 5]] = 0.6  # 1.2
    scores[0, [8, 9]] = 0.7  # 1.4
    scores[0, [12, 13, 14, 15]] = 0.45  # 0.9, though 1.8 in total
    assert sorted(choose_experts(scores, CONFIG)[0].tolist()) == [4, 5, 8, 9]


def test_dropped_groups_lose_even_when_kept_scores_are_negative() -> None:
    scores = torch.full((1, 16), -0.5)
    scores[0, 8:] = -0.4
    scores[0, [8, 12]] = -5.0
    scores[0, [0, 4]] = -0.45  # groups 0 and 1: best two sum to -0.95, groups 2 and 3: -0.8
    chosen = choose_experts(scores, CONFIG)[0]
    assert all(int(e) >= 8 for e in chosen)


def test_the_bias_steers_the_choice_and_leaves_the_weights_unbiased() -> None:
    made, x = router(), normal(30, 16)
    made.expert_bias[3] = 10.0
    routing = made(x)
    assert (routing.chosen == 3).any(-1).all()
    picked = routing.logits.sigmoid().gather(-1, routing.chosen)
    assert torch.allclose(routing.weights, picked / picked.sum(-1, keepdim=True) * CONFIG.routed_scale)


def test_weights_of_vanishing_scores_are_finite() -> None:
    weights = weigh_experts(torch.zeros(1, 16), torch.tensor([[0, 1, 2, 3]]), 2.5)
    assert torch.equal(weights, torch.zeros(1, 4))


def test_the_load_counts_each_visit_once() -> None:
    routing = router()(normal(33, 16))
    assert routing.load().sum() == 33 * CONFIG.chosen_experts
    assert routing.load()[5] == (routing.chosen == 5).sum()


def test_routing_runs_in_float32_for_bfloat16_states_and_under_autocast() -> None:
    made, x = router(), normal(64, 16).bfloat16()
    expected = x.float() @ made.weight.T
    with torch.autocast("cpu", torch.bfloat16):
        routing = made(x)
    assert routing.logits.dtype == routing.weights.dtype == torch.float32
    assert torch.allclose(routing.logits, expected, atol=1e-6)


def test_routing_of_float64_states_stays_in_float64() -> None:
    routing = router().double()(normal(4, 16).double())
    assert routing.weights.dtype == torch.float64


def weights(dtype: torch.dtype = torch.float64) -> ExpertWeights:
    shapes = ((16, 8, 16), (16, 8, 16), (16, 16, 8))
    return ExpertWeights(*(normal(*s, seed=i).to(dtype).requires_grad_() for i, s in enumerate(shapes)))


def test_the_reference_is_the_weighted_sum_of_the_chosen_experts() -> None:
    x, experts = normal(3, 16).double(), weights()
    chosen, share = torch.tensor([[0, 5], [5, 7], [15, 0]]), torch.rand(3, 2).double()
    mixed = apply_experts_reference(x, experts, chosen, share)
    for n in range(3):
        terms = [share[n, k] * gated_mlp(x[n : n + 1], *(w[chosen[n, k]] for w in experts))[0] for k in range(2)]
        assert torch.allclose(mixed[n], terms[0] + terms[1], atol=1e-12)


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_every_experts_entry_equals_the_reference_in_value_and_gradient(name: str) -> None:
    dtype = torch.float32 if name == "grouped" else torch.float64  # the grouped product has no float64
    experts, x = weights(dtype), normal(40, 16).to(dtype).requires_grad_()
    logits = normal(40, 10, seed=5).to(dtype)  # experts 10..15 receive nobody
    share = logits.softmax(-1).topk(4).values.detach().requires_grad_()
    chosen = logits.topk(4).indices
    results = []
    for entry in (EXPERTS[name], apply_experts_reference):
        mixed = entry(x, experts, chosen, share)
        results.append((mixed, *torch.autograd.grad((mixed**2).sum(), [x, share, *experts])))
    near = 1e-5 if name == "grouped" else 1e-13
    for got, expected in zip(*results, strict=True):
        assert (got - expected).abs().max() <= near * expected.abs().max()


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_an_expert_without_visitors_has_a_gradient_of_zero_not_none(name: str) -> None:
    experts = weights(torch.float32)
    EXPERTS[name](normal(4, 16), experts, torch.tensor([[1, 2]] * 4), torch.ones(4, 2)).sum().backward()
    for w in experts:
        assert w.grad is not None
        assert torch.equal(w.grad[5], torch.zeros_like(w[5]))
        assert w.grad[1].abs().max() > 0


@pytest.mark.parametrize("name", sorted(EXPERTS))
def test_bfloat16_visits_are_summed_in_float32(name: str) -> None:
    experts, x = weights(torch.bfloat16), normal(20, 16).bfloat16()
    chosen = normal(20, 16, seed=3).topk(4).indices
    share = torch.rand(20, 4, generator=torch.Generator().manual_seed(1))
    mixed = EXPERTS[name](x, experts, chosen, share)
    outs = [[gated_mlp(x[n : n + 1], *(w[e] for w in experts))[0].float() for e in chosen[n]] for n in range(20)]
    expected = torch.stack([(torch.stack(o) * s[:, None]).sum(0) for o, s in zip(outs, share, strict=True)])
    assert mixed.dtype == torch.bfloat16
    assert torch.allclose(mixed.float(), expected, rtol=2**-8, atol=1e-5)  # one rounding, not one per addition


@pytest.mark.parametrize(
    ("dtype", "shape", "grouped"),
    [
        (torch.float32, (16, 8, 16), True),
        (torch.float32, (16, 3, 16), False),  # rows of 12 bytes
        (torch.bfloat16, (16, 8, 16), False),  # on a CPU a kernel for every number of rows
        (torch.float64, (16, 8, 16), False),
    ],
)
def test_the_engine_groups_what_can_be_grouped_and_sorts_the_rest(monkeypatch, dtype, shape, grouped) -> None:
    e, f, d = shape
    experts = ExpertWeights(*(normal(*s).to(dtype) for s in ((e, f, d), (e, f, d), (e, d, f))))
    used = []
    for name in ("grouped", "sorted"):
        entry = f"apply_experts_{name}"
        real = getattr(module, entry)
        monkeypatch.setattr(module, entry, lambda *given, n=name, real=real: (used.append(n), real(*given))[1])
    given = normal(5, d).to(dtype), experts, torch.tensor([[0, 3]] * 5), torch.ones(5, 2, dtype=dtype)
    sampled = module.apply_experts_sampling(*given)
    assert used == ["grouped" if grouped else "sorted"]
    trained = module.apply_experts(*given)
    assert torch.allclose(sampled, trained, rtol=1e-2 if dtype == torch.bfloat16 else 1e-5)


@pytest.mark.parametrize(("dtype", "rounded"), [(torch.bfloat16, True), (torch.float32, False)])
def test_in_half_precision_a_cpu_meets_few_numbers_of_rows_and_every_token_gets_its_own(dtype, rounded) -> None:
    experts, x = weights(dtype), normal(120, 16).to(dtype)
    chosen = torch.cat([torch.full((n,), n, dtype=torch.long) for n in range(16)])[:, None]  # n tokens to expert n
    share = torch.ones(120, 1, dtype=dtype)
    with Rows() as met:
        mixed = module.apply_experts_sorted(x, experts, chosen, share)
    assert met.seen - {0} == ({1, 2, 4, 8, 16} if rounded else set(range(1, 16)))
    expected = apply_experts_reference(x, experts, chosen, share)
    assert torch.allclose(mixed, expected, rtol=2**-7 if rounded else 1e-5, atol=1e-4)


class Rows(TorchFunctionMode):
    """Notes how many rows each product has."""

    def __init__(self) -> None:
        super().__init__()
        self.seen = set[int]()

    def __torch_function__(self, func, types, args=(), kwargs=None):
        if func is torch.nn.functional.linear:
            self.seen.add(len(args[0]))
        return func(*args, **(kwargs or {}))
