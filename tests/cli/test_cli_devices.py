"""Devices and precisions that cannot be had are one line with the remedy; the one that is used is told."""

import pytest
import torch

from unveil.errors import RequestError
from unveil.pipeline import Uni
from unveil.pipeline.place import check_fp8, check_precision, choose_device, choose_dtype

no_gpu = pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has a GPU")
no_mps = pytest.mark.skipif(torch.backends.mps.is_available(), reason="this machine has an Apple GPU")


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("gpu", "no device 'gpu'; there are auto, cpu, cuda, cuda:1 and so on, mps"),
        ("", "no device ''; there are auto"),
        ("cuda:x", "no device 'cuda:x'; there are auto"),
        ("meta", "device 'meta' cannot be used here: models run on cpu, cuda and mps alone"),
        ("xpu", "device 'xpu' cannot be used here: models run on cpu, cuda and mps alone"),
        pytest.param("mps", "device 'mps' cannot be used here: it needs macOS 14 or newer", marks=no_mps),
    ],
)
def test_a_device_that_is_not_here_is_one_line_before_anything_is_read(unveil, tmp_path, name, why):
    outcome = unveil("generate", "a", "-o", tmp_path / "a.png", "--device", name)
    assert outcome.code == 2 and outcome.err.startswith(f"unveil: {why}") and outcome.err.count("\n") == 1
    assert "choose" in outcome.err or "use cpu or auto" in outcome.err or "there are" in outcome.err


@no_gpu
@pytest.mark.parametrize(
    ("built", "count", "name", "why"),
    [
        (False, 0, "cuda", "built without CUDA; install one with it"),
        (True, 0, "cuda", "no NVIDIA GPU is found; check the driver"),
        (True, 2, "cuda:2", "the GPUs are cuda:0 to cuda:1; choose one of them"),
    ],
)
def test_each_reason_for_having_no_cuda_is_told(monkeypatch, built, count, name, why):
    monkeypatch.setattr(torch.backends.cuda, "is_built", lambda: built)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(RequestError, match=f"device '{name}' cannot be used here: .*{why}.*; or use cpu or auto$"):
        choose_device(name)


@no_gpu
def test_a_precision_that_a_device_does_not_compute_in_is_one_line():
    for dtype in (torch.float32, torch.bfloat16, torch.float16):
        check_precision(torch.device("cpu"), dtype)
    with pytest.raises(RequestError, match=r"^cpu does not compute in float8_e4m3fn \(.*\); use float32, or"):
        check_precision(torch.device("cpu"), torch.float8_e4m3fn)
    with pytest.raises(RequestError, match=r"^cuda does not compute in float16 \(.*\); use float32"):
        check_precision(torch.device("cuda"), torch.float16)
    check_fp8(torch.device("cpu"))
    with pytest.raises(RequestError, match=r"^cuda does not multiply in fp8 \(.*\); use int8, which is as small$"):
        check_fp8(torch.device("cuda"))


def test_a_precision_is_tried_before_weights_are_read(monkeypatch, model_directory):
    monkeypatch.setattr("unveil.pipeline.fit.filled", lambda *given: pytest.fail("the weights were read"))
    monkeypatch.setattr("unveil.pipeline.fit.floats_of", lambda name: torch.float8_e4m3fn)
    with pytest.raises(RequestError, match="does not compute in float8_e4m3fn"):
        Uni.load(model_directory, "cpu")
    with pytest.raises(RequestError, match="dtype 'float8' cannot be used; use float32, bfloat16, float16"):
        choose_dtype("float8")


def test_auto_is_the_best_device_here():
    best = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert choose_device("auto").type == best and choose_device("cpu:3") == torch.device("cpu")


def test_where_a_model_runs_is_told_once_on_stderr_and_not_to_the_quiet(unveil, model_directory, tmp_path):
    words = ("generate", "a", "-o", tmp_path / "a.png", "--model", model_directory, "--device", "cpu", "--steps", 1)
    assert unveil(*words).err == "running on cpu\n"
    assert unveil(*words, "--quiet").err == ""
    refused = unveil(*words, "--height", 100)
    assert refused.code == 2 and refused.err.startswith("unveil: ")
