"""Rows for the codes that start alike where the codes look alike."""

import torch
import torch.nn.functional as F

from unveil.shapes import Float, Tensor


def projected(codebook: Float[Tensor, "codes C"], width: int, generator: torch.Generator) -> Float[Tensor, "codes D"]:
    """A random projection of the codebook's directions to `width`: entries of deviation 1, angles nearly kept.

    What a network learns of one code then helps its neighbours from the first step on.
    """
    return F.normalize(codebook, dim=-1) @ torch.randn(codebook.shape[1], width, generator=generator)
