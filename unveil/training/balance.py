"""Router balance without an auxiliary loss: the selection bias of overloaded experts sinks (spec backbone 6.4)."""

import torch

from unveil.shapes import Float, Int, Tensor


@torch.no_grad()
def balance_bias(bias: Float[Tensor, " E"], load: Int[Tensor, " E"], rate: float) -> None:
    """bias += rate * (target - load) / rms(target - load), in place.

    The paper prints the difference the other way round, F - Q; with F read as the load that would feed overloaded
    experts further (the test shows it), so the deficit is meant.
    """
    deficit = load.float().mean() - load.float()
    bias += rate * deficit / deficit.square().mean().sqrt().clamp_min(1e-6)
