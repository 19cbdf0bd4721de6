"""The judge: a picture back into a scene, from its pixels alone.

Background = nearest palette color to the median pixel along the borders of the lattice cells, which things leave free.
Then each cell that differs from it enough is explained by the one palette color and silhouette with the least squared
error. A cell that no pair explains holds a thing of kind "unknown". The oracle shares the drawings of `render` and
nothing else; it knows no model and no scene.
"""

import math
from functools import cache
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from unveil.scenes.render import coverage
from unveil.scenes.scene import BACKGROUNDS, COLORS, DIGITS, KINDS, LATTICE, SIZES, Scene, Thing

Floats = NDArray[np.float32]

UNKNOWN = "unknown"
_SPECK = 0.4  # less coverage than this part of the smallest silhouette is noise
_FIT = 0.3  # error over the silhouette's own energy, above which it does not fit
_SHIFTS = (-1.0, -0.5, 0.0, 0.5, 1.0)  # silhouettes are tried this many pixels off their place
_MEAN_OVER_MEDIAN = 1.268  # of a squared length in 3 dimensions under Gaussian noise
_FEW = 8  # drawings, of 42, that are tried shifted
_SOFT = (0.0, 0.04, 0.08)  # and blurred by these parts of a cell, as a learned decoder may draw them


class _Silhouettes(NamedTuple):
    """Every drawing in several variants."""

    masks: Floats  # (drawings, variants, cell * cell)
    energy: Floats  # (drawings, variants): sum of squares


class _Cells(NamedTuple):
    """The lattice cells of a picture, minus its background."""

    patches: Floats  # (cells, cell * cell, 3)
    axes: Floats  # (colors, 3): background -> palette color
    ground: Floats  # (3,): the background as it is drawn
    noise: float  # mean squared distance from the background where nothing is


def read_scene(pixels: NDArray[np.uint8]) -> Scene:
    """The scene in a picture (side, side, 3); `side` is a multiple of 4, meant for 64 and 128."""
    side = pixels.shape[0]
    if pixels.shape != (side, side, 3) or side % LATTICE:
        raise ValueError(f"expected a square RGB picture with a side that is a multiple of {LATTICE}: {pixels.shape}")
    image = _pooled(pixels.astype(np.float32))
    cells = _cut(image)
    nearest = int(((np.array(list(BACKGROUNDS.values())) - cells.ground) ** 2).sum(1).argmin())
    things = []
    full = np.flatnonzero(_occupied(cells))
    if len(full):
        found = _explain(cells._replace(patches=cells.patches[full]))
        for index, (kind, glyph, size, color) in zip(full, found, strict=True):
            row, col = divmod(int(index), LATTICE)
            things.append(Thing(row, col, kind, color, size, glyph))
    return Scene(tuple(BACKGROUNDS)[nearest], tuple(things))


def _pooled(image: Floats) -> Floats:
    """Averaged down to cells of 16 pixels where these fit: enough to tell all kinds apart, and much faster."""
    factor = len(image) // LATTICE // 16
    if factor < 2 or len(image) % (LATTICE * 16):
        return image
    side = len(image) // factor
    return np.asarray(image.reshape(side, factor, side, factor, 3).mean((1, 3)))


def _cut(image: Floats) -> _Cells:
    cell = len(image) // LATTICE
    patches = image.reshape(LATTICE, cell, LATTICE, cell, 3).swapaxes(1, 2).reshape(LATTICE**2, cell, cell, 3)
    inner = (slice(None), slice(1, -1))
    edges = (patches[:, 0], patches[:, -1], patches[(*inner, 0)], patches[(*inner, -1)])
    border = np.concatenate([edge.reshape(-1, 3) for edge in edges])
    ground = np.median(border, 0)
    noise = float(np.median(((border - ground) ** 2).sum(1))) * _MEAN_OVER_MEDIAN
    axes = np.array(list(COLORS.values()), np.float32) - ground
    return _Cells(patches.reshape(LATTICE**2, -1, 3) - ground, axes, ground, noise)


def _occupied(cells: _Cells) -> NDArray[np.bool_]:
    """Which cells differ from the background by more than noise and specks; full coverage = the faintest color."""
    faintest = float((cells.axes**2).sum(1).min()) ** 0.5
    distance = np.sqrt((cells.patches**2).sum(2))
    covered = np.minimum(distance / faintest, 1.0) * (distance > max(0.5 * faintest, 2.0 * cells.noise**0.5))
    return np.asarray(covered.sum(1) > _SPECK * _smallest(_cell_side(cells)))


def _cell_side(cells: _Cells) -> int:
    return math.isqrt(cells.patches.shape[1])


