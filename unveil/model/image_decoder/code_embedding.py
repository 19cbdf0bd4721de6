"""Codes as features that condition the image decoder (SigVQ, spec image 4)."""

import torch
from einops import repeat
from torch import nn

from unveil.config.tree import ModelConfig
from unveil.model.image_decoder.initialize import scaled_normal
from unveil.shapes import Float, Int, Tensor


class CodeEmbedding(nn.Module):
    """A table over the codebook and a two-layer projector. Parameter names are the released ones."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width = config.decoder.condition_width
        self.upsample = config.decoder.condition_upsample
        self.prior_token_embedding = nn.Embedding(config.image_tokenizer.codes, width)
        self.prior_projector = _Projector(width)

    def forward(self, codes: Int[Tensor, "B h w"]) -> Float[Tensor, "B N D"]:
        """Features in raster order of the grid upsampled k times along each side: code (r // k, c // k) at (r, c).

        Projected once per code and then repeated, which is the same as repeating the codes first.
        """
        features = self.prior_projector(self.prior_token_embedding(codes))
        k = self.upsample
        grown: Tensor = repeat(features, "b h w d -> b (h k) (w l) d", k=k, l=k)
        return grown.flatten(1, 2)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Weights to train from."""
        scaled_normal(self, generator)


class _Projector(nn.Module):
    """Linear, SiLU, Linear under the names of diffusers' FeedForward "linear-silu"."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.net = nn.ModuleList([nn.ModuleDict({"proj": nn.Linear(width, width)}), nn.SiLU(), nn.Linear(width, width)])

    def forward(self, x: Float[Tensor, "... D"]) -> Float[Tensor, "... D"]:
        """The projected features."""
        enter, activation, leave = self.net
        out: Tensor = leave(activation(enter["proj"](x)))  # type: ignore[index]
        return out
