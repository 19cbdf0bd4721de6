"""A run that was interrupted ends exactly as one that was not."""

import json
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from unveil.config import ModelConfig
from unveil.config.run import BackboneTask, RunConfig, VaeTask
from unveil.errors import TrainingError, WeightsError
from unveil.model.backbone import Backbone
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.training import loop
from unveil.training.checkpoint import Snapshot, newest_checkpoint
from unveil.training.loop import Objective, train
from unveil.training.objectives.backbone import BackboneObjective
from unveil.training.objectives.vae import VaeObjective
from unveil.training.together import Together
from unveil.vocab.text import Text
from unveil.weights.save import save_part

Settings = Callable[..., RunConfig]


class Stop(Exception):
    """A stand-in for a kill between two train steps."""


def no_ship(parts: dict[str, nn.Module]) -> None:
    """For runs whose result is looked at in the checkpoint."""


def newest(run: RunConfig) -> Snapshot:
    found, passed = newest_checkpoint(run.directory)
    assert found is not None and not passed
    return found


def log(run: RunConfig) -> list[dict[str, float]]:
    lines = [json.loads(line) for line in (run.directory / "log.jsonl").read_text().splitlines()]
    return [{k: v for k, v in line.items() if k != "step_seconds"} for line in lines]


def assert_equal(a: Snapshot, b: Snapshot) -> None:
    assert a.step == b.step
    for x, y in ((a.weights, b.weights), (a.average, b.average), (a.optimizer, b.optimizer)):
        assert x.keys() == y.keys()
        assert all(torch.equal(x[name], y[name]) for name in y)


