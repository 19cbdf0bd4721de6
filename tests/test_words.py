"""Words under constraints: answers that are one of a few, and texts of which only the blanks are written."""

from itertools import pairwise

import numpy as np
import pytest
from PIL import Image

from unveil.errors import PictureError, PromptError, RequestError
from unveil.pipeline.infill import Gapped

CHOICES = ["yes", "no", "a red fish on the left", "red", "12", "家"]
ASKED = ["what color?", "how many fish are there?", "where is it?", "is it?"]


def noise(seed: int) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (128, 128, 3), dtype=np.uint8))


def test_an_answer_is_one_of_the_choices_whatever_the_steps(uni):
    said = {
        uni.understand_image(noise(i), question, choices=CHOICES, num_inference_steps=steps).text
        for i, question in enumerate(ASKED)
        for steps in (1, 3, 32)
    }
    assert said <= set(CHOICES) and len(said) > 1


def test_a_choice_of_one_letter_more_is_another_choice(uni):
    assert uni.understand_image(noise(1), "what?", choices=["r", "re", "red", "reds"]).text in (
        "r",
        "re",
        "red",
        "reds",
    )


@pytest.mark.parametrize(
    ("choices", "why"),
    [
        (["yes", " "], "a choice is empty"),
        (["yes", "yes "], "from 2 to 1000 different choices, not 1"),
        ([str(i) for i in range(1001)], "not 1001"),
        ("yes,no", "a list of texts"),
        (["yes", "star " * 20], "the choice 'star star .* tokens with its end, 16 may be written"),
    ],
)
def test_choices_that_cannot_be_are_refused_in_one_line(uni, choices, why):
    with pytest.raises(RequestError, match=why) as caught:
        uni.understand_image(noise(1), "what?", choices=choices)
    assert "\n" not in str(caught.value)


def test_choices_are_not_drawn_by_chance(uni):
    with pytest.raises(RequestError, match="leave out the temperature"):
        uni.understand_image(noise(1), "what?", choices=["yes", "no"], temperature=1.0)


@pytest.mark.parametrize(
    "text", ["The ___ is red.", "___", "a ___ star, a ____ ___ fish \n on___white ", "___ 家\0 ___"]
)
@pytest.mark.parametrize("length", [1, 3])
def test_only_blanks_change(uni, text, length):
    shown = uni.infill(text, image=noise(2), length=length, seed=1, trace=True)
    pieces = Gapped.of(text, length, uni.parts).pieces
    rest, end = shown.text, len(shown.text)
    for piece in pieces:
        at = rest.index(piece)
        rest = rest[at + len(piece) :]
    assert shown.text.startswith(pieces[0]) and shown.text.endswith(pieces[-1]) and "___" not in shown.text
    assert end > len("".join(pieces))


def test_the_pinned_tokens_of_a_text_are_on_the_canvas_from_the_start_to_the_end(uni):
    (stage,) = uni.infill("The ___ is ___.", length=2, seed=1, trace=True).trace.stages
    before, after = list(stage.moments())[0], list(stage.moments())[-1]
    open_cells = [i for i, cell in enumerate(before) if cell.token is None]
    encode, pad = uni.parts.text.encode, uni.parts.layout.pad
    first, second, third = encode("The"), encode(" is"), encode(".")
    assert open_cells == [len(first) + i for i in (0, 1)] + [len(first) + 2 + len(second) + i for i in (0, 1)]
    written = [after[i].token for i in open_cells]
    line = [cell.token for cell in after]
    assert line[: len(first)] == first and line[len(first) + 2 :][: len(second)] == second
    assert line[open_cells[-1] + 1 :][: len(third)] == third and set(line[open_cells[-1] + 1 + len(third) :]) == {pad}
    assert all(token < uni.parts.text.pieces for token in written)
    assert [cell.token for i, cell in enumerate(before) if i not in open_cells] == [
        token for i, token in enumerate(line) if i not in open_cells
    ]


def test_the_space_before_a_blank_belongs_to_what_is_filled_in(uni):
    parts = uni.parts
    gapped = Gapped.of("The ___ is red.", 1, parts)
    canvas = gapped.canvas(10, parts)
    star = parts.text.encode(" star")[-1]
    full = [star if token == parts.layout.mask else token for token in canvas]
    assert gapped.filled(full, parts) == f"The {parts.text.decode([star]).lstrip(' ')} is red."
    assert (10 + len(canvas)) % parts.config.backbone.block_size == 0 and canvas[-1] == parts.layout.pad


def test_a_picture_changes_what_is_filled_in(uni):
    blank = "a ___ ___ ___ on white"
    said = {uni.infill(blank, image=picture, length=3).text for picture in (None, noise(1), noise(2))}
    assert len(said) > 1


def test_texts_that_cannot_be_infilled_are_refused_in_one_line(uni):
    for text, why in (("The star is red.", "has no blank"), ("", "text is empty"), ("__ is red", "write ___ where")):
        with pytest.raises(PromptError, match=why):
            uni.infill(text)
    with pytest.raises(PromptError, match="exceed the context of 512; shorten the text"):
        uni.infill("star " * 1000 + "___")
    for length in (0, -1, 1.5, True, 10_000):
        with pytest.raises(RequestError, match="the length of a blank must be a whole number"):
            uni.infill("a ___", length=length)
    with pytest.raises(RequestError, match="give their length instead"):
        uni.infill("a ___", max_tokens=3)
    with pytest.raises(PictureError, match="no such file"):
        uni.infill("a ___", image="gone.png")


def ever_ahead(result) -> bool:
    """Whether a token was written while one before it was open."""
    (stage,) = result.trace.stages
    opened = [[cell.token is None for cell in moment] for moment in stage.moments()]
    return any(before and not after for moment in opened for before, after in pairwise(moment))


def test_words_are_written_from_left_to_right_where_that_is_asked(uni):
    asked = {"trace": True, "num_inference_steps": 16}
    left = [uni.understand_image(noise(i), "what?", order="left_to_right", **asked) for i in range(3)]
    assert not any(map(ever_ahead, left))
    assert any(ever_ahead(uni.understand_image(noise(i), "what?", order="confidence", **asked)) for i in range(3))
    assert any(len(result.trace.stages[0].steps) > 3 for result in left)
    with pytest.raises(RequestError, match="no order 'random'; there are confidence and left_to_right"):
        uni.understand_image(noise(0), "what?", order="random")