def _explain(cells: _Cells) -> list[tuple[str, str, str, str]]:
    """Kind, glyph, size and color that explain each cell best.

    |patch - mask x axis|^2 = |patch|^2 - (2 mask . (patch . axis) - |mask|^2 |axis|^2); the bracket, the gain, is to be
    greatest. First over all colors and drawings in place, then over the best few drawings a little shifted.
    """
    side = _cell_side(cells)
    along = cells.patches @ cells.axes.T  # (cells, pixels, colors)
    lengths = (cells.axes**2).sum(1)
    gains = _gains(_silhouettes(side, (0.0,)), along.transpose(1, 0, 2), lengths).max(1)  # (drawings, cells, colors)
    shifted, found = _silhouettes(side, _SHIFTS), []
    energy = (cells.patches**2).sum((1, 2)) - cells.noise * side**2
    for i in range(len(along)):
        color = int(gains[:, i].max(0).argmax())
        few = gains[:, i, color].argsort()[-_FEW:]
        near = _Silhouettes(shifted.masks[few], shifted.energy[few])
        gain = _gains(near, along[i, :, color, None], lengths[color, None])[..., 0]  # (few, variants)
        best, variant = divmod(int(gain.argmax()), gain.shape[1])
        kind, glyph, size = _drawings()[few[best]]
        if energy[i] - gain[best, variant] > _FIT * near.energy[best, variant] * lengths[color]:
            kind, glyph, color = UNKNOWN, "", _commonest(cells.patches[i], cells.axes)
        found.append((kind, glyph, size, tuple(COLORS)[color]))
    return found


def _commonest(patch: Floats, axes: Floats) -> int:
    """The palette color to which most pixels that are not background are nearest: all one can say of a blob."""
    apart = ((patch[:, None] - np.vstack([axes, np.zeros(3)])) ** 2).sum(2).argmin(1)
    return int(np.bincount(apart, minlength=len(axes) + 1)[:-1].argmax())


def _gains(shapes: _Silhouettes, along: Floats, lengths: Floats) -> Floats:
    """(drawings, variants, ..., colors) from `along` (pixels, ..., colors) and the colors' squared distances."""
    own = shapes.energy.reshape(*shapes.energy.shape, *(1,) * (along.ndim - 1)) * lengths
    return np.asarray(2 * np.tensordot(shapes.masks, along, 1) - own)


@cache
def _silhouettes(cell: int, shifts: tuple[float, ...]) -> _Silhouettes:
    """Every drawing, sharp and soft, so many pixels off either way, as coverage of a cell's pixels."""
    bands = [[_band(cell, softness * cell, shift) for shift in shifts] for softness in _SOFT]
    masks = [
        [(down @ coverage(*drawing, cell) @ right.T).ravel() for soft in bands for down in soft for right in soft]
        for drawing in _drawings()
    ]
    stacked = np.array(masks, np.float32)
    return _Silhouettes(stacked, (stacked**2).sum(-1))


def _band(pixels: int, sigma: float, shift: float) -> NDArray[np.float64]:
    """The matrix that moves a row of pixels by a part of one and blurs it (sigma 0: linear interpolation)."""
    away = np.arange(pixels)[:, None] - np.arange(pixels) - shift
    if sigma == 0:
        return np.asarray(np.maximum(0.0, 1.0 - np.abs(away)))
    return np.asarray(np.exp(-0.5 * (away / sigma) ** 2) / (sigma * math.sqrt(2 * math.pi)))


@cache
def _smallest(cell: int) -> float:
    """Pixels covered by the smallest thing there is."""
    return min(float(coverage(*drawing, cell).sum()) for drawing in _drawings())


@cache
def _drawings() -> tuple[tuple[str, str, str], ...]:
    """Kind, glyph and size of all there is to draw."""
    return tuple((k, g, s) for k in KINDS for g in (DIGITS if k == "digit" else ("",)) for s in SIZES)


def difference(expected: Scene, found: Scene) -> list[str]:
    """What is wrong with `found`, in words, cell by cell; empty when the scenes are equal."""
    wrong = []
    if expected.background != found.background:
        wrong.append(f"background: expected {expected.background}, found {found.background}")
    for row in range(LATTICE):
        for col in range(LATTICE):
            want, have = expected.at(row, col), found.at(row, col)
            if want != have:
                wrong.append(f"cell ({row},{col}): expected {_said(want)}, found {_said(have)}")
    return wrong


def _said(thing: Thing | None) -> str:
    return "nothing" if thing is None else f"{thing.size} {thing.color} {thing.noun}"
