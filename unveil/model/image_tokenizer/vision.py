"""The vision transformer: patches -> features. No class token, no final norm, learned positions (spec image 2)."""

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import nn

from unveil.config import ImageTokenizerConfig
from unveil.errors import PictureError
from unveil.shapes import Float, Tensor


class VisionTransformer(nn.Module):
    """Pixels in [-1, 1] -> one feature per patch, the residual stream after the last layer."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.config = config
        self.embeddings = Positions(config)
        self.patch_embed = nn.ModuleDict(
            {"proj": nn.Conv2d(3, config.width, config.patch_size, stride=config.patch_size)}
        )
        self.blocks = nn.ModuleList([Layer(config) for _ in range(config.layers)])

    def forward(self, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B h w D"]:
        """Features of all patches of equally large pictures. Raises PictureError if patches do not fit the sides."""
        grid = self.grid(pixels.shape[-2], pixels.shape[-1])
        x = rearrange(self.patch_embed["proj"](pixels), "B D h w -> B h w D")
        x = x + self.embeddings(grid)
        window = self.config.window
        if window is None:
            x = rearrange(x, "B h w D -> B (h w) D")
        else:  # pictures are cut into windows that attention never leaves
            x = rearrange(x, "B (h m) (w n) D -> (B h w) (m n) D", m=window, n=window)
        for layer in self.blocks:
            x = layer(x)
        if window is None:
            return rearrange(x, "B (h w) D -> B h w D", h=grid[0])
        h, w = grid[0] // window, grid[1] // window
        return rearrange(x, "(B h w) (m n) D -> B (h m) (w n) D", h=h, w=w, m=window)

    def grid(self, height: int, width: int) -> tuple[int, int]:
        """Rows and columns of patches of a picture of that many pixels."""
        unit = self.config.patch_size * (self.config.window or 1)
        if height % unit or width % unit or not height or not width:
            raise PictureError(f"picture of {width}x{height} pixels: both sides must be multiples of {unit}")
        return height // self.config.patch_size, width // self.config.patch_size


class Positions(nn.Module):
    """A learned square table, bilinearly resampled to the grid of the picture (border values beyond the edge)."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.side = config.position_grid
        self.position_embedding = nn.Embedding(self.side**2, config.width)

    def forward(self, grid: tuple[int, int]) -> Float[Tensor, "h w D"]:
        """Position features in the dtype of the table; interpolation in float32."""
        table = self.position_embedding.weight
        square = rearrange(table.float(), "(r c) D -> 1 D r c", r=self.side)
        axes = [((torch.arange(n, device=table.device) + 0.5) / n) * 2 - 1 for n in grid]
        rows, cols = torch.meshgrid(*axes, indexing="ij")
        where = torch.stack((cols, rows), -1)[None]  # grid_sample wants (x, y)
        sampled = F.grid_sample(square, where, mode="bilinear", padding_mode="border", align_corners=False)
        return rearrange(sampled, "1 D h w -> h w D").to(table.dtype)


class Layer(nn.Module):
    """Pre-norm attention and MLP, both residual."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.attn = Attention(config)
        self.norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = nn.ModuleDict(
            {"fc1": nn.Linear(config.width, config.mlp_width), "fc2": nn.Linear(config.mlp_width, config.width)}
        )

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """x + attention, then + MLP with the exact (erf) GELU."""
        x = x + self.attn(self.norm1(x))
        return x + self.mlp["fc2"](F.gelu(self.mlp["fc1"](self.norm2(x))))


class Attention(nn.Module):
    """Full attention with biases; the rows of `qkv` are queries, then keys, then values."""

    def __init__(self, config: ImageTokenizerConfig) -> None:
        super().__init__()
        self.heads = config.heads
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.proj = nn.Linear(config.width, config.width)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """Every position sees every position of its row."""
        q, k, v = rearrange(self.qkv(x), "B L (three H d) -> three B H L d", three=3, H=self.heads)
        return self.proj(rearrange(F.scaled_dot_product_attention(q, k, v), "B H L d -> B L (H d)"))
