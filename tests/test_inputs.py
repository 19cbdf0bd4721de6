"""What a caller of the library gives that cannot be is one line of ours, and what can be is taken."""

import numpy as np
import pytest
import torch
from PIL import Image

from unveil import Message, Uni
from unveil.errors import PromptError, RequestError, UnveilError

IMAGE = Image.new("RGB", (64, 64), "red")
CODES = torch.arange(64).reshape(8, 8)
LEFT = np.arange(8) < np.full((8, 1), 4)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda uni: uni.understand_image(IMAGE, 5), "the question must be text, not int"),
        (lambda uni: uni.understand_image(IMAGE, "what?", choices=[1, 2]), "the choice must be text, not int"),
        (lambda uni: uni.generate_image(None), "the prompt must be text, not NoneType"),
        (lambda uni: uni.answer([IMAGE], ["what?", "where?"]), "1 pictures and 2 questions; a batch has one of each"),
        (lambda uni: uni.reconstruct([IMAGE], [1, 2]), "1 pictures and 2 seeds"),
        (lambda uni: uni.similarity([IMAGE], []), "no text was given; give at least one"),
        (lambda uni: uni.similarity([IMAGE], ["a star", " "]), "the text is empty"),
        (lambda uni: uni.chat([Message("foo", "hello")]), "no role 'foo'; there are system, user, assistant"),
        (lambda uni: uni.generate_image("a", codes=[[1, 2], [3]], keep=LEFT), "codes must be a grid"),
        (lambda uni: uni.generate_image("a", codes=CODES.double().numpy(), keep=LEFT), "codes must be a grid"),
        (lambda uni: uni.generate_image("a", codes=object(), keep=LEFT), "codes must be a grid"),
        (lambda uni: uni.render(CODES, height=128), "rendered from codes has their size; leave out height and width"),
        (lambda uni: Uni.load("tiny", memory=24), "'24' is no amount of memory; write it as 24GB"),
    ]
    + [
        (lambda uni, at=at: uni.generate_image("a", codes=CODES, keep=LEFT, at=at), "at must be .row, column.")
        for at in ((0.5, 0), (1,), "ab", (True, 0))
    ],
)  # fmt: skip
def test_what_cannot_be_asked_of_the_library_is_one_line(uni, ask, why):
    with pytest.raises(UnveilError, match=why) as caught:
        ask(uni)
    assert "\n" not in str(caught.value) and isinstance(caught.value, PromptError | RequestError)


def test_codes_can_be_a_tensor_an_array_or_rows(uni):
    given = ((CODES, None), (CODES.numpy().astype(np.uint16), (0, 0)), (CODES.tolist(), tuple(np.zeros(2, int))))
    drawn = [uni.generate_image("a fish", seed=6, codes=codes, keep=LEFT, at=at).codes for codes, at in given]
    assert all(torch.equal(codes, drawn[0]) for codes in drawn) and torch.equal(drawn[0][:, :4], CODES[:, :4])


def test_no_question_and_no_choices_are_the_defaults(uni):
    assert uni.understand_image(IMAGE, None, choices=None, seed=1).text == uni.understand_image(IMAGE, seed=1).text
