"""Picture sizes: which grids of codes exist, and how any picture is fitted to one (spec image 1.3 to 1.5)."""

import math
from collections.abc import Collection, Sequence

from PIL import Image

from unveil.errors import PictureError, RequestError

Size = tuple[int, int]


def smart_resize(height: int, width: int, *, factor: int, min_pixels: int, max_pixels: int) -> Size:
    """(height, width) near the given one, in multiples of `factor`, with an area within the limits if sides allow.

    Official for understanding: factor 32, min 128^2, max 800^2 for one picture and 448^2 each for several.
    Sides are rounded half to even; when the area is then outside the limits, both are scaled and rounded inwards.
    Raises PictureError for an empty picture.
    """
    if height < 1 or width < 1:
        raise PictureError(f"the picture is empty ({width}x{height} pixels); give one with at least one pixel")
    h = max(round(height / factor) * factor, factor)
    w = max(round(width / factor) * factor, factor)
    if h * w > max_pixels:
        scale = math.sqrt(max_pixels / (height * width))
        h = max(math.floor(height * scale / factor) * factor, factor)
        w = max(math.floor(width * scale / factor) * factor, factor)
    elif h * w < min_pixels:
        scale = math.sqrt(min_pixels / (height * width))
        h = math.ceil(height * scale / factor) * factor
        w = math.ceil(width * scale / factor) * factor
    return h, w


def fit(picture: Image.Image, *, factor: int, min_pixels: int, max_pixels: int) -> Image.Image:
    """The picture as the understanding tasks see it: scaled to cover its smart size, then centre-cropped.

    As in the official code the crop may exceed the smart size by whole multiples of `factor` along one side.
    """
    width, height = picture.size
    target_h, target_w = smart_resize(height, width, factor=factor, min_pixels=min_pixels, max_pixels=max_pixels)
    scale = max(target_h / height, target_w / width)
    new_h, new_w = round(height * scale), round(width * scale)
    crop_h = max(new_h // factor * factor, target_h)
    crop_w = max(new_w // factor * factor, target_w)
    scaled = picture.resize((new_w, new_h), Image.Resampling.BICUBIC)
    return _center_crop(scaled, (crop_w, crop_h))


def crop_sizes(patches: int, patch: int, max_ratio: float = 4.0) -> list[Size]:
    """Every (width, height) of at most `patches` squares of side `patch` that fills the budget, widest first.

    Official for editing: 256 patches of 32 pixels give 49 sizes from (1024, 256) over (512, 512) to (256, 1024).
    """
    sizes = []
    w, h = patches, 1
    while w > 0:
        if max(w, h) / min(w, h) <= max_ratio:
            sizes.append((w * patch, h * patch))
        if (h + 1) * w <= patches:
            h += 1
        else:
            w -= 1
    return sizes


def nearest_crop(size: Size, sizes: Sequence[Size]) -> Size:
    """Of the (width, height) `sizes` the one whose proportions are nearest to `size`; among equals the widest."""

    def likeness(crop: Size) -> float:
        across, down = crop[0] / size[0], crop[1] / size[1]
        return min(across, down) / max(across, down)

    return max(sizes, key=lambda crop: (likeness(crop), crop))


def edit_crop(picture: Image.Image, sizes: Sequence[Size], *, scale_first: bool = False) -> Image.Image:
    """The picture as the editing tasks see it: the centre of it in the size of nearest proportions.

    The official code does not scale: of a large picture only the centre remains, a small one gets a black border.
    With `scale_first` the picture is scaled to cover the crop before, which keeps all of it but the overhang.
    """
    crop = nearest_crop(picture.size, sizes)
    if scale_first:
        scale = max(crop[0] / picture.width, crop[1] / picture.height)
        grown = (max(round(picture.width * scale), crop[0]), max(round(picture.height * scale), crop[1]))
        picture = picture.resize(grown, Image.Resampling.BICUBIC)
    return _center_crop(picture, crop)


def over_white(picture: Image.Image) -> Image.Image:
    """The picture as RGB, laid over white where it is transparent.

    As in the official code only RGBA is laid over white; other modes are converted, which drops their transparency.
    """
    if picture.mode != "RGBA":
        return picture.convert("RGB")
    white = Image.new("RGBA", picture.size, (255, 255, 255, 255))
    return Image.alpha_composite(white, picture).convert("RGB")


def check_grid(h: int, w: int, sizes: Collection[int]) -> None:
    """Raise RequestError, naming the nearest sizes, unless a grid of h rows and w columns of codes can be asked for.

    `sizes` are the sides that have a size token (`Layout.sizes`).
    """
    for name, side in (("rows", h), ("columns", w)):
        if side not in sizes:
            near = " or ".join(str(s) for s in _around(side, sizes))
            raise RequestError(f"a picture cannot have {side} {name} of codes; nearest: {near}")


def grid_of_pixels(height: int, width: int, scale: int, sizes: Collection[int]) -> Size:
    """(rows, columns) of codes of a rendered picture with `scale` pixels per code along a side.

    Raises RequestError with the nearest possible sizes, in pixels and in codes; nothing is rounded silently.
    """
    for name, side in (("height", height), ("width", width)):
        if side % scale or side // scale not in sizes:
            near = _around(side, [s * scale for s in sizes])
            pixels, codes = (" or ".join(str(s // unit) for s in near) for unit in (1, scale))
            raise RequestError(f"a picture cannot be {side} pixels in {name}; nearest: {pixels} ({codes} codes)")
    return height // scale, width // scale


def _around(side: int, sizes: Collection[int]) -> list[int]:
    """The largest size below `side` and the smallest above, as far as they exist."""
    below, above = [s for s in sizes if s < side], [s for s in sizes if s > side]
    return ([max(below)] if below else []) + ([min(above)] if above else [])


def _center_crop(picture: Image.Image, size: Size) -> Image.Image:
    """`size` = (width, height) out of the middle; black where the picture is smaller."""
    left, top = max((picture.width - size[0]) // 2, 0), max((picture.height - size[1]) // 2, 0)
    return picture.crop((left, top, left + size[0], top + size[1]))
