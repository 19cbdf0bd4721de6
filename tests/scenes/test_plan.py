"""Plans are layouts in words that can be read back."""

import pytest

from unveil.scenes.plan import parse_plan, plan
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import Scene


def test_a_plan_names_background_things_and_cells(star_and_fish):
    assert plan(star_and_fish) == "white. large red star row 2 column 1. small blue fish row 2 column 4."
    assert plan(Scene("gray")) == "gray."


def test_parsing_a_plan_gives_the_scene():
    for i in range(500):
        scene = sample_scene(generator("test", "plan", i), (1, 6), pairs="any")
        assert parse_plan(plan(scene)) == scene
    assert parse_plan("gray.") == Scene("gray")


def test_a_shuffled_plan_lays_out_the_same_scene(star_and_fish):
    told = {plan(star_and_fish, generator("test", "plan", i)) for i in range(20)}
    assert told == {plan(star_and_fish), "white. small blue fish row 2 column 4. large red star row 2 column 1."}


@pytest.mark.parametrize(
    "text",
    [
        "",
        "lime. large red star row 2 column 1.",
        "white. large red star row 5 column 1.",
        "white. large red star.",
        "white. large red star 3 row 1 column 1.",
        "white. large red digit row 1 column 1.",
        "white. large red star row 1 column 1. small blue fish row 1 column 1.",
    ],
)
def test_what_is_no_plan_parses_to_none(text):
    assert parse_plan(text) is None
