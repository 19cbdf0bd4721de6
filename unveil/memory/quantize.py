"""Which weights become small: every matrix inside the repeated layers, the stacked experts above all."""

from torch import nn

from unveil.model.backbone.experts import Experts, QuantizedExperts
from unveil.model.layers.quantized import Format, QuantizedLinear


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
