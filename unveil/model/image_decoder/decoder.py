"""The image decoder: a flow-matching transformer from noise to latents, told by codes what to draw (spec image 5).

t          time embedding, which scales and gates every layer but the refiner of the condition
latents    patches -> noise refiner (2) --+
                                          +--> layers -> final -> velocity = data - noise
condition  norm, linear -> refiner (2) ---+    (image tokens first, then the condition)
"""

from typing import NamedTuple

import torch
from einops import rearrange
from torch import nn

from unveil.config.tree import DecoderConfig
from unveil.errors import RequestError
from unveil.model.image_decoder.blocks import Block, FinalLayer, TimedBlock, TimeEmbedding
from unveil.model.image_decoder.initialize import scaled_normal
from unveil.model.image_decoder.positions import condition_positions, image_positions, rotary_angles, rotation
from unveil.model.layers.norm import RMSNorm
from unveil.shapes import Complex, Float, Tensor


class Context(NamedTuple):
    """The part of the decoder's work that does not depend on time or noise."""

    condition: Float[Tensor, "B M D"]  # refined, with its pads
    turn: Complex[Tensor, "L half"]  # the image's tokens first


class ImageDecoder(nn.Module):
    """The velocity network. Parameter names are the released ones (`semantic_embedder` is Z-Image's `cap_embedder`)."""

    def __init__(self, config: DecoderConfig, latent_channels: int) -> None:
        super().__init__()
        self.config = config
        width, heads, eps, patch = config.width, config.heads, config.norm_eps, config.patch_size
        time_width = min(width, config.time_width)
        patch_width = latent_channels * patch * patch
        self.key = f"{patch}-1"  # picture patch - frame patch, as the official names have it
        self.x_pad_token = nn.Parameter(torch.zeros(1, width))
        self.cap_pad_token = nn.Parameter(torch.zeros(1, width))
        self.all_x_embedder = nn.ModuleDict({self.key: nn.Linear(patch_width, width)})
        self.all_final_layer = nn.ModuleDict({self.key: FinalLayer(width, patch_width, time_width)})
        self.t_embedder = TimeEmbedding(config.time_width, config.time_mlp_width, time_width, config.time_scale)
        condition_width = config.condition_width
        self.semantic_embedder = nn.Sequential(RMSNorm(condition_width, eps), nn.Linear(condition_width, width))
        refiners = range(config.refiner_layers)
        self.noise_refiner = nn.ModuleList(TimedBlock(width, heads, eps, time_width) for _ in refiners)
        self.context_refiner = nn.ModuleList(Block(width, heads, eps) for _ in refiners)
        self.layers = nn.ModuleList(TimedBlock(width, heads, eps, time_width) for _ in range(config.layers))

    def forward(
        self,
        latents: Float[Tensor, "B C H W"],
        t: Float[Tensor, " B"],
        condition: Float[Tensor, "B N D"],
        grid: tuple[int, int],
    ) -> Float[Tensor, "B C H W"]:
        """The velocity data - noise at `latents`, time t (0 noise, 1 data), given features of a grid (rows, columns).

        All samples of a batch have one size; pictures of several sizes are done one by one, which gives the same
        numbers. Without condition the features are zeros of the same length, not an empty sequence.
        Raises RequestError when a side is longer than the rotary tables (`axes_lens`).
        """
        return self.velocity(latents, t, self.context(condition, grid, (latents.shape[2], latents.shape[3])))

    def context(self, condition: Float[Tensor, "B N D"], grid: tuple[int, int], size: tuple[int, int]) -> Context:
        """What all times of a picture share, for latents of `size` = (H, W): the refined condition and the rotation."""
        config, patch = self.config, self.config.patch_size
        rows, columns = size[0] // patch, size[1] // patch
        n_condition = condition.shape[1]
        assert grid[0] * grid[1] == n_condition, f"{n_condition} features for a grid of {grid[0]} x {grid[1]}"
        image_pads, condition_pads = -(rows * columns) % config.pad_multiple, -n_condition % config.pad_multiple
        turn = self._turn((rows, columns), image_pads, grid, condition_pads, condition.device)
        c = self.semantic_embedder(condition.to(self.cap_pad_token.dtype))
        c = _pad(c, self.cap_pad_token, condition_pads)
        for layer in self.context_refiner:
            c = layer(c, turn[-c.shape[1] :])
        return Context(c, turn)

    def velocity(
        self, latents: Float[Tensor, "B C H W"], t: Float[Tensor, " B"], context: Context
    ) -> Float[Tensor, "B C H W"]:
        """As `forward`, given the context of latents of this size."""
        patch = self.config.patch_size
        rows, columns = latents.shape[2] // patch, latents.shape[3] // patch
        n_image, image_pads = rows * columns, -(rows * columns) % self.config.pad_multiple
        time = self.t_embedder(t)
        x = rearrange(latents, "b c (h p) (w q) -> b (h w) (p q c)", p=patch, q=patch)
        x = _pad(self.all_x_embedder[self.key](x.to(self.x_pad_token.dtype)), self.x_pad_token, image_pads)
        for layer in self.noise_refiner:
            x = layer(x, context.turn[: x.shape[1]], time)
        x = torch.cat([x, context.condition], dim=1)
        for layer in self.layers:
            x = layer(x, context.turn, time)
        patches = self.all_final_layer[self.key](x[:, :n_image], time)
        velocity: Tensor = rearrange(patches, "b (h w) (p q c) -> b c (h p) (w q)", h=rows, p=patch, q=patch)
        return velocity

    def compile_layers(self, backend: str = "inductor") -> None:
        """Let `torch.compile` make one program for all layers when they first work; needs a C++ compiler (a GPU: C)."""
        for layer in self.layers:
            layer.compile(fullgraph=True, backend=backend)

    @torch.no_grad()
    def initialize(self, generator: torch.Generator) -> None:
        """Weights to train from: each layer starts as the identity and the velocity as zero (adaLN-zero)."""
        scaled_normal(self, generator)
        for token in (self.x_pad_token, self.cap_pad_token):
            token.normal_(0.0, 0.02, generator=generator)
        for name, part in self.named_modules():
            if isinstance(part, nn.Linear) and ("adaLN_modulation" in name or "all_final_layer" in name):
                part.weight.zero_()
                part.bias.zero_()

    def _turn(
        self,
        patches: tuple[int, int],
        image_pads: int,
        codes: tuple[int, int],
        condition_pads: int,
        device: torch.device,
    ) -> Complex[Tensor, "L half"]:
        """Rotation of every token, image first; the image lies one step after the last of the condition."""
        config, line = self.config, self.config.condition_layout == "line"
        after = codes[0] * codes[1] + condition_pads + 1 if line else 2
        reach = (after + 1, *patches) if line else (after + 1, max(patches[0], codes[0]), max(patches[1], codes[1]))
        for axis, used, limit in zip(("sequence", "row", "column"), reach, config.axes_lens, strict=True):
            if used > limit:
                raise RequestError(
                    f"picture too large: {used} {axis} positions, at most {limit}; choose a smaller size"
                )
        image = image_positions(after, patches, image_pads, device)
        condition = condition_positions(config.condition_layout, codes, condition_pads, device)
        return rotation(rotary_angles(torch.cat([image, condition]), config.axes_dims, config.rope_theta))


def _pad(x: Float[Tensor, "B n D"], token: Float[Tensor, "1 D"], count: int) -> Float[Tensor, "B L D"]:
    """Append the learned pad token so that the length is a multiple of 32; other tokens attend to it."""
    return x if count == 0 else torch.cat([x, token.expand(len(x), count, -1)], dim=1)
