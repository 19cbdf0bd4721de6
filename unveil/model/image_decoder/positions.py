"""Where each token of the image decoder sits, and the rotary angles that tell the network (spec image 5.3)."""

from typing import Literal

import torch

from unveil.shapes import Complex, Float, Int, Tensor


def image_positions(sequence: int, grid: tuple[int, int], padding: int, device: torch.device) -> Int[Tensor, "L 3"]:
    """(sequence, row, column) of the image patches in raster order, then `padding` rows of zeros."""
    return _with_pads(_raster(sequence, grid, device), padding)


def condition_positions(
    layout: Literal["line", "grid"], grid: tuple[int, int], padding: int, device: torch.device
) -> Int[Tensor, "L 3"]:
    """Positions of the codes' features, pads included.

    "line", as released: (1, 0, 0), (2, 0, 0), ... through the pads. The codes form a grid, yet the network is not told.
    "grid": (1, row, column), pads at zero. A patch finds its code by equal row and column, which a small network learns
    much sooner.
    """
    if layout == "grid":
        return _with_pads(_raster(1, grid, device), padding)
    length = grid[0] * grid[1] + padding
    positions = torch.zeros(length, 3, dtype=torch.int64, device=device)
    positions[:, 0] = torch.arange(1, length + 1, device=device)
    return positions


def rotary_angles(
    positions: Int[Tensor, "L 3"], axes_dims: tuple[int, int, int], theta: float
) -> Float[Tensor, "L half"]:
    """Angles of all pairs of a head: axis a turns its d_a / 2 pairs by position * theta^(-2j / d_a)."""
    angles = []
    for axis, dim in enumerate(axes_dims):
        exponent = torch.arange(0, dim, 2, dtype=torch.float64, device=positions.device) / dim
        angles.append(torch.outer(positions[:, axis].double(), theta**-exponent).float())
    return torch.cat(angles, dim=-1)


def rotation(angles: Float[Tensor, "L half"]) -> Complex[Tensor, "L half"]:
    """cos + i sin of the angles, computed once per picture and used by every layer."""
    return torch.complex(angles.cos(), angles.sin())


def rotate(x: Float[Tensor, "B H L dim"], turn: Complex[Tensor, "L half"]) -> Float[Tensor, "B H L dim"]:
    """Turn the neighbouring pairs (2j, 2j+1) of each head, as complex numbers in float32.

    The backbone pairs halves instead.
    """
    pairs = torch.view_as_complex(x.float().reshape(*x.shape[:-1], -1, 2))  # (B, H, L, half)
    return torch.view_as_real(pairs * turn).flatten(-2).to(x.dtype)


def _raster(sequence: int, grid: tuple[int, int], device: torch.device) -> Int[Tensor, "L 3"]:
    """(sequence, row, column) over a grid, row by row."""
    rows, columns = (torch.arange(n, device=device) for n in grid)
    return torch.cartesian_prod(torch.tensor([sequence], device=device), rows, columns)


def _with_pads(positions: Int[Tensor, "n 3"], padding: int) -> Int[Tensor, "L 3"]:
    """The positions, then `padding` rows of zeros."""
    return torch.cat([positions, positions.new_zeros(padding, 3)])
