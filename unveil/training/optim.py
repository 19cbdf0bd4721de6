"""AdamW, the learning rate over a run, and the running mean of the weights."""

import torch
from torch import nn

from unveil.config.run import OptimConfig


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; only matrices decay."""
    trainable = [p for p in module.parameters() if p.requires_grad]
    groups = [
        {"params": [p for p in trainable if p.ndim > 1], "weight_decay": config.weight_decay},
        {"params": [p for p in trainable if p.ndim <= 1], "weight_decay": 0.0},
    ]
    return torch.optim.AdamW([g for g in groups if g["params"]], lr=config.lr, betas=config.betas)


def learning_rate(step: int, steps: int, config: OptimConfig) -> float:
    """Rate at train step `step` of `steps`: up over `warmup`, flat, then down to zero over the last `decay` share."""
    up = min(1.0, (step + 1) / config.warmup) if config.warmup else 1.0
    left = (steps - step) / (config.decay * steps) if config.decay else 1.0
    return config.lr * up * min(1.0, left)


@torch.no_grad()
def update_average(average: dict[str, torch.Tensor], module: nn.Module, decay: float, step: int) -> None:
    """Move the running mean towards the present weights, in place; with a short memory at first.

    Tensors that are not floating point are copied.
    """
    decay = min(decay, (1 + step) / (10 + step))
    for name, value in module.state_dict().items():
        if value.is_floating_point():
            average[name].lerp_(value, 1 - decay)
        else:
            average[name].copy_(value)
