"""Pictures of which a part stays: its codes come out exactly, in every way to say which."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from unveil.errors import PictureError, RequestError, UnveilError, WeightsError
from unveil.metadata import read_codes, read_recipe
from unveil.pipeline.images import edit_within, generate_around
from unveil.pipeline.pins import Earlier, marked_cells
from unveil.pipeline.watch import Watch

DRAW = {"temperature": 1.0}
LEFT = np.zeros((8, 8), dtype=bool)
LEFT[:, :4] = True


def noise(seed: int, size: tuple[int, int] = (128, 128)) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (size[1], size[0], 3), dtype=np.uint8))


def painted(cells: np.ndarray, pixels: int = 1) -> Image.Image:
    """A mask as a paint program would save it."""
    return Image.fromarray(np.kron(cells, np.ones((pixels, pixels))).astype(np.uint8) * 255)


@pytest.fixture(scope="module")
def first(uni):
    return uni.generate_image("a red star on white", seed=5, **DRAW)


@pytest.fixture(scope="module")
def varied(uni, first):
    return uni.generate_image("two blue fish", seed=6, codes=first, keep=LEFT, trace=True, **DRAW)


def test_kept_codes_stay_and_the_others_are_drawn(first, varied):
    assert torch.equal(varied.codes[:, :4], first.codes[:, :4])
    assert (varied.codes[:, 4:] != first.codes[:, 4:]).float().mean() > 0.5
    assert varied.image.tobytes() != first.image.tobytes()


def test_vary_is_the_opposite_of_keep(uni, first, varied):
    other = uni.generate_image("two blue fish", seed=6, codes=first, vary=~LEFT, **DRAW)
    assert torch.equal(other.codes, varied.codes) and other.recipe == varied.recipe


def test_codes_can_be_the_result_its_codes_or_its_file(uni, first, varied, tmp_path):
    file = first.save(tmp_path / "a.png")
    for codes in (first.codes, file, str(file)):
        again = uni.generate_image("two blue fish", seed=6, codes=codes, keep=LEFT, **DRAW)
        assert torch.equal(again.codes, varied.codes)


def test_masks_can_be_arrays_lists_tensors_pictures_and_files(uni, first, varied, tmp_path):
    painted(LEFT, 16).save(tmp_path / "mask.png")
    masks = (LEFT.astype(int), LEFT.tolist(), torch.from_numpy(LEFT), painted(LEFT), painted(LEFT, 16))
    for keep in (*masks, tmp_path / "mask.png", (tmp_path / "mask.png").read_bytes()):
        again = uni.generate_image("two blue fish", seed=6, codes=first, keep=keep, **DRAW)
        assert torch.equal(again.codes, varied.codes)


def test_a_cell_counts_as_white_when_more_than_half_of_it_is():
    cells = np.zeros((8, 8), dtype=np.uint8)
    cells[:2, :2], cells[:4, 4:] = 255, 255
    cells[4:, :3] = 255
    assert marked_cells(Image.fromarray(cells), (2, 2)).tolist() == [[False, True], [True, False]]


def test_where_pixels_are_transparent_the_mask_is_white():
    holed = Image.new("RGBA", (2, 1), (0, 0, 0, 255))
    holed.putpixel((1, 0), (0, 0, 0, 0))
    assert marked_cells(holed, (1, 2)).tolist() == [[False, True]]


def test_the_trace_begins_with_the_kept_cells(first, varied):
    (stage,) = varied.trace.stages
    moments = list(stage.moments())
    offset, kept = moments[0][0].token - int(first.codes[0, 0]), LEFT.flatten().tolist()
    old = first.codes.flatten().tolist()
    assert [cell.token for cell in moments[0]] == [c + offset if k else None for c, k in zip(old, kept, strict=True)]
    assert [cell.token - offset for cell in moments[-1]] == varied.codes.flatten().tolist()
    assert not any(cell.fresh for moment in moments for cell, k in zip(moment, kept, strict=True) if k)


def test_a_trace_shows_a_picture_of_which_a_whole_block_was_kept(uni, first):
    keep = np.ones((8, 8), dtype=bool)
    keep[7, 7] = False
    result = uni.generate_image("a fish", seed=6, codes=first, keep=keep, trace=True, **DRAW)
    assert len(list(result.trace.stages[0].moments())) == 2
    assert torch.equal(result.codes.flatten()[:-1], first.codes.flatten()[:-1])


def test_progress_counts_the_cells_that_are_drawn(uni, first):
    heard = []
    type(uni)(uni.parts, lambda *said: heard.append(said)).generate_image("a", seed=1, codes=first, keep=LEFT)
    assert [said for said in heard if said[0] == "draw"][-1][1:] == (32, 32)


def test_a_kept_picture_replays_from_its_png_alone(uni, varied, tmp_path):
    recipe = read_recipe(varied.save(tmp_path / "a.png"))
    assert recipe.pinned == [[*row[:4], *[None] * 4] for row in varied.codes.tolist()]
    again = uni.replay(recipe)
    assert again.image.tobytes() == varied.image.tobytes() and again.recipe == recipe
    changed = [row[:2] + [None] * 6 for row in recipe.pinned]
    assert uni.replay(dataclasses.replace(recipe, pinned=changed)).image.tobytes() != varied.image.tobytes()


def test_keeping_goes_together_with_thinking_and_with_another_size(uni, first):
    wide = uni.generate_image("a fish", seed=1, codes=first, width=192, **DRAW)
    assert wide.codes.shape == (8, 12) and torch.equal(wide.codes[:, 2:10], first.codes)
    right = uni.generate_image("a fish", seed=1, codes=first, height=160, width=160, at=(2, 1), vary=LEFT, **DRAW)
    assert right.codes.shape == (10, 10) and torch.equal(right.codes[2:, 5:9], first.codes[:, 4:])
    assert not torch.equal(right.codes[2:, 1:5], first.codes[:, :4])
    assert uni.replay(right.recipe).image.tobytes() == right.image.tobytes()


def test_an_edit_with_a_mask_changes_nothing_outside_of_it(uni, tmp_path):
    source = uni.tokenize(noise(0))
    result = uni.edit_image(noise(0), "make it red", seed=9, mask=LEFT, **DRAW)
    assert torch.equal(result.codes[:, 4:], source[:, 4:])
    assert (result.codes[:, :4] != source[:, :4]).float().mean() > 0.5
    again = uni.replay(read_recipe(result.save(tmp_path / "a.png")))
    assert again.image.tobytes() == result.image.tobytes() and again.recipe == result.recipe


def test_the_mask_of_a_photo_has_the_photos_size_and_is_cut_like_it(uni):
    photo, mask = noise(0, (300, 200)), Image.new("L", (300, 200))
    mask.paste(255, (50, 0, 150, 200))  # the middle 200 pixels are seen: this is their left half
    source = uni.tokenize(photo)
    result = uni.edit_image(photo, "make it red", seed=9, mask=mask, **DRAW)
    assert torch.equal(result.codes[:, 4:], source[:, 4:]) and not torch.equal(result.codes, source)


@pytest.mark.parametrize(
    ("mask", "why"),
    [
        (np.ones((8, 8), dtype=bool), "nothing is left to draw"),
        (np.zeros((8, 8), dtype=bool), "no cell is kept"),
        (np.ones((8, 9), dtype=bool), "8 rows of 8 cells"),
        (np.full((8, 8), 2), "each True or False"),
        ([[True], [True, False]], "8 rows of 8 cells"),
        ("x" * 8, "no such file"),
        (Image.new("L", (12, 12)), "the mask has 12x12 pixels; it must have 8x8"),
        (Image.new("L", (16, 8)), "the mask has 16x8 pixels"),
        (Image.new("L", (4, 4)), "the mask has 4x4 pixels"),
    ],
)
def test_masks_that_cannot_be_are_refused_in_one_line(uni, first, mask, why):
    with pytest.raises(UnveilError, match=why) as caught:
        uni.generate_image("a fish", codes=first, keep=mask)
    assert "\n" not in str(caught.value)


def test_an_edit_refuses_a_mask_of_all_of_nothing_or_of_another_size(uni):
    for cells, why in ((LEFT | True, "no cell is kept"), (LEFT & False, "nothing is left"), (LEFT[:4], "8 rows of 8")):
        with pytest.raises(RequestError, match=why):
            uni.edit_image(noise(0), "make it red", mask=cells)


def apart(a, b):
    """The largest difference of two pictures in a pixel: 1 is rounding, pictures of other codes have much more."""
    return int(np.abs(np.asarray(a).astype(int) - np.asarray(b).astype(int)).max())


def test_in_a_batch_each_picture_keeps_what_it_keeps_alone(uni, first):
    right, prompts, seeds = ~LEFT, ["two blue fish", "a fish", "two blue fish", "a tree"], [6, 7, 6, 8]
    given = {"codes": [first, first.codes, first, None], "keep": [LEFT, None, right, None]}
    given["vary"] = [None, right, None, None]
    rows = [dict(zip(given, row, strict=True)) for row in zip(*given.values(), strict=True)]
    alone = [uni.generate_image(p, seed=s, **row, **DRAW) for p, s, row in zip(prompts, seeds, rows, strict=True)]
    earlier = Earlier.each(4, **given, at=None)
    together = generate_around(uni.parts, prompts, seeds, earlier, DRAW, Watch())
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.codes, b.codes) and a.recipe == b.recipe
    for r, kept in zip(together[:3], (LEFT, LEFT, right), strict=True):
        assert np.array_equal(r.codes.numpy()[kept], first.codes.numpy()[kept])
    assert len({tuple(r.codes.flatten().tolist()) for r in together}) == 4
    images = uni.generate_images(prompts, seeds, **given, **DRAW)
    assert all(apart(image, r.image) <= 1 for image, r in zip(images, alone, strict=True))
    assert apart(images[0], alone[2].image) > 3


def test_one_set_of_pins_goes_for_all_of_a_batch(uni, first, tmp_path):
    where = {"codes": first.save(tmp_path / "a.png"), "vary": ~LEFT, "at": (2, 1), "height": 160, "width": 160}
    images = uni.generate_images(["a fish", "a tree"], [1, 2], **where, **DRAW)
    alone = [uni.generate_image(p, seed=s, **where, **DRAW) for p, s in (("a fish", 1), ("a tree", 2))]
    assert all(apart(image, r.image) <= 1 for image, r in zip(images, alone, strict=True))
    places = [(2, 1), (0, 0)]
    placed = uni.generate_images(["a fish", "a tree"], [1, 2], **{**where, "at": places}, **DRAW)
    alone[1] = uni.generate_image("a tree", seed=2, **{**where, "at": (0, 0)}, **DRAW)
    assert all(apart(image, r.image) <= 1 for image, r in zip(placed, alone, strict=True))
    assert apart(placed[1], images[1]) > 3


def test_pictures_drawn_together_are_as_large_as_what_they_keep(uni, first):
    wide = uni.generate_image("a fish", seed=1, codes=first, width=192, **DRAW)
    keep = np.ones((8, 12), dtype=bool)
    keep[:, :2] = False
    images = uni.generate_images(["a", "b"], [1, 2], codes=wide, keep=keep, **DRAW)
    assert [image.size for image in images] == [(192, 128)] * 2
    for codes, sizes in (([first, wide], "8x8 and 8x12"), ([None, wide], "8x8 and 8x12")):
        with pytest.raises(RequestError, match=f"one size, not {sizes} codes; give height and width"):
            uni.generate_images(["a", "b"], [1, 2], codes=codes)


def test_in_a_batch_of_edits_each_has_its_mask(uni):
    pictures, words, seeds = [noise(0), noise(1), noise(0)], ["make it red"] * 3, [9, 9, 9]
    masks, settings = [LEFT, None, painted(~LEFT, 16)], uni._edit_settings(DRAW)
    together = edit_within(uni.parts, pictures, words, seeds, masks, settings, Watch())
    alone = [uni.edit_image(p, words[0], seed=9, mask=m, **DRAW) for p, m in zip(pictures, masks, strict=True)]
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.codes, b.codes) and a.recipe == b.recipe
    source = uni.tokenize(noise(0))
    assert torch.equal(together[0].codes[:, 4:], source[:, 4:]) and torch.equal(together[2].codes[:, :4], source[:, :4])
    images = uni.edit_images(pictures, words, seeds, mask=masks, **DRAW)
    assert all(apart(image, r.image) <= 1 for image, r in zip(images, alone, strict=True))
    same = uni.edit_images(pictures[::2], words[:2], seeds[:2], mask=LEFT, **DRAW)
    assert all(apart(image, alone[0].image) <= 1 for image in same) and apart(images[2], same[1]) > 3


def test_a_batch_with_more_of_one_thing_than_of_another_is_refused(uni, first):
    for given, why in (
        ({"codes": [first]}, "codes is a list of 1 for 2 pictures; give one for each"),
        ({"codes": first, "keep": LEFT.tolist()}, "keep is a list of 8 for 2 pictures"),
        ({"codes": first, "keep": LEFT[:2].tolist()}, "8 rows of 8 cells"),  # two rows are not two masks
        ({"codes": [first, None], "keep": LEFT}, "give its codes as well"),
    ):
        with pytest.raises(RequestError, match=why):
            uni.generate_images(["a", "b"], [1, 2], **given)
    with pytest.raises(RequestError, match="2 prompts and 1 seeds; a batch has one of each"):
        uni.generate_images(["a", "b"], [1])
    with pytest.raises(RequestError, match="mask is a list of 2 for 1 pictures"):
        uni.edit_images([noise(0)], ["a"], [1], mask=[LEFT, LEFT])
    with pytest.raises(RequestError, match="1 pictures and 2 instructions and 1 seeds"):
        uni.edit_images([noise(0)], ["a", "b"], [1])


def test_codes_of_other_weights_another_grid_or_another_book_are_refused(uni, first, tmp_path):
    foreign = dataclasses.replace(first, recipe=dataclasses.replace(first.recipe, weights="0123"))
    for codes in (foreign, foreign.save(tmp_path / "a.png")):
        with pytest.raises(WeightsError, match="its codes come from weights 0123"):
            uni.generate_image("a fish", codes=codes, keep=LEFT)
    for codes in (torch.full((8, 8), 128), torch.full((8, 8), -1), torch.zeros(64).long(), torch.zeros(8, 8)):
        with pytest.raises(RequestError, match="numbers from 0 to 127"):
            uni.generate_image("a fish", codes=codes, keep=LEFT)
    with pytest.raises(RequestError, match="112 pixels in height; nearest: 128"):
        uni.generate_image("a fish", codes=torch.zeros(7, 8).long(), keep=LEFT[:7])
    with pytest.raises(RequestError, match="8x8 do not fit at row 1, column 0 into 8x8"):
        uni.generate_image("a fish", codes=first, at=(1, 0), keep=LEFT)
    with pytest.raises(RequestError, match="10x10 do not fit at all into 8x8"):
        uni.generate_image("a fish", codes=torch.zeros(10, 10).long(), height=128, width=128)


def test_what_says_nothing_or_two_things_is_refused(uni, first):
    with pytest.raises(RequestError, match="give its codes as well"):
        uni.generate_image("a fish", keep=LEFT)
    with pytest.raises(RequestError, match="one of the two"):
        uni.generate_image("a fish", codes=first, keep=LEFT, vary=LEFT)
    with pytest.raises(RequestError, match="nothing is left to draw"):
        uni.generate_image("a fish", codes=first)


@pytest.mark.parametrize("pinned", [[[1, None]], [[500, *[None] * 7], *[[None] * 8] * 7], [[None] * 8] * 8])
def test_changed_pins_in_a_recipe_are_refused(uni, varied, pinned):
    with pytest.raises(RequestError):
        uni.replay(dataclasses.replace(varied.recipe, pinned=pinned))


def test_a_png_without_codes_or_with_changed_ones_says_so(first, tmp_path):
    assert read_codes(first.save(tmp_path / "a.png")) == (first.codes.tolist(), first.recipe.weights)
    noise(1).save(tmp_path / "b.png")
    with pytest.raises(PictureError, match="b.png: has no codes"):
        read_codes(tmp_path / "b.png")
    from unveil.pictures import encode

    for bad in ("{", "[]", "[[1], [1, 2]]", "[[-1]]", "[[99999999999999999999]]", '[["a"]]', "[" * 10_000, "null"):
        (tmp_path / "c.png").write_bytes(encode(noise(1), ".png", {"codes": bad, "weights": "x"}))
        with pytest.raises(PictureError, match="text chunks were changed"):
            read_codes(tmp_path / "c.png")
