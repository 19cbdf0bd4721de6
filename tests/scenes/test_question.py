"""Answers are right by a second, brute-force reading of the question; yes and no are balanced."""

import re
from collections import Counter, defaultdict

import pytest

from unveil.scenes.example import example
from unveil.scenes.question import FAMILIES, Question, ask
from unveil.scenes.sample import HELDOUT_PAIRS, generator
from unveil.scenes.scene import COLORS, Scene, Thing

CORNERS = {"top left": (0, 0), "top right": (0, 3), "bottom left": (3, 0), "bottom right": (3, 3)}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
TRUE_OF = {
    "left of": lambda a, b: a.col < b.col,
    "right of": lambda a, b: a.col > b.col,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
    "larger than": lambda a, b: (a.size, b.size) == ("large", "small"),
    "smaller than": lambda a, b: (a.size, b.size) == ("small", "large"),
}


@pytest.fixture(scope="module")
def asked() -> list[tuple[Question, Scene]]:
    """3000 questions with their scenes."""
    examples = [example("question", i, "train") for i in range(3000)]
    return [(e.judge, e.sources[0]) for e in examples]


def answer(text: str, scene: Scene, find, phrase: str) -> str:
    """The right answer, read from the words of the question alone."""

    def yes(truth: bool) -> str:
        return "yes" if truth else "no"

    def the(words: str) -> Thing:
        (thing,) = find(words, scene)  # a definite phrase speaks of one thing
        return thing

    patterns = {
        r"what color is the background\?": lambda: scene.background,
        r"is the background (\w+)\?": lambda b: yes(b == scene.background),
        rf"is there an? ({phrase})\?": lambda p: yes(bool(find(p, scene))),
        rf"how many ({phrase}) are there\?": lambda p: NUMBERS[len(find(p, scene))],
        rf"what color is the ({phrase})\?": lambda p: the(p).color,
        r"what is in the (\w+ \w+) corner\?": lambda c: scene.at(*CORNERS[c]).noun,
        rf"what is the ({phrase})\?": lambda p: the(p).noun,
        rf"what size is the ({phrase})\?": lambda p: the(p).size,
        rf"is the ({phrase}) large or small\?": lambda p: the(p).size,
        rf"is the ({phrase}) left or right of the ({phrase})\?": lambda a, b: (
            "left" if the(a).col < the(b).col else "right"
        ),
        rf"is the ({phrase}) above or below the ({phrase})\?": lambda a, b: (
            "above" if the(a).row < the(b).row else "below"
        ),
        rf"is the ({phrase}) ({'|'.join(TRUE_OF)}) the ({phrase})\?": lambda a, w, b: yes(TRUE_OF[w](the(a), the(b))),
        rf"which is larger, the ({phrase}) or the ({phrase})\?": lambda a, b: a if the(a).size == "large" else b,
        rf"which is smaller, the ({phrase}) or the ({phrase})\?": lambda a, b: a if the(a).size == "small" else b,
        rf"are the ({phrase}) and the ({phrase}) the same color\?": lambda a, b: yes(the(a).color == the(b).color),
        rf"are there more ({phrase}) than ({phrase})\?": lambda a, b: yes(len(find(a, scene)) > len(find(b, scene))),
    }
    (found,) = [(m, f) for pattern, f in patterns.items() if (m := re.fullmatch(pattern, text))]
    return found[1](*found[0].groups())


def test_every_answer_is_what_brute_force_reads_from_the_scene(asked, find, noun_phrase):
    for question, scene in asked:
        assert answer(question.text, scene, find, noun_phrase) == question.answer, question.text


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
