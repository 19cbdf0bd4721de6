"""The image decoder: flow matching of VAE latents given codes (spec image 5.5); the code embedding learns along."""

from collections.abc import Iterator

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from unveil.config import ModelConfig
from unveil.config.run import DecoderTask
from unveil.diffusion.flow import draw_pair, drop_condition, flow_loss
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, encode_latents
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.training.codebook import projected
from unveil.training.data import dense_scenes, numbers, pictures, sparse_scenes


class DecoderObjective:
    """Learns `decoder` and `code_embedding`; the image tokenizer and the VAE stay as they are."""

    def __init__(
        self,
        model: ModelConfig,
        task: DecoderTask,
        tokenizer: ImageTokenizer,
        vae: AutoencoderKL,
        module: nn.ModuleDict,
    ) -> None:
        self.model, self.task, self.module = model, task, module
        self.tokenizer, self.vae = tokenizer.eval().requires_grad_(False), vae.eval().requires_grad_(False)

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """Mean squared error of the velocity; half of the pictures are crowded."""
        half, rest = self.task.batch // 2, (self.task.batch + 1) // 2
        scenes = dense_scenes("decoder", step * half, half) + sparse_scenes("decoder", step * rest, rest)
        grid, patch = self.model.sampling.grid, self.model.image_tokenizer.patch_size
        codes = self.tokenizer.tokenize(pictures(scenes, grid[0] * patch))
        with torch.no_grad():
            pixels = pictures(scenes, grid[0] * self.model.picture_scale).movedim(-1, 1).float() / 127.5 - 1
            latents = encode_latents(self.vae, pixels)
        x, t, target = draw_pair(latents, generator, shift=self.task.time_shift)
        condition = drop_condition(self.embedding(codes), self.task.drop_condition, generator)
        loss = flow_loss(self.decoder(x, t, condition, grid), target).mean()
        yield loss, numbers(velocity=loss, latent_spread=latents.std(), latent_mean=latents.mean())

    @property
    def decoder(self) -> ImageDecoder:
        """The velocity network."""
        part = self.module["decoder"]
        assert isinstance(part, ImageDecoder)
        return part

    @property
    def embedding(self) -> CodeEmbedding:
        """Codes as conditions."""
        part = self.module["code_embedding"]
        assert isinstance(part, CodeEmbedding)
        return part

    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """Nothing changes without gradients."""

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """Both modules."""
        assert isinstance(averaged, nn.ModuleDict)
        return dict(averaged.items())


@torch.no_grad()
def start_embedding(embedding: CodeEmbedding, tokenizer: ImageTokenizer, generator: torch.Generator) -> None:
    """The code embedding begins as a random projection of the tokenizer's codebook, rows of length about 1."""
    weight = embedding.prior_token_embedding.weight
    weight.copy_(projected(tokenizer.quantizer.codebook, weight.shape[1], generator) * weight.shape[1] ** -0.5)