def interrupted(make: Callable[[], Objective], run: RunConfig, at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Train to a checkpoint at `at`, be killed two train steps later, and go on in a new objective."""
    real, first, end = loop.train_step, run.model_copy(update={"checkpoint_every": at}), min(at + 2, run.steps - 1)

    def killed(
        run: RunConfig, objective: Objective, optimizer: torch.optim.Optimizer, step: int, place: Together
    ) -> dict[str, float]:
        if step == end:
            raise Stop
        return real(run, objective, optimizer, step, place)

    with monkeypatch.context() as patch:
        patch.setattr(loop, "train_step", killed)
        with pytest.raises(Stop):
            train(first, make(), no_ship)
    assert newest(run).step == end // at * at
    assert train(run, make(), no_ship)


@pytest.mark.parametrize("at", [1, 2, 3, 4, 5, 6])
def test_resumed_equals_uninterrupted(
    line: type, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at: int
) -> None:
    whole, parted = settings(directory=tmp_path / "whole"), settings(directory=tmp_path / "parted")
    train(whole, line(), no_ship)
    interrupted(line, parted, at, monkeypatch)
    assert_equal(newest(parted), newest(whole))
    assert log(parted) == log(whole)


def test_resumed_equals_uninterrupted_for_the_vae(
    small: ModelConfig, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    task = VaeTask(objective="vae", batch=2, crop=16)
    whole, parted = (settings(steps=4, task=task, directory=tmp_path / name) for name in ("whole", "parted"))
    train(whole, VaeObjective(small, task, 0), no_ship)
    interrupted(lambda: VaeObjective(small, task, 0), parted, 2, monkeypatch)
    assert_equal(newest(parted), newest(whole))
    assert log(parted) == log(whole)


@pytest.fixture(scope="module")
def backbone_objective(small: ModelConfig, text: Text) -> Callable[[], BackboneObjective]:
    tokenizer = ImageTokenizer(small.image_tokenizer)
    tokenizer.initialize(torch.Generator().manual_seed(0))

    def make() -> BackboneObjective:
        backbone = Backbone(small.backbone, small.vocab).initialize(torch.Generator().manual_seed(1))
        task = BackboneTask(objective="backbone", rows={"generate": 2, "understand": 1, "edit": 1}, questions=2)
        return BackboneObjective(small, task, text, tokenizer, backbone)

    return make


@pytest.mark.parametrize("orthogonal", [None, 2.0])
def test_resumed_equals_uninterrupted_for_the_backbone(
    backbone_objective: Callable[[], BackboneObjective],
    settings: Settings,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    orthogonal: float | None,
) -> None:
    optim = {"lr": 0.02, "warmup": 2, "decay": 0.5, "orthogonal": orthogonal}
    whole, parted = (settings(steps=4, directory=tmp_path / name, optim=optim) for name in ("whole", "parted"))
    train(whole, backbone_objective(), no_ship)
    interrupted(backbone_objective, parted, 2, monkeypatch)
    assert_equal(newest(parted), newest(whole))
    assert log(parted) == log(whole)
    assert newest(whole).weights["backbone.model.layers.1.mlp.gate.expert_bias"].abs().sum() > 0  # it is carried along


def test_the_same_seed_gives_the_same_loss_bit_for_bit_and_another_seed_another(
    backbone_objective: Callable[[], BackboneObjective],
) -> None:
    def losses(seed: int) -> list[float]:
        generator = torch.Generator().manual_seed(seed)
        return [float(loss.detach()) for loss, _ in backbone_objective().losses(0, generator)]

    assert losses(1) == losses(1)
    assert losses(1) != losses(2)


def test_sigterm_finishes_the_step_saves_returns_and_the_same_command_goes_on(
    line: type, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def term(step: int) -> None:
        if step == 4:
            os.kill(os.getpid(), signal.SIGTERM)

    whole, parted = (settings(directory=tmp_path / name) for name in ("whole", "parted"))
    train(whole, line(), no_ship)
    before = signal.getsignal(signal.SIGTERM)
    shipped: list[str] = []
    assert not train(parted, line(on_step=term), shipped.extend)
    assert signal.getsignal(signal.SIGTERM) is before
    assert newest(parted).step == 5
    assert shipped == ["line"]
    assert "goes on from there" in capsys.readouterr().err
    assert train(parted, line(), no_ship)
    assert_equal(newest(parted), newest(whole))
    assert log(parted) == log(whole)


@pytest.mark.parametrize("step", [0, 3, 7])
def test_a_loss_that_is_not_a_number_raises_before_the_weights_change(
    line: type, settings: Settings, tmp_path: Path, step: int
) -> None:
    run = settings(checkpoint_every=1, directory=tmp_path / "poisoned")
    objective, good = line(poison=step), line()
    with pytest.raises(TrainingError, match=rf"step {step}: loss nan.*weights are as before"):
        train(run, objective, no_ship)
    if step:
        train(settings(checkpoint_every=1, directory=tmp_path / "good"), good, no_ship)
        saved = newest(run)
        assert saved.step == step
        assert all(torch.equal(saved.weights[k], v) for k, v in objective.module.state_dict().items())
        assert all(v.isfinite().all() for v in saved.weights.values())
    else:
        assert newest_checkpoint(run.directory)[0] is None
        assert torch.equal(objective.module.weight, line().module.weight)


def test_a_gradient_that_is_not_a_number_raises_too(line: type, settings: Settings) -> None:
    objective = line()
    objective.module.weight.register_hook(lambda g: g * float("inf"))
    before = objective.module.weight.detach().clone()
    with pytest.raises(TrainingError, match="gradient norm"):
        train(settings(), objective, no_ship)
    assert torch.equal(objective.module.weight, before)


def test_a_full_disk_on_the_way_is_said_and_training_goes_on(
    line: type, settings: Settings, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    real = loop.save_checkpoint

    def full(directory: Path, snapshot: Snapshot, keep: int) -> Path:
        if snapshot.step == 4:
            raise TrainingError("checkpoint not written (No space left on device)")
        return real(directory, snapshot, keep)

    monkeypatch.setattr(loop, "save_checkpoint", full)
    run = settings(checkpoint_every=2)
    assert train(run, line(), no_ship)
    assert "tried again" in capsys.readouterr().err
    assert newest(run).step == 8
    monkeypatch.setattr(loop, "save_checkpoint", lambda *_: (_ for _ in ()).throw(TrainingError("no space")))
    with pytest.raises(TrainingError, match="no space"):
        train(settings(directory=run.directory / "last"), line(), no_ship)


def test_the_directory_of_another_run_is_refused_in_one_line(line: type, settings: Settings) -> None:
    run = settings()
    train(run, line(), no_ship)
    other = line()
    other.module = nn.Linear(5, 3)
    with pytest.raises(TrainingError, match=r"another run .*new directory") as error:
        train(run, other, no_ship)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("before", "after"), [(None, 2.0), (2.0, None)])
def test_a_checkpoint_of_another_optimizer_is_refused_in_one_line(
    line: type, settings: Settings, before: float | None, after: float | None
) -> None:
    def deep() -> Objective:
        objective = line()
        objective.module = nn.Sequential(nn.Sequential(nn.Linear(4, 3), nn.Linear(3, 3)))
        return objective

    train(settings(steps=2, optim={"lr": 0.01, "orthogonal": before}), deep(), no_ship)
    with pytest.raises(TrainingError, match=r"optim.orthogonal or optim.slow has changed\); use a new directory"):
        train(settings(steps=4, optim={"lr": 0.01, "orthogonal": after}), deep(), no_ship)


@pytest.mark.parametrize("bad", [b"{half\n", b"7\n", b'{"loss": 1}\n', b"\xff\n"])
def test_a_log_that_cannot_be_read_is_refused_in_one_line(line: type, settings: Settings, bad: bytes) -> None:
    train(settings(steps=2), line(), no_ship)
    file = settings().directory / "log.jsonl"
    file.write_bytes(file.read_bytes() + bad)
    with pytest.raises(TrainingError, match=r"log.jsonl: not the log of a run; move it away"):
        train(settings(steps=4), line(), no_ship)


def test_a_run_that_has_done_more_than_its_recipe_says_so(
    line: type, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    shipped: dict[str, nn.Module] = {}
    train(settings(steps=6), line(), shipped.update)
    with pytest.raises(TrainingError, match="has done 6 steps, more than the 2 of the recipe; set steps to at least 6"):
        train(settings(steps=2), line(), lambda parts: pytest.fail("shipped"))
    capsys.readouterr()
    assert train(settings(steps=6), line(), lambda parts: pytest.fail("shipped"))
    assert capsys.readouterr().err == "trial: is complete at step 6 of 6\n"
    saved = newest(settings())
    assert all(torch.equal(v, saved.average[k]) for k, v in shipped["line"].state_dict().items())


def test_what_ships_is_the_running_mean_of_the_weights(line: type, settings: Settings) -> None:
    run, shipped = settings(), dict[str, nn.Module]()
    train(run, line(), shipped.update)
    saved = newest(run)
    assert all(torch.equal(v, saved.average[k]) for k, v in shipped["line"].state_dict().items())
    assert not torch.equal(saved.average["weight"], saved.weights["weight"])


def test_a_run_that_goes_on_from_parts_finds_them_again_though_it_ships_over_them(
    line: type, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = loop._save

    def killed(*arguments: object) -> None:  # after the first shipping, before the first checkpoint after it
        if arguments[-1]:
            raise Stop
        real(*arguments)

    def started(file: Path) -> Objective:
        objective = line()
        if file.exists():
            objective.module.load_state_dict(torch.load(file, weights_only=True))
        return objective

    for name in ("whole", "parted"):
        run, file = settings(start="parts", checkpoint_every=2, directory=tmp_path / name), tmp_path / f"{name}.pt"

        def ship(parts: dict[str, nn.Module], file: Path = file) -> None:
            torch.save(parts["line"].state_dict(), file)

        ship({"line": line(seed=5).module})
        if name == "parted":
            with monkeypatch.context() as patch, pytest.raises(Stop):
                patch.setattr(loop, "_save", killed)
                train(run, started(file), ship)
        assert train(run, started(file), ship)
    assert_equal(newest(run), newest(settings(start="parts", directory=tmp_path / "whole")))


def test_a_complete_run_started_again_does_nothing(line: type, settings: Settings) -> None:
    run = settings()
    train(run, line(), no_ship)
    before = newest(run)
    assert train(run, line(on_step=lambda step: pytest.fail("a train step")), no_ship)
    assert_equal(newest(run), before)
    assert len(log(run)) == run.steps


def test_a_run_that_goes_on_takes_the_samples_after_those_of_the_first(line: type, settings: Settings) -> None:
    seen: list[int] = []
    train(settings(steps=3, samples_from=500), line(on_step=seen.append), no_ship)
    assert seen == [500, 501, 502]


def test_a_disk_that_is_full_for_a_while_costs_no_step_and_no_line_of_the_log(
    line: type, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    resource = pytest.importorskip("resource")
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)

    def room(step: int) -> None:
        if step in (3, 6):  # a file may not grow beyond 100 bytes, then it may again
            resource.setrlimit(resource.RLIMIT_FSIZE, (100, limits[1]) if step == 3 else limits)

    def ship(parts: dict[str, nn.Module]) -> None:
        save_part(parts["line"], tmp_path / "parts" / "line.safetensors")

    whole, tight = (settings(checkpoint_every=2, directory=tmp_path / name) for name in ("whole", "tight"))
    train(whole, line(), ship)
    capsys.readouterr()
    try:
        assert train(tight, line(on_step=room), ship)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    said = capsys.readouterr().err
    assert said.count("tried again at the next checkpoint") == 4 and "log.jsonl: not written" in said
    assert_equal(newest(tight), newest(whole))
    assert log(tight) == log(whole)


def test_a_run_whose_last_parts_could_not_be_written_writes_them_when_started_again(
    line: type, settings: Settings
) -> None:
    def full(parts: dict[str, nn.Module]) -> None:
        raise WeightsError("not enough space")

    run, shipped = settings(), dict[str, nn.Module]()
    with pytest.raises(WeightsError, match="not enough space"):
        train(run, line(), full)
    assert train(run, line(), shipped.update)
    saved = newest(run)
    assert saved.step == run.steps
    assert all(torch.equal(v, saved.average[k]) for k, v in shipped["line"].state_dict().items())


def test_a_changed_recipe_is_told_on_resuming(
    line: type, settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    train(settings(directory=tmp_path), line(), no_ship)
    steps = settings(directory=tmp_path).steps
    train(settings(directory=tmp_path, steps=steps + 1), line(), no_ship)
    assert f"goes on from step {steps} of {steps + 1}; the recipe has changed since\n" in capsys.readouterr().err
    train(settings(directory=tmp_path, steps=steps + 1), line(), no_ship)
    assert "changed" not in capsys.readouterr().err
