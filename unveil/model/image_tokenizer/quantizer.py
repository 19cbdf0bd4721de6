"""The codebook: each feature becomes the nearest entry on the unit sphere (spec image 3)."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from unveil.config import ImageTokenizerConfig
from unveil.shapes import Float, Int, Tensor


@dataclass(frozen=True)
class Quantized:
    """What the quantizer makes of a grid of features."""

    codes: Int[Tensor, "B h w"]
    direction: Float[Tensor, "B h w C"]  # the feature on the unit sphere, before rounding
    nearest: Float[Tensor, "B h w C"]  # its codebook entry, on the unit sphere
    straight: Float[Tensor, "B h w C"]  # value of `nearest`, gradient of `direction` (straight-through)


class Quantizer(nn.Module):
    """1x1 convolution into the code space, then the codebook entry with the smallest angle."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.quantize = nn.ModuleDict({"embedding": nn.Embedding(config.codes, config.code_width)})
        self.quant_conv = nn.Conv2d(config.width, config.code_width, 1)
        self.post_quant_conv = nn.Conv2d(config.code_width, config.width, 1)

    @property
    def codebook(self) -> Tensor:
        """The entries as stored, (codes, C); only their directions matter."""
        weight = self.quantize["embedding"].weight
        assert isinstance(weight, Tensor)
        return weight

    def project(self, features: Float[Tensor, "B h w D"]) -> Float[Tensor, "B h w C"]:
        """Features in code space, not yet normalised."""
        return rearrange(self.quant_conv(rearrange(features, "B h w D -> B D h w")), "B C h w -> B h w C")

    def forward(self, features: Float[Tensor, "B h w D"]) -> Quantized:
        """Round every feature to its code."""
        direction = F.normalize(self.project(features), dim=-1, eps=1e-12)
        codes = self.nearest(direction)
        entry = F.normalize(self.codebook, dim=-1, eps=1e-12)[codes]
        return Quantized(codes, direction, entry, direction + (entry - direction).detach())

    def nearest(self, direction: Float[Tensor, "B h w C"]) -> Int[Tensor, "B h w"]:
        """Index of the closest entry; the lowest index wins a tie.

        d = |z|^2 + |e|^2 - 2 z.e is evaluated as the official code does, so that ties fall alike in every dtype.
        """
        entries = F.normalize(self.codebook, dim=-1, eps=1e-12)
        flat = rearrange(direction, "B h w C -> (B h w) C")
        distance = flat.square().sum(-1, keepdim=True) + entries.square().sum(-1) - 2 * flat @ entries.T
        return distance.argmin(-1).reshape(direction.shape[:-1])

    def lookup(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B h w D"]:
        """Features of given codes: the entry on the unit sphere through `post_quant_conv`."""
        entry = F.normalize(self.codebook, dim=-1, eps=1e-12)[codes]
        return self.expand(entry)

    def expand(self, entry: Float[Tensor, "B h w C"]) -> Float[Tensor, "B h w D"]:
        """From code space back to the width of the vision transformer (for training heads and retrieval)."""
        return rearrange(self.post_quant_conv(rearrange(entry, "B h w C -> B C h w")), "B D h w -> B h w D")


def quantizer_loss(quantized: Quantized, codebook_weight: float = 0.25) -> Float[Tensor, ""]:
    """Pull features to their codes (weight 1) and codes to their features (`codebook_weight`); spec image 3.3."""
    commitment = (quantized.nearest.detach() - quantized.direction).square().mean()
    codebook = (quantized.nearest - quantized.direction.detach()).square().mean()
    return commitment + codebook_weight * codebook


def usage(codes: Int[Tensor, "..."], size: int) -> tuple[float, float]:
    """Share of the codebook in use, and the perplexity (effective number of codes) of these codes."""
    share = torch.bincount(codes.flatten(), minlength=size).double()
    share = share / share.sum()
    entropy = -(share * share.clamp_min(1e-12).log()).sum()
    return float((share > 0).double().mean()), float(entropy.exp())
