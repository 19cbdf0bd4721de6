"""Requests as the model takes them: pictures on its grid, prompts that fit its context, batches of one length."""

import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageOps

from unveil.config import ModelConfig
from unveil.engine import Engine, Model
from unveil.errors import PromptError, RequestError
from unveil.model.backbone.recorded import Recorded
from unveil.pictures import PictureInput, load_picture
from unveil.shapes import Float, Int, Tensor
from unveil.weights.read import Parts

ROWS = 64
"""Requests that go through the model at once; one when its memory was planned, since plans are for one."""


def checked_text(text: object, what: str) -> str:
    """The text with lone surrogates replaced. Raises PromptError when there is nothing in it, or it is no text."""
    if not isinstance(text, str):
        raise PromptError(f"the {what} must be text, not {type(text).__name__}")
    if not text.strip():
        raise PromptError(f"the {what} is empty; say in words what you want")
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def one_each(**given: Sequence[object] | Tensor) -> None:
    """Raise RequestError unless a batch has as many of everything."""
    counts = [f"{len(items)} {name}" for name, items in given.items()]
    if len({len(items) for items in given.values()}) > 1:
        raise RequestError(f"{' and '.join(counts)}; a batch has one of each for every picture")


def refuse(options: Mapping[str, object], names: Collection[str], why: str) -> None:
    """Raise RequestError for options that would not count."""
    idle = [name for name, value in options.items() if name in names and value is not None]
    if idle:
        raise RequestError(f"{why}; leave out {' and '.join(idle)}")


def check_room(prefix: Sequence[int], tokens: int, parts: Parts, what: str) -> None:
    """Raise PromptError unless N tokens of prompt and M to be written fit a context of L."""
    limit = parts.config.backbone.context
    if len(prefix) + tokens > limit:
        sizes = f"{len(prefix)} tokens of {what} and {tokens} to write exceed the context of {limit}"
        raise PromptError(f"{sizes}; shorten the {what} or ask for less")


def fit_picture(picture: Image.Image, config: ModelConfig) -> Image.Image:
    """The picture at the size that the tokenizer was trained on: scaled to cover it, then the middle is cut out.

    A whole multiple of that size, as our own pictures are, is averaged exactly, without filter ringing.
    """
    rows, columns = config.sampling.grid
    patch = config.image_tokenizer.patch_size
    width, height = columns * patch, rows * patch
    factor = picture.width // width
    if picture.size == (factor * width, factor * height):
        return picture.reduce(factor)
    return ImageOps.fit(picture, (width, height), Image.Resampling.LANCZOS)


def tokenize(parts: Parts, sources: Sequence[PictureInput]) -> Int[Tensor, "B h w"]:
    """The codes of pictures, on the CPU."""
    parts.require("image_tokenizer")
    (high, wide), fitted, cut = parts.config.sampling.grid, list[np.ndarray](), 0
    for source in sources:  # one by one: photographs are large
        picture = load_picture(source)
        cut += picture.width * high != picture.height * wide
        fitted.append(np.array(fit_picture(picture, parts.config)))
    if not fitted:
        raise RequestError("no picture was given; give at least one")
    if cut:
        shape = "a square" if high == wide else f"{wide} to {high}"
        count = "the picture" if len(fitted) == 1 else f"{cut} of {len(fitted)} pictures"
        warnings.warn(f"{count}: not {shape}; the model sees the middle alone", stacklevel=2)
    parts.enter("image_tokenizer")
    rows = rows_of(parts)
    chunks = [torch.from_numpy(np.stack(fitted[i : i + rows])) for i in range(0, len(fitted), rows)]
    return torch.cat([parts.image_tokenizer.tokenize(chunk).cpu() for chunk in chunks])


def pictures_in(directory: Path) -> list[Path]:
    """The picture files in a directory, by name. Raises RequestError when there is none."""
    if not directory.is_dir():
        raise RequestError(f"{directory}: no such directory; check the name")
    suffixes = (".png", ".jpg", ".jpeg", ".webp", ".gif", ".bmp")
    found = sorted(file for file in directory.iterdir() if file.suffix.lower() in suffixes and file.is_file())
    if not found:
        raise RequestError(f"{directory}: holds no pictures ({', '.join(suffixes)}); give another directory")
    return found


def by_length(prefixes: Sequence[Sequence[int]], most: int = ROWS) -> Iterator[list[int]]:
    """Indices of prompts that can share a batch: of one length, at most `most` together."""
    groups: dict[int, list[int]] = {}
    for index, prefix in enumerate(prefixes):
        groups.setdefault(len(prefix), []).append(index)
    for group in groups.values():
        for first in range(0, len(group), most):
            yield group[first : first + most]


def rows_of(parts: Parts) -> int:
    """How many requests go through the model at once."""
    return ROWS if parts.residency is None else 1


def new_engine(parts: Parts, *, shares: bool = False, beside: Engine | None = None, graphs: bool = False) -> Engine:
    """An engine with one user, whose requests may share what their prompts have in common.

    `beside` another it has the same model and the same user. Where memory was planned nothing is kept from one request
    to the next. With `graphs` passes are replayed from CUDA graphs; raises RequestError where they cannot be.
    """
    model: Model = Recorded.on_gpu(parts.backbone) if graphs else parts.backbone
    owner, prefixes = "user" if shares and parts.residency is None else None, None
    if beside is not None:
        model = beside.model
        if beside.owner is not None:
            owner, prefixes = beside.owner, beside.prefixes
    return Engine(
        model,
        parts.layout,
        context=parts.config.backbone.context,
        device=parts.device,
        queue=1 << 20,
        prefixes=prefixes,
        owner=owner,
    )


def ready(parts: Parts, engine: Engine | None) -> Engine:
    """The engine, or one for this call alone; the backbone is on its device when this returns."""
    parts.enter("backbone")
    return new_engine(parts) if engine is None else engine


@dataclass(frozen=True)
class Entering:
    """A part of the renderer that comes to the device when it is asked for something."""

    parts: Parts
    name: str

    @property
    def part(self) -> Any:
        """The part, on the device."""
        self.parts.enter(self.name)
        return getattr(self.parts, self.name)

    def __call__(self, codes: Int[Tensor, "B h w"]) -> Any:
        """What a code embedding gives."""
        return self.part(codes)

    def context(self, condition: Float[Tensor, "B N D"], grid: tuple[int, int], size: tuple[int, int]) -> Any:
        """What an image decoder gives for all times."""
        return self.part.context(condition, grid, size)

    def velocity(self, latents: Float[Tensor, "B C H W"], t: Float[Tensor, " B"], context: Any) -> Any:
        """What an image decoder gives at one time."""
        return self.part.velocity(latents, t, context)

    def decode(self, latents: Float[Tensor, "B C h w"]) -> Any:
        """What a VAE gives."""
        return self.part.decode(latents)
