"""A model of random weights, official in all but its sizes, and its memory planned and measured."""

import importlib.util
import json
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest
import torch
from safetensors import safe_open

from unveil.config import load_preset
from unveil.pipeline import Uni
from unveil.weights.names import official_shapes
from unveil.weights.read import build
from unveil.weights.tensors import shapes

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


def run(script: str, *arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """A script in a process of its own."""
    line = [sys.executable, str(BENCHMARKS / script), *map(str, arguments)]
    return subprocess.run(line, capture_output=True, text=True)


@pytest.fixture(scope="module")
def script() -> ModuleType:
    """The script that makes models, as a module."""
    place = importlib.util.spec_from_file_location("make_official_size", BENCHMARKS / "make_official_size.py")
    assert place is not None and place.loader is not None
    module = importlib.util.module_from_spec(place)
    place.loader.exec_module(module)
    return module


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sixteenth of the width, two layers of every part, 256 experts: 0.12 GB."""
    directory = tmp_path_factory.mktemp("made") / "model"
    done = run("make_official_size.py", directory, "--width-divisor=16", "--layers=2")
    assert done.returncode == 0, done.stderr
    return directory


def test_undivided_it_is_the_official_model_in_the_shards_of_the_release(script: ModuleType) -> None:
    official = load_preset("official")
    assert script.scaled(1, None) == official
    shards = script.split(official_shapes(shapes(build(official)["backbone"])))
    assert len(shards) == 13 and sum(map(len, shards.values())) == 14_813
    holders = [k for k, names in enumerate(shards.values(), start=1) if any(".experts." in name for name in names)]
    assert holders == [1, 2, 3, 4, 5, 6]


@pytest.mark.parametrize("divisor", [2, 4, 8, 16])
def test_a_fraction_has_every_width_divided_and_every_count_kept(script: ModuleType, divisor: int) -> None:
    config, official = script.scaled(divisor, 3), load_preset("official")
    for part, fields in {"backbone": ("width", "expert_width", "head_dim"), "decoder": ("width",)}.items():
        for field in fields:
            assert getattr(getattr(config, part), field) * divisor == getattr(getattr(official, part), field)
    counts = ("heads", "kv_heads", "experts", "chosen_experts", "groups", "context")
    assert all(getattr(config.backbone, name) == getattr(official.backbone, name) for name in counts)
    assert config.vocab == official.vocab and config.backbone.layers == config.decoder.layers == 3


@pytest.mark.slow
def test_it_is_read_as_a_release_is_with_the_official_ids(made: Path, script: ModuleType) -> None:
    uni, official = Uni.load(made, "cpu"), load_preset("official")
    assert uni.parts.config == script.scaled(16, 2).model_copy(update={"sampling": uni.parts.config.sampling})
    assert uni.parts.text.token_id("<|mask|>") == official.vocab.mask and not uni.parts.absent
    router = uni.parts.backbone.model.layers[1].mlp.gate
    assert router.expert_bias.abs().max() == 0 < router.weight.std()


@pytest.mark.slow
def test_the_same_numbers_come_out_in_another_process(made: Path, script: ModuleType) -> None:
    file = made / "model-00001-of-00013.safetensors"
    with safe_open(file, "pt") as held:
        for name in list(held.keys())[:5]:
            tensor = held.get_tensor(name)
            (again,) = script.numbers({name: tuple(tensor.shape)}, torch.bfloat16)
            assert torch.equal(tensor, again) and tensor.float().std() > 0


@pytest.mark.slow
def test_nothing_is_overwritten(
    made: Path, script: ModuleType, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["make_official_size.py", str(made)])
    with pytest.raises(SystemExit, match="2"):
        script.main()
    assert "is there already; choose a new directory" in capsys.readouterr().err


@pytest.mark.slow
@pytest.mark.parametrize("residency", ["resident", "staged"])
def test_the_measured_peak_is_within_a_tenth_of_the_planned_one(made: Path, residency: str) -> None:
    sizes = ("--size=256", "--steps=1", "--solver-steps=2")
    done = run("measure_memory.py", made, *sizes, "--one", "float32", residency)
    assert done.returncode == 0, done.stderr
    found = json.loads(done.stdout)
    assert found["peak"] == pytest.approx(found["planned"], rel=0.1)
