"""Any bytes in: an upright RGB picture over white out, or one line that says what to do."""

import io

import numpy as np
import pytest
from PIL import Image, ImageFile

from unveil.errors import PictureError
from unveil.pictures import encode, load_picture, read_texts


def ramp() -> np.ndarray:
    """64x64 with another value at every place and no symmetry."""
    y, x = np.mgrid[0:64, 0:64]
    return np.stack([x * 4, y * 4, (x + y) * 2], -1).astype(np.uint8)


def stored(picture: Image.Image, kind: str, **options) -> bytes:
    out = io.BytesIO()
    picture.save(out, kind, **options)
    return out.getvalue()


RGB = Image.fromarray(ramp())
GRAY = RGB.convert("L")
SIXTEEN = Image.fromarray(np.asarray(GRAY).astype(np.uint16) * 257)


def error_of(source, **options) -> str:
    with pytest.raises(PictureError) as caught:
        load_picture(source, **options)
    assert "\n" not in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(
    ("picture", "kind", "truth", "most"),
    [
        (RGB, "PNG", RGB, 0),
        (RGB, "BMP", RGB, 0),
        (RGB, "JPEG", RGB, 4),
        (RGB, "WEBP", RGB, 4),
        (RGB.convert("CMYK"), "JPEG", RGB, 6),
        (RGB.convert("YCbCr"), "JPEG", RGB, 4),
        (RGB.quantize(256), "PNG", RGB.quantize(256).convert("RGB"), 0),
        (RGB.quantize(256), "GIF", RGB.quantize(256).convert("RGB"), 0),
        (GRAY, "PNG", GRAY, 0),
        (SIXTEEN, "PNG", GRAY, 0),
        (GRAY.convert("1"), "PNG", GRAY.convert("1"), 0),
        (GRAY.convert("LA"), "PNG", GRAY, 0),
        (RGB.convert("RGBA"), "PNG", RGB, 0),
    ],
)
def test_every_mode_gives_the_right_colors(picture, kind, truth, most):
    options = {"quality": 95} if kind in ("JPEG", "WEBP") else {}
    loaded = load_picture(stored(picture, kind, **options))
    assert loaded.mode == "RGB" and loaded.size == (64, 64)
    difference = np.abs(np.asarray(loaded).astype(int) - np.asarray(truth.convert("RGB")))
    assert difference.mean() <= most


def test_modes_without_a_file_are_read_too():
    for mode in ("F", "I", "HSV", "La", "RGBa"):
        loaded = np.asarray(load_picture(GRAY.convert("LA").convert(mode) if mode == "La" else _in_mode(mode)))
        assert np.abs(loaded.astype(int) - np.asarray(GRAY.convert("RGB"))).mean() <= 2


def _in_mode(mode: str) -> Image.Image:
    if mode == "RGBa":
        return GRAY.convert("RGBA").convert("RGBa")
    return GRAY.convert("RGB").convert(mode) if mode == "HSV" else GRAY.convert(mode)


@pytest.mark.parametrize("mode", ["RGBA", "LA", "P"])
def test_what_is_transparent_becomes_white_and_hides_its_color(mode):
    if mode == "P":
        picture = Image.new("P", (4, 4), 7)
        picture.putpalette(range(30))
        data = stored(picture, "PNG", transparency=7)
    else:
        data = stored(Image.new(mode, (4, 4), (0,) * len(mode)), "PNG")
    assert load_picture(data).getpixel((1, 1)) == (255, 255, 255)


def test_half_transparent_black_is_middle_gray():
    assert load_picture(stored(Image.new("RGBA", (2, 2), (0, 0, 0, 128)), "PNG")).getpixel((0, 0)) == (127, 127, 127)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_picture_is_turned_upright_as_its_exif_says(orientation):
    undo = {
        2: Image.Transpose.FLIP_LEFT_RIGHT, 3: Image.Transpose.ROTATE_180, 4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE, 6: Image.Transpose.ROTATE_90, 7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_270,
    }  # fmt: skip
    turned = RGB.transpose(undo[orientation]) if orientation in undo else RGB
    exif = Image.Exif()
    exif[274] = orientation
    assert load_picture(stored(turned, "PNG", exif=exif)).tobytes() == RGB.tobytes()


