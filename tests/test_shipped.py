"""The weights in the package do what they were trained for, on the first few held-out items of some scores.

`unveil eval scenes` measures properly; here a wrong file, a broken loader or a broken sampler must show. The bars lie
below what was measured and far above the floors.
"""

from pathlib import Path

import pytest

from unveil import Uni
from unveil.config import load_config, load_preset
from unveil.evals import play

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


def test_pictures_are_described(shipped):
    assert share(play.describe(shipped, 24, "test", unheard)) >= 0.7


def test_text_finds_its_picture(shipped):
    assert share(play.retrieve(shipped, 100, "test", unheard)) >= 0.8
