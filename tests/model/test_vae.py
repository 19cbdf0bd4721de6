"""Latents and pixels through diffusers' autoencoder at tiny size."""

import pytest
import torch

from unveil.config.load import load_preset
from unveil.model.image_decoder import build_vae, decode_latents, encode_latents, posterior, sample_latents


@pytest.fixture(scope="module")
def vae():
    torch.manual_seed(0)  # diffusers draws its initial weights from the global generator
    config = load_preset("tiny").vae.model_copy(update={"scaling_factor": 0.5, "shift_factor": 0.25})
    vae = build_vae(config).eval()
    with torch.no_grad():
        vae.encoder.conv_out.bias[config.latent_channels :] = -2.0  # log variances away from 0
    return vae


@pytest.fixture(scope="module")
def pixels():
    return torch.rand(2, 3, 32, 48, generator=torch.Generator().manual_seed(1)) * 2 - 1


@torch.no_grad()
def test_latents_are_the_posterior_mean_less_the_shift_times_the_scale(vae, pixels):
    latents = encode_latents(vae, pixels)
    assert latents.shape == (2, 8, 4, 6)
    torch.testing.assert_close(latents, (posterior(vae, pixels)[0] - 0.25) * 0.5)


@torch.no_grad()
def test_decoding_undoes_scale_and_shift(vae):
    raw = torch.randn(1, 8, 4, 4, generator=torch.Generator().manual_seed(2))
    torch.testing.assert_close(decode_latents(vae, (raw - 0.25) * 0.5), vae.decode(raw).sample)
    assert decode_latents(vae, raw).shape == (1, 3, 32, 32)


@torch.no_grad()
def test_sampled_latents_scatter_around_the_mean_by_the_posterior_deviation(vae, pixels):
    mean, logvar = posterior(vae, pixels)
    draws = [sample_latents(vae, pixels, torch.Generator().manual_seed(7)) for _ in range(2)]
    assert torch.equal(*draws)
    spread = (draws[0] / 0.5 + 0.25 - mean) / (0.5 * logvar).exp()
    assert spread.mean().abs() < 0.15 and 0.85 < spread.std() < 1.15
