"""Scene graph -> picture: every kind is an area in the unit square, sampled 8x8 times a pixel (antialiasing)."""

from collections.abc import Callable
from functools import cache

import numpy as np
from numpy.typing import NDArray

from unveil.scenes.scene import BACKGROUNDS, COLORS, LATTICE, Scene

Array = NDArray[np.float64]
Area = NDArray[np.bool_]
Point = tuple[float, float]

EXTENT = {"small": 0.56, "large": 0.94}  # of half a lattice cell
_SAMPLES = 8  # per pixel and axis


def render(scene: Scene, side: int) -> NDArray[np.uint8]:
    """The picture (side, side, 3) of a scene; the same bytes on every machine. `side` is a multiple of 4."""
    if side % LATTICE:
        raise ValueError(f"side {side} is not a multiple of {LATTICE}")
    cell = side // LATTICE
    picture = np.empty((side, side, 3), np.float64)
    picture[:] = BACKGROUNDS[scene.background]
    for thing in scene.things:
        alpha = coverage(thing.kind, thing.glyph, thing.size, cell)[..., None]
        rows, cols = slice(thing.row * cell, (thing.row + 1) * cell), slice(thing.col * cell, (thing.col + 1) * cell)
        picture[rows, cols] = picture[rows, cols] * (1 - alpha) + alpha * np.array(COLORS[thing.color], np.float64)
    return np.floor(picture + 0.5).astype(np.uint8)


@cache
def coverage(kind: str, glyph: str, size: str, cell: int) -> Array:
    """How much of each pixel of a lattice cell the thing covers: (cell, cell) in [0, 1]."""
    n = cell * _SAMPLES
    axis = ((np.arange(n) + 0.5) / n * 2 - 1) / EXTENT[size]
    x, y = np.meshgrid(axis, -axis)  # y points up
    area = _DIGIT_AREAS[glyph](x, y) if kind == "digit" else _AREAS[kind](x, y)
    return area.reshape(cell, _SAMPLES, cell, _SAMPLES).mean((1, 3))


def _disc(x: Array, y: Array, cx: float, cy: float, r: float) -> Area:
    return np.asarray((x - cx) ** 2 + (y - cy) ** 2 <= r * r)


def _box(x: Array, y: Array, left: float, bottom: float, right: float, top: float) -> Area:
    return np.asarray((x >= left) & (x <= right) & (y >= bottom) & (y <= top))


def _polygon(x: Array, y: Array, corners: list[Point]) -> Area:
    """Even-odd rule."""
    inside = np.zeros(x.shape, bool)
    for (x0, y0), (x1, y1) in zip(corners, corners[1:] + corners[:1], strict=True):
        if y0 != y1:
            inside ^= ((y0 > y) != (y1 > y)) & (x < (x1 - x0) * (y - y0) / (y1 - y0) + x0)
    return inside


def _star(x: Array, y: Array) -> Area:
    angles = np.pi / 2 + np.arange(10) * np.pi / 5
    radii = np.where(np.arange(10) % 2 == 0, 1.0, 0.42)
    return _polygon(x, y, [(float(r * np.cos(a)), float(r * np.sin(a))) for r, a in zip(radii, angles, strict=True)])


def _heart(x: Array, y: Array) -> Area:
    lobes = _disc(x, y, -0.45, 0.4, 0.5) | _disc(x, y, 0.45, 0.4, 0.5)
    return lobes | _polygon(x, y, [(-0.9, 0.2), (0.0, -0.95), (0.9, 0.2), (0.0, 0.5)])


def _ring(x: Array, y: Array) -> Area:
    return _disc(x, y, 0, 0, 1.0) & ~_disc(x, y, 0, 0, 0.55)


def _cross(x: Array, y: Array) -> Area:
    return _box(x, y, -0.3, -0.95, 0.3, 0.95) | _box(x, y, -0.95, -0.3, 0.95, 0.3)


def _arrow(x: Array, y: Array) -> Area:
    return _box(x, y, -0.95, -0.22, 0.1, 0.22) | _polygon(x, y, [(0.0, 0.8), (0.95, 0.0), (0.0, -0.8)])


def _moon(x: Array, y: Array) -> Area:
    return _disc(x, y, 0, 0, 1.0) & ~_disc(x, y, 0.5, 0.2, 0.8)


