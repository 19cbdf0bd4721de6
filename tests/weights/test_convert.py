"""From one layout to the other and back: every tensor bit for bit, nothing lost without a word."""

import json
import shutil
import tracemalloc
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unveil.errors import OutputError, RequestError, WeightsError
from unveil.pipeline.place import shipped_models
from unveil.shapes import Tensor
from unveil.vocab.text import Text
from unveil.weights.convert import convert
from unveil.weights.official_config import DecoderKind, official_model_config
from unveil.weights.official_model import load_official
from unveil.weights.pieces import read_pieces, write_pieces
from unveil.weights.read import load
from unveil.weights.tensors import stored
from unveil.weights.verify import verify


def unheard(what: str, done: int, total: int) -> None:
    pass


def tensors(directory: Path) -> dict[str, Tensor]:
    """Every tensor of a released directory, those of the shards as one."""
    found: dict[str, Tensor] = {}
    for file in sorted(directory.rglob("*.safetensors")):
        part = file.parent.name if file.parent != directory else ""
        found |= {f"{part} {name}": tensor for name, tensor in load_file(file).items()}
    return found


def equal(a: Tensor, b: Tensor) -> bool:
    return a.dtype == b.dtype and a.shape == b.shape and torch.equal(a.view(torch.uint8), b.view(torch.uint8))


@pytest.fixture
def ours(released_directory: Path, tmp_path: Path) -> Path:
    """The released model in our layout."""
    convert(released_directory, tmp_path / "ours", "unveil", unheard)
    return tmp_path / "ours"


def test_what_was_converted_is_the_model_that_was_there(released_directory: Path, ours: Path) -> None:
    here, there = load(ours, verify=True), load_official(released_directory)
    assert here.config == there.config and here.layout == there.layout
    for name, module in there.modules.items():
        state = here.modules[name].state_dict()
        assert all(torch.equal(state[n], t) for n, t in module.state_dict().items()), name
    assert {t.dtype for t in load_file(ours / "backbone.safetensors").values()} == {torch.bfloat16}


@pytest.mark.parametrize("decoder", ["normal", "turbo"])
def test_there_and_back_gives_every_tensor_and_setting_again(
    released_directory: Path, tmp_path: Path, decoder: DecoderKind
) -> None:
    convert(released_directory, tmp_path / "ours", "unveil", unheard, decoder=decoder)
    back = tmp_path / "back"
    convert(tmp_path / "ours", back, "official", unheard, shard_bytes=300_000)
    other = "decoder" if decoder == "turbo" else "decoder-turbo"
    expected = {name: tensor for name, tensor in tensors(released_directory).items() if name.split()[0] != other}
    found = tensors(back)
    assert set(found) == set(expected) and all(equal(found[name], expected[name]) for name in expected)
    assert len(list(back.glob("model-*-of-00003.safetensors"))) == 3
    assert (back / "tokenizer.json").read_bytes() == (released_directory / "tokenizer.json").read_bytes()
    text = Text.load(back / "tokenizer.json")
    assert official_model_config(back, text, decoder) == official_model_config(released_directory, text, decoder)
    assert load_official(back, decoder=decoder).absent == {}
    assert verify(back, unheard)[1] == verify(tmp_path / "ours", unheard)[1] == []


def test_the_index_tells_where_each_tensor_lies(ours: Path, tmp_path: Path) -> None:
    convert(ours, tmp_path / "back", "official", unheard, shard_bytes=200_000)
    index = json.loads((tmp_path / "back" / "model.safetensors.index.json").read_text())
    held = {f.name: load_file(f) for f in (tmp_path / "back").glob("model-*.safetensors")}
    assert index["weight_map"] == {name: file for file, state in held.items() for name in state}
    assert index["metadata"]["total_size"] == sum(t.nbytes for state in held.values() for t in state.values())
    assert len(held) > 3 and max((tmp_path / "back" / name).stat().st_size for name in held) < 220_000


def test_a_written_file_is_as_the_library_writes_it(tmp_path: Path) -> None:
    state = {"b": torch.randn(3, 5), "a": torch.randn(2).bfloat16(), "c": torch.tensor(1.5), "d": torch.ones(3, 0)}
    save_file(state, tmp_path / "theirs.safetensors")
    write_pieces(tmp_path / "ours.safetensors", read_pieces([tmp_path / "theirs.safetensors"]), lambda: None)
    assert (tmp_path / "ours.safetensors").read_bytes() == (tmp_path / "theirs.safetensors").read_bytes()


def test_no_tensor_is_ever_whole_in_memory(tmp_path: Path) -> None:
    save_file({"large": torch.ones(1 << 24)}, tmp_path / "a.safetensors")
    tracemalloc.start()
    write_pieces(tmp_path / "b.safetensors", read_pieces([tmp_path / "a.safetensors"]), lambda: None)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 16 << 20 < (tmp_path / "b.safetensors").stat().st_size


def test_what_the_released_layout_cannot_say_is_refused_by_field(tmp_path: Path) -> None:
    with pytest.raises(
        WeightsError, match=r"cannot say .*image_tokenizer\.window.*decoder\.condition_layout.*retrieval"
    ):
        convert(shipped_models()["tiny"], tmp_path / "t", "official", unheard)
    assert not (tmp_path / "t").exists()


def test_a_damaged_source_is_refused_before_anything_is_written(ours: Path, tmp_path: Path) -> None:
    raw = bytearray((ours / "vae.safetensors").read_bytes())
    raw[-5] ^= 1
    (ours / "vae.safetensors").write_bytes(raw)
    with pytest.raises(WeightsError, match="vae.safetensors: damaged"):
        convert(ours, tmp_path / "t", "official", unheard)
    assert not (tmp_path / "t").exists()


def test_experts_of_different_dtypes_are_not_stacked(released_directory: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(released_directory, tmp_path / "m"))
    file, name = model / "model-00001-of-00003.safetensors", "model.layers.1.mlp.experts.3.up_proj.weight"
    state = load_file(file)
    save_file(state | {name: state[name].float()}, file)
    with pytest.raises(WeightsError, match="the experts of model.layers.1.mlp.experts.up_proj differ in dtype"):
        convert(model, tmp_path / "t", "unveil", unheard)


def test_an_incomplete_release_and_other_requests_are_refused(released_directory: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(released_directory, tmp_path / "m"))
    (model / "vae" / "diffusion_pytorch_model.safetensors").unlink()
    with pytest.raises(WeightsError, match="diffusion_pytorch_model.safetensors: missing"):
        convert(model, tmp_path / "t", "unveil", unheard)
    with pytest.raises(RequestError, match="is in the official layout already"):
        convert(released_directory, tmp_path / "t", "official", unheard)
    with pytest.raises(OutputError, match="is there already"):
        convert(released_directory, model, "unveil", unheard)
    for inside in (model / "inside", model / "vae" / ".." / "inside"):
        with pytest.raises(OutputError, match="inside: lies inside .*/m, which stays as it is"):
            convert(model, inside, "unveil", unheard)


def test_a_source_that_ends_early_leaves_no_target(ours: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def shorter(source: Path) -> dict[str, object]:
        found = stored(source)
        return {name: entry._replace(begin=entry.begin + 4) for name, entry in found.items()}

    monkeypatch.setattr("unveil.weights.pieces.stored", shorter)
    with pytest.raises(WeightsError, match="ended while it was read"):
        convert(ours, tmp_path / "t", "official", unheard)
    assert [file for file in (tmp_path / "t").rglob("*") if file.is_file()] == []
    monkeypatch.undo()
    convert(ours, tmp_path / "t", "official", unheard)
