"""Attention under an explicit mask: a readable reference and a fused entry with the same result.

A position that may look at nothing gets exactly zero and passes no gradient. The official model relies on this
for padded rows (spec backbone 10.1), and it keeps NaN out of everything that follows.
"""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import TypeAlias

import torch
from torch.nn import functional as F

from unveil.shapes import Bool, Float, Tensor

Attention: TypeAlias = Callable[
    [
        Float[Tensor, "B H L head"],
        Float[Tensor, "B KV S head"],
        Float[Tensor, "B KV S head"],
        Bool[Tensor, "#B #H L S"],
    ],
    Float[Tensor, "B H L head"],
]


def attend_reference(
    q: Float[Tensor, "B H L head"],
    k: Float[Tensor, "B KV S head"],
    v: Float[Tensor, "B KV S head"],
    visible: Bool[Tensor, "#B #H L S"],
) -> Float[Tensor, "B H L head"]:
    """softmax(q k / sqrt(head)) v over the visible keys, written out step by step.

    Each key head serves H / KV neighbouring query heads. The softmax runs in at least float32.
    """
    group = q.shape[1] // k.shape[1]
    k, v = k.repeat_interleave(group, dim=1), v.repeat_interleave(group, dim=1)  # (B, H, S, head)
    scores = (q @ k.transpose(-1, -2)) * q.shape[-1] ** -0.5  # (B, H, L, S)
    wide = scores.to(torch.promote_types(q.dtype, torch.float32)).masked_fill(~visible, -torch.inf)
    peak = wide.amax(-1, keepdim=True).clamp_min(torch.finfo(wide.dtype).min)  # finite where nothing is visible
    weight = (wide - peak).exp()
    total = weight.sum(-1, keepdim=True)
    weight = weight / total.masked_fill(total == 0, 1)
    return weight.to(v.dtype) @ v


def attend(
    q: Float[Tensor, "B H L head"],
    k: Float[Tensor, "B KV S head"],
    v: Float[Tensor, "B KV S head"],
    visible: Bool[Tensor, "#B #H L S"],
) -> Float[Tensor, "B H L head"]:
    """The same as `attend_reference` by PyTorch's fused kernel; `visible` True = may look.

    Rows that see nothing are opened for the kernel and their result is replaced by zero: kernels differ in what
    they make of an empty row, and some give NaN gradients.
    """
    lonely = visible.view(torch.uint8).amax(-1, keepdim=True) == 0  # (#B, #H, L, 1)
    mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=visible | lonely, enable_gqa=q.shape[1] != k.shape[1])
    return mixed.masked_fill(lonely, 0)


ATTENTION: Mapping[str, Attention] = MappingProxyType({"reference": attend_reference, "fused": attend})
"""Every implementation of the seam; a test holds each one to the reference."""
