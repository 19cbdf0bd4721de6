"""The precision in which a model is held when nobody names one, and when somebody does."""

from pathlib import Path

import pytest
import torch

from unveil.errors import RequestError
from unveil.pipeline import Uni
from unveil.weights.read import Parts
from unveil.weights.save import save


@pytest.fixture(scope="module")
def half(model_parts: Parts, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The small model in bfloat16, as the release is."""
    path = tmp_path_factory.mktemp("half")
    save(model_parts, path, torch.bfloat16)
    return path


def test_on_a_cpu_half_precision_files_become_float32_where_that_fits_and_it_is_said(half: Path) -> None:
    uni = Uni.load(half, "cpu")
    assert uni.parts.backbone.lm_head.weight.dtype == torch.float32
    assert uni.placed is not None
    assert uni.placed.line == "float32 on cpu: the files hold bfloat16, float32 is faster on a CPU"


def test_on_a_cpu_they_stay_half_where_float32_does_not_fit_and_it_is_said(
    half: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("unveil.pipeline.fit.free_memory", lambda device: 100_000)
    uni = Uni.load(half, "cpu")
    assert uni.parts.backbone.lm_head.weight.dtype == torch.bfloat16
    assert uni.placed is not None and uni.placed.line is not None
    assert uni.placed.line.startswith("bfloat16 on cpu: float32 would take 0.00 GB, free are 0.00 GB")


def test_float32_files_load_as_they_are_without_a_word(model_directory: Path) -> None:
    uni = Uni.load(model_directory, "cpu")
    assert uni.parts.backbone.lm_head.weight.dtype == torch.float32
    assert uni.placed is not None and uni.placed.line is None and uni.placed.peak is None


@pytest.mark.parametrize("precision", ["bfloat16", "float16", "int8", "fp8", "int4"])
def test_a_named_precision_is_used_and_the_model_draws_in_it(model_directory: Path, precision: str) -> None:
    uni = Uni.load(model_directory, "cpu", precision)
    held = {str(tensor.dtype).removeprefix("torch.") for tensor in uni.parts.decoder.state_dict().values()}
    small = {"int8": {"int8", "float32"}, "fp8": {"float8_e4m3fn", "float32"}, "int4": {"uint8", "float16"}}
    extra = small.get(precision, set())
    assert held == extra | {precision if not extra else "bfloat16"}
    assert uni.generate_image("a star", seed=1).image.size == (128, 128)


def test_fp8_is_refused_where_there_is_no_product_of_such_numbers(
    model_directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def product(*given: object, **options: object) -> None:
        raise RuntimeError("only on devices with compute capability >= 8.9\nand a long list")

    monkeypatch.setattr(torch, "_scaled_mm", product)
    why = r"^cpu does not multiply in fp8 \(only on devices .* >= 8.9\); use int8, which is as small$"
    with pytest.raises(RequestError, match=why):
        Uni.load(model_directory, "cpu", "fp8")
    with pytest.raises(RequestError, match=why):
        Uni.load(model_directory, "cpu", "fp8", memory="20GB")
    assert Uni.load(model_directory, "cpu", "int8").placed is not None
