"""The release's JSON files as our configuration: every key we use is translated, every other way to build is refused.

config.json                                          backbone, vocabulary
image_tokenizer/config.json, preprocessor_config.json    image tokenizer
decoder/config.json, decoder-turbo/config.json       image decoder
vae/config.json                                      VAE
"""

import json
import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Literal

from unveil.config import ModelConfig, VocabConfig, load_preset, validate
from unveil.config.tree import BackboneConfig, Config, DecoderConfig, ImageTokenizerConfig, VaeConfig
from unveil.errors import ConfigError
from unveil.vocab.text import Text
from unveil.weights.tensors import REMEDY, once

DecoderKind = Literal["normal", "turbo"]
DECODER_DIRECTORIES: dict[DecoderKind, str] = {"normal": "decoder", "turbo": "decoder-turbo"}
"""Where the release keeps its two image decoders."""

Json = dict[str, Any]

_BACKBONE = {
    "width": "hidden_size",
    "layers": "num_hidden_layers",
    "dense_layers": "first_k_dense_replace",
    "heads": "num_attention_heads",
    "kv_heads": "num_key_value_heads",
    "head_dim": "head_dim",
    "mlp_width": "intermediate_size",
    "experts": "num_experts",
    "chosen_experts": "num_experts_per_tok",
    "groups": "n_group",
    "kept_groups": "topk_group",
    "expert_width": "moe_intermediate_size",
    "shared_experts": "num_shared_experts",
    "routed_scale": "routed_scaling_factor",
    "rope_theta": "rope_theta",
    "rotary_fraction": "partial_rotary_factor",
    "norm_eps": "rms_norm_eps",
    "context": "max_position_embeddings",
}
_VOCAB = {"size": "vocab_size", "image_offset": "image_token_offset", "pad": "pad_token_id"}
_BACKBONE_ONLY = {
    "use_qk_norm": True,  # the class default is False, so the key must be there
    "use_bias": False,
    "use_qkv_bias": False,
    "hidden_act": "silu",
}
_VISION = {
    "width": "hidden_size",
    "mlp_width": "intermediate_size",
    "layers": "depth",
    "heads": "num_heads",
    "patch_size": "patch_size",
}
_VISION_ONLY = {"spatial_merge_size": 1, "hidden_act": "gelu", "attention_bias": True, "in_channels": 3}  # or absent
_QUANTIZER = {"codes": "num_embeddings", "code_width": "embed_dim"}
_PREPROCESSOR_ONLY = {"do_rescale": True, "do_normalize": True, "temporal_patch_size": 1, "merge_size": 1}
_DECODER = {
    "width": "dim",
    "layers": "n_layers",
    "refiner_layers": "n_refiner_layers",
    "heads": "n_heads",
    "condition_width": "cap_feat_dim",
    "axes_dims": "axes_dims",
    "axes_lens": "axes_lens",
    "rope_theta": "rope_theta",
    "norm_eps": "norm_eps",
    "time_scale": "t_scale",
}
_DECODER_ONLY = {"all_f_patch_size": [1], "qk_norm": True, "siglip_feat_dim": None}
_LEFT_OVER = {"cap_feat_dim": 2560, "axes_lens": [1536, 512, 512]}
"""What the release's decoder files still say of the model theirs was made from; its own loader replaces both."""
_VAE = {
    "block_channels": "block_out_channels",
    "layers_per_block": "layers_per_block",
    "latent_channels": "latent_channels",
    "norm_groups": "norm_num_groups",
    "sample_size": "sample_size",
    "scaling_factor": "scaling_factor",
    "shift_factor": "shift_factor",
}
_VAE_ONLY = {
    "act_fn": "silu",
    "mid_block_add_attention": True,
    "use_quant_conv": False,
    "use_post_quant_conv": False,
    "in_channels": 3,
    "out_channels": 3,
}

_COUNTS = {"num_hidden_layers", "num_attention_heads", "num_key_value_heads", "num_experts", "num_experts_per_tok"}
_COUNTS |= {"n_group", "topk_group", "depth", "num_heads", "n_layers", "n_heads", "layers_per_block"}
_MAY_BE_ZERO = {"first_k_dense_replace", "num_shared_experts", "n_refiner_layers", "pad_token_id"}
_MOST, _MOST_COUNTED = 1 << 22, 1 << 10  # far above any model's; below what takes long to build without any memory
_REALS = {"routed_scaling_factor", "rope_theta", "partial_rotary_factor", "rms_norm_eps", "norm_eps", "t_scale"}
_REALS |= {"scaling_factor", "shift_factor", "layer_norm_eps", "rescale_factor", "image_mean", "image_std"}
"""What need not be a whole number. Every other key that is translated is a size, or a list of sizes."""


