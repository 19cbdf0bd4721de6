"""The straight path from noise (t = 0) to data (t = 1), and what the velocity network learns on it (spec image 5.5)."""

from typing import Literal

import torch

from unveil.errors import ConfigError
from unveil.shapes import Float, Tensor

TimeLaw = Literal["uniform", "lognorm"]


def interpolate(
    clean: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."], t: Float[Tensor, " B"]
) -> Float[Tensor, "B ..."]:
    """x_t = t * clean + (1 - t) * noise, one time per sample."""
    t = _beside(t, clean)
    return t * clean + (1 - t) * noise


def velocity_target(clean: Float[Tensor, "B ..."], noise: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """What the network learns: d x_t / dt = clean - noise, the same at every t."""
    return clean - noise


def clean_estimate(
    x: Float[Tensor, "B ..."], velocity: Float[Tensor, "B ..."], t: Float[Tensor, " B"]
) -> Float[Tensor, "B ..."]:
    """The data that x at time t flows to if its velocity stays: x + (1 - t) * v."""
    return x + (1 - _beside(t, x)) * velocity


def shift_times(t: Float[Tensor, "..."], alpha: float) -> Float[Tensor, "..."]:
    """Move times towards noise: t / (t + alpha - alpha t); alpha 1 leaves them, 0 and 1 stay where they are."""
    return t / (t + alpha - alpha * t)


def sample_times(
    count: int, generator: torch.Generator, law: TimeLaw = "uniform", shift: float = 1.0
) -> Float[Tensor, " B"]:
    """Training times: uniform on [0, 1) or the logistic of a normal, then shifted; on the generator's device."""
    if law == "uniform":
        t = torch.rand(count, generator=generator, device=generator.device)
    elif law == "lognorm":
        t = torch.randn(count, generator=generator, device=generator.device).sigmoid()
    else:
        raise ConfigError(f"unknown law of times '{law}'; laws: uniform, lognorm")
    return shift_times(t, shift)


def draw_pair(
    clean: Float[Tensor, "B ..."], generator: torch.Generator, law: TimeLaw = "uniform", shift: float = 1.0
) -> tuple[Float[Tensor, "B ..."], Float[Tensor, " B"], Float[Tensor, "B ..."]]:
    """A training input and what to predict from it: (x_t, t, velocity). Draws the noise first, then the times."""
    noise = torch.randn(clean.shape, generator=generator, device=generator.device).to(clean)
    t = sample_times(len(clean), generator, law, shift).to(clean.device)
    return interpolate(clean, noise, t.to(clean.dtype)), t, velocity_target(clean, noise)


def flow_loss(predicted: Float[Tensor, "B ..."], target: Float[Tensor, "B ..."]) -> Float[Tensor, " B"]:
    """Mean squared error of the velocity, one number per sample, in float32."""
    return (predicted.float() - target.float()).square().flatten(1).mean(1)


def drop_condition(
    condition: Float[Tensor, "B N D"], rate: float, generator: torch.Generator
) -> Float[Tensor, "B N D"]:
    """Whole samples set to zeros with probability `rate`, so that the network also learns to draw without codes."""
    kept = torch.rand(len(condition), generator=generator, device=generator.device) >= rate
    return condition * kept.to(condition)[:, None, None]


def normalize_latents(raw: Float[Tensor, "..."], scale: float, shift: float) -> Float[Tensor, "..."]:
    """Raw VAE latents as the flow sees them: about zero mean and unit variance."""
    return (raw - shift) * scale


def denormalize_latents(latents: Float[Tensor, "..."], scale: float, shift: float) -> Float[Tensor, "..."]:
    """What the VAE decodes: the inverse of `normalize_latents`."""
    return latents / scale + shift


def _beside(t: Float[Tensor, " B"], x: Float[Tensor, "B ..."]) -> Float[Tensor, "B ..."]:
    """One time per sample, shaped to multiply samples."""
    return t.view(-1, *[1] * (x.ndim - 1))
