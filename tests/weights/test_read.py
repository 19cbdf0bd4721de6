"""Loading a model directory: exact when whole, one error that names everything when not."""

import json
import pickle
import shutil
import struct
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unveil.errors import ConfigError, WeightsError
from unveil.weights.manifest import to_json
from unveil.weights.read import Parts, build, load, load_part, weights_hash
from unveil.weights.save import save_part


def rewrite(directory: Path, name: str, **changes: torch.Tensor | None) -> None:
    """Change tensors of one file (None: drop) and make the manifest agree, as if it had been saved so."""
    state = load_file(directory / name)
    for tensor, value in ((n.replace("__", "."), v) for n, v in changes.items()):
        state.pop(tensor, None)
        if value is not None:
            state[tensor] = value
    save_file(state, directory / name)
    accept(directory)


def declare(header: bytes) -> bytes:
    """A file's beginning with this header."""
    return struct.pack("<Q", len(header)) + header


def accept(directory: Path) -> None:
    """A manifest of what is there now."""
    files = [*directory.glob("*.safetensors"), directory / "tokenizer.json"]
    (directory / "manifest.json").write_text(to_json((f.name, f) for f in files))


def test_a_saved_model_loads_equal_ready_to_sample(parts: Parts, directory: Path) -> None:
    loaded = load(directory)
    assert loaded.config == parts.config
    assert loaded.layout == parts.layout
    assert loaded.retrieval is None
    for name, module in parts.modules.items():
        got = loaded.modules[name]
        assert not got.training and not any(p.requires_grad for p in got.parameters())
        for tensor, value in module.state_dict().items():
            assert torch.equal(got.state_dict()[tensor], value), (name, tensor)


def test_retrieval_is_loaded_when_it_was_saved(parts: Parts, directory: Path) -> None:
    heads = build(parts.config, retrieval=True)["retrieval"].to_empty(device="cpu")
    with torch.no_grad():
        for i, parameter in enumerate(heads.parameters()):
            parameter.fill_(i)
    save_part(heads, directory / "retrieval.safetensors")
    loaded = load(directory).retrieval
    assert loaded is not None
    assert [p.mean().item() for p in loaded.parameters()] == pytest.approx(list(range(len(list(heads.parameters())))))


def test_a_loaded_backbone_computes_what_the_saved_one_does(parts: Parts, directory: Path) -> None:
    ids, positions = torch.arange(12)[None] * 50, torch.arange(12)
    visible = torch.ones(12, 12, dtype=torch.bool)
    loaded = load(directory).backbone
    assert torch.equal(loaded(ids, positions, visible), parts.backbone(ids, positions, visible))


def test_loading_in_bfloat16_keeps_the_router_bias_in_float32(directory: Path) -> None:
    state = load(directory, dtype=torch.bfloat16).backbone.state_dict()
    kept = {name for name, tensor in state.items() if tensor.dtype == torch.float32}
    assert kept == {"model.layers.1.mlp.gate.expert_bias"}
    assert {tensor.dtype for tensor in state.values()} == {torch.float32, torch.bfloat16}


def test_weights_stored_in_half_precision_load_in_float32(parts: Parts, tmp_path: Path) -> None:
    save_part(parts.decoder, tmp_path / "decoder.safetensors", torch.float16)
    fresh = build(parts.config)["decoder"]
    load_part(fresh, tmp_path / "decoder.safetensors")
    for name, value in parts.decoder.state_dict().items():
        assert torch.equal(fresh.state_dict()[name], value.half().float())


def test_one_error_lists_every_wrong_tensor_of_every_file(directory: Path) -> None:
    rewrite(directory, "backbone.safetensors", model__norm__weight=None, lm_head__weight=torch.zeros(3, 16))
    rewrite(directory, "vae.safetensors", more=torch.zeros(2, 5))
    with pytest.raises(WeightsError) as caught:
        load(directory)
    message = str(caught.value)
    assert f"{directory / 'backbone.safetensors'}: model.norm.weight is missing, expected 16" in message
    assert f"{directory / 'backbone.safetensors'}: lm_head.weight is 3x16, expected 896x16" in message
    assert f"{directory / 'vae.safetensors'}: more 2x5 is not expected" in message
    assert message.count(".safetensors:") == 3
    assert "\n" not in message