def official_model_config(directory: Path, text: Text, decoder: DecoderKind = "normal") -> ModelConfig:
    """The model that a whole released directory describes; parts that are not there are as in the preset `official`.

    So are the defaults of a request. Raises ConfigError naming file and keys.
    """
    directory, preset = Path(directory), load_preset("official")
    backbone, vocab = official_config(directory, text)
    parts: dict[str, Any] = {"backbone": backbone, "vocab": vocab}
    codes = {"codes": vocab.size - vocab.image_offset}
    parts["image_tokenizer"] = preset.image_tokenizer.model_copy(update=codes)
    if (directory / "image_tokenizer").is_dir():
        parts["image_tokenizer"] = official_image_tokenizer(directory / "image_tokenizer")
    if (directory / "vae").is_dir():
        parts["vae"] = official_vae(directory / "vae")
    if (directory / DECODER_DIRECTORIES[decoder]).is_dir():
        parts["decoder"] = official_decoder(directory / DECODER_DIRECTORIES[decoder])
    fields = {name: part if isinstance(part, str) else part.model_dump() for name, part in preset}
    fields |= {name: part.model_dump() for name, part in parts.items()}
    return validate(ModelConfig, fields, str(directory / "config.json"))


def released_json(config: ModelConfig) -> dict[str, Json]:
    """The inverse, as far as the release's files go: their names and contents."""

    eye = config.image_tokenizer
    kind: DecoderKind = "turbo" if config.sampling.solver == "turbo" else "normal"
    return {
        "config.json": _theirs(config.backbone, _BACKBONE) | _theirs(config.vocab, _VOCAB) | _BACKBONE_ONLY,
        "image_tokenizer/config.json": {
            "vision_config": _theirs(eye, _VISION)
            | _VISION_ONLY
            | {"image_size": eye.position_grid * eye.patch_size, "layer_norm_eps": eye.norm_eps},
            "vq_config": _theirs(eye, _QUANTIZER) | {"latent_channels": eye.width},
        },
        "image_tokenizer/preprocessor_config.json": _PREPROCESSOR_ONLY
        | {"patch_size": eye.patch_size, "rescale_factor": 1 / 255}
        | {"image_mean": [eye.pixel_mean] * 3, "image_std": [eye.pixel_std] * 3},
        f"{DECODER_DIRECTORIES[kind]}/config.json": released_decoder(config.decoder),
        "vae/config.json": released_vae(config.vae),
    }


def released_decoder(decoder: DecoderConfig) -> Json:
    """The `config.json` of an image decoder."""
    alone = {"n_kv_heads": decoder.heads, "all_patch_size": [decoder.patch_size]}
    return _theirs(decoder, _DECODER) | _DECODER_ONLY | alone


def released_vae(vae: VaeConfig) -> Json:
    """The `config.json` of a VAE."""
    return _theirs(vae, _VAE) | _VAE_ONLY | _blocks(len(vae.block_channels))


def official_config(directory: Path, text: Text) -> tuple[BackboneConfig, VocabConfig]:
    """The backbone and vocabulary that a released `config.json` describes; the MASK id comes from its tokenizer.

    Raises ConfigError listing every key that is missing or says something this architecture is not.
    """
    file = Path(directory) / "config.json"
    data = read_json(file, ConfigError)
    _check(file, data, _BACKBONE_ONLY, [*_BACKBONE.values(), *_VOCAB.values()])
    backbone = validate(BackboneConfig, _ours(data, _BACKBONE), str(file))
    return backbone, validate(VocabConfig, {**_ours(data, _VOCAB), "mask": text.token_id("<|mask|>")}, str(file))


