"""Where training from nothing starts."""

import torch
from torch import nn

from unveil.model.layers.norm import RMSNorm


@torch.no_grad()
def scaled_normal(module: nn.Module, generator: torch.Generator) -> None:
    """Linear and embedding weights ~ N(0, 1 / inputs), biases 0, norms 1.

    At the official width 3840 that is a standard deviation of 0.016; a fixed 0.02 would leave a narrow model near zero.
    """
    for part in module.modules():
        if isinstance(part, nn.Linear | nn.Embedding):
            part.weight.normal_(0.0, part.weight.shape[1] ** -0.5, generator=generator)
        if isinstance(part, nn.Linear) and part.bias is not None:
            part.bias.zero_()
        if isinstance(part, RMSNorm):
            part.weight.fill_(1.0)
