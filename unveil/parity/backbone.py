"""The backbone's parts and whole passes: router, layers, rotary tables, logits, loss and gradients."""

from collections.abc import Iterator
from typing import Any

import torch

from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.model.backbone import Backbone
from unveil.model.backbone.layer import Layer, MixtureOfExperts
from unveil.model.layers.rotary import rotary_tables
from unveil.parity.golden import Case
from unveil.parity.judge import Check
from unveil.parity.models import BackboneSide
from unveil.shapes import Bool, Float, Int, Tensor
from unveil.weights.names import to_official

_SAME_LENGTH = "relative 1e-3"  # of a gradient, by its norm


@torch.no_grad()
def router(models: BackboneSide, case: Case) -> Iterator[Check]:
    """Which experts are chosen, and how they are weighed."""
    mixture = _layer(models, case).mlp
    if not isinstance(mixture, MixtureOfExperts):
        raise ValueError(f"layer {case.params['layer']} has no router")
    gate, bias = mixture.gate, mixture.gate.expert_bias.clone()
    try:
        gate.expert_bias.copy_(case.inputs.get("expert_bias", bias))
        routing = gate(case.inputs["hidden"].flatten(0, -2))
    finally:
        gate.expert_bias.copy_(bias)
    chosen, order = routing.chosen.sort(-1)
    yield Check("idx_sorted", chosen)
    yield Check("weight_sorted", routing.weights.gather(-1, order))
    yield Check("router_logits", routing.logits)


@torch.no_grad()
def layer(models: BackboneSide, case: Case) -> Iterator[Check]:
    """A layer and its two halves."""
    part, x, visible = _layer(models, case), case.inputs["hidden"], case.inputs["mask"]
    cos, sin = _rotary(models, case.inputs["position_ids"])
    tables = cos[:, None], sin[:, None]
    mixed = part.mlp(x)
    yield Check("attention_out", part.attention(part.input_layernorm(x), tables, visible, None)[0])
    yield Check("ffn_of_hidden", mixed[0] if isinstance(mixed, tuple) else mixed)
    yield Check("layer_out", part(x, tables, visible, None)[0])


def rope(models: BackboneSide, case: Case) -> Iterator[Check]:
    """The tables, which the official code holds twice side by side."""
    for name, table in zip(("cos", "sin"), _rotary(models, case.inputs["position_ids"]), strict=True):
        yield Check(name, torch.cat((table, table), -1))


def forward(models: BackboneSide, case: Case) -> Iterator[Check]:
    """A whole pass over ids."""
    return _pass(models.backbone, case, case.inputs["input_ids"])


def forward_embeds(models: BackboneSide, case: Case) -> Iterator[Check]:
    """A whole pass over embeddings."""
    return _pass(models.backbone, case, case.inputs["inputs_embeds"])


def forward_bf16(models: BackboneSide, case: Case) -> Iterator[Check]:
    """A whole pass with weights in bfloat16."""
    return _pass(models.read(torch.bfloat16).eval(), case, case.inputs["input_ids"])


@torch.no_grad()
def forward_cached(models: BackboneSide, case: Case) -> Iterator[Check]:
    """Tokens on top of the cached keys and values of those before."""
    ids, prefix, network = case.inputs["input_ids"], case.params["prefix"], models.backbone
    blocks = block_of(torch.arange(prefix), case.params["block"])
    before = visible_block_causal(blocks, blocks).expand(len(ids), -1, -1)
    _, past = network.hidden(ids[:, :prefix], torch.arange(prefix), before)
    yield Check("key_cache", torch.stack([keys for keys, _ in past]))
    yield Check("value_cache", torch.stack([values for _, values in past]))
    positions = case.inputs.get("position_ids", torch.arange(prefix, ids.shape[1]))
    yield Check("logits", network(ids[:, prefix:], positions, case.inputs["mask"], past))


