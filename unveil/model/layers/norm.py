"""Root-mean-square normalisation: measured in float32, scaled in the model's own precision."""

import torch
from torch import nn
from torch.nn import functional as F

from unveil.shapes import Float, Tensor


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) over the last axis, then times a weight that starts at one (spec backbone 3.3).

    The division happens in at least float32; the result returns to the precision of `x` *before* the weight
    multiplies it, as in the official model, so bfloat16 results agree bit for bit.
    """

    def __init__(self, width: int, eps: float) -> None:
        super().__init__()
        self.eps = eps
        self.weight = nn.Parameter(torch.ones(width))

    def forward(self, x: Float[Tensor, "*batch D"]) -> Float[Tensor, "*batch D"]:
        """The normalised and scaled vectors, in the precision of `x` times that of the weight."""
        wide = x.to(torch.promote_types(x.dtype, torch.float32))
        return F.rms_norm(wide, (wide.shape[-1],), eps=self.eps).to(x.dtype) * self.weight
