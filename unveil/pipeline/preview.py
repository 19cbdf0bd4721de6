"""A picture on its way, without rendering: every committed code as a patch of its mean color, masked ones gray.

The color of a code is the mean of the patches that the tokenizer gives it in a few hundred scenes; a code that none of
them shows has the color of the nearest one in the codebook. Nothing is stored: the colors are computed once per model,
when the first preview is asked for.
"""

from dataclasses import dataclass

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from unveil.pipeline.inputs import rows_of
from unveil.pipeline.watch import Moment
from unveil.scenes.render import render
from unveil.scenes.sample import crowded_scene, generator
from unveil.scenes.scene import LATTICE
from unveil.shapes import Bool, Int, Tensor, UInt8
from unveil.vocab.layout import Layout
from unveil.weights.read import Parts

MASKED = (128, 128, 128)
_SCENES = 256


@dataclass(frozen=True)
class Preview:
    """A picture after a denoise step: its codes so far, and how they look as patches of color."""

    codes: Int[Tensor, "h w"]  # 0 where masked
    masked: Bool[Tensor, "h w"]
    image: Image.Image  # as large as the picture will be

    @property
    def guess(self) -> Int[Tensor, "h w"]:
        """The codes, with those of the nearest committed cell where masked: what a partial picture is rendered from."""
        if self.masked.all():
            return self.codes
        there = (~self.masked).nonzero()  # (n, 2), in reading order
        cells = torch.ones_like(self.masked).nonzero()
        nearest = torch.cdist(cells.float(), there.float()).argmin(-1)
        return self.codes[~self.masked][nearest].view_as(self.codes)


def preview(moment: Moment, colors: UInt8[Tensor, "codes 3"], layout: Layout, scale: int) -> Preview:
    """How a picture's canvas looks, with `scale` pixels along a side of a code."""
    assert moment.grid is not None, "words have no colors"
    ids = torch.tensor(moment.tokens).view(moment.grid)
    masked = ids == layout.mask
    codes = (ids - layout.image_offset).masked_fill(masked, 0)
    patches = torch.where(masked[..., None], torch.tensor(MASKED, dtype=torch.uint8), colors[codes])
    small = Image.fromarray(patches.numpy())
    return Preview(codes, masked, small.resize((small.width * scale, small.height * scale), Image.Resampling.NEAREST))


@torch.inference_mode()
def code_colors(parts: Parts) -> UInt8[Tensor, "codes 3"]:
    """The mean color of the patches that each code stands for."""
    parts.require("image_tokenizer")
    size, (rows, columns) = parts.config.image_tokenizer.patch_size, parts.config.sampling.grid
    side, device = -(-size * max(rows, columns) // LATTICE) * LATTICE, parts.enter("image_tokenizer")
    sums, counts = torch.zeros(parts.layout.codes, 3), torch.zeros(parts.layout.codes)
    together = rows_of(parts)
    for first in range(0, _SCENES, together):
        scenes = [crowded_scene(generator("preview", "colors", i)) for i in range(first, first + together)]
        pixels = np.stack([render(scene, side)[: rows * size, : columns * size] for scene in scenes])
        codes = parts.image_tokenizer.tokenize(torch.from_numpy(pixels)).cpu().flatten()
        patches = torch.from_numpy(pixels).float().view(together, rows, size, columns, size, 3).mean((2, 4))
        sums.index_add_(0, codes, patches.view(-1, 3))
        counts += codes.bincount(minlength=len(counts))
    seen = counts > 0
    entries = F.normalize(parts.image_tokenizer.quantizer.codebook.float(), dim=-1)
    nearest = (entries @ entries[seen.to(device)].T).argmax(-1).cpu()
    return (sums[seen] / counts[seen, None])[nearest].round().to(torch.uint8)
