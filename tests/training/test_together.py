"""Two processes take the step of one that saw the rows of both."""

import os
import signal
import sys
import time
from pathlib import Path
from types import ModuleType

import pytest
import torch
from torch import nn

from unveil import runs
from unveil.config import dump, load_preset, read
from unveil.config.run import RunConfig
from unveil.errors import ConfigError, TrainingError
from unveil.training.checkpoint import newest_checkpoint
from unveil.training.optim import build_optimizer, learning_rate, set_rate
from unveil.training.together import ALONE, Together, together
from unveil.vocab.text import Text


def recipe(directory: Path, text: Text, **changes: object) -> Path:
    values: dict[str, object] = {
        "name": "two", "steps": 2, "task": {"objective": "vae", "batch": 1, "crop": 8}, "optim": {"lr": 0.01},
        "parts": directory / "parts", "directory": directory / "run", "threads": 1, "processes": 2, "log_every": 1,
    }  # fmt: skip
    run = RunConfig.model_validate(values | changes)
    run.parts.mkdir()
    text.save(run.parts / "tokenizer.json")
    path = directory / "recipe.yaml"
    path.write_text(dump(run))
    return path


def test_two_processes_step_with_the_mean_of_their_gradients(tmp_path: Path, text: Text) -> None:
    path = recipe(tmp_path, text)
    assert runs.start(path)
    run = read(RunConfig, path)
    objective = runs.build_objective(run, load_preset(run.preset))
    optimizer, losses = build_optimizer(objective.module, run.optim), []
    for step in range(run.steps):
        set_rate(optimizer, learning_rate(step, run.steps, run.optim))
        optimizer.zero_grad()
        for batch in (2 * step, 2 * step + 1):
            for loss, _ in objective.losses(batch, torch.Generator().manual_seed(batch)):
                (loss / 2).backward()
                losses.append(float(loss.detach()))
        nn.utils.clip_grad_norm_(objective.module.parameters(), run.optim.clip)
        optimizer.step()
    found, _ = newest_checkpoint(run.directory)
    assert found is not None and found.step == 2
    for name, wanted in objective.module.state_dict().items():
        torch.testing.assert_close(found.weights[name], wanted, rtol=1e-4, atol=1e-5)
    lines = (run.directory / "log.jsonl").read_text().splitlines()
    assert len(lines) == 2 and len(set(losses)) == 4  # the first process alone writes; no two batches are the same


@pytest.fixture
def importable(monkeypatch: pytest.MonkeyPatch) -> None:
    """Other processes find the functions of this file, also where pytest does not put the tree on the path."""
    monkeypatch.syspath_prepend(Path(__file__).parents[2])


def second(place: Together, recipe: Path) -> None:
    """Another process with 3 where the first has 1, and a gradient that the first lacks; it wants to stop."""
    place.average([torch.tensor([3.0, 0.0]), torch.tensor(7)])
    layer = nn.Linear(1, 1)
    layer(torch.ones(1)).sum().backward()
    place.average_gradients(layer)
    place.any(True)


@pytest.mark.usefixtures("importable")
def test_means_are_those_of_all_processes(tmp_path: Path) -> None:
    with together(2, second, tmp_path) as place:
        value, whole, layer = torch.tensor([1.0, 4.0]), torch.tensor(1), nn.Linear(1, 1)
        place.average([value, whole])
        place.average_gradients(layer)
        assert value.tolist() == [2.0, 2.0] and whole == 1
        assert layer.weight.grad is not None and layer.weight.grad.item() == 0.5
        assert place.any(False)


def vanish(place: Together, recipe: Path) -> None:
    """Another process that leaves at once."""


@pytest.mark.usefixtures("importable")
def test_a_process_that_is_gone_is_told_with_what_to_do(tmp_path: Path) -> None:
    with (
        pytest.raises(TrainingError, match="another process of this run is gone .* goes on from the last checkpoint"),
        together(2, vanish, tmp_path) as place,
    ):
        place.average([torch.ones(3)])


def test_a_process_that_ends_as_it_begins_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    here_only = ModuleType("here_only")
    exec("def work(place, recipe): ...", here_only.__dict__)
    monkeypatch.setitem(sys.modules, "here_only", here_only)  # the other process cannot import it
    with (
        pytest.raises(TrainingError, match="another process of this run ended as it began"),
        together(2, here_only.work, tmp_path),
    ):
        raise AssertionError("began without the other process")


def hang(place: Together, recipe: Path) -> None:
    """Another process that takes its time when it is asked to stop."""
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    (recipe / "pid").write_text(str(os.getpid()))
    while True:
        time.sleep(1)


@pytest.mark.usefixtures("importable")
def test_no_process_is_left_behind_when_the_first_one_fails(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("unveil.training.together.FAREWELL", 0.5)
    with pytest.raises(ZeroDivisionError), together(2, hang, tmp_path):
        while not (tmp_path / "pid").exists():
            time.sleep(0.1)
        raise ZeroDivisionError
    with pytest.raises(ProcessLookupError):
        os.kill(int((tmp_path / "pid").read_text()), 0)


def test_a_process_alone_changes_nothing() -> None:
    value = torch.tensor([1.0, 2.0])
    ALONE.average([value])
    assert value.tolist() == [1.0, 2.0] and ALONE.any(True) and not ALONE.any(False)


def test_an_image_tokenizer_learns_in_one_process(tmp_path: Path) -> None:
    path = tmp_path / "r.yaml"
    path.write_text(
        "name: x\nsteps: 1\nprocesses: 2\ntask: {objective: image_tokenizer, dense: 1, captioned: 2}\n"
        "optim: {lr: 0.1}\nparts: p\ndirectory: d\n"
    )
    with pytest.raises(ConfigError, match="processes must be 1 for an image tokenizer"):
        read(RunConfig, path)
