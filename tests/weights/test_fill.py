"""Weights on their way from files into a module: how much memory that takes, and what arrives."""

from pathlib import Path

import pytest
import torch

from unveil.memory.live import peak_bytes
from unveil.model.backbone.experts import QuantizedExperts
from unveil.model.hold import hold, weight_bytes
from unveil.model.layers import quantized
from unveil.pipeline.place import unread_model
from unveil.weights.fill import gather
from unveil.weights.read import Parts, assign, filled
from unveil.weights.save import save
from unveil.weights.tensors import read_tensors, stored

HELD = [(torch.float32, None), (torch.bfloat16, None), *((torch.bfloat16, form) for form in ("int8", "fp8", "int4"))]


@pytest.fixture(params=["ours", "as released"])
def model(request: pytest.FixtureRequest) -> Path:
    return request.getfixturevalue("model_directory" if request.param == "ours" else "released_directory")


@pytest.mark.parametrize(("dtype", "form"), HELD)
def test_beyond_the_model_there_is_at_no_time_more_than_one_tensor_in_memory(
    model: Path, monkeypatch: pytest.MonkeyPatch, dtype: torch.dtype, form: quantized.Format | None
) -> None:
    monkeypatch.setattr(quantized, "_PIECE", 64)  # small as against these tensors, as the real one is in a large model
    source = unread_model(model)
    source.hold(dtype, form)
    empty = [tensor for module in source.parts.modules.values() for tensor in module.state_dict().values()]

    def load() -> None:
        for name, module in source.parts.modules.items():
            assign(module, source.state(name, "cpu", dtype))

    peak = peak_bytes(load, held=empty)  # tensors on the meta device hold nothing
    held = sum(weight_bytes(module) for module in source.parts.modules.values())
    largest = max(entry.bytes for files in source.files.values() for file in files for entry in stored(file).values())
    spare = 64 * 20 if form else 0
    assert held <= peak <= held + largest + spare


def test_the_count_sees_a_reader_that_takes_a_whole_file_first(model_directory: Path) -> None:
    source = unread_model(model_directory)
    source.hold(torch.bfloat16)
    backbone, file = source.parts.backbone, source.files["backbone"][0]
    empty, whole = backbone.state_dict().values(), lambda: dict(read_tensors(file)).items()
    peak = peak_bytes(lambda: gather(backbone, whole(), "cpu", torch.bfloat16), held=empty)
    assert peak > weight_bytes(backbone) + 2 * max(entry.bytes for entry in stored(file).values())


@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_what_is_quantized_while_it_is_read_is_what_is_quantized_afterwards(
    model_parts: Parts, tmp_path: Path, form: quantized.Format
) -> None:
    save(model_parts, tmp_path, torch.bfloat16)
    read = filled(unread_model(tmp_path), "cpu", torch.bfloat16, form)
    afterwards = filled(unread_model(tmp_path), "cpu", torch.bfloat16)
    experts = read.backbone.model.layers[1].mlp.experts
    assert isinstance(experts, QuantizedExperts) and experts.up_proj.values.element_size() == 1
    for name, module in afterwards.modules.items():
        hold(module, torch.bfloat16, form)
        expected, found = module.state_dict(), read.modules[name].state_dict()
        assert list(found) == list(expected)
        assert all(torch.equal(found[n], t) and found[n].dtype == t.dtype for n, t in expected.items()), name


def test_experts_that_lie_apart_in_files_are_quantized_into_one_stack(released_directory: Path) -> None:
    read = filled(unread_model(released_directory), "cpu", torch.float32, "int8")
    exact = filled(unread_model(released_directory), "cpu", torch.float32)
    small, stack = (parts.backbone.model.layers[2].mlp.experts.down_proj for parts in (read, exact))
    step = stack.abs().amax(-1, keepdim=True) / 127
    assert small.values.shape == stack.shape == (16, 64, 32)
    assert ((small.dequantize() - stack).abs() <= 0.51 * step).all()


def test_a_tensor_for_the_host_stays_there_while_the_others_go(model_directory: Path) -> None:
    source = unread_model(model_directory)
    name = "model.word_embeddings.weight"
    state = source.state("backbone", "meta", torch.float32, on_host=[name])
    assert {n for n, tensor in state.items() if not tensor.is_meta} == {name}
