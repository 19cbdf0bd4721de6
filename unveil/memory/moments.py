"""The moments at which each part needs most memory, as calls of the real modules; they run on any device."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Literal, TypeAlias

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from unveil.config import ModelConfig
from unveil.diffusion.guidance import Guidance, guide
from unveil.errors import RequestError
from unveil.model.backbone import Backbone
from unveil.sampling.canvas import Canvas, Past
from unveil.sampling.draw import Allowed, Draw, draw, hide
from unveil.sampling.render import conditioned_field, latents_to_picture
from unveil.sampling.step import Cache, look

Task: TypeAlias = Literal["generate", "understand", "edit", "anything"]
"""anything: a picture at the end of a story that fills the context, which needs more than any other request."""
PROMPT = 128
"""Tokens that a prompt or question is taken to have, with all that stands around it."""
_ALL = ("image_tokenizer", "backbone", "code_embedding", "decoder", "vae")
PARTS: Mapping[Task, tuple[str, ...]] = MappingProxyType(
    {"generate": _ALL[1:], "understand": _ALL[:2], "edit": _ALL, "anything": _ALL}
)
"""The parts that a task needs, in the order in which it does."""


@dataclass(frozen=True)
class Work:
    """One request for one picture or answer, in the sizes that memory depends on."""

    task: Task
    grid: tuple[int, int]  # codes of the picture that is made or read
    prefix: int  # positions before the canvas
    length: int  # positions at the end, in whole blocks
    guidance: Guidance

    @classmethod
    def of(cls, config: ModelConfig, task: Task, size: int | None = None) -> "Work":
        """The request with the model's defaults; `size` is the side of the picture to make, in pixels.

        Raises RequestError for a size that is no whole number of codes, or for more positions than the context has.
        """
        scale, sampling = config.picture_scale, config.sampling
        if task in ("understand", "edit") and size is not None:
            raise RequestError("a picture to be read is fitted to the model's own size; leave out the size")
        if size is not None and (size < scale or size % scale):
            raise RequestError(f"a picture cannot be {size} pixels wide; give a multiple of {scale}")
        grid = sampling.grid if size is None else (size // scale, size // scale)
        codes, block, limit = grid[0] * grid[1], config.backbone.block_size, config.backbone.context
        new = sampling.text_tokens if task == "understand" else codes
        prefix = limit - new if task == "anything" else PROMPT if task == "generate" else PROMPT + codes
        if (needed := max(prefix, PROMPT) + new) > limit:
            raise RequestError(f"{needed} positions exceed the context of {limit}; choose a smaller size")
        guidance = Guidance()
        if task == "generate":
            guidance = Guidance.simple(sampling.guidance, sampling.rescale)
        elif task != "understand":
            guidance = Guidance.edit(sampling.edit_text_guidance, sampling.edit_image_guidance, sampling.rescale)
        return cls(task, grid, prefix, -(-(prefix + new) // block) * block, guidance)

    @property
    def branches(self) -> int:
        """Guidance branches of the backbone."""
        return len(self.guidance.used)


def cache_bytes(config: ModelConfig, positions: int, branches: int, dtype: torch.dtype) -> int:
    """Keys and values: layers x 2 x kv heads x head_dim x positions x branches x bytes of one number."""
    b = config.backbone
    return b.layers * 2 * b.kv_heads * b.head_dim * positions * branches * dtype.itemsize


def look_at(
    backbone: Backbone, config: ModelConfig, work: Work, *, first: bool
) -> tuple[Callable[[], Past], list[torch.Tensor]]:
    """A denoise step of the first block, which computes the whole prefix, or of the last, with the longest past.

    The call gives the keys and values it leaves; the list holds the tensors that are there before it.
    """
    weight, block, b = backbone.lm_head.weight, config.backbone.block_size, config.backbone
    device = weight.device
    ids = torch.zeros(1, work.length, dtype=torch.long, device=device)
    prefixes = torch.zeros(work.branches, 1, work.prefix, dtype=torch.long, device=device)
    pads, rows = prefixes[..., 0].clone(), torch.zeros(1, dtype=torch.long, device=device)
    canvas = Canvas(ids, prefixes, pads, block, config.vocab.mask)
    start = work.prefix // block * block if first else work.length - block
    shape = (work.branches, b.kv_heads, start, b.head_dim)
    pairs = () if first else tuple((weight.new_zeros(shape), weight.new_zeros(shape)) for _ in range(b.layers))
    cache = Cache(pairs or None, 0 if first else start, rows)

    def run() -> Past:
        logits, past, _ = look(backbone, canvas, rows, cache, start, start + block)
        allowed = Allowed(0, config.vocab.image_offset)
        draw(hide(guide(logits, work.guidance), allowed, config.vocab.mask), Draw(), ())
        return past

    return run, [ids, prefixes, pads, rows, *(tensor for pair in pairs for tensor in pair)]


def use_of(name: str, modules: dict[str, nn.Module], config: ModelConfig, work: Work) -> Callable[[], object]:
    """One use of a part other than the backbone: a picture read, embedded, moved by one solver step, or decoded."""
    module: Any = modules[name]
    first = next(module.parameters())
    rows, columns = work.grid
    k, side = config.decoder.condition_upsample, config.decoder.patch_size
    fine = (rows * k, columns * k)

    def latents(dtype: torch.dtype) -> torch.Tensor:
        shape = (1, config.vae.latent_channels, fine[0] * side, fine[1] * side)
        return torch.zeros(shape, device=first.device, dtype=dtype)

    def tokenize() -> object:
        patch = config.image_tokenizer.patch_size
        return module.tokenize(torch.zeros(1, rows * patch, columns * patch, 3, dtype=torch.uint8, device=first.device))

    def embed() -> object:
        return module(torch.zeros(1, rows, columns, dtype=torch.long, device=first.device))

    def decode() -> object:
        condition = first.new_zeros(1, fine[0] * fine[1], config.decoder.condition_width)
        field = conditioned_field(module, condition, fine, config.sampling.decoder_guidance)
        x = latents(torch.float32)
        return x + 0.5 * field(x, torch.zeros(1, device=first.device))

    def show() -> object:
        return latents_to_picture(latents(first.dtype), module, config)

    return {"image_tokenizer": tokenize, "code_embedding": embed, "decoder": decode, "vae": show}[name]


def tile(vae: AutoencoderKL) -> None:
    """Let the VAE decode in overlapping tiles of half its own picture size along a side, and blend them."""
    vae.tile_sample_min_size = vae.config["sample_size"] // 2
    vae.tile_latent_min_size = vae.tile_sample_min_size // 2 ** (len(vae.config["block_out_channels"]) - 1)
    vae.enable_tiling()
