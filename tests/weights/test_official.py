"""The released layout: sharded, one tensor per expert, the release's own configuration keys."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from unveil.config import load_preset
from unveil.errors import ConfigError, WeightsError
from unveil.shapes import Tensor
from unveil.vocab.text import Text
from unveil.weights.names import from_official
from unveil.weights.official import INDEX_FILE, load_official_backbone, load_official_part, official_config
from unveil.weights.read import build

GOLDEN = Path(__file__).parents[1] / "golden" / "backbone-A" / "checkpoint"
EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A copy of the golden checkpoint to damage."""
    return Path(shutil.copytree(GOLDEN, tmp_path / "checkpoint"))


def read(directory: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    """The state dict, by the directory's own configuration."""
    text = Text.load(directory / "tokenizer.json")
    return load_official_backbone(directory, *official_config(directory, text), dtype=dtype)


def edit_json(file: Path, change: Callable[[dict[str, Any]], object]) -> None:
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def test_the_golden_configuration_reads_as_its_manifest_says() -> None:
    backbone, vocab = official_config(GOLDEN, Text.load(GOLDEN / "tokenizer.json"))
    assert vocab.model_dump() == {"size": 896, "image_offset": 768, "pad": 476, "mask": 479}
    assert (backbone.width, backbone.layers, backbone.dense_layers, backbone.head_dim) == (64, 3, 1, 16)
    assert (backbone.experts, backbone.chosen_experts, backbone.groups, backbone.kept_groups) == (16, 4, 4, 2)
    assert (backbone.rope_theta, backbone.rotary_fraction, backbone.context) == (600000, 0.5, 8192)


def test_the_released_keys_with_the_releases_numbers_give_the_official_preset(checkpoint: Path) -> None:
    numbers = {
        "vocab_size": 173568, "hidden_size": 2048, "intermediate_size": 5120, "num_hidden_layers": 20,
        "num_attention_heads": 16, "num_key_value_heads": 4, "head_dim": 128, "num_experts": 256,
        "num_experts_per_tok": 8, "n_group": 8, "topk_group": 4, "moe_intermediate_size": 512,
    }  # fmt: skip
    edit_json(checkpoint / "config.json", lambda data: data.update(numbers))
    backbone, _ = official_config(checkpoint, Text.load(checkpoint / "tokenizer.json"))
    assert backbone == load_preset("official").backbone


def test_experts_scattered_over_shards_are_stacked_as_in_memory() -> None:
    shards = [load_file(file) for file in sorted(GOLDEN.glob("*.safetensors"))]
    expected = from_official({name: tensor for shard in shards for name, tensor in shard.items()})
    state = read(GOLDEN)
    assert set(state) == set(expected)
    assert all(torch.equal(state[name], expected[name].float()) for name in expected)
    assert state["model.layers.2.mlp.experts.down_proj"].shape == (16, 64, 32)


def test_the_state_dict_fits_the_backbone_strictly(checkpoint: Path) -> None:
    from unveil.model.backbone import Backbone

    model = Backbone(*official_config(checkpoint, Text.load(checkpoint / "tokenizer.json")))
    model.load_state_dict(read(checkpoint), strict=True)


def test_in_bfloat16_only_the_router_bias_is_float32() -> None:
    state = read(GOLDEN, torch.bfloat16)
    kept = {name for name, tensor in state.items() if tensor.dtype == torch.float32}
    assert kept == {f"model.layers.{i}.mlp.gate.expert_bias" for i in (1, 2)}


def test_a_checkpoint_in_one_file_without_index_loads_the_same(checkpoint: Path) -> None:
    whole: dict[str, Tensor] = {}
    for file in sorted(checkpoint.glob("*.safetensors")):
        whole |= load_file(file)
        file.unlink()
    (checkpoint / INDEX_FILE).unlink()
    save_file(whole, checkpoint / "model.safetensors")
    state, expected = read(checkpoint), read(GOLDEN)
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_one_error_lists_every_wrong_tensor_with_its_file(checkpoint: Path) -> None:
    shard = checkpoint / json.loads((checkpoint / INDEX_FILE).read_text())["weight_map"][EXPERT]
    state = load_file(shard)
    del state[EXPERT]
    state |= {"extra.weight": torch.zeros(2), EXPERT.replace("up", "gate"): torch.zeros(5, 64)}
    save_file(state, shard)
    edit_json(checkpoint / INDEX_FILE, lambda data: data["weight_map"].pop("model.norm.weight"))
    with pytest.raises(WeightsError) as caught:
        read(checkpoint)
    message = str(caught.value)
    assert f"{shard}: {EXPERT} is missing, expected 32x64" in message
    assert f"{shard}: extra.weight 2 is not expected" in message
    assert f"{shard}: {EXPERT.replace('up', 'gate')} is 5x64, expected 32x64" in message
    assert f"{INDEX_FILE}: model.norm.weight is missing" in message


def test_an_index_that_names_an_unknown_tensor_is_refused(checkpoint: Path) -> None:
    name = "model.layers.9.mlp.experts.0.up_proj.weight"
    edit_json(
        checkpoint / INDEX_FILE, lambda data: data["weight_map"].update({name: "model-00001-of-00003.safetensors"})
    )
    with pytest.raises(WeightsError, match=f"00001-of-00003.safetensors: {name} is not expected"):
        read(checkpoint)


def test_a_missing_shard_is_named(checkpoint: Path) -> None:
    (checkpoint / "model-00002-of-00003.safetensors").unlink()
    with pytest.raises(WeightsError, match="model-00002-of-00003.safetensors: missing"):
        read(checkpoint)


@pytest.mark.parametrize(
    "entry",
    ["../model.safetensors", "/etc/passwd", "..\\x.safetensors", "model.bin", "", 3, ["a"], "sub/x.safetensors"],
)
def test_an_index_that_leaves_its_directory_is_refused(checkpoint: Path, entry: object) -> None:
    edit_json(checkpoint / INDEX_FILE, lambda data: data["weight_map"].update({"lm_head.weight": entry}))
    with pytest.raises(WeightsError, match="names files outside its directory or of another kind"):
        read(checkpoint)


@pytest.mark.parametrize("content", ["", "[]", "{}", '{"weight_map": []}', "[" * 100_000])
def test_a_damaged_index_is_named(checkpoint: Path, content: str) -> None:
    (checkpoint / INDEX_FILE).write_text(content)
    with pytest.raises(WeightsError, match=INDEX_FILE):
        read(checkpoint)


def test_a_configuration_of_another_architecture_is_refused_key_by_key(checkpoint: Path) -> None:
    changes = {"use_bias": True, "hidden_act": "gelu"}
    edit_json(checkpoint / "config.json", lambda data: (data.update(changes), data.pop("use_qk_norm")))
    with pytest.raises(ConfigError) as caught:
        official_config(checkpoint, Text.load(checkpoint / "tokenizer.json"))
    assert "no key 'use_qk_norm'" in str(caught.value)
    assert "use_bias is True, only False is known" in str(caught.value)
    assert "hidden_act is gelu, only silu is known" in str(caught.value)


@pytest.mark.parametrize("name", ["model.safetensors", "image_tokenizer.safetensors"])
def test_an_image_part_loads_under_its_old_and_its_new_file_name(parts: Any, tmp_path: Path, name: str) -> None:
    save_file(parts.image_tokenizer.state_dict(), tmp_path / name)
    module = build(parts.config)["image_tokenizer"]
    load_official_part(module, tmp_path)
    assert all(torch.equal(module.state_dict()[n], t) for n, t in parts.image_tokenizer.state_dict().items())


def test_a_directory_without_weights_says_what_it_looked_for(parts: Any, tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no weights there .looked for model.safetensors, image_tokenizer"):
        load_official_part(build(parts.config)["image_tokenizer"], tmp_path)
