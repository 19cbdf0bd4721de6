"""Block-FP8: a weight as float8 numbers, and beside it one factor for every square block of them.

    W = X.weight * X.weight_scale_inv, each factor over its block of 128 x 128, the last ones smaller

The side of the blocks is read off the two shapes. No two of the sides known here give the same shape of factors where
there is more than one block, so it cannot be mistaken.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path

import torch
from safetensors import safe_open

from unveil.shapes import Float, Tensor

SCALE = "_scale_inv"
"""What the name of the factors has after the name of the weight."""

FLOAT8 = "F8_E4M3"
_SIDES = (128, 64, 32, 16, 256, 512)

Shape = tuple[int, ...]


def factor_shape(weight: Shape, side: int = _SIDES[0]) -> Shape:
    """The shape of the factors of a weight (..., rows, columns) in blocks of that side."""
    return (*weight[:-2], *(-(-n // side) for n in weight[-2:]))


def side_of(weight: Shape, factors: Shape) -> int | None:
    """The side of the blocks, None when no side gives factors of this shape."""
    return next((side for side in _SIDES if len(weight) > 1 and factor_shape(weight, side) == factors), None)


def expected_factors(weights: Mapping[str, Shape], found: Mapping[str, Shape]) -> dict[str, Shape]:
    """Name and shape of the factors of every weight that has some in `found`; blocks of 128 where none fit."""
    pairs = {name: (shape, found[name + SCALE]) for name, shape in weights.items() if name + SCALE in found}
    return {name + SCALE: f if side_of(shape, f) else factor_shape(shape) for name, (shape, f) in pairs.items()}


def read_factors(files: Iterable[Path]) -> dict[str, Tensor]:
    """The factors in these files by the names of their weights, which may lie in other files."""
    found: dict[str, Tensor] = {}
    for file in files:
        with safe_open(file, framework="pt") as opened:
            found |= {n.removesuffix(SCALE): opened.get_tensor(n) for n in opened.keys() if n.endswith(SCALE)}  # noqa: SIM118
    return found


def multiplied(weight: Tensor, factors: Tensor) -> Float[Tensor, "*any rows columns"]:
    """The weight in float32, whatever device it is on."""
    side = side_of(tuple(weight.shape), tuple(factors.shape))
    assert side is not None, "shapes were compared before anything was read"
    out = weight.to(torch.float32)
    columns = factors.to(out).repeat_interleave(side, -1)[..., : out.shape[-1]]  # (..., rows / side, columns)
    for i in range(columns.shape[-2]):
        out[..., i * side : (i + 1) * side, :] *= columns[..., i, None, :]
    return out
