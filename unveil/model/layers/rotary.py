"""Rotary positions: the first dimensions of every head turn by an angle proportional to the position."""

import torch

from unveil.shapes import Float, Int, Tensor


def rotary_tables(
    positions: Int[Tensor, "*batch L"], dims: int, theta: float, dtype: torch.dtype
) -> tuple[Float[Tensor, "*batch L half"], Float[Tensor, "*batch L half"]]:
    """Cosine and sine of `position * theta^(-2j / dims)` for j in 0..dims/2 - 1.

    Angles are computed in float32 (or wider, if `dtype` is) and only then cast to `dtype`: positions in the
    thousands would lose whole turns in bfloat16 (spec backbone 3.4).
    """
    wide = torch.promote_types(dtype, torch.float32)
    exponents = torch.arange(0, dims, 2, device=positions.device, dtype=wide) / dims  # (half)
    angles = positions[..., None].to(wide) * (1.0 / theta**exponents)  # (..., L, half)
    return angles.cos().to(dtype), angles.sin().to(dtype)


def rotate(
    x: Float[Tensor, "*batch L head"], cos: Float[Tensor, "*#batch L half"], sin: Float[Tensor, "*#batch L half"]
) -> Float[Tensor, "*batch L head"]:
    """Turn dimension j together with j + half, for j < half; dimensions from 2 * half on pass unchanged.

    This is the half-split convention: (a, b) becomes (a cos - b sin, b cos + a sin).
    """
    half = cos.shape[-1]
    a, b, rest = x.split([half, half, x.shape[-1] - 2 * half], dim=-1)
    return torch.cat((a * cos - b * sin, b * cos + a * sin, rest), dim=-1)
