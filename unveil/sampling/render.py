"""Codes to a picture: noise follows the image decoder's velocity to latents, and the VAE decodes them (spec 6)."""

from collections.abc import Callable, Sequence
from functools import cache
from typing import Any, Protocol, TypeVar

import torch

from unveil.config.tree import ModelConfig
from unveil.diffusion import solver
from unveil.diffusion.flow import denormalize_latents
from unveil.diffusion.solver import OnStep, VelocityField, clip_guidance, draw_noise
from unveil.errors import RequestError
from unveil.shapes import Float, Int, Tensor, UInt8

C = TypeVar("C")


class ConditionedVelocity(Protocol[C]):
    """The image decoder: velocity at latents and time, given the features of a grid of codes."""

    def context(self, condition: Float[Tensor, "B N D"], grid: tuple[int, int], size: tuple[int, int], /) -> C:
        """What all times share, for latents of `size` = (H, W)."""

    def velocity(self, latents: Float[Tensor, "B C H W"], t: Float[Tensor, " B"], context: C, /) -> Tensor:
        """The velocity data - noise, (B, C, H, W)."""


class LatentDecoder(Protocol):
    """The VAE, as diffusers has it."""

    def decode(self, z: Float[Tensor, "B C h w"], /) -> Any:
        """An object whose `sample` is the pixels, nominally in [-1, 1]."""


@torch.no_grad()
def render(
    codes: Int[Tensor, "B h w"],
    decoder: ConditionedVelocity[C],
    code_embedding: Callable[[Int[Tensor, "B h w"]], Float[Tensor, "B N D"]],
    vae: LatentDecoder,
    config: ModelConfig,
    *,
    solver_steps: int,
    guidance: float,
    shift: float,
    generators: Sequence[torch.Generator],
    turbo: bool = False,
    on_step: OnStep | None = None,
) -> UInt8[Tensor, "B H W 3"]:
    """Pictures of codes 0..codes-1, `config.picture_scale` pixels per code along each side.

    `solver_steps` is the official number: grid points for the normal decoder (50 are 49 evaluations), evaluations with
    `turbo`, which ignores guidance and shift. Each picture draws from its own generator, so a batch of n gives what
    n batches of one give. `on_step(k, t, latents)` sees the foreseen latents after each evaluation;
    `latents_to_picture` makes them visible.
    """
    if len(generators) != len(codes):
        raise RequestError(f"{len(codes)} pictures need as many seeds, not {len(generators)}")
    if guidance < 0:
        raise RequestError(f"decoder guidance must be 0 (none) or above, not {guidance}")
    condition = code_embedding(codes)
    scale = config.decoder.condition_upsample
    grid = (codes.shape[1] * scale, codes.shape[2] * scale)
    side = config.decoder.patch_size
    shape = (config.vae.latent_channels, grid[0] * side, grid[1] * side)
    field = conditioned_field(decoder, condition, grid, 0.0 if turbo else guidance)
    noise = draw_noise(shape, generators).to(codes.device)
    if turbo:
        latents = _turbo(field, noise, solver.turbo_times(solver_steps), generators, on_step)
    else:
        latents = solver.euler(field, noise, solver.euler_times(solver_steps, shift), on_step)
    return latents_to_picture(latents.to(condition.dtype), vae, config)


def conditioned_field(
    decoder: ConditionedVelocity[C], condition: Float[Tensor, "B N D"], grid: tuple[int, int], guidance: float
) -> VelocityField:
    """The decoder as a velocity field in float32; with guidance, away from what it draws for all-zero features.

    Both branches go through the decoder in one batch; what does not depend on time is computed once. Guidance 0 needs
    one branch only.
    """

    told = condition if guidance == 0 else torch.cat([condition, torch.zeros_like(condition)])

    @cache
    def context(height: int, width: int) -> C:
        return decoder.context(told, grid, (height, width))

    def plain(x: Float[Tensor, "B C H W"], t: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        return decoder.velocity(x.to(condition.dtype), t, context(*x.shape[2:])).float()

    def guided(x: Float[Tensor, "B C H W"], t: Float[Tensor, " B"]) -> Float[Tensor, "B C H W"]:
        twice = x.to(condition.dtype).repeat(2, 1, 1, 1)
        positive, negative = decoder.velocity(twice, t.repeat(2), context(*x.shape[2:])).chunk(2)
        return clip_guidance(positive, negative, guidance)

    return plain if guidance == 0 else guided


def latents_to_picture(
    latents: Float[Tensor, "B C h w"], vae: LatentDecoder, config: ModelConfig
) -> UInt8[Tensor, "B H W 3"]:
    """Latents decoded, then ((y + 1) / 2) clamped to [0, 1], times 255 and truncated, as in the official code."""
    raw = denormalize_latents(latents, config.vae.scaling_factor, config.vae.shift_factor)
    pixels: Tensor = vae.decode(raw).sample
    unit = ((pixels + 1) / 2).clamp(0, 1).float()
    return (unit * 255).to(torch.uint8).permute(0, 2, 3, 1).contiguous()


def _turbo(
    field: VelocityField,
    noise: Float[Tensor, "B C H W"],
    times: Float[Tensor, " N"],
    generators: Sequence[torch.Generator],
    on_step: OnStep | None,
) -> Float[Tensor, "B C H W"]:
    """The few-step solver with fresh float64 noise from the same generators."""
    shape = tuple(noise.shape[1:])

    def fresh() -> Float[Tensor, "B C H W"]:
        return draw_noise(shape, generators, torch.float64).to(noise.device)

    return solver.turbo(field, noise, times, fresh, on_step)
