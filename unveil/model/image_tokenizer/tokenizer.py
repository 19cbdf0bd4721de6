"""Picture -> codes: the vision transformer and the codebook together."""

import torch
from torch import nn

from unveil.config import ImageTokenizerConfig
from unveil.model.image_tokenizer.quantizer import Quantized, Quantizer
from unveil.model.image_tokenizer.vision import VisionTransformer
from unveil.shapes import Float, Int, Tensor, UInt8


class ImageTokenizer(nn.Module):
    """SigLIP-VQ. Parameter names are the official ones: `model.visual.*` and `model.vqmodel.*`."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.model = nn.ModuleDict({"visual": VisionTransformer(config), "vqmodel": Quantizer(config)})

    @property
    def vision(self) -> VisionTransformer:
        """The vision transformer."""
        part = self.model["visual"]
        assert isinstance(part, VisionTransformer)
        return part

    @property
    def quantizer(self) -> Quantizer:
        """The codebook and its two projections."""
        part = self.model["vqmodel"]
        assert isinstance(part, Quantizer)
        return part

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Quantized:
        """Pixels in [-1, 1] -> codes with the gradients that training needs."""
        return self.quantizer(self.vision(pixels))

    def prepare(self, pictures: UInt8[Tensor, "B H W 3"]) -> Float[Tensor, "B 3 H W"]:
        """Bytes -> normalised pixels: / 255, minus mean, over deviation."""
        pixels = pictures.movedim(-1, 1).float() * (1 / 255)
        return (pixels - self.config.pixel_mean) / self.config.pixel_std

    @torch.no_grad()
    def tokenize(self, pictures: UInt8[Tensor, "B H W 3"]) -> Int[Tensor, "B h w"]:
        """Codes of equally large pictures, row by row from the top left."""
        weight = self.quantizer.codebook
        codes: Tensor = self(self.prepare(pictures.to(weight.device)).to(weight.dtype)).codes
        return codes

    def initialize(self, generator: torch.Generator) -> None:
        """Random weights for training from scratch: normal(0, 0.02), norms one, biases zero, codebook on the sphere.

        The position table starts periodic with the attention window, so that equal windows start with equal features.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.Embedding):
                deviation = 0.02 if not isinstance(module, nn.Conv2d) else module.weight[0].numel() ** -0.5
                nn.init.normal_(module.weight, std=deviation, generator=generator)
            if isinstance(module, nn.Linear | nn.Conv2d) and module.bias is not None:
                nn.init.zeros_(module.bias)
        nn.init.normal_(self.quantizer.codebook, generator=generator)
        period, table = self.config.window, self.vision.embeddings.position_embedding.weight
        if period is not None:
            side = self.config.position_grid
            index = torch.arange(side) % period
            with torch.no_grad():
                table.copy_(table.reshape(side, side, -1)[index][:, index].reshape(side * side, -1).clone())
