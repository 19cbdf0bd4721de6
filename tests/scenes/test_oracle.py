"""The oracle reads rendered scenes exactly, survives a poor decoder, and does not make things up."""

import time
from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageFilter

from unveil.scenes.oracle import UNKNOWN, difference, read_scene
from unveil.scenes.render import render
from unveil.scenes.sample import crowded_scene, generator, sample_scene
from unveil.scenes.scene import BACKGROUNDS, COLORS, DIGITS, KINDS, SIZES, Scene, Thing


def accuracy(side: int, count: int, spoil: Callable[[np.ndarray, np.random.Generator], np.ndarray]) -> float:
    """Part of scenes of 1-6 things read back exactly after `spoil`."""
    noise, right = np.random.default_rng(0), 0
    for i in range(count):
        scene = sample_scene(generator("test", "oracle", i), (1, 6), pairs="any")
        right += read_scene(spoil(render(scene, side), noise)) == scene
    return right / count


def noisy(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Gaussian noise, sigma 8."""
    return np.clip(pixels + noise.normal(0, 8, pixels.shape), 0, 255).astype(np.uint8)


def blurred(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Gaussian blur, radius 0.7 pixels, then noise."""
    return noisy(np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(0.7))), noise)


def smeared(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Gaussian blur, radius 2 pixels."""
    return np.asarray(Image.fromarray(pixels).filter(ImageFilter.GaussianBlur(2)))


def doubled(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Half the resolution and back."""
    half = Image.fromarray(pixels).resize((len(pixels) // 2,) * 2, Image.Resampling.BILINEAR)
    return np.asarray(half.resize(pixels.shape[:2], Image.Resampling.BICUBIC))


def shifted(pixels: np.ndarray, noise: np.random.Generator) -> np.ndarray:
    """Everything one pixel down and right."""
    return np.roll(pixels, (1, 1), (0, 1))


@pytest.mark.parametrize("side", [64, 128])
def test_rendered_scenes_are_read_exactly(side):
    assert accuracy(side, 200, lambda pixels, _: pixels) == 1.0


@pytest.mark.slow
@pytest.mark.parametrize("side", [64, 128])
def test_2000_rendered_scenes_are_read_at_99_5_percent_and_100_a_second(side):
    assert accuracy(side, 2000, lambda pixels, _: pixels) >= 0.995
    pictures = [render(sample_scene(generator("test", "speed", i)), side) for i in range(300)]
    start = time.process_time()
    for pixels in pictures:
        read_scene(pixels)
    assert 300 / (time.process_time() - start) >= 100


@pytest.mark.parametrize("spoil", [noisy, blurred, smeared, doubled, shifted])
def test_a_poor_decoder_is_read_all_the_same(spoil):
    assert accuracy(128, 100, spoil) >= 0.99


@pytest.mark.parametrize("side", [64, 128])
def test_every_thing_on_every_background_is_read(side):
    looks = [(k, c, s) for k in KINDS for c in COLORS for s in SIZES]
    for i, (kind, color, size) in enumerate(looks):
        for j, background in enumerate(BACKGROUNDS):
            glyph = DIGITS[(i + j) % len(DIGITS)] if kind == "digit" else ""
            scene = Scene(background, (Thing(i % 4, j % 4, kind, color, size, glyph),))
            assert read_scene(render(scene, side)) == scene


@pytest.mark.parametrize("side", [64, 128])
def test_pictures_full_of_things_are_read(side):
    scenes = [crowded_scene(generator("test", "crowded", i), (6, 16)) for i in range(60)]
    assert [difference(s, read_scene(noisy(render(s, side), np.random.default_rng(0)))) for s in scenes] == [[]] * 60


@pytest.mark.parametrize("background", BACKGROUNDS)
def test_nothing_is_made_out_of_noise_and_specks(background):
    noise = np.random.default_rng(1)
    for side in (64, 128):
        empty = render(Scene(background), side)
        grainy = np.clip(empty + noise.normal(0, 20, empty.shape), 0, 255).astype(np.uint8)
        assert read_scene(grainy) == Scene(background)
    specked = empty.copy()
    for row, col in noise.integers(0, 126, (12, 2)):
        specked[row : row + 2, col : col + 2] = COLORS["red"]
    assert read_scene(specked) == Scene(background)


def test_a_thing_off_the_lattice_is_of_no_known_kind(star_and_fish):
    for down, right in ((16, 0), (0, 16), (16, 16)):
        found = read_scene(np.roll(render(star_and_fish, 128), (down, right), (0, 1)))
        assert found.things
        assert {t.kind for t in found.things} == {UNKNOWN}


def test_a_blob_is_of_no_known_kind():
    pixels = render(Scene("white"), 128)
    pixels[32:64, 32:64] = COLORS["blue"]  # a full cell
    pixels[96:108, 0:32] = COLORS["red"]  # a wide bar
    assert [(t.row, t.col, t.kind, t.color) for t in read_scene(pixels).things] == [
        (1, 1, UNKNOWN, "blue"),
        (3, 0, UNKNOWN, "red"),
    ]


def test_colors_a_little_off_the_palette_are_read(star_and_fish):
    dull = (render(star_and_fish, 128) * 0.93 + 10).astype(np.uint8)
    assert read_scene(dull) == star_and_fish


def test_differences_are_said_cell_by_cell(star_and_fish):
    heart = Scene("gray", (Thing(1, 0, "heart", "red", "large"), Thing(3, 3, "digit", "pink", "small", "4")))
    assert difference(star_and_fish, heart) == [
        "background: expected white, found gray",
        "cell (1,0): expected large red star, found large red heart",
        "cell (1,3): expected small blue fish, found nothing",
        "cell (3,3): expected nothing, found small pink digit 4",
    ]
    assert difference(heart, heart) == []


def test_a_picture_of_another_shape_is_refused():
    for shape in ((64, 32, 3), (66, 66, 3), (64, 64, 4)):
        with pytest.raises(ValueError, match="multiple of 4"):
            read_scene(np.zeros(shape, np.uint8))