def test_a_part_that_does_not_fit_is_left_as_it_was(parts: Parts, directory: Path) -> None:
    rewrite(directory, "decoder.safetensors", more=torch.zeros(1))
    module = build(parts.config)["decoder"]
    with pytest.raises(WeightsError, match="more 1 is not expected"):
        load_part(module, directory / "decoder.safetensors")
    assert all(p.is_meta for p in module.parameters())


@pytest.mark.parametrize("keep", [0, 5, 8, 200, -1])
def test_a_truncated_file_is_named_with_both_sizes_and_the_remedy(directory: Path, keep: int) -> None:
    file = directory / "backbone.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:keep])
    size = len(whole[:keep])
    with pytest.raises(WeightsError) as caught:
        load(directory)
    assert str(caught.value) == (
        f"{file}: damaged, expected {len(whole)} bytes, found {size}; copy or download it again"
    )


def test_a_truncated_file_without_manifest_is_told_by_its_own_header(parts: Parts, directory: Path) -> None:
    file = directory / "vae.safetensors"
    whole = file.read_bytes()
    file.write_bytes(whole[:-7])
    with pytest.raises(WeightsError, match=rf"{file}: damaged, expected {len(whole)} bytes, found {len(whole) - 7};"):
        load_part(build(parts.config)["vae"], file)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (b"", "shorter than 8 bytes"),
        (b"hello", "shorter than 8 bytes"),
        (b"PK\x03\x04" + bytes(200), "a zip archive, as torch files are"),
        (pickle.dumps(list(range(99))), "a pickle"),
        (b"\xff" * 64, f"a header of {2**64 - 1} bytes in 64, at most 10000000 are read"),
        (declare(b"[]"), "not a JSON object"),
        (declare(b"{'a'}"), "not JSON"),
        (declare(b'{"a":null}'), "a is no tensor"),
        (declare(b'{"a":{"dtype":"F32","shape":["x"],"data_offsets":[0,4]}}') + bytes(4), "a is no tensor"),
        (declare(b'{"a":{"dtype":"F32","shape":[true],"data_offsets":[0,4]}}') + bytes(4), "a is no tensor"),
        (declare(b'{"a":{"dtype":"F32","shape":[-1],"data_offsets":[0,4]}}') + bytes(4), "a is no tensor"),
        (declare(b'{"a":{"dtype":"F32","shape":[1%s],"data_offsets":[0,4]}}' % (b"0" * 4000)), "a is no tensor"),
        (
            declare(b'{"a":{"dtype":"C64","shape":[1],"data_offsets":[0,8]}}') + bytes(8),
            "a is C64, a dtype not known here",
        ),
        (declare(b'{"a\\n":{}}'), "a tensor's name cannot be printed"),
        (declare(b'{"a":{},"a":{}}'), "'a' stands there twice"),
        (declare(b"[" * 100_000), "nested too deeply"),
    ],
)
def test_garbage_is_refused_by_name_size_reason_and_remedy(
    parts: Parts, tmp_path: Path, content: bytes, reason: str
) -> None:
    file = tmp_path / "vae.safetensors"
    file.write_bytes(content)
    with pytest.raises(WeightsError) as caught:
        load_part(build(parts.config)["vae"], file)
    expected = f"{file}: {len(content)} bytes without a safetensors header ({reason}); copy or download it again"
    assert str(caught.value) == expected


def test_overlapping_tensors_are_refused_by_name(parts: Parts, directory: Path) -> None:
    file = directory / "code_embedding.safetensors"
    raw = file.read_bytes()
    length = struct.unpack("<Q", raw[:8])[0]
    entries = json.loads(raw[8 : 8 + length])
    for name in ("prior_projector.net.0.proj.bias", "prior_projector.net.2.bias"):
        entries[name]["data_offsets"] = entries["prior_projector.net.2.bias"]["data_offsets"]
    text = json.dumps(entries).encode()
    file.write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])
    with pytest.raises(WeightsError, match=r"code_embedding.safetensors: damaged, prior\S+ lies at bytes \d+ to"):
        load_part(build(parts.config)["code_embedding"], file)


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_weight_that_is_no_number_is_named(directory: Path, value: float) -> None:
    bad = torch.ones(16)
    bad[5] = value
    rewrite(directory, "backbone.safetensors", model__norm__weight=bad)
    with pytest.raises(WeightsError, match="backbone.safetensors: model.norm.weight holds NaN or infinity"):
        load(directory)


