"""Picture sizes and crops."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from unveil.errors import PictureError, RequestError
from unveil.vocab.grid import check_grid, crop_sizes, edit_crop, fit, grid_of_pixels, nearest_crop, smart_resize

SIZES = (8, 10, 12, 36, 37, 38)


@pytest.mark.parametrize(
    ("size", "most", "expected"),
    [
        ((1080, 1920), 800, (576, 1056)),
        ((800, 800), 800, (800, 800)),
        ((100, 100), 800, (128, 128)),
        ((2000, 300), 800, (1984, 288)),
        ((1080, 1920), 448, (320, 576)),
        ((640, 480), 448, (512, 384)),
        ((48, 80), 800, (128, 192)),  # 1.5 and 2.5 factors round to even, then the area is too small
    ],
)
def test_smart_resize_gives_the_sizes_of_the_specification(size, most, expected):
    assert smart_resize(*size, factor=32, min_pixels=128**2, max_pixels=most**2) == expected


@given(st.integers(1, 4000), st.integers(1, 4000), st.sampled_from([16, 32]))
def test_smart_resize_gives_positive_multiples_of_the_factor(height, width, factor):
    h, w = smart_resize(height, width, factor=factor, min_pixels=64**2, max_pixels=256**2)
    assert h > 0 and w > 0 and h % factor == 0 and w % factor == 0
    assert min(h, w) == factor or h * w <= 256**2


def test_an_empty_picture_is_refused():
    with pytest.raises(PictureError, match="empty"):
        smart_resize(0, 5, factor=32, min_pixels=1, max_pixels=100)


def test_fit_scales_to_cover_and_crops_the_centre():
    columns = np.tile(np.arange(200, dtype=np.uint8)[None, :, None], (100, 1, 3))
    fitted = fit(Image.fromarray(columns), factor=32, min_pixels=64**2, max_pixels=64 * 128)
    assert fitted.size == (128, 64)
    row = np.asarray(fitted)[32, :, 0].astype(int)
    assert row[64] == pytest.approx(100, abs=2) and row[0] < 4 and row[-1] > 196


def test_crop_sizes_fill_the_budget_within_the_ratio():
    sizes = crop_sizes(16, 8)
    assert sizes == [(64, 16), (56, 16), (48, 16), (40, 16), (40, 24), (32, 24), (32, 32), (24, 32), (24, 40),
                     (16, 40), (16, 48), (16, 56), (16, 64)]  # fmt: skip


def test_the_nearest_crop_has_the_nearest_proportions_and_among_equals_is_widest():
    sizes = crop_sizes(256, 32)
    assert nearest_crop((640, 480), sizes) == (576, 448)
    assert nearest_crop((100, 100), [(32, 64), (64, 32)]) == (64, 32)


def test_the_official_edit_crop_keeps_the_scale_and_the_switch_keeps_the_picture():
    pixels = np.zeros((100, 200, 3), np.uint8)
    pixels[:, 100:] = 255
    sizes = [(64, 32)]
    official = np.asarray(edit_crop(Image.fromarray(pixels), sizes))
    assert official.shape == (32, 64, 3) and np.array_equal(official, pixels[34:66, 68:132])
    whole = np.asarray(edit_crop(Image.fromarray(pixels), sizes, scale_first=True))
    assert whole.shape == (32, 64, 3) and whole[:, :30].max() == 0 and whole[:, 34:].min() == 255
    small = np.asarray(edit_crop(Image.fromarray(pixels[:10, 150:170]), sizes))
    assert small[:10, :20].min() == 255 and small[10:].max() == 0 and small[:, 20:].max() == 0


def test_a_grid_without_size_token_is_refused_with_the_nearest():
    check_grid(8, 38, SIZES)
    with pytest.raises(RequestError, match="9 rows of codes; nearest: 8 or 10"):
        check_grid(9, 8, SIZES)
    with pytest.raises(RequestError, match="5 columns of codes; nearest: 8$"):
        check_grid(8, 5, SIZES)


def test_pixels_become_rows_and_columns_or_name_the_nearest_size():
    assert grid_of_pixels(128, 160, 16, SIZES) == (8, 10)
    with pytest.raises(RequestError, match="130 pixels in height; nearest: 128 or 160 .8 or 10 codes.$"):
        grid_of_pixels(130, 128, 16, SIZES)
    with pytest.raises(RequestError, match="9999 pixels in width; nearest: 608 .38 codes.$"):
        grid_of_pixels(128, 9999, 16, SIZES)
    with pytest.raises(RequestError, match="0 pixels in height; nearest: 128 .8 codes.$"):
        grid_of_pixels(0, 128, 16, SIZES)
