"""The VAE: L1 and L2 on pixels and a small KL term, on crowded crops of rendered scenes."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import nn

from unveil.config import ModelConfig
from unveil.config.run import VaeTask
from unveil.errors import TrainingError
from unveil.model.image_decoder import build_vae
from unveil.scenes.sample import generator as chance
from unveil.training.data import crops, dense_scenes, numbers, pictures


class VaeObjective:
    """Learns `vae`; scale and shift of the latents are measured afterwards and written into the preset."""

    def __init__(self, model: ModelConfig, task: VaeTask, seed: int) -> None:
        self.task, self.side = task, model.sampling.grid[0] * model.picture_scale
        if task.crop > self.side:
            raise TrainingError(f"task.crop: {task.crop} pixels do not fit into {self.side}; make it smaller")
        with torch.random.fork_rng(devices=[]):  # diffusers initialises from the global stream
            torch.manual_seed(seed)
            self.module = build_vae(model.vae)

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """L1 + L2 on pixels in [-1, 1], plus KL."""
        scenes = dense_scenes("vae", step * self.task.batch, self.task.batch)
        batch = crops(pictures(scenes, self.side), self.task.crop, chance("train", "vae crop", step))
        pixels = batch.movedim(-1, 1).float() / 127.5 - 1
        posterior = self.module.encode(pixels).latent_dist
        latents = posterior.mean + posterior.std * torch.randn(posterior.mean.shape, generator=generator)
        out = self.module.decode(latents).sample
        l1, l2, kl = (out - pixels).abs().mean(), F.mse_loss(out, pixels), posterior.kl().mean()
        yield l1 + l2 + self.task.kl_weight * kl, numbers(l1=l1, kl=kl, spread=latents.std())

    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """Nothing changes without gradients."""

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """The whole module."""
        return {"vae": averaged}