def test_the_first_frame_of_an_animation_is_read():
    frames = [Image.new("RGB", (8, 8), color) for color in ("red", "blue")]
    for kind in ("GIF", "WEBP"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = stored(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert load_picture(data).getpixel((4, 4)) == (255, 0, 0)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_a_file_cut_anywhere_is_refused(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8))
    data = stored(noise, kind)
    load_picture(data)
    for length in [*(len(data) * percent // 100 for percent in range(100)), *range(len(data) - 12, len(data))]:
        assert "the picture" in error_of(data[:length])


def test_truncated_pictures_stay_forbidden():
    assert ImageFile.LOAD_TRUNCATED_IMAGES is False


def test_an_empty_file_a_missing_one_and_a_directory_are_named(tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    assert "empty.png: is empty (0 bytes)" in error_of(tmp_path / "empty.png")
    assert "gone.png: no such file" in error_of(tmp_path / "gone.png")
    assert "is a directory" in error_of(tmp_path)
    assert "/dev/zero: is no regular file" in error_of("/dev/zero")
    assert "no such file" in error_of("a\0b.png")


@pytest.mark.parametrize("content", [b"<svg xmlns='http://www.w3.org/2000/svg'/>", b"<html>", b"\x00" * 100, b"GIF89a"])
def test_what_is_no_picture_is_refused_with_a_remedy(content):
    assert "save it as PNG" in error_of(content)


@pytest.mark.parametrize("kind", ["TIFF", "ICO", "PPM", "TGA"])
def test_other_formats_are_not_even_tried(kind):
    assert "not a PNG, JPEG, WebP, GIF or BMP picture" in error_of(stored(RGB, kind))


def test_a_bomb_is_refused_before_a_pixel_is_decoded(monkeypatch):
    data = stored(Image.new("1", (13000, 13000)), "PNG")
    assert len(data) < 40_000
    monkeypatch.setattr(ImageFile.ImageFile, "load", lambda self: pytest.fail("decoded"))
    assert "13000x13000 is more than 24 million pixels" in error_of(data)
    assert "far too many pixels" in error_of(stored(Image.new("1", (20000, 10000)), "PNG"))


def test_the_pixel_limit_is_exact():
    assert load_picture(stored(RGB, "PNG"), 64 * 64).size == (64, 64)
    assert "more than" in error_of(stored(RGB, "PNG"), max_pixels=64 * 64 - 1)
    assert "more than" in error_of(RGB, max_pixels=64 * 64 - 1)


def test_a_jpeg_of_thousands_of_scans_is_refused():
    data = stored(RGB, "JPEG", progressive=True)
    load_picture(data)
    at = data.rfind(b"\xff\xda")
    assert "too many scans" in error_of(data[:at] + data[at:-2] * 200 + b"\xff\xd9")


@pytest.mark.parametrize("size", [(1, 1), (1, 500), (500, 1), (2, 2), (31, 33)])
def test_odd_sizes_are_pictures(size):
    assert load_picture(stored(Image.new("RGB", size, "red"), "PNG")).size == size


def test_damage_inside_a_file_is_one_line_without_addresses(tmp_path):
    data = bytearray(stored(RGB, "PNG"))
    data[data.index(b"IDAT") + 10 : data.index(b"IDAT") + 40] = b"\xaa" * 30
    (tmp_path / "bad.png").write_bytes(data)
    message = error_of(tmp_path / "bad.png")
    assert "bad.png: damaged" in message and "0x" not in message


def test_texts_of_a_png_come_back_and_no_pixel_changes():
    texts = {"prompt": "ein rotes Häuschen 家 🏠\nzweite Zeile", "seed": "7"}
    data = encode(RGB, ".png", texts)
    assert load_picture(data).tobytes() == RGB.tobytes()
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.text == texts


def test_a_jpeg_has_no_texts(tmp_path):
    (tmp_path / "a.jpg").write_bytes(encode(RGB, ".jpg", {"seed": "7"}))
    assert read_texts(tmp_path / "a.jpg") == {}
