"""A whole model of real classes, small enough to save in milliseconds."""

from pathlib import Path

import pytest
import torch
from torch import nn

from unveil.config import ModelConfig, load_preset
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text
from unveil.weights.read import Parts, build
from unveil.weights.save import save

CHECKPOINT = Path(__file__).parents[1] / "golden" / "backbone-A" / "checkpoint"


def small_config() -> ModelConfig:
    """The tiny preset, smaller still, in the vocabulary of the golden tokenizer."""
    tiny = load_preset("tiny")
    sizes = {
        "vocab": {"size": 896, "image_offset": 768, "pad": 476, "mask": 479},
        "image_tokenizer": {"width": 16, "mlp_width": 32, "layers": 2, "heads": 2, "codes": 128, "code_width": 8},
        "backbone": {"width": 16, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 8, "mlp_width": 32}
        | {"expert_width": 8},
        "decoder": {"width": 32, "layers": 1, "heads": 2, "condition_width": 8, "axes_dims": (4, 6, 6)}
        | {"time_width": 16, "time_mlp_width": 16},
        "vae": {"block_channels": (8, 8), "norm_groups": 4, "latent_channels": 4},
    }
    parts = {name: getattr(tiny, name).model_dump() | changes for name, changes in sizes.items()}
    return ModelConfig.model_validate(tiny.model_dump() | parts)


def fill(module: nn.Module, generator: torch.Generator) -> nn.Module:
    """Give a module on the meta device random weights, buffers too."""
    module.to_empty(device="cpu")
    for tensor in module.state_dict(keep_vars=True).values():
        tensor.data.normal_(generator=generator)
    return module


@pytest.fixture(scope="session")
def parts() -> Parts:
    """A model with random weights; treat as read-only."""
    config, text = small_config(), Text.load(CHECKPOINT / "tokenizer.json")
    generator = torch.Generator().manual_seed(3)
    modules = {name: fill(module, generator) for name, module in build(config).items()}
    layout = Layout.of(config.vocab, text)
    return Parts(config=config, text=text, layout=layout, retrieval=None, hash="", **modules)  # type: ignore[arg-type]


@pytest.fixture
def directory(parts: Parts, tmp_path: Path) -> Path:
    """That model, saved; a fresh copy for each test to damage."""
    save(parts, tmp_path / "model")
    return tmp_path / "model"
