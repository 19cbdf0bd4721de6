"""Our backbone computes what the official code computed: groups a to d of the recorded cases."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.model.backbone import Backbone
from unveil.model.backbone.layer import Layer, MixtureOfExperts
from unveil.model.layers.rotary import rotary_tables
from unveil.vocab.text import Text
from unveil.weights.names import to_official
from unveil.weights.official import load_official_backbone, official_config

HERE = Path(__file__).parent / "backbone-A"
CASES = {case["name"]: case for case in json.loads((HERE / "manifest.json").read_text())["cases"]}
FORWARD = [name for name in CASES if CASES[name]["kind"] == "forward"]
Case = Callable[[str], dict[str, torch.Tensor]]


@pytest.fixture(scope="module")
def arrays() -> dict[str, torch.Tensor]:
    return load_file(HERE / "goldens.safetensors")


@pytest.fixture(scope="module")
def case(arrays: dict[str, torch.Tensor]) -> Case:
    """The arrays of one case by their short names; integers as int64."""

    def of(name: str) -> dict[str, torch.Tensor]:
        found = {key.removeprefix(f"{name}/"): value for key, value in arrays.items() if key.startswith(f"{name}/")}
        return {key: value.long() if value.dtype == torch.int32 else value for key, value in found.items()}

    return of


def read(dtype: torch.dtype) -> Backbone:
    checkpoint = HERE / "checkpoint"
    config, vocab = official_config(checkpoint, Text.load(checkpoint / "tokenizer.json"))
    model = Backbone(config, vocab)
    model.load_state_dict(load_official_backbone(checkpoint, config, vocab), strict=True)
    return model.to(dtype)


@pytest.fixture(scope="module")
def backbone() -> Backbone:
    return read(torch.float32)


def agree(ours: torch.Tensor, theirs: torch.Tensor, tolerance: float = 1e-4) -> None:
    assert ours.shape == theirs.shape
    assert ours.dtype == theirs.dtype
    worst = (ours - theirs).abs().max().item() / theirs.abs().max().item()
    assert worst <= tolerance, f"differs by {worst:.2e} of the largest value"


def mixture(backbone: Backbone, layer: int) -> MixtureOfExperts:
    found = backbone.model.layers[layer].mlp
    assert isinstance(found, MixtureOfExperts)
    return found


@torch.no_grad()
@pytest.mark.parametrize("name", ["a1_router", "a2_router_negative_bias"])
def test_the_router_chooses_and_weighs_as_the_official_one(backbone: Backbone, case: Case, name: str) -> None:
    given, router = case(name), mixture(backbone, 1).gate
    before = router.expert_bias.clone()
    router.expert_bias.copy_(given.get("expert_bias", before))
    routing = router(given["hidden"][0])
    router.expert_bias.copy_(before)
    chosen, order = routing.chosen.sort(-1)
    assert torch.equal(chosen, given["idx_sorted"])
    agree(routing.weights.gather(-1, order), given["weight_sorted"])
    agree(routing.logits, given["router_logits"])


@torch.no_grad()
@pytest.mark.parametrize("index", [0, 1, 2])
def test_single_layers_equal_the_official_ones(backbone: Backbone, case: Case, index: int) -> None:
    given, layer = case(f"b_layer{index}"), backbone.model.layers[index]
    assert isinstance(layer, Layer)
    x, visible = given["hidden"], given["mask"]
    config = backbone.config
    dims = int(config.head_dim * config.rotary_fraction)
    cos, sin = rotary_tables(given["position_ids"], dims, config.rope_theta, torch.float32)
    tables = cos[:, None], sin[:, None]
    attended, _ = layer.attention(layer.input_layernorm(x), tables, visible, None)
    mixed = layer.mlp(x)
    agree(attended, given["attention_out"])
    agree(mixed[0] if isinstance(mixed, tuple) else mixed, given["ffn_of_hidden"])
    agree(layer(x, tables, visible, None)[0], given["layer_out"])


def test_rotary_tables_equal_the_official_ones(backbone: Backbone, case: Case) -> None:
    given = case("b_rope")
    tables = rotary_tables(given["position_ids"], 8, backbone.config.rope_theta, torch.float32)
    for ours, name in zip(tables, ("cos", "sin"), strict=True):
        agree(torch.cat((ours, ours), -1), given[name])


def visible_in(given: dict[str, torch.Tensor]) -> torch.Tensor:
    """The recorded mask; a 2-D padding mask means that valid tokens see one another in both directions."""
    if "mask" in given:
        return given["mask"]
    valid = given["mask2d"].bool()
    return valid[:, None, :].expand(-1, valid.shape[1], -1)


def positions_in(given: dict[str, torch.Tensor]) -> torch.Tensor:
    return given.get("position_ids", torch.arange(given["input_ids"].shape[1]))


@torch.no_grad()
@pytest.mark.parametrize("name", FORWARD)
def test_logits_and_cached_keys_of_whole_passes_equal_the_official_ones(
    backbone: Backbone, case: Case, name: str
) -> None:
    given = case(name)
    states, past = backbone.hidden(given["input_ids"], positions_in(given), visible_in(given))
    logits, expected = backbone.logits(states), given["logits"]
    if "mask2d" in given:
        logits, expected = (x[given["mask2d"].bool()] for x in (logits, expected))
    agree(logits, expected)
    if "key_cache" in given:
        agree(torch.stack([k for k, _ in past]), given["key_cache"])
        agree(torch.stack([v for _, v in past]), given["value_cache"])


@torch.no_grad()
@pytest.mark.parametrize("name", ["c1_forward", "c9_forward_block32", "b_layer1"])
def test_our_block_causal_mask_is_the_official_one(case: Case, name: str) -> None:
    expected = case(name)["mask"]
    blocks = block_of(torch.arange(expected.shape[-1]), CASES[name]["params"]["block"])
    assert torch.equal(visible_block_causal(blocks, blocks).expand_as(expected), expected)


@torch.no_grad()
def test_states_between_layers_and_every_routing_equal_the_official_ones(backbone: Backbone, case: Case) -> None:
    given = case("c1_forward")
    inputs: list[torch.Tensor] = []
    routings: list[Any] = []
    hooks = [layer.register_forward_pre_hook(lambda _, args: inputs.append(args[0])) for layer in backbone.model.layers]
    routers = [mixture(backbone, i).gate for i in (1, 2)]
    hooks += [router.register_forward_hook(lambda _, args, out: routings.append(out)) for router in routers]
    final, _ = backbone.hidden(given["input_ids"], positions_in(given), given["mask"])
    for hook in hooks:
        hook.remove()
    agree(torch.stack([*inputs, final]), given["hidden_states"])
    agree(torch.stack([r.logits[None] for r in routings]), given["router_logits"])
    assert torch.equal(torch.stack([r.chosen[None] for r in routings]).sort(-1).values, given["router_idx_sorted"])


@torch.no_grad()
def test_a_pass_on_top_of_cached_keys_equals_the_official_one(backbone: Backbone, case: Case) -> None:
    given, prefix = case("c5_forward_kv_cache"), CASES["c5_forward_kv_cache"]["params"]["prefix"]
    ids, visible = given["input_ids"], case("c1_forward")["mask"]
    _, past = backbone.hidden(ids[:, :prefix], torch.arange(prefix), visible[..., :prefix, :prefix])
    agree(torch.stack([k for k, _ in past]), given["key_cache"])
    agree(torch.stack([v for _, v in past]), given["value_cache"])
    agree(backbone(ids[:, prefix:], torch.arange(prefix, ids.shape[1]), given["mask"], past), given["logits"])


@torch.no_grad()
def test_embeddings_as_input_equal_the_official_result(backbone: Backbone, case: Case) -> None:
    given = case("c8_forward_inputs_embeds")
    embedded = given["inputs_embeds"]
    states, _ = backbone.hidden(embedded, torch.arange(embedded.shape[1]), given["mask"])
    agree(backbone.logits(states), given["logits"])


@torch.no_grad()
def test_bfloat16_is_as_near_as_expert_flips_allow(case: Case) -> None:
    given = case("c10_forward_bfloat16")
    logits = read(torch.bfloat16)(given["input_ids"], positions_in(given), given["mask"])
    assert (logits - given["logits"]).norm() < 0.3 * given["logits"].norm()


def test_loss_and_gradients_equal_the_official_ones(case: Case) -> None:
    name = "d1_loss_and_gradients"
    given, norms = case(name), CASES[name]["params"]["grad_norms"]
    model = read(torch.float32)
    logits = model(given["input_ids"], positions_in(given), given["mask"])
    loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), given["labels"].flatten(), ignore_index=-100)
    loss.backward()
    assert loss.item() == pytest.approx(given["loss_train"].item(), rel=1e-4)
    gradients = to_official({key: p.grad for key, p in model.named_parameters() if p.grad is not None})
    assert gradients.keys() == norms.keys()
    for key, norm in norms.items():
        assert gradients[key].norm().item() == pytest.approx(norm, rel=1e-3), key
    for key in (k for k in given if k.startswith("grad:")):
        agree(gradients[key.removeprefix("grad:")], given[key], 1e-3)
    rows = gradients["model.word_embeddings.weight"].norm(dim=-1)
    agree(rows, given["embedding_grad_row_norms"], 1e-3)
