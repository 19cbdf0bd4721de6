"""A run from its file: what it starts from, what it says, what it leaves behind."""

import itertools
import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from unveil import runs
from unveil.config import dump, load_preset
from unveil.config.run import RunConfig, VaeTask
from unveil.errors import TrainingError, UnveilError, WeightsError
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.training.objectives.vae import VaeObjective
from unveil.vocab.text import Text
from unveil.weights.save import save_part


def sentences() -> list[str]:
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]
    return [f"a {a}{b} and two {b}{a}{a}s" for a, b in itertools.product(syllables, syllables)]


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.train(sentences())


def vae_run(directory: Path, /, **changes: object) -> RunConfig:
    values: dict[str, object] = {
        "name": "trial", "steps": 2, "task": {"objective": "vae", "batch": 1, "crop": 8}, "optim": {"lr": 0.001},
        "parts": directory / "parts", "directory": directory / "run", "threads": 1,
    }  # fmt: skip
    return RunConfig.model_validate(values | changes)


def test_a_vae_that_starts_from_parts_has_their_weights(tmp_path: Path, text: Text) -> None:
    model, run = load_preset("tiny"), vae_run(tmp_path, start="parts")
    before = VaeObjective(model, VaeTask(objective="vae", batch=1), seed=77).module
    save_part(before, run.parts / "vae.safetensors")
    text.save(run.parts / "tokenizer.json")
    state = runs.build_objective(run, model).module.state_dict()
    assert all(torch.equal(state[name], value) for name, value in before.state_dict().items())
    fresh = runs.build_objective(run.model_copy(update={"start": "scratch"}), model).module.state_dict()
    assert not torch.equal(fresh["encoder.conv_in.weight"], state["encoder.conv_in.weight"])


def test_fresh_words_of_a_backbone_get_the_common_part_when_asked(tmp_path: Path, text: Text) -> None:
    model = load_preset("tiny")
    rows = []
    for asked in (False, True):
        task = {"objective": "backbone", "rows": {"edit": 1}, "common_part": asked}
        run = vae_run(tmp_path / str(asked), task=task, seed=1)
        save_part(ImageTokenizer(model.image_tokenizer).eval(), run.parts / "image_tokenizer.safetensors")
        text.save(run.parts / "tokenizer.json")
        state = runs.build_objective(run, model).module.state_dict()
        rows.append(state["backbone.model.word_embeddings.weight"])
    without, given = rows
    offset = model.vocab.image_offset
    assert torch.allclose(given[:offset] - without[:offset], given[offset:].mean(0).expand(offset, -1), atol=1e-6)


def test_a_stage_whose_parts_are_not_there_yet_says_so(tmp_path: Path, text: Text) -> None:
    run = vae_run(tmp_path, task={"objective": "retrieval", "batch": 2})
    run.parts.mkdir()
    text.save(run.parts / "tokenizer.json")
    with pytest.raises(WeightsError, match=r"image_tokenizer.safetensors: missing; run the stage"):
        runs.build_objective(run, load_preset("tiny"))


@pytest.mark.parametrize("missing", [True, False])
def test_nothing_is_written_to_the_parts_when_a_stage_or_the_directory_cannot_be(tmp_path: Path, missing: bool) -> None:
    (tmp_path / "file").write_text("")
    changes: dict[str, object] = {"task": {"objective": "retrieval", "batch": 2}} if missing else {}
    run = vae_run(tmp_path, **changes, directory=tmp_path / "file")
    (tmp_path / "r.yaml").write_text(dump(run))
    with pytest.raises(UnveilError, match="run the stage that trains it first" if missing else "file: cannot be made"):
        runs.start(tmp_path / "r.yaml")
    assert not run.parts.exists()


def test_crops_larger_than_the_pictures_are_refused(tmp_path: Path, text: Text) -> None:
    run = vae_run(tmp_path, task={"objective": "vae", "batch": 1, "crop": 136})
    run.parts.mkdir()
    text.save(run.parts / "tokenizer.json")
    with pytest.raises(TrainingError, match="136 pixels do not fit into 128"):
        runs.build_objective(run, load_preset("tiny"))


def test_a_run_stopped_before_its_first_line_goes_on_later(
    tmp_path: Path, text: Text, monkeypatch: pytest.MonkeyPatch
) -> None:
    run, real = vae_run(tmp_path), VaeObjective.losses

    def stopped(
        self: VaeObjective, step: int, generator: torch.Generator
    ) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        os.kill(os.getpid(), signal.SIGTERM)
        return real(self, step, generator)

    (tmp_path / "r.yaml").write_text(dump(run))
    run.parts.mkdir()
    text.save(run.parts / "tokenizer.json")
    with monkeypatch.context() as patch:
        patch.setattr(VaeObjective, "losses", stopped)
        assert not runs.start(tmp_path / "r.yaml")
    assert not (run.directory / "curves.png").exists()
    assert runs.start(tmp_path / "r.yaml")
    assert (run.directory / "curves.png").exists() and (run.parts / "vae.safetensors").exists()


def test_a_full_disk_leaves_no_half_tokenizer_that_later_runs_would_trip_over(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    run = vae_run(tmp_path)
    run.parts.mkdir()
    monkeypatch.setattr(runs, "corpus", sentences)
    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(WeightsError, match="No space left"):
            runs.build_objective(run, load_preset("tiny"))
    assert list(run.parts.iterdir()) == []
    runs.build_objective(run, load_preset("tiny"))
    assert Text.load(run.parts / "tokenizer.json").encode("a baba")
