"""Where a picture comes from, in the text chunks of its PNG: enough to make the same pixels again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from unveil.errors import PictureError
from unveil.pictures import read_texts
from unveil.version import VERSION

Setting = int | float | bool | list[int] | None


@dataclass(frozen=True)
class Recipe:
    """Everything a picture depends on besides the weights, which it names by their hash."""

    task: str  # generate, edit or interleave
    prompt: str
    seed: int
    settings: Mapping[str, Setting]
    weights: str
    source: list[list[int]] | None = None  # edit: the codes of the picture that was changed
    number: int | None = None  # interleave: which picture of the story, from 0
    version: str = VERSION

    def texts(self) -> dict[str, str]:
        """One text chunk for each field that holds something; values other than text are JSON."""
        fields = {
            "task": self.task,
            "prompt": self.prompt,
            "seed": str(self.seed),
            "settings": json.dumps(dict(self.settings)),
            "weights": self.weights,
            "version": self.version,
            "Software": f"unveil {self.version}",
        }
        fields |= {} if self.source is None else {"source": json.dumps(self.source)}
        return fields if self.number is None else fields | {"number": str(self.number)}


def read_recipe(path: Path) -> Recipe:
    """The recipe in a PNG. Raises PictureError when there is none, or what is there was not written by unveil."""
    texts = read_texts(path)
    try:
        source, number = texts.get("source"), texts.get("number")
        recipe = Recipe(
            task=texts["task"],
            prompt=texts["prompt"],
            seed=int(texts["seed"]),
            settings=json.loads(texts["settings"]),
            weights=texts["weights"],
            source=None if source is None else json.loads(source),
            number=None if number is None else int(number),
            version=texts["version"],
        )
    except KeyError as error:
        problem = f"no {error} among its text chunks"
        raise PictureError(f"{path}: {problem}; only a PNG that unveil wrote can be made again") from None
    except (ValueError, RecursionError):
        raise PictureError(f"{path}: its text chunks were changed; only a PNG as unveil wrote it works") from None
    _check(recipe, path)
    return recipe


def _check(recipe: Recipe, path: Path) -> None:
    """Raise PictureError for chunks of the right names with wrong contents: the file may come from anyone."""
    good = recipe.task in ("generate", "edit", "interleave") and isinstance(recipe.settings, dict)
    good = good and (recipe.task == "edit") == (recipe.source is not None) and _is_grid(recipe.source)
    if not good or (recipe.task == "interleave") != (recipe.number is not None):
        raise PictureError(f"{path}: its text chunks were changed; only a PNG as unveil wrote it works")


def _is_grid(source: object) -> bool:
    """Whether these are rows of codes of one length, or nothing."""
    if source is None:
        return True
    rows = source if isinstance(source, list) and source and all(isinstance(row, list) for row in source) else [[]]
    return (
        len({len(row) for row in rows}) == 1
        and all(type(code) is int for row in rows for code in row)
        and rows[0] != []
    )
