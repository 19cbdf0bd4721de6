"""The weights in the package do what they were trained for, on the first few held-out items of some scores.

`unveil eval scenes` measures properly; here a wrong file, a broken loader or a broken sampler must show. The bars lie
below what was measured and far above the floors.
"""

from pathlib import Path

import numpy as np
import pytest

from unveil import Uni
from unveil.config import load_config, load_preset
from unveil.evals import play
from unveil.scenes.scene import Scene, Thing

TINY = Path(__file__).parents[1] / "unveil" / "weights" / "tiny"


def unheard(score: str, done: int, total: int) -> None:
    """Nobody watches."""


@pytest.fixture(scope="module")
def shipped() -> Uni:
    return Uni.load()


def share(outcomes) -> float:
    values = [outcome.value for outcome in outcomes]
    return sum(values) / len(values)


def test_the_configuration_beside_the_weights_is_the_preset():
    assert load_config(TINY / "config.yaml") == load_preset("tiny")


def test_pictures_survive_tokenizer_and_decoder(shipped):
    assert share(play.reconstruct(shipped, 12, "test", unheard)) >= 0.8


def test_one_object_is_drawn_as_asked(shipped):
    assert share(play.generate(shipped, "t2i_one", 48, "test", unheard)) >= 0.75


def test_questions_are_answered_better_than_blindly(shipped):
    seen, blind = (share(play.ask(shipped, 24, "test", unheard, blind=blind)) for blind in (False, True))
    assert seen >= blind + 0.1


def test_an_answer_that_is_among_the_choices_stays_and_another_is_one_of_them(shipped):
    others = ["yes", "no", "red", "blue", "two large fish on cream", "3"]
    for item in play.items("question", 12, "train"):
        picture = play.draw(item.sources[0])
        free = shipped.understand_image(picture, item.prompt).text
        assert shipped.understand_image(picture, item.prompt, choices=[*others, free]).text == free
        rest = [choice for choice in others if choice != free]
        assert shipped.understand_image(picture, item.prompt, choices=rest).text in rest


def test_a_blank_in_a_caption_is_filled_from_the_picture(shipped):
    right = 0
    for item in play.items("caption", 24, "train"):
        article, size, color, *rest = item.response[0].split(" ")
        gapped = " ".join([article, size, "___", *rest])
        right += shipped.infill(gapped, image=play.draw(item.sources[0])).text == item.response[0]
    assert right >= 16


def test_an_edit_with_a_mask_keeps_every_other_thing(shipped):
    star, fish = Thing(0, 0, "star", "red", "large"), Thing(2, 2, "fish", "blue", "large")
    mask = np.zeros((8, 8), dtype=bool)
    mask[:2, :2] = True
    edited = shipped.edit_image(play.draw(Scene("white", (star, fish))), "make the star green", mask=mask, seed=1)
    assert fish in play.read(edited.image).things


def test_edits_are_done_and_leave_the_rest(shipped):
    outcomes = list(play.edit(shipped, 32, "test", unheard))
    assert share(o for o in outcomes if o.score == "edit_done") >= 0.25
    assert share(o for o in outcomes if o.score == "edit_kept") >= 0.35


def test_pictures_are_described(shipped):
    assert share(play.describe(shipped, 24, "test", unheard)) >= 0.7


def test_text_finds_its_picture(shipped):
    assert share(play.retrieve(shipped, 100, "test", unheard)) >= 0.8
