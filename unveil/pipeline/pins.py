"""What stays of an earlier picture: its codes pinned on the canvas, and the masks that say which.

codes of 2x2    keep     pinned on a canvas of 2x4, at row 0, column 1 (`.` is drawn)
a b             1 1      .  a  b  .
c d             0 1      .  .  d  .
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self, TypeAlias

import numpy as np
import torch
from PIL import Image

from unveil.config import ModelConfig
from unveil.errors import RequestError, WeightsError
from unveil.metadata import read_codes
from unveil.pictures import PictureInput, load_picture
from unveil.pipeline.inputs import fit_picture
from unveil.pipeline.results import ImageResult
from unveil.pipeline.settings import PictureOptions, PictureSettings
from unveil.shapes import Bool, Int, Tensor
from unveil.vocab.layout import Layout

CodesInput: TypeAlias = ImageResult | Int[Tensor, "h w"] | np.ndarray | Sequence[Sequence[int]] | str | Path
"""Codes of an earlier picture: the result, its codes, or the PNG it was saved to."""
MaskInput: TypeAlias = PictureInput | np.ndarray | Tensor | Sequence[Sequence[bool]]
"""Cells: True or 1 in an array (rows, columns), or what is more white than black in a picture."""


@dataclass(frozen=True)
class Earlier:
    """What a request says of an earlier picture, as `keep_codes` takes it; without codes there is none."""

    codes: CodesInput | None = None
    keep: MaskInput | None = None
    vary: MaskInput | None = None
    at: tuple[int, int] | None = None  # (row, column)

    def __post_init__(self) -> None:
        if self.codes is None and not (self.keep is None and self.vary is None and self.at is None):
            raise RequestError("keep, vary and at say what to do with an earlier picture; give its codes as well")

    @classmethod
    def each(
        cls,
        count: int,
        codes: CodesInput | list[CodesInput | None] | None,
        keep: MaskInput | list[MaskInput | None] | None,
        vary: MaskInput | list[MaskInput | None] | None,
        at: tuple[int, int] | list[tuple[int, int] | None] | None,
    ) -> list[Self]:
        """Those of a batch: of each argument one for all, or a list with one for each."""
        names, given = ("codes", "keep", "vary", "at"), (codes, keep, vary, at)
        columns = [for_each(name, value, count) for name, value in zip(names, given, strict=True)]
        return [cls(*row) for row in zip(*columns, strict=True)]


@dataclass(frozen=True)
class Pins:
    """A grid of codes, and which of them are kept as they are."""

    codes: Int[Tensor, "h w"]
    keep: Bool[Tensor, "h w"]

    def __post_init__(self) -> None:
        if self.keep.all():
            raise RequestError("nothing is left to draw: every cell is kept; choose at least one to be drawn anew")
        if not self.keep.any():
            raise RequestError("no cell is kept; leave out the mask to draw the whole picture anew")

    def tokens(self, layout: Layout) -> list[int]:
        """What the canvas holds from the start, in reading order: tokens, MASK where one is to be drawn."""
        return torch.where(self.keep, self.codes + layout.image_offset, layout.mask).flatten().tolist()

    def plain(self) -> list[list[int | None]]:
        """The kept codes as JSON has them, null where one is to be drawn."""
        rows = zip(self.codes.tolist(), self.keep.tolist(), strict=True)
        return [[code if kept else None for code, kept in zip(*row, strict=True)] for row in rows]

    @classmethod
    def from_plain(cls, plain: Sequence[Sequence[int | None]], grid: tuple[int, int], layout: Layout) -> Self:
        """The inverse of `plain`. Raises RequestError for what it would not give: files can be changed."""
        codes = torch.tensor([[0 if code is None else code for code in row] for row in plain])
        if tuple(codes.shape) != grid:
            raise RequestError("the picture's recipe was changed: its pinned codes have another size")
        return cls(check_codes(codes, layout), torch.tensor([[code is not None for code in row] for row in plain]))


def earlier_codes(source: CodesInput, weights: str, layout: Layout) -> Int[Tensor, "h w"]:
    """Codes of an earlier picture. Raises WeightsError when other weights drew it: their codes mean something else."""
    if isinstance(source, ImageResult):
        codes, theirs, name = source.codes, source.recipe.weights, "the earlier picture"
    elif isinstance(source, str | Path):
        plain, theirs = read_codes(Path(source))
        codes, name = torch.tensor(plain), str(source)
    else:
        return check_codes(source, layout)
    if theirs != weights:
        raise WeightsError(f"{name}: its codes come from weights {theirs}, these are {weights}; draw it again first")
    return check_codes(codes, layout)


def check_codes(
    source: Int[Tensor, "h w"] | np.ndarray | Sequence[Sequence[int]], layout: Layout
) -> Int[Tensor, "h w"]:
    """The codes, on the CPU. Raises RequestError unless they are a grid of numbers from the codebook."""
    highest = layout.codes - 1
    try:
        codes = torch.as_tensor(source)
    except (TypeError, ValueError, RuntimeError):  # rows of several lengths, and what is no number at all
        codes = torch.empty(0)
    counted = not (codes.is_floating_point() or codes.is_complex() or codes.dtype == torch.bool)
    whole = codes.ndim == 2 and codes.numel() > 0 and counted
    codes = codes.long().cpu() if whole else codes
    if not whole or int(codes.min()) < 0 or int(codes.max()) > highest:
        raise RequestError(f"codes must be a grid (rows, columns) of numbers from 0 to {highest}")
    return codes


def for_each(name: str, value: object, count: int) -> list[Any]:
    """One value for each request: those of a list (None where there is none), anything else for all of them."""
    if not isinstance(value, list):
        return [value] * count
    if len(value) != count:
        raise RequestError(
            f"{name} is a list of {len(value)} for {count} pictures; give one for each, or one for all that is no list"
        )
    return value


def place_earlier(
    earlier: Sequence[Earlier],
    options: PictureOptions,
    config: ModelConfig,
    layout: Layout,
    weights: str,
    *,
    thinking: bool = False,
) -> tuple[PictureSettings, list[Pins | None]]:
    """The settings of a batch, and what stays of the earlier picture of each request; None where there is none.

    Raises RequestError where earlier pictures have several sizes and the options say none, and as `earlier_codes`
    and `keep_codes` do.
    """
    old = [None if e.codes is None else earlier_codes(e.codes, weights, layout) for e in earlier]
    settings = PictureSettings.of(config, layout, of_size(options, old, config), thinking=thinking)
    pins = [
        None if codes is None else keep_codes(codes, settings.grid, keep=e.keep, vary=e.vary, at=e.at)
        for codes, e in zip(old, earlier, strict=True)
    ]
    return settings, pins


def of_size(options: PictureOptions, old: Sequence[Int[Tensor, "h w"] | None], config: ModelConfig) -> PictureOptions:
    """The options of pictures as large as the earlier ones (the default size for None), unless they say another."""
    height, width = options.get("height"), options.get("width")
    sizes = {config.sampling.grid if codes is None else (codes.shape[0], codes.shape[1]) for codes in old}
    if len(sizes) > 1 and (height is None or width is None):
        several = " and ".join(f"{h}x{w}" for h, w in sorted(sizes))
        raise RequestError(f"pictures drawn together have one size, not {several} codes; give height and width")
    h, w = (side * config.picture_scale for side in (sizes or {config.sampling.grid}).pop())
    return options | {"height": h if height is None else height, "width": w if width is None else width}


def keep_codes(
    codes: Int[Tensor, "h w"],
    grid: tuple[int, int],
    *,
    keep: MaskInput | None = None,
    vary: MaskInput | None = None,
    at: tuple[int, int] | None = None,
) -> Pins:
    """Those of an earlier picture's codes that stay, on a canvas of `grid` = (rows, columns).

    `keep` marks what stays, `vary` what is drawn anew; without either all of it stays, and what the grid has beyond is
    drawn around it (outpainting). `at` = (row, column) is where the codes begin; the middle if not given. Raises
    RequestError when that cannot be.
    """
    if keep is not None and vary is not None:
        raise RequestError("keep says what stays and vary what does not; give one of the two")
    if at is not None and not (isinstance(at, tuple | list) and len(at) == 2 and all(map(_is_whole, at))):
        raise RequestError(f"at must be (row, column), two whole numbers, not {at}")
    h, w = codes.shape
    top, left = ((grid[0] - h) // 2, (grid[1] - w) // 2) if at is None else at
    if top < 0 or left < 0 or top + h > grid[0] or left + w > grid[1]:
        place = f"at row {top}, column {left}" if at is not None else "at all"
        raise RequestError(
            f"codes of {h}x{w} do not fit {place} into {grid[0]}x{grid[1]}; choose another place or size"
        )
    stays = torch.ones((h, w), dtype=torch.bool)
    if keep is not None:
        stays = marked_cells(keep, (h, w))
    if vary is not None:
        stays = ~marked_cells(vary, (h, w))
    placed, kept = torch.zeros(grid, dtype=torch.long), torch.zeros(grid, dtype=torch.bool)
    placed[top : top + h, left : left + w] = codes
    kept[top : top + h, left : left + w] = stays
    return Pins(placed, kept)


def _is_whole(value: object) -> bool:
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def keep_outside(codes: Int[Tensor, "h w"], mask: MaskInput, picture: Image.Image, config: ModelConfig) -> Pins:
    """The codes of a picture that lie outside of a mask; a mask of the picture's own size is fitted as that is."""
    grid = (codes.shape[0], codes.shape[1])
    if isinstance(mask, Image.Image | str | Path | bytes):
        mask = load_picture(mask)
        mask = fit_picture(mask, config) if mask.size == picture.size else mask
    return Pins(codes, ~marked_cells(mask, grid))


def marked_cells(mask: MaskInput, grid: tuple[int, int]) -> Bool[Tensor, "h w"]:
    """The cells of a grid that a mask marks. Raises RequestError for a mask of another size."""
    rows, columns = grid
    if isinstance(mask, Image.Image | str | Path | bytes):
        gray = load_picture(mask).convert("L")
        across, down = gray.width // columns, gray.height // rows
        if across == 0 or across != down or gray.size != (across * columns, down * rows):
            wanted = f"{columns}x{rows} pixels, one for each code, or a multiple of that"
            raise RequestError(f"the mask has {gray.width}x{gray.height} pixels; it must have {wanted}")
        return torch.from_numpy(np.array(gray.reduce(across)) > 127)
    try:
        cells = np.asarray(mask)
    except (ValueError, TypeError):
        cells = np.empty(0)
    if cells.shape != grid or not np.isin(cells, (0, 1)).all():
        raise RequestError(f"the mask must be {rows} rows of {columns} cells, each True or False")
    return torch.from_numpy(cells.astype(bool))
