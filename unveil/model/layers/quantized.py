"""Weights in 8 or 4 bits: kept small, turned back into floats where they are used.

Activations stay as they are, save in the linear layers of fp8, which multiply float8 numbers as they lie.
"""

from collections.abc import Iterator
from typing import Literal, TypeAlias

import torch
from torch import nn
from torch.nn import functional as F

from unveil.shapes import Float, Tensor

Format: TypeAlias = Literal["int8", "fp8", "int4"]
GROUP = 64
"""Neighbouring weights that share a scale in 4 bits."""
FP8_LARGEST = 448
"""The largest number of float8_e4m3fn."""
FP8_WIDTHS = 16
"""What both widths of a weight must be a multiple of for a product in float8 (a rule of CUDA's)."""
_PIECE = 1 << 22
"""Weights that are packed at once: what is computed on the way takes up to 20 bytes for each."""


class QuantizedWeight(nn.Module):
    """A matrix, or a stack of them, over whose last axis a product sums.

    int8: w = v * s with one float32 scale for each output channel (row), s = max |w| / 127.
    fp8: the same with v in float8_e4m3fn, s = max |w| / 448.
    int4: w = v * s with one float16 scale for each `GROUP` neighbours of a row, v in -8..7; the scale has the sign that
    puts the largest weight at -8. Two values lie in one byte, so a weight takes 4 + 16 / GROUP = 4.25 bits; rows that
    are no whole groups are filled up with zeros.

    It can be indexed and unbound like the stack it stands for: one expert is turned back at a time.
    """

    values: Tensor
    scale: Tensor

    def __init__(self, weight: Float[Tensor, "... O I"], form: Format) -> None:
        super().__init__()
        self.form, self.dtype, self.shape = form, weight.dtype, weight.shape
        *rows, width = weight.shape
        groups = -(-width // GROUP)
        if form == "int4":
            values = torch.empty(*rows, groups * GROUP // 2, dtype=torch.uint8, device=weight.device)
            scale = torch.empty(*rows, groups, dtype=torch.float16, device=weight.device)
        else:
            bits8 = torch.int8 if form == "int8" else torch.float8_e4m3fn
            values = torch.empty(*rows, width, dtype=bits8, device=weight.device)
            scale = torch.empty(*rows, 1, dtype=torch.float32, device=weight.device)
        if not weight.is_meta:
            pack(weight, form, values, scale)
        self.register_buffer("values", values)
        self.register_buffer("scale", scale)

    def __getitem__(self, index: int) -> Float[Tensor, "O I"]:
        """One matrix of the stack, as floats."""
        return self._floats(self.values[index], self.scale[index])

    def unbind(self) -> Iterator[Float[Tensor, "O I"]]:
        """The matrices of the stack, each turned back when its turn comes.

        On the meta device only the last is, for all of them: there it tells what that takes, and none takes more.
        """
        last = self.shape[0] - 1
        if self.values.is_meta:
            one = self.values.new_empty
            return (self[i] if i == last else one(self.shape[1:], dtype=self.dtype) for i in range(last + 1))
        return (self[index] for index in range(last + 1))

    def dequantize(self) -> Float[Tensor, "... O I"]:
        """All of it, as floats of the dtype it had."""
        return self._floats(self.values, self.scale)

    def _floats(self, values: Tensor, scale: Tensor) -> Tensor:
        if self.form == "int4":
            return unpack_int4(values, scale)[..., : self.shape[-1]].to(self.dtype)
        return (unpack_int8 if self.form == "int8" else unpack_fp8)(values, scale).to(self.dtype)


class QuantizedLinear(nn.Module):
    """A linear layer whose weight is small; the bias is kept. In fp8 the activations become float8 too."""

    def __init__(self, linear: nn.Linear, form: Format) -> None:
        super().__init__()
        self.weight = QuantizedWeight(linear.weight.detach(), form)
        self.bias = linear.bias
        self.multiplies = form == "fp8" and all(width % FP8_WIDTHS == 0 for width in linear.weight.shape)

    def forward(self, x: Float[Tensor, "*batch I"]) -> Float[Tensor, "*batch O"]:
        """x W^T + b."""
        if self.multiplies:
            return multiply_fp8(x, self.weight.values, self.weight.scale, self.bias)
        return F.linear(x, self.weight.dequantize(), self.bias)


def pack(weight: Float[Tensor, "... O I"], form: Format, values: Tensor, scale: Tensor) -> None:
    """Fill `values` and `scale`, which are there already, a few rows at a time: the weight is never there twice."""
    at_once = max(1, _PIECE // weight.shape[-1])
    pack_rows = {"int8": pack_int8, "fp8": pack_fp8, "int4": pack_int4}[form]
    flat = (tensor.flatten(0, -2).split(at_once) for tensor in (weight, values, scale))
    for rows, values_there, scale_there in zip(*flat, strict=True):
        packed, scales = pack_rows(rows)
        values_there.copy_(packed)
        scale_there.copy_(scales)


def pack_int8(weight: Float[Tensor, "... O I"]) -> tuple[Tensor, Tensor]:
    """int8 values (..., O, I) and float32 scales (..., O, 1)."""
    wide = weight.float()
    scale = wide.abs().amax(-1, keepdim=True) / 127
    return (wide / scale.masked_fill(scale == 0, 1)).round().to(torch.int8), scale


def unpack_int8(values: Tensor, scale: Tensor) -> Float[Tensor, "... O I"]:
    """The inverse of `pack_int8`, in float32."""
    return values * scale


def pack_fp8(weight: Float[Tensor, "... O I"]) -> tuple[Tensor, Tensor]:
    """float8 values (..., O, I) and float32 scales (..., O, 1): the largest of a row becomes 448, none exceeds it.

    A scale is a normal number at least, so rows of zeros, or of nearly nothing, become zeros.
    """
    largest = weight.abs().amax(-1, keepdim=True).float()
    scale = (largest / FP8_LARGEST).clamp(min=torch.finfo(torch.float32).tiny)
    return (weight / scale).to(torch.float8_e4m3fn), scale


def unpack_fp8(values: Tensor, scale: Tensor) -> Float[Tensor, "... O I"]:
    """The inverse of `pack_fp8`, in float32."""
    return values.to(torch.float32).mul_(scale)


def multiply_fp8(
    x: Float[Tensor, "*batch I"], values: Tensor, scale: Tensor, bias: Float[Tensor, " O"] | None
) -> Float[Tensor, "*batch O"]:
    """x W^T + b for W = `values` (O, I) * `scale` (O, 1), both factors in float8; every row of x has its own scale.

    Sums are float32. Raises RuntimeError where the device has no such product.
    """
    rows, row_scale = pack_fp8(x.reshape(-1, x.shape[-1]).contiguous())
    made = torch._scaled_mm(rows, values.t(), row_scale, scale.t(), bias, out_dtype=x.dtype)
    return made.view(*x.shape[:-1], values.shape[0])


def pack_int4(weight: Float[Tensor, "... O I"]) -> tuple[Tensor, Tensor]:
    """Bytes (..., O, I / 2), the even weight in the low half, and float16 scales (..., O, I / GROUP).

    I is first made a multiple of GROUP.
    """
    whole = F.pad(weight.float(), (0, -weight.shape[-1] % GROUP))
    groups = whole.unflatten(-1, (-1, GROUP))  # (..., O, I / GROUP, GROUP)
    largest = groups.gather(-1, groups.abs().argmax(-1, keepdim=True))
    scale = (largest / -8).to(torch.float16)
    steps = groups / scale.float().masked_fill(scale == 0, 1)
    nibbles = (steps.round().clamp(-8, 7) + 8).to(torch.uint8).flatten(-2)  # (..., O, I)
    return nibbles[..., ::2] | (nibbles[..., 1::2] << 4), scale.squeeze(-1)


def unpack_int4(values: Tensor, scale: Tensor) -> Float[Tensor, "... O I"]:
    """The inverse of `pack_int4`, in float32; what was made whole stays so."""
    nibbles = torch.stack((values & 15, values >> 4), dim=-1).flatten(-2)  # (..., O, I)
    steps = nibbles.to(torch.int8) - 8
    return (steps.unflatten(-1, (-1, GROUP)) * scale.float()[..., None]).flatten(-2)
