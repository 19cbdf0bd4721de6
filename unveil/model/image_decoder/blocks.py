"""The layers of the image decoder: attention, gated feed-forward and their sandwich of norms (spec image 5.3)."""

import math

import torch
from torch import nn
from torch.nn import functional as F

from unveil.model.image_decoder.positions import rotate
from unveil.model.layers.norm import RMSNorm
from unveil.shapes import Complex, Float, Tensor


class Attention(nn.Module):
    """Every token looks at every token; queries and keys are normalised per head, then rotated."""

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.heads = heads
        self.to_q = nn.Linear(width, width, bias=False)
        self.to_k = nn.Linear(width, width, bias=False)
        self.to_v = nn.Linear(width, width, bias=False)
        self.to_out = nn.ModuleList([nn.Linear(width, width, bias=False)])
        self.norm_q = RMSNorm(width // heads, eps)
        self.norm_k = RMSNorm(width // heads, eps)

    def forward(self, x: Float[Tensor, "B L D"], turn: Complex[Tensor, "L half"]) -> Float[Tensor, "B L D"]:
        """Softmax attention over the whole sequence; pads are real, learned tokens and take part."""
        q, k, v = (to(x).unflatten(-1, (self.heads, -1)) for to in (self.to_q, self.to_k, self.to_v))
        q, k = (rotate(norm(y).transpose(1, 2), turn) for norm, y in ((self.norm_q, q), (self.norm_k, k)))
        out = F.scaled_dot_product_attention(q, k, v.transpose(1, 2))
        mixed: Tensor = self.to_out[0](out.transpose(1, 2).flatten(-2))
        return mixed


class FeedForward(nn.Module):
    """W2(silu(W1 x) * W3 x), 8/3 as wide inside."""

    def __init__(self, width: int) -> None:
        super().__init__()
        inner = int(width / 3 * 8)
        self.w1 = nn.Linear(width, inner, bias=False)
        self.w2 = nn.Linear(inner, width, bias=False)
        self.w3 = nn.Linear(width, inner, bias=False)

    def forward(self, x: Float[Tensor, "B L D"]) -> Float[Tensor, "B L D"]:
        """The gated feed-forward."""
        out: Tensor = self.w2(F.silu(self.w1(x)) * self.w3(x))
        return out


class Block(nn.Module):
    """One layer: a norm before and after each branch, as in Z-Image.

    x <- x + g1 * norm(attention(norm(x) * s1));  x <- x + g2 * norm(feed_forward(norm(x) * s2))
    """

    def __init__(self, width: int, heads: int, eps: float) -> None:
        super().__init__()
        self.attention = Attention(width, heads, eps)
        self.feed_forward = FeedForward(width)
        self.attention_norm1 = RMSNorm(width, eps)
        self.attention_norm2 = RMSNorm(width, eps)
        self.ffn_norm1 = RMSNorm(width, eps)
        self.ffn_norm2 = RMSNorm(width, eps)

    def forward(self, x: Float[Tensor, "B L D"], turn: Complex[Tensor, "L half"]) -> Float[Tensor, "B L D"]:
        """The layer without time: scales and gates are one (the refiner of the condition)."""
        x = x + self.attention_norm2(self.attention(self.attention_norm1(x), turn))
        out: Tensor = x + self.ffn_norm2(self.feed_forward(self.ffn_norm1(x)))
        return out


class TimedBlock(Block):
    """The layer whose scales s and gates g depend on time: s = 1 + a, g = tanh(b), with (a, b) linear in the embedding.

    Unlike most adaLN there is no SiLU before that linear.
    """

    def __init__(self, width: int, heads: int, eps: float, time_width: int) -> None:
        super().__init__(width, heads, eps)
        self.adaLN_modulation = nn.ModuleList([nn.Linear(time_width, 4 * width)])

    def forward(  # type: ignore[override]
        self, x: Float[Tensor, "B L D"], turn: Complex[Tensor, "L half"], time: Float[Tensor, "B T"]
    ) -> Float[Tensor, "B L D"]:
        """One layer at the given time embedding."""
        s1, g1, s2, g2 = self.adaLN_modulation[0](time)[:, None].chunk(4, dim=-1)  # (B, 1, D) each
        x = x + g1.tanh() * self.attention_norm2(self.attention(self.attention_norm1(x) * (1 + s1), turn))
        out: Tensor = x + g2.tanh() * self.ffn_norm2(self.feed_forward(self.ffn_norm1(x) * (1 + s2)))
        return out


class TimeEmbedding(nn.Module):
    """t in [0, 1] as a vector: cosines and sines of scaled t, then two linears."""

    def __init__(self, width: int, mlp_width: int, out_width: int, scale: float) -> None:
        super().__init__()
        self.width, self.scale = width, scale
        self.mlp = nn.Sequential(nn.Linear(width, mlp_width), nn.SiLU(), nn.Linear(mlp_width, out_width))

    def forward(self, t: Float[Tensor, " B"]) -> Float[Tensor, "B T"]:
        """Cosines and sines of 1000 t 10000^(-i / half), in float32; then the MLP in its own dtype.

        At 1000 t the last bits of a frequency are visible in the angle, so the order of operations is the official one.
        """
        half = self.width // 2
        ramp = torch.arange(half, dtype=torch.float32, device=t.device)
        frequencies = torch.exp(-math.log(10000.0) * ramp / half)
        angles = self.scale * t.float()[:, None] * frequencies
        wave = torch.cat([angles.cos(), angles.sin()], dim=-1)
        out: Tensor = self.mlp(wave.to(next(self.parameters()).dtype))
        return out


class FinalLayer(nn.Module):
    """Tokens to patches: a norm without weights, scaled by time, and a linear."""

    def __init__(self, width: int, out_width: int, time_width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width, eps=1e-6, elementwise_affine=False)
        self.linear = nn.Linear(width, out_width)
        self.adaLN_modulation = nn.Sequential(nn.SiLU(), nn.Linear(time_width, width))

    def forward(self, x: Float[Tensor, "B L D"], time: Float[Tensor, "B T"]) -> Float[Tensor, "B L P"]:
        """The velocity of each patch, flat."""
        out: Tensor = self.linear(self.norm(x) * (1 + self.adaLN_modulation(time)[:, None]))
        return out
