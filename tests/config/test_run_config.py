"""A training run's file: typos name the nearest field, values are checked, recipes are valid."""

from pathlib import Path
from typing import get_args

import pytest
import yaml

from unveil.config import dump, parse, read, validate
from unveil.config.run import BackboneTask, RowTask, RunConfig
from unveil.errors import ConfigError
from unveil.training.rows import TASKS

ROOT = Path(__file__).parents[2]
GOOD = {
    "name": "x", "steps": 10, "task": {"objective": "backbone", "rows": {"generate": 4}},
    "optim": {"lr": 1e-3}, "parts": "parts", "directory": "run",
}  # fmt: skip


def changed(path: str, typo: str) -> dict[str, object]:
    """The good file with one key misspelled (an optional one is added under the wrong name)."""
    data = yaml.safe_load(yaml.safe_dump(GOOD))
    *parents, key = path.split(".")
    place = data
    for parent in parents:
        place = place[parent]
    place[typo] = place.pop(key, 1)
    return data


TYPOS = [
    ("steps", "step"), ("seed", "sead"), ("directory", "directry"), ("checkpoint_every", "checkpoints_every"),
    ("log_every", "logevery"), ("threads", "thread"), ("optim", "optimizer"), ("optim.warmup", "warm_up"),
    ("optim.weight_decay", "weightdecay"), ("optim.average", "averge"), ("task.questions", "question"),
    ("task.drop_prompt", "dropprompt"), ("task.weighting", "weigthing"),
]  # fmt: skip


@pytest.mark.parametrize(("path", "typo"), TYPOS)
def test_a_typo_names_the_nearest_field(path: str, typo: str) -> None:
    with pytest.raises(ConfigError) as error:
        validate(RunConfig, changed(path, typo), "run.yaml")
    key = path.split(".")[-1]
    assert f"did you mean '{key}'?" in str(error.value)
    assert str(error.value).startswith("run.yaml: ") and "\n" not in str(error.value)


@pytest.mark.parametrize("recipe", sorted((ROOT / "recipes").rglob("*.yaml")), ids=lambda p: p.stem)
def test_every_recipe_is_a_valid_run(recipe: Path) -> None:
    run = read(RunConfig, recipe)
    assert run.name == recipe.stem
    assert parse(RunConfig, dump(run), "dump") == run


def test_the_objective_chooses_the_task() -> None:
    run = validate(RunConfig, GOOD, "run.yaml")
    assert isinstance(run.task, BackboneTask)
    assert run.task.rows == {"generate": 4}


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"steps": 0}, "steps"),
        ({"optim": {"lr": 0}}, "optim.lr"),
        ({"optim": {"lr": 1e-3, "decay": 2}}, "optim.decay"),
        ({"optim": {"lr": float("inf")}}, "optim.lr"),
        ({"optim": {"lr": 1e-3, "betas": [0.9, 1.0]}}, "optim.betas"),
        ({"optim": {"lr": 1e-3, "slow": {"router": -0.1}}}, "optim.slow.router"),
        ({"seed": -1}, "seed"),
        ({"seed": 1 << 63}, "seed"),
        ({"task": {"objective": "poetry"}}, "task"),
        ({"task": {"objective": "backbone", "rows": {"generate": 1}, "copies": 3}}, "copies"),
        ({"task": {"objective": "retrieval", "batch": 1}}, "batch"),
        ({"start": "middle"}, "start"),
        ({"keep": 0}, "keep"),
    ],
)
def test_an_impossible_value_names_its_field(change: dict[str, object], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        validate(RunConfig, GOOD | change, "run.yaml")


@pytest.mark.parametrize(
    ("task", "why"),
    [
        ({"objective": "backbone", "rows": {"genrate": 4}}, "genrate"),
        ({"objective": "backbone", "rows": {"generate": 0}}, "rows.generate"),
        ({"objective": "backbone", "rows": {}}, "rows"),
        ({"objective": "backbone", "rows": {"edit": 1}, "rates": [0.9, 0.1]}, "a low and a high one"),
        ({"objective": "backbone", "rows": {"edit": 1}, "rates": [0.0, 0.0]}, "above 0"),
        ({"objective": "backbone", "rows": {"look": 1}, "fact_rates": [0.9, 0.1]}, "fact_rates must be a low"),
        ({"objective": "backbone", "rows": {"edit": 1}, "rates": [-1.0, 1.0]}, "rates"),
        ({"objective": "vae", "batch": 1, "crop": 0}, "crop"),
        ({"objective": "vae", "batch": 1, "crop": 13}, "crop"),
        ({"objective": "vae", "batch": 1, "kl_weight": -1.0}, "kl_weight"),
        ({"objective": "vae", "batch": 1, "kl_weight": float("inf")}, "kl_weight"),
        ({"objective": "image_tokenizer", "dense": 1, "captioned": 2, "codebook_decay": 1.0}, "codebook_decay"),
        ({"objective": "image_tokenizer", "dense": 1, "captioned": 2, "pixel_weight": -1.0}, "pixel_weight"),
        ({"objective": "decoder", "batch": 1, "time_shift": 0.0}, "time_shift"),
    ],
)
def test_a_task_that_could_not_train_is_refused_when_it_is_read(task: dict[str, object], why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        validate(RunConfig, GOOD | {"task": task}, "r.yaml")


def test_the_tasks_of_rows_are_those_that_training_knows() -> None:
    assert set(get_args(RowTask)) == set(TASKS)


def test_an_image_tokenizer_cannot_start_from_parts() -> None:
    task = {"objective": "image_tokenizer", "dense": 1, "captioned": 2}
    with pytest.raises(ConfigError, match="cannot start from parts"):
        validate(RunConfig, GOOD | {"task": task, "start": "parts"}, "r.yaml")
