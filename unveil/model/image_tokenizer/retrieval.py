"""SigLIP heads on the image tokenizer: pictures and sentences as points of one sphere (text-image retrieval)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from unveil.config import ModelConfig
from unveil.shapes import Float, Int, Tensor

LAYERS, HEADS, CONTEXT = 2, 4, 48


class Retrieval(nn.Module):
    """Quantised picture features -> a vector by attention pooling; text tokens -> a vector by a small transformer."""

    def __init__(self, config: ModelConfig) -> None:
        super().__init__()
        width, grid = config.image_tokenizer.width, config.sampling.grid
        self.words = nn.Embedding(config.vocab.image_offset, width)
        self.places = nn.Parameter(torch.empty(CONTEXT, width))
        self.cells = nn.Parameter(torch.empty(grid[0] * grid[1], width))
        self.text_layers = nn.ModuleList([_layer(width) for _ in range(LAYERS)])
        self.picture_layers = nn.ModuleList([_layer(width) for _ in range(1)])
        self.text_head, self.picture_head = nn.Linear(width, width), nn.Linear(width, width)
        self.scale = nn.Parameter(torch.empty(()))
        self.bias = nn.Parameter(torch.empty(()))

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights, norms one; logit scale 10 and bias -10 as in SigLIP (arXiv 2303.15343)."""
        for name, p in self.named_parameters():
            if p.ndim < 2:
                nn.init.ones_(p) if "norm" in name and name.endswith("weight") else nn.init.zeros_(p)
            else:
                deviation = 0.02 if "words" in name or name in ("places", "cells") else p.shape[-1] ** -0.5
                nn.init.normal_(p, std=deviation, generator=generator)
        nn.init.constant_(self.scale, 10.0)
        nn.init.constant_(self.bias, -10.0)

    def forward(
        self, features: Float[Tensor, "B h w D"], ids: Int[Tensor, "B L"]
    ) -> tuple[Float[Tensor, "B D"], Float[Tensor, "B D"], Tensor, Tensor]:
        """Unit vectors of pictures and of texts, logit scale, logit bias."""
        return self.embed_pictures(features), self.embed_texts(ids), self.scale, self.bias

    def embed_pictures(self, features: Float[Tensor, "B h w D"]) -> Float[Tensor, "B D"]:
        """Unit vector of each picture from its quantised features."""
        x = rearrange(features, "B h w D -> B (h w) D") + self.cells
        for layer in self.picture_layers:
            x = layer(x)
        return F.normalize(self.picture_head(x.mean(1)), dim=-1)

    def embed_texts(self, ids: Int[Tensor, "B L"]) -> Float[Tensor, "B D"]:
        """Unit vector of each text; -1 is padding."""
        here = ids >= 0
        x = self.words(ids.clamp_min(0)) + self.places[: ids.shape[1]]
        for layer in self.text_layers:
            x = layer(x, src_key_padding_mask=~here)
        mean = (x * here[..., None]).sum(1) / here.sum(1, keepdim=True).clamp_min(1)
        return F.normalize(self.text_head(mean), dim=-1)


def contrastive_loss(
    pictures: Float[Tensor, "B D"], texts: Float[Tensor, "B D"], scale: Tensor, bias: Tensor
) -> Float[Tensor, ""]:
    """SigLIP: every (picture, text) pair is a yes-no question; mean over pictures of the summed loss."""
    logits = scale * pictures @ texts.T + bias
    sign = 2 * torch.eye(len(logits)) - 1
    return -F.logsigmoid(sign * logits).sum() / len(logits)


def _layer(width: int) -> nn.TransformerEncoderLayer:
    return nn.TransformerEncoderLayer(
        width, HEADS, 4 * width, dropout=0.0, activation="gelu", batch_first=True, norm_first=True
    )
