"""How the numbers of a model are held: floats of one precision, and the large matrices in 8 or 4 bits."""

from typing import Literal, TypeAlias

import torch
from torch import nn

from unveil.model.backbone import Backbone
from unveil.model.backbone.experts import Experts, QuantizedExperts
from unveil.model.backbone.router import Router
from unveil.model.image_decoder import ImageDecoder
from unveil.model.layers.quantized import Format, QuantizedLinear

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8", "fp8", "int4"]
"""From the most exact down; with int8, fp8 and int4 all but the large matrices is bfloat16."""


def floats_of(precision: Precision) -> torch.dtype:
    """The dtype of what is computed, and of all that is not quantized."""
    return {"float32": torch.float32, "float16": torch.float16}.get(precision, torch.bfloat16)


def format_of(precision: Precision) -> Format | None:
    """How the large matrices are quantized, if they are."""
    return precision if precision == "int8" or precision == "fp8" or precision == "int4" else None


def hold(module: nn.Module, dtype: torch.dtype, form: Format | None = None) -> bool:
    """Hold a part in a dtype, and its large matrices in `form`; tells whether there are such.

    int8, fp8 and int4 take the layers of the backbone and of the image decoder; the other parts stay in floats. The
    router's bias is float32 always. On the meta device this says what a loaded part will be.
    """
    nn.Module.to(module, dtype)  # diffusers warns in its own `to`
    for router in (part for part in module.modules() if isinstance(part, Router)):
        router.expert_bias = router.expert_bias.float()
    if form is None:
        return False
    layers = module.model.layers if isinstance(module, Backbone) else None
    layers = module.layers if isinstance(module, ImageDecoder) else layers
    return layers is not None and quantize(layers, form) > 0


def quantize(layers: nn.ModuleList, form: Format) -> int:
    """Replace every linear layer and every stack of experts in `layers`; gives how many were.

    Embeddings and the head lie outside the layers; the router's weight and bias and the norms are neither: these keep
    their dtype. Works on the meta device too, where it tells how large the quantized model will be.
    """
    holders = [module for module in layers.modules() if not isinstance(module, Experts)]
    replaced = 0
    for holder in holders:
        for name, child in list(holder.named_children()):
            if isinstance(child, nn.Linear):
                setattr(holder, name, QuantizedLinear(child, form))
                replaced += 1
            elif isinstance(child, Experts):
                setattr(holder, name, QuantizedExperts(child, form))
                replaced += 1
    return replaced


def weight_bytes(module: nn.Module) -> int:
    """Bytes of everything a module stores: number of elements times size of one, also on the meta device."""
    return sum(tensor.numel() * tensor.element_size() for tensor in module.state_dict().values())
