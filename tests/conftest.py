"""A whole model of real classes with random weights, small enough to build, save and load in a second."""

import dataclasses
import json
import shutil
from pathlib import Path
from types import MappingProxyType
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from unveil.config import ModelConfig, load_preset
from unveil.config.tree import BackboneConfig, VocabConfig
from unveil.model.backbone import Backbone
from unveil.model.image_tokenizer.retrieval import Retrieval
from unveil.pipeline import Uni
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text
from unveil.weights.official_config import official_model_config
from unveil.weights.read import Parts, build
from unveil.weights.save import save

CHECKPOINT = Path(__file__).parent / "golden" / "backbone-A" / "checkpoint"
SIZE, OFFSET, MASK, EOS = 48, 32, 31, 30
TOKENIZER = CHECKPOINT / "tokenizer.json"
RELEASED_JSON: dict[str, dict[str, Any]] = {
    "image_tokenizer/config.json": {
        "hidden_size": 16, "intermediate_size": 32, "depth": 1, "num_heads": 2, "patch_size": 16, "image_size": 128,
        "num_embeddings": 128, "embed_dim": 8, "latent_channels": 16,
    },
    "image_tokenizer/preprocessor_config.json": {
        "do_rescale": True, "do_normalize": True, "patch_size": 16, "temporal_patch_size": 1, "merge_size": 1,
        "image_mean": [0.5] * 3, "image_std": [0.5] * 3, "rescale_factor": 1 / 255,
    },
    "decoder/config.json": {
        "all_f_patch_size": [1], "all_patch_size": [2], "axes_dims": [4, 6, 6], "axes_lens": [4096, 128, 128],
        "cap_feat_dim": 8, "dim": 32, "n_heads": 2, "n_kv_heads": 2, "n_layers": 1, "n_refiner_layers": 1,
        "norm_eps": 1e-05, "qk_norm": True, "rope_theta": 256.0, "siglip_feat_dim": None, "t_scale": 1000.0,
    },
    "vae/config.json": {
        "act_fn": "silu", "block_out_channels": [8] * 4, "down_block_types": ["DownEncoderBlock2D"] * 4,
        "up_block_types": ["UpDecoderBlock2D"] * 4, "in_channels": 3, "out_channels": 3, "latent_channels": 4,
        "layers_per_block": 1, "mid_block_add_attention": True, "norm_num_groups": 4, "sample_size": 64,
        "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_quant_conv": False, "use_post_quant_conv": False,
    },
}  # fmt: skip
RELEASED_FILES = {
    "image_tokenizer": "image_tokenizer/model.safetensors",
    "code_embedding": "image_tokenizer/sigvq_embedding.safetensors",
    "decoder": "decoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}


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


@pytest.fixture(scope="session")
def released_directory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The golden backbone with image parts of random weights around it, as a release has them; treat as read-only."""
    directory = tmp_path_factory.mktemp("released") / "model"
    shutil.copytree(CHECKPOINT, directory)
    for name, data in RELEASED_JSON.items():
        (directory / name).parent.mkdir(exist_ok=True)
        (directory / name).write_text(json.dumps(data))
    shutil.copytree(directory / "decoder", directory / "decoder-turbo")
    modules = build(official_model_config(directory, Text.load(directory / "tokenizer.json")))
    for seed, (name, file) in enumerate([*RELEASED_FILES.items(), ("decoder", "decoder-turbo/model.safetensors")]):
        generator = torch.Generator().manual_seed(seed)
        state = modules[name].state_dict()
        random = {n: torch.randn(t.shape, generator=generator) * 0.3 for n, t in state.items()}
        save_file(random, directory / file)
    return directory


@pytest.fixture(scope="session")
def layout() -> Layout:
    """A vocabulary of 48 ids."""
    words = {"soi": 20, "eoi": 21, "boi": 22, "role": 23, "role_close": 24, "role_end": 25, "think": 26}
    sides = MappingProxyType({2: 28, 3: 29})
    return Layout(
        SIZE, OFFSET, SIZE - OFFSET, pad=EOS, mask=MASK, think_close=27, size_ids=sides, **words
    )  # fmt: skip


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Real classes at tiny size, in float64: roundings of a cached and a plain run cannot part their ways."""
    config = BackboneConfig(
        width=16, layers=2, dense_layers=1, heads=4, kv_heads=2, head_dim=4, mlp_width=24, experts=4,
        chosen_experts=2, groups=2, kept_groups=1, expert_width=8, shared_experts=1, routed_scale=2.5,
        rope_theta=10000.0, rotary_fraction=0.5, context=128, initializer_range=0.6,
    )  # fmt: skip
    model = Backbone(config, VocabConfig(size=SIZE, image_offset=OFFSET, pad=EOS, mask=MASK))
    return model.initialize(torch.Generator().manual_seed(5)).double().eval().requires_grad_(False)


@pytest.fixture(scope="session")
def replayed():
    """Stands in for recording into CUDA graphs: what a recording does to its tensors happens at each replay alone."""
    return lambda function: function
