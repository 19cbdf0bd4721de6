"""Pictures to codes and back under the released names."""

from collections.abc import Sequence
from pathlib import Path
from typing import TypedDict

import numpy as np
import torch
from einops import rearrange
from PIL import Image

from unveil.errors import RequestError
from unveil.official.choices import Behavior, chosen
from unveil.official.load import open_parts
from unveil.pictures import PictureInput, load_picture
from unveil.pipeline.place import choose_device
from unveil.sampling.render import render
from unveil.shapes import Float, Tensor
from unveil.vocab.grid import Size, crop_sizes, edit_crop, fit
from unveil.weights.official_config import DecoderKind

_FACTOR, _LEAST, _ONE, _SEVERAL = 32, 128**2, 800**2, 448**2  # pixels; spec image 1.4
_DECODERS: dict[str, DecoderKind] = {"normal": "normal", "decoder-turbo": "turbo"}


class Info(TypedDict):
    """A picture as the tokenizer sees it."""

    pixel_values: Float[Tensor, "N P"]  # patches, row by row
    token_ids: list[int]  # codes, without the offset
    grid_thw: tuple[int, int, int]  # (1, rows, columns)
    num_tokens: int
    image_size: tuple[int, int]  # width, height in pixels


class ImageTokenizer:
    """Pictures, whose sides must be multiples of a patch, to codes; `dtype` as for `open_parts`."""

    def __init__(
        self, model_path: str | Path, device: str | torch.device = "auto", dtype: str | torch.dtype | None = None
    ) -> None:
        parts = open_parts(model_path, ("image_tokenizer",), device, dtype)
        parts.require("image_tokenizer")
        self.network = parts.image_tokenizer
        self.codebook_size = parts.config.image_tokenizer.codes
        self.embed_dim = parts.config.image_tokenizer.code_width

    def encode(self, image: PictureInput) -> list[int]:
        """The codes, row by row."""
        return self.encode_with_info(image)["token_ids"]

    def encode_batch(self, images: Sequence[PictureInput]) -> list[list[int]]:
        """The codes of each picture."""
        return [self.encode(image) for image in images]

    def encode_with_info(self, image: PictureInput) -> Info:
        """The codes with what they stand for."""
        picture = load_picture(image)
        pixels = torch.from_numpy(np.array(picture))[None]
        codes = self.network.tokenize(pixels)[0].cpu()
        h, w = codes.shape
        patches = rearrange(self.network.prepare(pixels)[0], "c (h y) (w x) -> (h w) (c y x)", h=h, w=w)
        return {
            "pixel_values": patches,
            "token_ids": codes.flatten().tolist(),
            "grid_thw": (1, h, w),
            "num_tokens": h * w,
            "image_size": picture.size,
        }


@torch.inference_mode()
def decode_vq_tokens(
    token_ids: Sequence[int],
    h: int,
    w: int,
    model_path: str | Path,
    device: str | torch.device,
    resolution_multiplier: int = 2,
    num_steps: int = 50,
    decode_mode: str = "normal",
    dtype: str | torch.dtype | None = None,
) -> Image.Image:
    """The picture of h rows of w codes, given without the offset; decode_mode "normal" or "decoder-turbo".

    dtype: as for `open_parts`. The noise comes from PyTorch's global CPU generator.
    """
    if decode_mode not in _DECODERS:
        raise RequestError(f"no decode_mode '{decode_mode}'; there are {' and '.join(_DECODERS)}")
    if h < 1 or w < 1 or len(token_ids) != h * w:
        raise RequestError(f"a picture of {h}x{w} codes needs {h * w} token_ids, not {len(token_ids)}")
    where, kind = choose_device(str(device)), _DECODERS[decode_mode]
    parts = open_parts(model_path, ("code_embedding", "decoder", "vae"), where, dtype, kind)
    if resolution_multiplier != parts.config.decoder.condition_upsample:
        only = parts.config.decoder.condition_upsample
        raise RequestError(f"resolution_multiplier must be {only} for this decoder, not {resolution_multiplier}")
    codes = torch.tensor(token_ids, dtype=torch.long).view(1, h, w)
    if int(codes.min()) < 0 or int(codes.max()) >= parts.layout.codes:
        raise RequestError(f"token_ids must lie in 0..{parts.layout.codes - 1}: take the offset away")
    pixels = render(
        codes.to(where),
        parts.decoder,
        parts.code_embedding,
        parts.vae,
        parts.config,
        solver_steps=num_steps,
        guidance=parts.config.sampling.decoder_guidance,
        shift=parts.config.sampling.solver_shift,
        generators=[torch.default_generator],
        turbo=kind == "turbo",
    )
    return Image.fromarray(pixels[0].cpu().numpy())


def smart_resize_images(images: Sequence[PictureInput | None]) -> list[Image.Image | None]:
    """Pictures at the size in which they are understood; several are smaller each. None stays None, and counts."""
    most = _ONE if len(images) < 2 else _SEVERAL
    limits = {"factor": _FACTOR, "min_pixels": _LEAST, "max_pixels": most}
    return [None if image is None else fit(load_picture(image), **limits) for image in images]


def generate_crop_size_list(num_patches: int, patch_size: int, max_ratio: float = 4.0) -> list[Size]:
    """Every (width, height) of at most so many patches, widest first."""
    return crop_sizes(num_patches, patch_size, max_ratio)


def var_center_crop(
    pil_image: Image.Image, crop_size_list: Sequence[Size], *, behavior: Behavior = "sane"
) -> Image.Image:
    """The picture in the size of nearest proportions; officially its mere centre, else scaled to cover that before."""
    scale_first = chosen("behavior", behavior, Behavior) == "sane"
    return edit_crop(pil_image, crop_size_list, scale_first=scale_first)