def loss(models: BackboneSide, case: Case) -> Iterator[Check]:
    """Mean cross-entropy, and what it does to every parameter."""
    network, recorded = models.read(torch.float32), case.params.get("grad_norms", {})
    with torch.no_grad():
        yield Check("loss_eval", _cross_entropy(network.eval(), case).reshape(1))
    found = _cross_entropy(network.train(), case)
    found.backward()
    yield Check("loss_train", found.detach().reshape(1))
    gradients = to_official({n: p.grad for n, p in network.named_parameters() if p.grad is not None})
    untouched = set(case.params.get("parameters_without_gradient", []))
    for name in sorted({*recorded, *gradients} - untouched if recorded else ()):
        norm = gradients[name].norm().item()
        yield Check(f"grad_norms.{name}", norm, recorded[name], tolerance=_SAME_LENGTH)
    for name in sorted(untouched & set(gradients)):
        yield Check(f"grad_norms.{name}", gradients[name].norm().item(), 0.0, tolerance="exact")
    for name in case.outputs:
        if name.startswith("grad:"):
            yield Check(name, gradients[name.removeprefix("grad:")])
    yield Check("embedding_grad_row_norms", gradients["model.word_embeddings.weight"].norm(dim=-1))


@torch.no_grad()
def _pass(network: Backbone, case: Case, given: Tensor) -> Iterator[Check]:
    """Everything a whole pass goes through; of a 2-D padding mask only the valid places count."""
    inputs = list[Tensor]()
    routings = list[Any]()
    gates = [part.mlp.gate for part in network.model.layers if isinstance(part.mlp, MixtureOfExperts)]
    hooks = [part.register_forward_pre_hook(lambda _, a: inputs.append(a[0])) for part in network.model.layers]
    hooks += [gate.register_forward_hook(lambda _, a, out: routings.append(out)) for gate in gates]
    try:
        states, past = network.hidden(given, _positions(case, given), _visible(case))
    finally:
        for hook in hooks:
            hook.remove()
    counted = case.inputs["mask2d"].bool() if "mask2d" in case.inputs else None
    shape = given.shape[:2]
    yield Check("logits", network.logits(states), counted=counted)
    yield Check("hidden_states", torch.stack([*inputs, states]))
    if routings:
        yield Check("router_logits", torch.stack([r.logits.reshape(*shape, -1) for r in routings]))
        yield Check("router_idx_sorted", torch.stack([r.chosen.reshape(*shape, -1) for r in routings]).sort(-1).values)
    yield Check("key_cache", torch.stack([keys for keys, _ in past]))
    yield Check("value_cache", torch.stack([values for _, values in past]))


def _cross_entropy(network: Backbone, case: Case) -> Float[Tensor, ""]:
    ids, labels = case.inputs["input_ids"], case.inputs["labels"]
    logits = network(ids, _positions(case, ids), _visible(case))
    return torch.nn.functional.cross_entropy(logits.flatten(0, 1), labels.flatten(), ignore_index=-100)


def _layer(models: BackboneSide, case: Case) -> Layer:
    found = models.backbone.model.layers[case.params["layer"]]
    if not isinstance(found, Layer):
        raise TypeError(type(found).__name__)
    return found


def _rotary(models: BackboneSide, positions: Int[Tensor, "B L"]) -> tuple[Tensor, Tensor]:
    config = models.config[0]
    return rotary_tables(positions, int(config.head_dim * config.rotary_fraction), config.rope_theta, torch.float32)


def _visible(case: Case) -> Bool[Tensor, "..."]:
    """The recorded mask; a 2-D padding mask means that valid tokens see one another in both directions."""
    if "mask" in case.inputs:
        return case.inputs["mask"]
    valid = case.inputs["mask2d"].bool()
    return valid[:, None, :].expand(-1, valid.shape[1], -1)


def _positions(case: Case, given: Tensor) -> Int[Tensor, "..."]:
    return case.inputs.get("position_ids", torch.arange(given.shape[1]))
