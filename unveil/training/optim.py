"""The optimizer, the learning rate over a run, and the running mean of the weights."""

import re

import torch
from torch import nn

from unveil.config.run import OptimConfig
from unveil.errors import TrainingError
from unveil.training.muon import Muon

_NUMBERED = re.compile(r"\.\d+\.")


def build_optimizer(module: nn.Module, config: OptimConfig) -> torch.optim.AdamW:
    """AdamW over all trainable parameters; only matrices decay; `config.slow` names parameters with another rate.

    With `config.orthogonal` the matrices of numbered modules (layers, refiners, the steps of a small network) take
    Muon's steps instead, at that multiple of the rate. Embeddings, heads, vectors and convolutions stay with AdamW.
    Each group carries its multiple of the learning rate as `scale`. Raises TrainingError for a name that is nowhere.
    """
    groups: dict[tuple[float, float, bool], list[nn.Parameter]] = {}
    learning = {name: parameter for name, parameter in module.named_parameters() if parameter.requires_grad}
    for part in config.slow:
        if not any(part in name for name in learning):
            example = next(iter(learning))
            raise TrainingError(f"optim.slow: no parameter has '{part}' in its name; use a part of one, as '{example}'")
    for name, parameter in learning.items():
        scale = next((factor for part, factor in config.slow.items() if part in name), 1.0)
        decay = config.weight_decay if parameter.ndim > 1 else 0.0
        matrix = parameter.ndim in (2, 3) and _NUMBERED.search(name) is not None
        turned = config.orthogonal if matrix else None
        key = (scale if turned is None else turned, decay, turned is not None)
        groups.setdefault(key, []).append(parameter)
    described = [
        {"params": p, "scale": scale, "weight_decay": decay, "orthogonal": turned, "momentum": config.momentum}
        for (scale, decay, turned), p in groups.items()
    ]
    return Muon(described, lr=config.lr, betas=config.betas)


def set_rate(optimizer: torch.optim.Optimizer, rate: float) -> None:
    """Every group learns at its own multiple of `rate`."""
    for group in optimizer.param_groups:
        group["lr"] = rate * group["scale"]


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
