"""A model is a config value: tiny and official are the same structure, counted without memory on the meta device."""

import re
from math import prod

import torch

from unveil.config import load_preset
from unveil.model.backbone import Backbone
from unveil.weights.names import official_shapes


def shapes(preset: str) -> dict[str, tuple[int, ...]]:
    config = load_preset(preset)
    with torch.device("meta"):
        model = Backbone(config.backbone, config.vocab)
    return {name: tuple(value.shape) for name, value in model.state_dict().items()}


def test_the_official_backbone_has_the_released_tensors_and_parameters() -> None:
    released = official_shapes(shapes("official"))
    assert len(released) == 14_813
    assert sum(map(prod, released.values())) == 16_322_752_256
    assert released["model.layers.19.mlp.experts.255.down_proj.weight"] == (2048, 512)
    assert released["model.layers.0.mlp.gate_proj.weight"] == (5120, 2048)
    assert released["model.layers.7.attention.query_key_value.weight"] == (3072, 2048)


def test_tiny_and_official_backbones_have_the_same_key_patterns() -> None:
    tiny, official = ({re.sub(r"\d+", "*", name) for name in shapes(preset)} for preset in ("tiny", "official"))
    assert tiny == official
    assert len(tiny) == 20
