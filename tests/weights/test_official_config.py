"""The release's JSON files as our configuration. The facts below are those of the released files."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from unveil.config import load_preset
from unveil.config.tree import DecoderConfig, ImageTokenizerConfig, VaeConfig
from unveil.errors import ConfigError
from unveil.vocab.text import Text
from unveil.weights.official_config import (
    official_decoder,
    official_image_tokenizer,
    official_model_config,
    official_vae,
)

GOLDEN = Path(__file__).parents[1] / "golden"
RELEASED: dict[str, dict[str, Any]] = {
    "config.json": {
        "architectures": ["LLaDA2MoeModelLM"], "model_type": "llada2_moe", "torch_dtype": "bfloat16",
        "vocab_size": 173568, "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20,
        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "hidden_act": "silu",
        "use_qkv_bias": False, "use_qk_norm": True, "use_bias": False, "rms_norm_eps": 1e-06,
        "attention_dropout": 0.0, "initializer_range": 0.02, "max_position_embeddings": 8192, "rope_theta": 600000,
        "rope_parameters": {"rope_type": "default", "rope_theta": 600000, "partial_rotary_factor": 0.5},
        "partial_rotary_factor": 0.5, "use_cache": False, "sliding_window": None, "pad_token_id": 156892,
        "num_experts": 256, "num_shared_experts": 1, "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4,
        "routed_scaling_factor": 2.5, "moe_intermediate_size": 512, "first_k_dense_replace": 1,
        "output_router_logits": False, "image_token_offset": 157184,
    },
    "image_tokenizer/config.json": {
        "model_type": "glm_image",
        "text_config": {"hidden_size": 4096, "num_hidden_layers": 40},
        "vision_config": {
            "attention_bias": True, "attention_dropout": 0.0, "depth": 40, "hidden_act": "gelu", "hidden_size": 1536,
            "image_size": 2048, "in_channels": 3, "intermediate_size": 6144, "layer_norm_eps": 1e-06,
            "model_type": "glm_image_vision", "num_heads": 16, "patch_size": 16,
        },
        "vq_config": {
            "embed_dim": 2048, "in_channels": 3, "latent_channels": 1536, "model_type": "glm_image_vqmodel",
            "num_embeddings": 16384,
        },
    },
    "image_tokenizer/preprocessor_config.json": {
        "min_pixels": 262144, "max_pixels": 4194304, "do_rescale": True, "do_normalize": True, "do_resize": False,
        "patch_size": 16, "temporal_patch_size": 1, "merge_size": 1, "image_mean": [0.5, 0.5, 0.5],
        "image_std": [0.5, 0.5, 0.5], "resample": 3, "rescale_factor": 0.00392156862745098,
    },
    "decoder/config.json": {
        "_class_name": "ZImageTransformer2DModel", "all_f_patch_size": [1], "all_patch_size": [2],
        "axes_dims": [32, 48, 48], "axes_lens": [1536, 512, 512], "cap_feat_dim": 2560, "dim": 3840, "in_channels": 16,
        "n_heads": 30, "n_kv_heads": 30, "n_layers": 30, "n_refiner_layers": 2, "norm_eps": 1e-05, "qk_norm": True,
        "rope_theta": 256.0, "siglip_feat_dim": None, "t_scale": 1000.0,
    },
    "vae/config.json": {
        "_class_name": "AutoencoderKL", "act_fn": "silu", "block_out_channels": [128, 256, 512, 512],
        "down_block_types": ["DownEncoderBlock2D"] * 4, "up_block_types": ["UpDecoderBlock2D"] * 4,
        "force_upcast": True, "in_channels": 3, "out_channels": 3, "latent_channels": 16, "latents_mean": None,
        "latents_std": None, "layers_per_block": 2, "mid_block_add_attention": True, "norm_num_groups": 32,
        "sample_size": 1024, "scaling_factor": 0.3611, "shift_factor": 0.1159, "use_post_quant_conv": False,
        "use_quant_conv": False,
    },
}  # fmt: skip


class Tokens:
    """What of the released tokenizer the configuration needs: one id."""

    def token_id(self, token: str) -> int:
        return {"<|mask|>": 156895}[token]


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """A directory with the facts of the released JSON files."""
    for name, data in RELEASED.items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_text(json.dumps(data))
    shutil.copytree(tmp_path / "decoder", tmp_path / "decoder-turbo")
    return tmp_path


def edit(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


@pytest.mark.parametrize("decoder", ["normal", "turbo"])
def test_the_released_files_are_the_official_preset(released: Path, decoder: Any) -> None:
    assert official_model_config(released, Tokens(), decoder) == load_preset("official")  # type: ignore[arg-type]


@pytest.mark.parametrize("absent", ["image_tokenizer", "decoder", "vae"])
def test_a_part_that_is_not_there_is_as_in_the_preset(released: Path, absent: str) -> None:
    shutil.rmtree(released / absent)
    assert official_model_config(released, Tokens()) == load_preset("official")  # type: ignore[arg-type]


def test_a_backbone_alone_brings_its_own_number_of_codes() -> None:
    directory = GOLDEN / "backbone-A" / "checkpoint"
    config = official_model_config(directory, Text.load(directory / "tokenizer.json"))
    assert config.image_tokenizer.codes == 128 == config.vocab.size - config.vocab.image_offset


def test_flat_keys_of_the_image_tokenizer_read_as_nested_ones(released: Path) -> None:
    nested = official_image_tokenizer(released / "image_tokenizer")
    edit(released / "image_tokenizer" / "config.json", lambda d: d.update(d.pop("vq_config"), **d.pop("vision_config")))
    assert official_image_tokenizer(released / "image_tokenizer") == nested


def test_the_tiny_golden_image_parts_read_as_they_are() -> None:
    checkpoint = GOLDEN / "image-A" / "checkpoint"
    assert official_image_tokenizer(checkpoint / "image_tokenizer") == ImageTokenizerConfig(
        width=32, mlp_width=64, layers=3, heads=4, patch_size=16, position_grid=8, codes=97, code_width=24
    )
    assert official_decoder(checkpoint / "decoder") == DecoderConfig(
        width=48, layers=3, refiner_layers=2, heads=3, condition_width=40,
        axes_dims=(4, 6, 6), axes_lens=(4096, 64, 64),
    )  # fmt: skip
    assert official_vae(checkpoint / "vae") == VaeConfig(
        block_channels=(8, 8, 16, 16), layers_per_block=2, latent_channels=4, norm_groups=4, sample_size=64,
        scaling_factor=0.3611, shift_factor=0.1159,
    )  # fmt: skip


REFUSED: list[tuple[str, Callable[[dict[str, Any]], object], str]] = [
    ("image_tokenizer/preprocessor_config.json", lambda d: d.update(merge_size=2), "merge_size is 2, only 1"),
    ("image_tokenizer/preprocessor_config.json", lambda d: d.pop("image_mean"), "no key 'image_mean'"),
    ("image_tokenizer/preprocessor_config.json", lambda d: d.update(image_std=[0.2, 0.3, 0.5]), "image_std is .0.2"),
    ("image_tokenizer/preprocessor_config.json", lambda d: d.update(rescale_factor=1.0), "rescale_factor is 1.0"),
    ("image_tokenizer/preprocessor_config.json", lambda d: d.update(patch_size=14), "patch_size is 14, only 16"),
    ("image_tokenizer/config.json", lambda d: d["vision_config"].update(image_size=2049), "image_size 2049 is not a"),
    ("image_tokenizer/config.json", lambda d: d["vision_config"].pop("depth"), "no key 'depth'"),
    ("image_tokenizer/config.json", lambda d: d["vq_config"].update(latent_channels=7), "latent_channels is 7, only"),
    ("image_tokenizer/config.json", lambda d: d.update(vq_config=3), "vq_config must be an object"),
    ("image_tokenizer/config.json", lambda d: d["vq_config"].update(num_embeddings=9), "vocab.size must be"),
    ("decoder/config.json", lambda d: d.update(qk_norm=False), "qk_norm is False, only True"),
    ("decoder/config.json", lambda d: d.update(n_kv_heads=10), "n_kv_heads is 10, only 30"),
    ("decoder/config.json", lambda d: d.update(all_patch_size=[2, 4]), "all_patch_size is .2, 4., only one"),
    ("decoder/config.json", lambda d: d.update(axes_lens=3), "axes_lens"),
    ("vae/config.json", lambda d: d.update(use_quant_conv=True), "use_quant_conv is True, only False"),
    ("vae/config.json", lambda d: d["up_block_types"].pop(), "up_block_types is"),
]


@pytest.mark.parametrize(("name", "change", "message"), REFUSED, ids=[r[2] for r in REFUSED])
def test_what_is_not_built_here_is_refused_by_file_and_key(
    released: Path, name: str, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    edit(released / name, change)
    with pytest.raises(ConfigError, match=f"config.json: .*{message}"):
        official_model_config(released, Tokens())  # type: ignore[arg-type]


def test_a_key_that_stands_twice_is_refused(released: Path) -> None:
    (released / "vae" / "config.json").write_text('{"in_channels": 3, "in_channels": 4}')
    with pytest.raises(ConfigError, match="vae/config.json: key 'in_channels' stands there twice"):
        official_model_config(released, Tokens())  # type: ignore[arg-type]