def official_image_tokenizer(directory: Path) -> ImageTokenizerConfig:
    """The image tokenizer that its two released files describe; their keys may be nested or flat."""
    file, preparing = directory / "config.json", directory / "preprocessor_config.json"
    data, pixels = read_json(file, ConfigError), read_json(preparing, ConfigError)
    vision, quantizer = _section(file, data, "vision_config"), _section(file, data, "vq_config")
    _check(file, _VISION_ONLY | vision, _VISION_ONLY, [*_VISION.values(), "image_size"])
    _check(file, quantizer, {"latent_channels": vision["hidden_size"]}, list(_QUANTIZER.values()))
    same = {"patch_size": vision["patch_size"]}
    _check(preparing, pixels, _PREPROCESSOR_ONLY | same, ["image_mean", "image_std", "rescale_factor"])
    mean, deviation, scale = (pixels[key] for key in ("image_mean", "image_std", "rescale_factor"))
    for key, value in (("image_mean", mean), ("image_std", deviation)):
        if not isinstance(value, list) or len(value) != 3 or len(set(map(str, value))) != 1:
            raise ConfigError(f"{preparing}: {key} is {value}, only three equal numbers are known")
    if not isinstance(scale, float) or abs(scale * 255 - 1) > 1e-6:
        raise ConfigError(f"{preparing}: rescale_factor is {scale}, only 1/255 is known")
    sizes = (vision["image_size"], vision["patch_size"])
    if not all(isinstance(n, int) and n > 0 for n in sizes) or sizes[0] % sizes[1]:
        raise ConfigError(f"{file}: image_size {sizes[0]} is not a multiple of patch_size {sizes[1]}")
    found = {**_ours(vision, _VISION), **_ours(quantizer, _QUANTIZER), "position_grid": sizes[0] // sizes[1]}
    found |= {"norm_eps": vision.get("layer_norm_eps", 1e-6), "pixel_mean": mean[0], "pixel_std": deviation[0]}
    return validate(ImageTokenizerConfig, found, str(file))


def official_decoder(directory: Path) -> DecoderConfig:
    """The image decoder that a released `config.json` describes.

    The released files name two sizes of another model (`cap_feat_dim`, `axes_lens`); those, and only those, become the
    real ones, as in the official loader.
    """
    file, preset = directory / "config.json", load_preset("official").decoder
    data = read_json(file, ConfigError)
    _check(file, data, _DECODER_ONLY | {"n_kv_heads": data.get("n_heads")}, [*_DECODER.values(), "all_patch_size"])
    if not isinstance(data["all_patch_size"], list) or len(data["all_patch_size"]) != 1:
        raise ConfigError(f"{file}: all_patch_size is {data['all_patch_size']}, only one patch size is known")
    found = _ours(data, _DECODER) | {"patch_size": data["all_patch_size"][0]}
    if data["cap_feat_dim"] == _LEFT_OVER["cap_feat_dim"]:
        found["condition_width"] = preset.condition_width
    if data["axes_lens"] == _LEFT_OVER["axes_lens"]:
        found["axes_lens"] = preset.axes_lens
    return validate(DecoderConfig, found, str(file))


def official_vae(directory: Path) -> VaeConfig:
    """The VAE that a released `config.json` describes."""
    file = directory / "config.json"
    data = read_json(file, ConfigError)
    channels = data.get("block_out_channels")
    depth = len(channels) if isinstance(channels, list) else 0
    _check(file, data, _VAE_ONLY | _blocks(depth), list(_VAE.values()))
    return validate(VaeConfig, _ours(data, _VAE), str(file))


def _blocks(depth: int) -> Json:
    """The only kinds of VAE blocks known here, one for each resolution."""
    return {"down_block_types": ["DownEncoderBlock2D"] * depth, "up_block_types": ["UpDecoderBlock2D"] * depth}


def read_json(file: Path, error: Callable[[str], Exception]) -> Json:
    """The JSON object in a file; `error` is raised with the file's name when there is none."""
    try:
        data = json.loads(file.read_text(encoding="utf-8"), object_pairs_hook=once, parse_constant=_no_number)
    except OSError as problem:
        raise error(f"{file}: cannot be read ({problem.strerror}); {REMEDY}") from None
    except KeyError as twice:
        raise error(f"{file}: key {twice} stands there twice; {REMEDY}") from None
    except RecursionError:
        raise error(f"{file}: is nested too deeply; {REMEDY}") from None
    except ValueError as problem:
        raise error(f"{file}: is not JSON ({problem}); {REMEDY}") from None
    if not isinstance(data, dict):
        raise error(f"{file}: must hold a JSON object; {REMEDY}")
    return data


def _section(file: Path, data: Json, name: str) -> Json:
    """A nested object of the file, or all of it when its keys are flat."""
    found = data.get(name, data)
    if not isinstance(found, dict):
        raise ConfigError(f"{file}: {name} must be an object")
    return found


def _check(file: Path, data: Json, only: Mapping[str, object], needed: list[str]) -> None:
    """One ConfigError for every key that is missing or says something that is not built here."""
    problems = [f"no key '{key}'" for key in sorted({*needed, *only} - set(data))]
    problems += [
        f"{key} is {data[key]}, only {v} is known" for key, v in only.items() if key in data and data[key] != v
    ]
    problems += [p for key in needed if key in data and (p := _unusable(key, data[key]))]
    if problems:
        raise ConfigError(f"{file}: " + "; ".join(problems))


def _unusable(key: str, value: object) -> str | None:
    """What is wrong with a number of the file before anything of that size is built."""
    least = 0 if key in _MAY_BE_ZERO else 1
    most = _MOST_COUNTED if key in {*_COUNTS, *_MAY_BE_ZERO} - {"pad_token_id"} else _MOST
    numbers: list[Any] = value if isinstance(value, list) else [value]
    for number in numbers:
        if key in _REALS:
            if type(number) not in (int, float) or not math.isfinite(number):
                return f"{key} is {str(value)[:40]}, expected a number"
        elif type(number) is not int or not least <= number <= most:
            return f"{key} is {str(value)[:40]}, expected a whole number from {least} to {most}"
    return None


def _no_number(name: str) -> None:
    """Refuse NaN and Infinity, which JSON does not have. Raises ValueError."""
    raise ValueError(name)


def _theirs(part: Config, keys: Mapping[str, str]) -> Json:
    """The values under the release's names."""
    return {name: getattr(part, ours) for ours, name in keys.items()}


def _ours(data: Json, keys: Mapping[str, str]) -> Json:
    """The values under our names."""
    return {ours: data[theirs] for ours, theirs in keys.items()}