def _house(x: Array, y: Array) -> Area:
    roof = _polygon(x, y, [(-1.0, 0.1), (0.0, 0.95), (1.0, 0.1)])
    return (roof | _box(x, y, -0.7, -0.9, 0.7, 0.15)) & ~_box(x, y, -0.2, -0.9, 0.2, -0.25)


def _tree(x: Array, y: Array) -> Area:
    crown = _polygon(x, y, [(-0.75, -0.45), (0.0, 0.95), (0.75, -0.45)])
    return crown | _box(x, y, -0.16, -0.95, 0.16, -0.4)


def _fish(x: Array, y: Array) -> Area:
    body = (x + 0.2) ** 2 / 0.75**2 + y**2 / 0.55**2 <= 1
    return (body | _polygon(x, y, [(0.35, 0.0), (0.95, 0.6), (0.95, -0.6)])) & ~_disc(x, y, -0.5, 0.15, 0.13)


def _car(x: Array, y: Array) -> Area:
    body = _box(x, y, -0.95, -0.35, 0.95, 0.1) | _polygon(x, y, [(-0.6, 0.1), (-0.4, 0.6), (0.35, 0.6), (0.6, 0.1)])
    return body | _disc(x, y, -0.5, -0.4, 0.27) | _disc(x, y, 0.5, -0.4, 0.27)


def _flower(x: Array, y: Array) -> Area:
    petals = np.zeros(x.shape, bool)
    for k in range(5):
        angle = np.pi / 2 + 2 * np.pi * k / 5
        petals |= _disc(x, y, float(0.58 * np.cos(angle)), float(0.58 * np.sin(angle)), 0.37)
    return petals & ~_disc(x, y, 0, 0, 0.24)


def _cup(x: Array, y: Array) -> Area:
    bowl = _polygon(x, y, [(-0.8, 0.7), (0.45, 0.7), (0.3, -0.8), (-0.65, -0.8)])
    handle = _disc(x, y, 0.5, 0.1, 0.45) & ~_disc(x, y, 0.5, 0.1, 0.24)
    return bowl | handle


_AREAS: dict[str, Callable[[Array, Array], Area]] = {
    "circle": lambda x, y: _disc(x, y, 0, 0, 1.0),
    "square": lambda x, y: _box(x, y, -0.85, -0.85, 0.85, 0.85),
    "triangle": lambda x, y: _polygon(x, y, [(-0.95, -0.8), (0.0, 0.9), (0.95, -0.8)]),
    "star": _star,
    "heart": _heart,
    "diamond": lambda x, y: np.asarray(np.abs(x) / 0.7 + np.abs(y) <= 1),
    "ring": _ring,
    "cross": _cross,
    "arrow": _arrow,
    "moon": _moon,
    "house": _house,
    "tree": _tree,
    "fish": _fish,
    "car": _car,
    "flower": _flower,
    "cup": _cup,
}

_TOP, _MIDDLE, _BOTTOM = (-0.55, 0.62, 0.55, 0.95), (-0.55, -0.16, 0.55, 0.16), (-0.55, -0.95, 0.55, -0.62)
_UPPER_LEFT, _UPPER_RIGHT = (-0.55, 0.0, -0.2, 0.95), (0.2, 0.0, 0.55, 0.95)
_LOWER_LEFT, _LOWER_RIGHT = (-0.55, -0.95, -0.2, 0.0), (0.2, -0.95, 0.55, 0.0)
_STROKES: dict[str, list[tuple[float, float, float, float]]] = {
    "1": [(-0.17, -0.95, 0.17, 0.95), (-0.5, 0.55, 0.0, 0.85)],
    "2": [_TOP, _UPPER_RIGHT, _MIDDLE, _LOWER_LEFT, _BOTTOM],
    "3": [_TOP, _UPPER_RIGHT, _MIDDLE, _LOWER_RIGHT, _BOTTOM],
    "4": [_UPPER_LEFT, _UPPER_RIGHT, _MIDDLE, _LOWER_RIGHT],
    "5": [_TOP, _UPPER_LEFT, _MIDDLE, _LOWER_RIGHT, _BOTTOM],
}


def _digit(glyph: str) -> Callable[[Array, Array], Area]:
    def area(x: Array, y: Array) -> Area:
        return np.logical_or.reduce([_box(x, y, *stroke) for stroke in _STROKES[glyph]])

    return area


_DIGIT_AREAS = {glyph: _digit(glyph) for glyph in _STROKES}
