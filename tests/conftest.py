"""A whole model of real classes with random weights, small enough to build, save and load in a second."""

import dataclasses
from pathlib import Path

import pytest
import torch
from torch import nn

from unveil.config import ModelConfig, load_preset
from unveil.model.image_tokenizer.retrieval import Retrieval
from unveil.pipeline import Uni
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text
from unveil.weights.read import Parts, build
from unveil.weights.save import save

TOKENIZER = Path(__file__).parent / "golden" / "backbone-A" / "checkpoint" / "tokenizer.json"


def _small_config() -> ModelConfig:
    """The tiny preset, smaller still, in the vocabulary of the golden tokenizer."""
    tiny = load_preset("tiny")
    sizes = {
        "vocab": {"size": 896, "image_offset": 768, "pad": 476, "mask": 479},
        "image_tokenizer": {"width": 16, "mlp_width": 32, "layers": 1, "heads": 2, "codes": 128, "code_width": 8},
        "backbone": {"width": 32, "layers": 2, "heads": 2, "kv_heads": 1, "head_dim": 16, "mlp_width": 32}
        | {"expert_width": 8, "context": 512, "initializer_range": 0.3},
        "decoder": {"width": 32, "layers": 1, "heads": 2, "condition_width": 8, "axes_dims": (4, 6, 6)}
        | {"time_width": 16, "time_mlp_width": 16},
        "vae": {"block_channels": (8, 8, 8, 8), "norm_groups": 4, "latent_channels": 4},
        "sampling": {"steps": 4, "text_tokens": 16, "thinking_tokens": 32, "text_steps": 4, "solver_steps": 3},
    }
    parts = {name: getattr(tiny, name).model_dump() | changes for name, changes in sizes.items()}
    return ModelConfig.model_validate(tiny.model_dump() | parts)


def _initialized(config: ModelConfig, seed: int) -> dict[str, nn.Module]:
    """Every part with seeded weights."""
    generator = torch.Generator().manual_seed(seed)
    modules = build(config, retrieval=True)
    for name, module in modules.items():
        module.to_empty(device="cpu")
        for tensor in module.state_dict(keep_vars=True).values():
            tensor.data.zero_()  # buffers that `initialize` leaves alone
        if name in ("backbone", "image_tokenizer", "retrieval"):
            module.initialize(generator)
        else:  # a fresh decoder's gates are zero: it would not look at the codes
            for tensor in module.state_dict(keep_vars=True).values():
                deviation = 2 * tensor[0].numel() ** -0.5 if tensor.ndim > 1 else 0.5
                tensor.data.normal_(0, deviation, generator=generator)
    assert isinstance(modules["retrieval"], Retrieval)
    return modules


@pytest.fixture(scope="session")
def model_parts() -> Parts:
    """A model with random weights, as loaded: treat as read-only."""
    config, text = _small_config(), Text.load(TOKENIZER)
    modules = {name: m.eval().requires_grad_(False) for name, m in _initialized(config, 3).items()}
    return Parts(config=config, text=text, layout=Layout.of(config.vocab, text), hash="", **modules)


@pytest.fixture(scope="session")
def model_directory(model_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """That model, saved; treat as read-only."""
    path = tmp_path_factory.mktemp("model") / "small"
    save(model_parts, path)
    return path


@pytest.fixture(scope="session")
def other_directory(model_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A model of the same shapes with other weights, saved."""
    modules = {name: m.eval() for name, m in _initialized(model_parts.config, 4).items()}
    path = tmp_path_factory.mktemp("model") / "other"
    save(dataclasses.replace(model_parts, **modules), path)
    return path


@pytest.fixture(scope="session")
def uni(model_directory: Path) -> Uni:
    """That model, loaded."""
    return Uni.load(model_directory, "cpu")
