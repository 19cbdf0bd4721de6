"""Pixels to latents and back: diffusers' AutoencoderKL in our configuration (spec image 7)."""

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from unveil.config.tree import VaeConfig
from unveil.diffusion.flow import denormalize_latents, normalize_latents
from unveil.shapes import Float, Tensor


def build_vae(config: VaeConfig) -> AutoencoderKL:
    """A VAE with random weights; without the 1x1 convolutions around the latents, as in FLUX.1."""
    depth = len(config.block_channels)
    vae: AutoencoderKL = AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * depth,
        up_block_types=("UpDecoderBlock2D",) * depth,
        block_out_channels=config.block_channels,
        layers_per_block=config.layers_per_block,
        latent_channels=config.latent_channels,
        norm_num_groups=config.norm_groups,
        sample_size=config.sample_size,
        scaling_factor=config.scaling_factor,
        shift_factor=config.shift_factor,
        use_quant_conv=False,
        use_post_quant_conv=False,
    )
    return vae


def posterior(
    vae: AutoencoderKL, pixels: Float[Tensor, "B 3 H W"]
) -> tuple[Float[Tensor, "B C h w"], Float[Tensor, "B C h w"]]:
    """Mean and log variance (within -30..20) of the raw latents of pixels in [-1, 1]."""
    law = vae.encode(pixels).latent_dist
    return law.mean, law.logvar


def encode_latents(vae: AutoencoderKL, pixels: Float[Tensor, "B 3 H W"]) -> Float[Tensor, "B C h w"]:
    """The latents that the image decoder learns: (posterior mean - shift) * scale."""
    return normalize_latents(posterior(vae, pixels)[0], vae.config["scaling_factor"], vae.config["shift_factor"])


def sample_latents(
    vae: AutoencoderKL, pixels: Float[Tensor, "B 3 H W"], generator: torch.Generator
) -> Float[Tensor, "B C h w"]:
    """As `encode_latents`, drawn from the posterior instead of its mean."""
    mean, logvar = posterior(vae, pixels)
    noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean)
    return normalize_latents(
        mean + (0.5 * logvar).exp() * noise, vae.config["scaling_factor"], vae.config["shift_factor"]
    )


def decode_latents(vae: AutoencoderKL, latents: Float[Tensor, "B C h w"]) -> Float[Tensor, "B 3 H W"]:
    """Pixels, nominally in [-1, 1] but not clamped, of latents / scale + shift."""
    raw = denormalize_latents(latents, vae.config["scaling_factor"], vae.config["shift_factor"])
    pixels: Tensor = vae.decode(raw).sample
    return pixels
