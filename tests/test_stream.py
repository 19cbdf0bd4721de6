"""Results while they are made: what is shown is what the result becomes, and who leaves stops the work."""

import threading

import numpy as np
import pytest
import torch
from PIL import Image

from unveil import Uni
from unveil.errors import PromptError
from unveil.pipeline.preview import MASKED, Preview, preview
from unveil.pipeline.stream import stream
from unveil.pipeline.watch import Moment

DRAW = {"temperature": 1.0}


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8))


def ask(uni: Uni):
    return uni.generate_image("a red star", seed=5, **DRAW)


@pytest.fixture(scope="module")
def parts(uni):
    return list(uni.stream_image(ask))


def test_a_picture_comes_after_its_previews_and_is_the_one_that_comes_without_them(uni, parts):
    *previews, result = parts
    assert result.image.tobytes() == ask(uni).image.tobytes()
    assert len(previews) >= 4 and all(isinstance(p, Preview) for p in previews)


def test_previews_lose_masked_cells_and_never_change_a_code(parts):
    *previews, result = parts
    left = [int(p.masked.sum()) for p in previews]
    assert left == sorted(left, reverse=True) and left[0] < 64 and left[-1] == 0
    assert all(torch.equal(p.codes[~p.masked], result.codes[~p.masked]) for p in previews)


def test_a_preview_shows_each_code_in_its_color_and_the_rest_gray(uni, parts):
    shown, colors = parts[0], uni.code_colors
    pixels = np.asarray(shown.image)
    assert shown.image.size == (128, 128)
    for row, column in ((0, 0), (3, 5), (7, 7)):
        wanted = MASKED if shown.masked[row, column] else tuple(colors[shown.codes[row, column]].tolist())
        assert tuple(pixels[16 * row + 8, 16 * column + 8]) == wanted


def test_a_partial_picture_is_rendered_from_the_nearest_codes(uni):
    layout, offset = uni.parts.layout, uni.parts.layout.image_offset
    ids = [layout.mask] * 64
    ids[0], ids[63] = offset + 3, offset + 9
    shown = preview(Moment("draw", tuple(ids), (8, 8)), uni.code_colors, layout, 16)
    assert (
        shown.guess[:4, :4].eq(3).all() and shown.guess[4:, 4:].eq(9).all() and shown.guess.unique().tolist() == [3, 9]
    )
    assert uni.render(shown.guess, seed=1).size == (128, 128)
    empty = preview(Moment("draw", (layout.mask,) * 64, (8, 8)), uni.code_colors, layout, 16)
    assert empty.masked.all() and empty.guess.eq(0).all()


def test_pinned_cells_are_there_from_the_first_preview(uni, parts):
    old, keep = parts[-1], np.zeros((8, 8), dtype=bool)
    keep[:, :3] = True
    first = next(iter(uni.stream_image(lambda u: u.generate_image("a", codes=old, keep=keep, seed=1))))
    assert not first.masked[:, :3].any() and torch.equal(first.codes[:, :3], old.codes[:, :3])


def test_words_come_in_pieces_that_make_the_text(uni):
    for i, question in enumerate(["what?", "how many?", ""]):
        pieces = list(uni.stream_text(lambda u, i=i, q=question: u.understand_image(noise(i), q, seed=1)))
        assert "".join(pieces) == uni.understand_image(noise(i), question, seed=1).text
        assert all(pieces)


def test_a_letter_of_several_bytes_is_never_shown_in_part(uni):
    text, layout = uni.parts.text, uni.parts.layout
    ids = text.encode("a 家.")
    moments = [Moment("write", tuple(ids[:n] + [layout.mask] * (len(ids) - n))) for n in range(len(ids) + 1)]
    from unveil.pipeline.stream import words_so_far

    assert "".join(words_so_far((m for m in moments), uni.parts)) == "a 家."
    assert all("\ufffd" not in piece for piece in words_so_far((m for m in moments), uni.parts))


def test_what_fails_in_a_stream_fails_where_it_is_read(uni):
    with pytest.raises(PromptError, match="is empty"):
        list(uni.stream_image(lambda u: u.generate_image("  ")))


def test_who_breaks_off_stops_the_request_at_its_next_step(uni):
    steps, before = [], threading.active_count()

    def run(seen):
        def counting(moment):
            steps.append(moment)
            seen(moment)

        return Uni(uni.parts, seen=counting).generate_image("a", seed=1, num_inference_steps=32, **DRAW)

    whole = sum(isinstance(part, Moment) for part in stream(run))
    steps.clear()
    following = stream(run)
    next(following)
    following.close()
    assert threading.active_count() == before and len(steps) < whole


def test_two_streams_at_once_do_not_disturb_each_other(uni, parts):
    one, other = uni.stream_image(ask), uni.stream_image(lambda u: u.generate_image("a fish", seed=6, **DRAW))
    mixed = [part for pair in zip(one, other, strict=False) for part in pair]
    results = [part for part in [*mixed, *one, *other] if not isinstance(part, Preview)]
    assert any(torch.equal(r.codes, parts[-1].codes) for r in results)


def test_codes_get_the_mean_color_of_their_patches(uni):
    colors = uni.code_colors
    white = Image.new("RGB", (128, 128), "white")
    assert colors.shape == (128, 3) and colors.dtype == torch.uint8
    codes = uni.tokenize(white).flatten()
    assert colors[codes].float().mean() > colors.float().mean()


def test_under_a_memory_plan_colors_are_found_picture_by_picture_and_are_the_same(uni, model_directory, monkeypatch):
    planned, together = Uni.load(model_directory, "cpu", memory="4GB"), []
    tokenizer = planned.parts.image_tokenizer
    real = tokenizer.tokenize

    def tokenize(pixels):
        together.append(len(pixels))
        return real(pixels)

    monkeypatch.setattr(tokenizer, "tokenize", tokenize)
    assert torch.equal(planned.code_colors, uni.code_colors)
    assert together == [1] * 256  # plans are for one
