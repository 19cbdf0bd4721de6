"""Answers are right by a second, brute-force reading of the question; yes and no are balanced."""

import re
from collections import Counter, defaultdict

import pytest

from unveil.scenes.example import example
from unveil.scenes.question import FAMILIES, Question, ask
from unveil.scenes.sample import HELDOUT_PAIRS, generator
from unveil.scenes.scene import COLORS, Scene, Thing


@pytest.fixture(scope="module")
def asked() -> list[tuple[Question, Scene]]:
    """3000 questions with their scenes."""
    examples = [example("question", i, "train") for i in range(3000)]
    return [(e.judge, e.sources[0]) for e in examples]


def test_every_answer_is_what_brute_force_reads_from_the_scene(asked, answer):
    for question, scene in asked:
        assert answer(question.text, scene) == question.answer, question.text


def test_sides_are_asked_only_of_things_apart_on_that_axis_and_which_only_of_unequal_sizes(asked, find, noun_phrase):
    for question, scene in asked:
        two = re.findall(rf"the ({noun_phrase})", question.text)
        if " or " in question.text and len(two) == 2:
            (a,), (b,) = find(two[0], scene), find(two[1], scene)
            axis = "size" if "which" in question.text else "col" if "left" in question.text else "row"
            assert getattr(a, axis) != getattr(b, axis), question.text


def test_all_families_occur_equally_often_and_yes_is_half_of_yes_and_no(asked):
    families, sides = Counter(), defaultdict(Counter)
    for question, _ in asked:
        families[question.family] += 1
        sides[question.family][question.answer] += question.answer in ("yes", "no")
    assert set(families) == set(FAMILIES)
    assert all(abs(n / len(asked) - 1 / len(FAMILIES)) < 0.03 for n in families.values())
    for family in ("exist", "relation", "comparison", "background"):
        yes, no = sides[family]["yes"], sides[family]["no"]
        assert yes + no > 80
        assert abs(yes / (yes + no) - 0.5) < 0.09, family


def test_no_question_gives_away_the_attribute_it_asks_for(asked):
    for question, _ in asked:
        if question.text.startswith("what color is the ") or "same color" in question.text:
            assert not set(question.text.split()) & set(COLORS), question.text
        if question.text.startswith("what size") or "larger" in question.text or "smaller" in question.text:
            assert not re.search(r"\b(large|small) ", question.text)


def test_training_questions_name_no_heldout_pair(asked):
    held = re.compile("|".join(rf"\b{color} {kind}" for kind, color in HELDOUT_PAIRS))
    assert not any(held.search(q.text) for q, _ in asked)


def test_a_question_that_cannot_be_asked_clearly_is_not_asked():
    twins = Scene("white", tuple(Thing(1, col, "star", "red", "small") for col in (1, 2)))
    for i in range(50):
        rng = generator("test", "none", i)
        assert ask(twins, rng, "color") is None
        assert ask(twins, rng, "comparison") is None
        assert ask(twins, rng, "relation") is None
        assert ask(twins, rng, "count") is not None
        assert ask(twins, rng).family in ("exist", "count", "background")
