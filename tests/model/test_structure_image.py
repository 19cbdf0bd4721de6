"""The image parts have the official tensors, and `tiny` differs from `official` in numbers only (meta device)."""

import re

import pytest
import torch
from torch import nn

from unveil.config.load import load_preset
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae


def build(preset: str) -> dict[str, nn.Module]:
    config = load_preset(preset)
    with torch.device("meta"):
        return {
            "decoder": ImageDecoder(config.decoder, config.vae.latent_channels),
            "code_embedding": CodeEmbedding(config),
            "vae": build_vae(config.vae),
        }


@pytest.fixture(scope="module")
def official():
    return build("official")


@pytest.mark.parametrize(
    ("part", "tensors", "parameters"),
    [("decoder", 521, 6_160_808_512), ("code_embedding", 5, 100_671_488), ("vae", 244, 83_819_683)],
)
def test_official_part_has_exactly_the_released_number_of_tensors_and_parameters(official, part, tensors, parameters):
    state = official[part].state_dict()
    assert len(state) == tensors
    assert sum(t.numel() for t in state.values()) == parameters


def test_official_decoder_names_and_shapes_are_the_released_ones(official):
    shapes = {name: tuple(t.shape) for name, t in official["decoder"].state_dict().items()}
    assert shapes["all_x_embedder.2-1.weight"] == (3840, 64)
    assert shapes["all_final_layer.2-1.adaLN_modulation.1.weight"] == (3840, 256)
    assert shapes["t_embedder.mlp.0.weight"] == (1024, 256)
    assert shapes["layers.29.adaLN_modulation.0.weight"] == (15360, 256)
    assert shapes["context_refiner.1.feed_forward.w2.weight"] == (3840, 10240)
    assert shapes["noise_refiner.0.attention.to_out.0.weight"] == (3840, 3840)
    assert shapes["semantic_embedder.0.weight"] == (4096,)
    assert "context_refiner.0.adaLN_modulation.0.weight" not in shapes


@pytest.mark.parametrize("part", ["decoder", "code_embedding", "vae"])
def test_tiny_and_official_have_the_same_key_patterns(official, part):
    tiny = build("tiny")[part]
    patterns = [{re.sub(r"\d+", "*", name) for name in module.state_dict()} for module in (tiny, official[part])]
    assert patterns[0] == patterns[1]
