"""Bytes to pictures and back: the only place that decodes a picture file, because files may be anything.

Whatever comes in, an RGB picture the right way up leaves, or one PictureError line with a remedy:

    PNG JPEG WebP GIF BMP only       first frame of an animation         sizes are checked before pixels are read
    turned as its EXIF says          what is transparent becomes white   16 bits are scaled to 8, not cut off
"""

import io
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import TypeAlias

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.PngImagePlugin import PngImageFile, PngInfo

from unveil.errors import PictureError

PictureInput: TypeAlias = Image.Image | str | Path | bytes
"""A picture, a file, or a file's content."""

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
SUFFIXES = (".png", ".jpg", ".jpeg", ".webp", ".bmp")  # of the files that `encode` can write
MAX_PIXELS = 24_000_000
MAX_BYTES = 64 << 20
_MAX_SCANS = 100  # a progressive JPEG needs about ten; thousands only cost time
_WHITE = (255, 255, 255, 255)
_REMEDY = "open it in a picture program and save it as PNG"


def load_picture(source: PictureInput, max_pixels: int = MAX_PIXELS) -> Image.Image:
    """An RGB picture, upright, over white. Raises PictureError in one line that names the file and the remedy."""
    if isinstance(source, Image.Image):
        return _as_rgb(source, "the picture", max_pixels)
    data, name = _read(source)
    return _as_rgb(_open(data, name), name, max_pixels, data)


def read_texts(path: str | Path) -> dict[str, str]:
    """The text chunks of a PNG; none for other formats. Raises PictureError as `load_picture` does."""
    data, name = _read(path)
    picture = _open(data, name)
    _check_size(picture, name, MAX_PIXELS)
    try:
        return dict(picture.text) if isinstance(picture, PngImageFile) else {}
    except Exception as error:  # chunks may stand after the pixels, which are decoded on the way to them
        raise PictureError(f"{name}: damaged ({_reason(error)}); copy it again, or {_REMEDY}") from None


def encode(picture: Image.Image, suffix: str, texts: Mapping[str, str]) -> bytes:
    """The content of a picture file of that kind. Only PNG carries the texts; JPEG and WebP lose a little."""
    out = io.BytesIO()
    if suffix.lower() == ".png":
        info = PngInfo()
        for key, value in texts.items():
            info.add_itxt(key, value)
        picture.save(out, "PNG", pnginfo=info)
    else:
        picture.save(out, Image.registered_extensions()[suffix.lower()], quality=95)
    return out.getvalue()


def _read(source: str | Path | bytes) -> tuple[bytes, str]:
    """The content, and what to call it in errors."""
    if isinstance(source, bytes):
        data, name = source, "the picture"
    else:
        path, name = Path(source), str(source)
        try:
            if not path.is_file():  # also pipes and devices, which may never end
                other = "is a directory, not a file" if path.is_dir() else "is no regular file; copy it into one"
                raise PictureError(f"{name}: {other if path.exists() else 'no such file; check the name'}")
            with path.open("rb") as stream:
                data = stream.read(MAX_BYTES + 1)
        except (OSError, ValueError) as error:
            raise PictureError(f"{name}: cannot be read ({error}); check the name and your rights") from None
    if not data:
        raise PictureError(f"{name}: is empty (0 bytes); {_REMEDY}")
    if len(data) > MAX_BYTES:
        raise PictureError(f"{name}: larger than {MAX_BYTES >> 20} MiB; make it smaller")
    return data, name


def _open(data: bytes, name: str) -> Image.Image:
    """The picture's header; no pixel is decoded yet."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of large sizes: `_check_size` refuses them
            return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        raise PictureError(f"{name}: not a PNG, JPEG, WebP, GIF or BMP picture; {_REMEDY}") from None
    except Image.DecompressionBombError:
        raise PictureError(f"{name}: far too many pixels; make it smaller") from None
    except Exception as error:  # Pillow's readers raise whatever a damaged header leads to
        raise PictureError(f"{name}: damaged ({_reason(error)}); {_REMEDY}") from None


def _as_rgb(picture: Image.Image, name: str, max_pixels: int, data: bytes | None = None) -> Image.Image:
    """The decoded picture; `data` is the file it comes from, if any."""
    _check_size(picture, name, max_pixels)
    if data is not None and (problem := _unusable(data, picture.format)):
        raise PictureError(f"{name}: {problem}; copy it again, or {_REMEDY}")
    try:
        picture.load()
        return _opaque(ImageOps.exif_transpose(picture))
    except Exception as error:  # the decoders raise whatever damaged pixels lead to
        raise PictureError(f"{name}: damaged ({_reason(error)}); copy it again, or {_REMEDY}") from None


def _check_size(picture: Image.Image, name: str, max_pixels: int) -> None:
    """Raise PictureError for a picture without pixels or with too many."""
    width, height = picture.size
    if width < 1 or height < 1:
        raise PictureError(f"{name}: has no pixels ({width}x{height}); give one with at least one")
    if width * height > max_pixels:
        limit = f"{max_pixels / 1e6:g} million pixels"
        raise PictureError(f"{name}: {width}x{height} is more than {limit}; make it smaller")


def _unusable(data: bytes, kind: str | None) -> str | None:
    """What Pillow alone would not mind: a PNG or GIF without its end mark, a JPEG of endless scans."""
    unfinished_gif = kind == "GIF" and not data.rstrip(b"\0").endswith(b";")
    if unfinished_gif or (kind == "PNG" and b"IEND\xaeB`\x82" not in data):
        return "is cut off before its end"
    return "has far too many scans" if kind in ("JPEG", "MPO") and data.count(b"\xff\xda") > _MAX_SCANS else None


def _opaque(picture: Image.Image) -> Image.Image:
    """8-bit RGB; whatever shines through shows white."""
    if picture.mode.startswith("I"):
        return _from_16_bits(picture)
    if picture.has_transparency_data:
        if picture.mode == "La":
            picture = picture.convert("LA")
        over = picture.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", over.size, _WHITE), over).convert("RGB")
    return picture.convert("RGB")


def _from_16_bits(picture: Image.Image) -> Image.Image:
    """Grey of 16 bits: 65535 is white. Mode I holds 32 bits; it is taken as 16 unless nothing exceeds 8."""
    values = np.asarray(picture).astype(np.int64)
    wide = picture.mode != "I" or values.max() > 255
    grey = ((values.clip(0, 65535) + 128) // 257 if wide else values.clip(0, 255)).astype(np.uint8)
    transparent = picture.info.get("transparency")
    if isinstance(transparent, int):
        grey[values == transparent] = 255
    return Image.fromarray(grey).convert("RGB")


def _reason(error: Exception) -> str:
    """The first line of an error, short, without the addresses that Pillow prints."""
    text = (str(error).splitlines() or [""])[0]
    return type(error).__name__ if not text or "0x" in text else text[:100]