def test_integers_in_place_of_floats_are_named(directory: Path) -> None:
    rewrite(directory, "backbone.safetensors", model__norm__weight=torch.ones(16, dtype=torch.int32))
    with pytest.raises(WeightsError, match="backbone.safetensors: model.norm.weight is I32, expected floats"):
        load(directory)


def test_a_missing_part_is_named_with_its_size(directory: Path) -> None:
    size = (directory / "decoder.safetensors").stat().st_size
    (directory / "decoder.safetensors").unlink()
    with pytest.raises(WeightsError, match=f"decoder.safetensors: missing, expected {size} bytes"):
        load(directory)


def test_a_flipped_bit_is_found_in_a_small_model_and_in_a_large_one_on_request(
    directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = directory / "backbone.safetensors"
    raw = bytearray(file.read_bytes())
    raw[-3] ^= 1
    file.write_bytes(raw)
    damaged = r"backbone.safetensors: damaged, expected crc32 \w{8}, found \w{8}"
    with pytest.raises(WeightsError, match=damaged):
        load(directory)
    monkeypatch.setattr("unveil.weights.read._QUICK", 0)
    load(directory)
    with pytest.raises(WeightsError, match=damaged):
        load(directory, verify=True)


def test_a_directory_without_a_model_is_told_so(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model there"):
        load(tmp_path / "nothing")


def test_a_missing_or_damaged_manifest_is_named(directory: Path) -> None:
    (directory / "manifest.json").write_text("{")
    with pytest.raises(WeightsError, match="manifest.json: not a manifest"):
        load(directory)
    (directory / "manifest.json").unlink()
    with pytest.raises(WeightsError, match="manifest.json: missing"):
        load(directory)


def test_a_manifest_that_points_outside_its_directory_is_refused(directory: Path) -> None:
    shutil.copy(directory / "vae.safetensors", directory.parent / "x.safetensors")
    files = {f.name: f for f in directory.glob("*.safetensors")} | {
        "tokenizer.json": directory / "tokenizer.json",
        "../x.safetensors": directory.parent / "x.safetensors",
    }
    (directory / "manifest.json").write_text(to_json(files.items()))
    with pytest.raises(WeightsError, match=r"entry '\.\./x\.safetensors' leads out of its directory"):
        load(directory)


def test_a_configuration_of_another_vocabulary_is_refused(directory: Path) -> None:
    config = (directory / "config.yaml").read_text().replace("mask: 479", "mask: 480")
    (directory / "config.yaml").write_text(config)
    with pytest.raises(WeightsError, match="vocab.mask says 480"):
        load(directory)


def test_a_configuration_of_a_billion_layers_is_refused_before_they_are_built(directory: Path) -> None:
    config = (directory / "config.yaml").read_text().replace("layers: 2", f"layers: {10**9}")
    (directory / "config.yaml").write_text(config)
    with pytest.raises(ConfigError, match="config.yaml: image_tokenizer.layers: .*; backbone.layers: .*1024"):
        load(directory)


def test_a_configuration_with_an_unknown_key_is_refused_by_name(directory: Path) -> None:
    (directory / "config.yaml").write_text((directory / "config.yaml").read_text() + "\nvocabulary: 3\n")
    with pytest.raises(ConfigError, match="vocabulary"):
        load(directory)


def test_the_hash_follows_the_weights_and_nothing_else(parts: Parts, directory: Path) -> None:
    first = weights_hash(directory)
    assert load(directory).hash == first and len(first) == 16
    shutil.copytree(directory, directory.parent / "copy")
    config = directory.parent / "copy" / "config.yaml"
    config.write_text(config.read_text().replace("guidance: 2.0", "guidance: 3.0"))
    assert weights_hash(directory.parent / "copy") == first
    state = {**parts.vae.state_dict()}
    name = next(iter(state))
    rewrite(directory, "vae.safetensors", **{name.replace(".", "__"): state[name] + 1})
    assert weights_hash(directory) != first
