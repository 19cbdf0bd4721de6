"""Where a picture comes from, in the text chunks of its PNG: enough to make the same pixels again."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import NoneType
from typing import TypeAlias

from unveil.errors import PictureError
from unveil.pictures import read_texts
from unveil.version import VERSION

Setting: TypeAlias = "int | float | bool | str | list[int] | Mapping[str, Setting] | None"
_CHANGED = "its text chunks were changed; only a PNG as unveil wrote it works"


@dataclass(frozen=True)
class Recipe:
    """Everything a picture depends on besides the weights, which it names by their hash."""

    task: str  # generate, edit or interleave
    prompt: str
    seed: int
    settings: Mapping[str, Setting]
    weights: str
    source: list[list[int]] | None = None  # edit: the codes of the picture that was changed
    pinned: list[list[int | None]] | None = None  # codes that were kept from an earlier picture, null where drawn anew
    number: int | None = None  # interleave: which picture of the story, from 0
    precision: str = "float32"  # how the weights were held
    made_on: str = ""  # PyTorch, device and threads: with others the last bits differ
    version: str = VERSION

    def texts(self) -> dict[str, str]:
        """One text chunk for each field that holds something; values other than text are JSON."""
        fields = {
            "task": self.task,
            "prompt": self.prompt,
            "seed": str(self.seed),
            "settings": json.dumps(dict(self.settings)),
            "weights": self.weights,
            "precision": self.precision,
            "made_on": self.made_on,
            "version": self.version,
            "Software": f"unveil {self.version}",
        }
        fields |= {} if self.source is None else {"source": json.dumps(self.source)}
        fields |= {} if self.pinned is None else {"pinned": json.dumps(self.pinned)}
        return fields if self.number is None else fields | {"number": str(self.number)}


def read_recipe(path: Path) -> Recipe:
    """The recipe in a PNG. Raises PictureError when there is none, or what is there was not written by unveil."""
    texts = read_texts(path)
    try:
        source, pinned, number = texts.get("source"), texts.get("pinned"), texts.get("number")
        recipe = Recipe(
            task=texts["task"],
            prompt=texts["prompt"],
            seed=int(texts["seed"]),
            settings=json.loads(texts["settings"]),
            weights=texts["weights"],
            source=None if source is None else json.loads(source),
            pinned=None if pinned is None else json.loads(pinned),
            number=None if number is None else int(number),
            precision=texts.get("precision", "float32"),  # pictures from before it do not tell
            made_on=texts.get("made_on", ""),
            version=texts["version"],
        )
    except KeyError as error:
        problem = f"no {error} among its text chunks"
        raise PictureError(f"{path}: {problem}; only a PNG that unveil wrote can be made again") from None
    except (ValueError, RecursionError):
        raise PictureError(f"{path}: {_CHANGED}") from None
    _check(recipe, path)
    return recipe


def read_codes(path: Path) -> tuple[list[list[int]], str]:
    """The codes that a PNG was rendered from, and the hash of the weights that drew them. Raises PictureError."""
    texts = read_texts(path)
    if "codes" not in texts or "weights" not in texts:
        raise PictureError(f"{path}: has no codes among its text chunks; only a PNG that unveil wrote has them")
    try:
        codes = json.loads(texts["codes"])
    except (ValueError, RecursionError):
        codes = None
    if codes is None or not _is_grid(codes):
        raise PictureError(f"{path}: {_CHANGED}")
    return codes, texts["weights"]


def _check(recipe: Recipe, path: Path) -> None:
    """Raise PictureError for chunks of the right names with wrong contents: the file may come from anyone."""
    good = recipe.task in ("generate", "edit", "interleave") and isinstance(recipe.settings, dict)
    good = good and (recipe.task == "edit") == (recipe.source is not None) and _is_grid(recipe.source)
    good = good and (recipe.pinned is None or recipe.task != "interleave") and _is_grid(recipe.pinned, (int, NoneType))
    if not good or (recipe.task == "interleave") != (recipe.number is not None):
        raise PictureError(f"{path}: {_CHANGED}")


def _is_grid(source: object, kinds: tuple[type, ...] = (int,)) -> bool:
    """Whether these are rows of codes (or of values of other kinds) of one length, or nothing."""
    if source is None:
        return True
    rows = source if isinstance(source, list) and source and all(isinstance(row, list) for row in source) else [[]]
    return (
        len({len(row) for row in rows}) == 1
        and all(type(code) in kinds and 0 <= (code or 0) < 2**31 for row in rows for code in row)
        and rows[0] != []
    )
