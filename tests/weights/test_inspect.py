"""What `inspect` says is what loading finds, and no weights are read for it."""

import json
import shutil
import struct
from pathlib import Path

import pytest
import torch

from unveil.errors import WeightsError
from unveil.model.backbone import Backbone
from unveil.pipeline.place import shipped_models
from unveil.vocab.text import Text
from unveil.weights.inspect import inspect
from unveil.weights.names import official_shapes
from unveil.weights.official_config import official_config
from unveil.weights.official_model import load_official
from unveil.weights.read import load
from unveil.weights.tensors import shapes

GOLDEN = Path(__file__).parents[1] / "golden" / "backbone-A" / "checkpoint"


def bytes_read() -> int:
    """What this process has read so far."""
    return int(Path("/proc/self/io").read_text().split("rchar: ")[1].split()[0])


def test_the_numbers_of_the_shipped_model_are_its_modules_own() -> None:
    path = shipped_models()["tiny"]
    facts, parts = inspect(path), load(path)
    assert facts.layout == "unveil" and facts.absent == () and set(facts.parts) == set(parts.modules)
    for name, module in parts.modules.items():
        state, part = module.state_dict(), facts.parts[name]
        assert part.tensors == len(state)
        assert part.parameters == sum(tensor.numel() for tensor in state.values()) == sum(part.dtypes.values())
        assert 0 < part.bytes < (path / part.files[0]).stat().st_size
    assert (facts.context, facts.vocabulary) == (parts.config.backbone.context, parts.config.vocab.size)
    assert facts.special["<|mask|>"] == parts.layout.mask and facts.special["<boi>"] == parts.layout.boi


def test_the_numbers_of_a_released_directory_are_those_of_what_is_loaded(released_directory: Path) -> None:
    facts, parts = inspect(released_directory), load_official(released_directory)
    assert facts.layout == "official" and facts.absent == ()
    assert set(facts.parts) == {*parts.modules, "decoder-turbo"}
    assert facts.parts["backbone"].tensors == len(official_shapes(shapes(parts.backbone)))
    assert len(facts.parts["backbone"].files) == 3
    for name, module in parts.modules.items():
        assert facts.parts[name].parameters == sum(tensor.numel() for tensor in module.state_dict().values()), name
        assert facts.parts[name].bytes == facts.parts[name].parameters * (2 if name == "backbone" else 4)
    assert set(facts.parts["backbone"].dtypes) == {"BF16"} and set(facts.parts["vae"].dtypes) == {"F32"}
    assert facts.image_offset == 768 and facts.special["<|mask|>"] == 479


def test_parts_that_are_not_there_are_named() -> None:
    facts = inspect(GOLDEN)
    assert set(facts.parts) == {"backbone"}
    assert facts.absent == ("image_tokenizer", "code_embedding", "decoder", "vae", "decoder-turbo")


@pytest.mark.skipif(not Path("/proc/self/io").exists(), reason="counts what Linux says was read")
def test_a_model_of_tens_of_gigabytes_is_inspected_from_its_header(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer.json"):
        shutil.copy(GOLDEN / name, tmp_path)
    large = {"hidden_size": 2048, "num_hidden_layers": 20, "num_experts": 256, "moe_intermediate_size": 512}
    config = json.loads((tmp_path / "config.json").read_text()) | large
    (tmp_path / "config.json").write_text(json.dumps(config))
    with torch.device("meta"):
        model = Backbone(*official_config(tmp_path, Text.load(tmp_path / "tokenizer.json")))
    entries, end, count = {}, 0, 0
    for name, shape in official_shapes(shapes(model)).items():
        size = torch.Size(shape).numel()
        entries[name] = {"dtype": "BF16", "shape": shape, "data_offsets": [end, end + 2 * size]}
        end, count = end + 2 * size, count + size
    header = json.dumps(entries).encode()
    with (tmp_path / "model.safetensors").open("wb") as stream:
        stream.write(struct.pack("<Q", len(header)) + header)
        stream.truncate(8 + len(header) + end)  # a hole: nothing on the disk
    before = bytes_read()
    part = inspect(tmp_path).parts["backbone"]
    assert bytes_read() - before < 10_000_000 < 30_000_000_000 < part.bytes == end
    assert (part.tensors, part.parameters, part.dtypes) == (len(entries), count, {"BF16": count})


def test_a_directory_without_a_model_cannot_be_inspected(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="no model there .neither config.yaml nor config.json"):
        inspect(tmp_path)
