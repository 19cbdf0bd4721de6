"""The backbone as a whole: names, start values, caching, batching, and where the head runs."""

import pytest
import torch

from unveil.config import load_preset
from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.model.backbone import Backbone

TINY = load_preset("tiny")
CONFIG = TINY.backbone.model_copy(update={"layers": 3, "block_size": 4})
LENGTH = 18


def backbone(seed: int = 0) -> Backbone:
    """Wide start values, so that attention is far from uniform and a wrong mask or position shows."""
    config = CONFIG.model_copy(update={"initializer_range": 0.1})
    return Backbone(config, TINY.vocab).double().initialize(torch.Generator().manual_seed(seed))


def ids(rows: int = 2, length: int = LENGTH) -> torch.Tensor:
    return torch.randint(0, TINY.vocab.size, (rows, length), generator=torch.Generator().manual_seed(1))


def block_causal(length: int = LENGTH) -> torch.Tensor:
    blocks = block_of(torch.arange(length), CONFIG.block_size)
    return visible_block_causal(blocks, blocks)


def close(a: torch.Tensor, b: torch.Tensor) -> bool:
    return torch.allclose(a, b, rtol=0, atol=1e-12 * b.abs().max().item())


def test_start_values_are_normal_for_matrices_one_for_norms_zero_for_the_bias() -> None:
    model = Backbone(CONFIG, TINY.vocab).initialize(torch.Generator().manual_seed(0))
    for name, value in model.state_dict().items():
        if name.endswith("expert_bias"):
            assert torch.equal(value, torch.zeros_like(value))
        elif "norm" in name:
            assert torch.equal(value, torch.ones_like(value))
        else:
            assert value.std().item() == pytest.approx(CONFIG.initializer_range, rel=0.05)


def test_the_same_seed_gives_the_same_weights_and_another_gives_others() -> None:
    first, again, other = (backbone(seed).state_dict() for seed in (0, 0, 1))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["lm_head.weight"], other["lm_head.weight"])


@torch.no_grad()
def test_logits_with_a_cached_prefix_equal_logits_without() -> None:
    model, tokens, visible = backbone(), ids(), block_causal()
    whole = model(tokens, torch.arange(LENGTH), visible)
    _, past = model.hidden(tokens[:, :8], torch.arange(8), visible[:8, :8])
    middle, past = model.hidden(tokens[:, 8:12], torch.arange(8, 12), visible[8:12, :12], past)
    tail = model(tokens[:, 12:], torch.arange(12, LENGTH), visible[12:], past)
    assert close(torch.cat((model.logits(middle), tail), 1), whole[:, 8:])


@torch.no_grad()
def test_a_batch_of_three_equals_three_batches_of_one() -> None:
    model, tokens = backbone(), ids(3)
    blocks = torch.stack([block_of(torch.arange(LENGTH) + shift, 4) for shift in range(3)])
    positions = torch.arange(LENGTH) + torch.tensor([[0], [5], [40]])
    visible = visible_block_causal(blocks, blocks)
    together = model(tokens, positions, visible)
    for row in range(3):
        assert close(model(tokens[row : row + 1], positions[row : row + 1], visible[row]), together[row : row + 1])


@torch.no_grad()
def test_only_visible_tokens_matter() -> None:
    model, tokens = backbone(), ids()
    before = model(tokens, torch.arange(LENGTH), block_causal())
    changed = tokens.clone()
    changed[:, 8] += 1  # first token of block 2
    after = model(changed, torch.arange(LENGTH), block_causal())
    assert close(after[:, :8], before[:, :8])
    assert ((before - after)[:, 8:].abs().amax(-1) > 1e-6).all()


@torch.no_grad()
def test_logits_depend_on_distances_not_on_absolute_positions() -> None:
    model, tokens = backbone(), ids()
    near, far, spread = (model(tokens, p, block_causal()) for p in _positions())
    assert torch.allclose(near, far, atol=1e-9)
    assert (near - spread).abs().max() > 1e-3


def _positions() -> list[torch.Tensor]:
    return [torch.arange(LENGTH), torch.arange(LENGTH) + 100, torch.arange(LENGTH) * 2]


@torch.no_grad()
def test_the_head_runs_only_at_the_chosen_positions() -> None:
    model, tokens = backbone(), ids()
    whole = model(tokens, torch.arange(LENGTH), block_causal())
    pairs = torch.tensor([[0, 3], [1, 0], [1, 17], [0, 3]])
    at_pairs = model(tokens, torch.arange(LENGTH), block_causal(), at=pairs)
    at_slice = model(tokens, torch.arange(LENGTH), block_causal(), at=slice(12, 16))
    assert close(at_pairs, torch.stack([whole[0, 3], whole[1, 0], whole[1, 17], whole[0, 3]]))
    assert close(at_slice, whole[:, 12:16])


@torch.no_grad()
def test_masks_may_be_shared_per_row_or_carry_a_head_axis() -> None:
    model, tokens, shared = backbone(), ids(), block_causal()
    expected = model(tokens, torch.arange(LENGTH), shared)
    per_row = shared.expand(2, LENGTH, LENGTH)
    assert torch.equal(model(tokens, torch.arange(LENGTH), per_row), expected)
    assert torch.equal(model(tokens, torch.arange(LENGTH), per_row[:, None]), expected)


@torch.no_grad()
def test_embeddings_may_replace_ids() -> None:
    model, tokens = backbone(), ids()
    expected, _ = model.hidden(tokens, torch.arange(LENGTH), block_causal())
    embedded, _ = model.hidden(model.model.word_embeddings(tokens), torch.arange(LENGTH), block_causal())
    assert torch.equal(embedded, expected)


@torch.no_grad()
def test_loads_count_the_visits_of_every_mixture_layer() -> None:
    loads: list[torch.Tensor] = []
    backbone()(ids(), torch.arange(LENGTH), block_causal(), loads=loads)
    assert [load.shape for load in loads] == [(CONFIG.experts,)] * (CONFIG.layers - CONFIG.dense_layers)
    assert all(load.sum() == 2 * LENGTH * CONFIG.chosen_experts for load in loads)


def test_every_parameter_gets_a_gradient_and_the_pad_row_gets_zero() -> None:
    model, tokens = backbone(), ids(1, 6)
    tokens[0, 2] = TINY.vocab.pad
    model(tokens, torch.arange(6), block_causal(6)).square().mean().backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []
    rows = model.model.word_embeddings.weight.grad.abs().amax(-1)  # type: ignore[union-attr]
    assert rows[TINY.vocab.pad] == 0
    assert (rows[tokens[0, [0, 1, 3, 4, 5]]] > 0).all()


def test_two_runs_give_the_same_gradients_bit_for_bit() -> None:
    def gradients() -> list[torch.Tensor]:
        model = backbone().float()
        loss = model(ids(), torch.arange(LENGTH), block_causal()).square().mean()
        return list(torch.autograd.grad(loss, list(model.parameters())))

    assert all(torch.equal(a, b) for a, b in zip(gradients(), gradients(), strict=True))


@torch.no_grad()
def test_a_bfloat16_backbone_gives_float32_logits_near_the_exact_ones() -> None:
    tokens = ids()
    exact = backbone()(tokens, torch.arange(LENGTH), block_causal())
    rounded = backbone().bfloat16()(tokens, torch.arange(LENGTH), block_causal())
    assert rounded.dtype == torch.float32
    assert (rounded - exact).norm() < 0.3 * exact.norm()  # a few near-tied experts flip
