"""What a request gives: the picture or the words, and everything needed to get the same again."""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from PIL import Image

from unveil.files import check_target, write_atomic
from unveil.metadata import Recipe
from unveil.pictures import SUFFIXES, encode
from unveil.shapes import Int, Tensor
from unveil.trace import Trace


@dataclass(frozen=True)
class ImageResult:
    """A picture, the codes it was rendered from, and how to make it again."""

    image: Image.Image
    codes: Int[Tensor, "h w"]
    seed: int
    recipe: Recipe
    seconds: float
    thinking: str | None = None  # the plan in words, when one was asked for
    trace: Trace | None = None

    @property
    def approximate(self) -> bool:
        """Whether SPRINT pruned what the model saw; else the codes are those of the exact loop."""
        return self.recipe.settings.get("sprint") is not None

    def save(self, path: str | Path) -> Path:
        """Write a picture file; a PNG carries recipe and codes. Raises OutputError when it cannot be written."""
        target = Path(path)
        check_target(target, SUFFIXES)
        texts = self.recipe.texts() | {"codes": json.dumps(self.codes.tolist())}
        write_atomic(target, encode(self.image, target.suffix, texts))
        return target


@dataclass(frozen=True)
class TextResult:
    """Words."""

    text: str
    seed: int
    seconds: float
    trace: Trace | None = None


class Page(NamedTuple):
    """One step of a story: words, then the picture they lead to; the last words may have none."""

    text: str
    image: ImageResult | None


@dataclass(frozen=True)
class StoryResult:
    """Words and pictures in turn."""

    pages: tuple[Page, ...]
    seed: int
    seconds: float
    trace: Trace | None = None
