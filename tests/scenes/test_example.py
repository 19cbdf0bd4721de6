"""Examples are the same on every machine, and nothing held out leaks into training."""

import re
import time

import pytest

from unveil.scenes.change import Edit, judge_edit
from unveil.scenes.claims import Claims, faults
from unveil.scenes.describe import description_f1
from unveil.scenes.example import SPLITS, TASKS, Example, example
from unveil.scenes.plan import parse_plan
from unveil.scenes.question import Question
from unveil.scenes.sample import HELDOUT_PAIRS
from unveil.scenes.scene import Scene, Thing
from unveil.scenes.story import Story


def scenes_of(item: Example) -> list[Scene]:
    """All pictures of an example."""
    return [*item.sources, *(part for part in item.response if isinstance(part, Scene))]


@pytest.mark.parametrize("split", SPLITS)
@pytest.mark.parametrize("task", TASKS)
def test_the_judge_finds_the_true_response_right(task, split):
    for i in range(100):
        item = example(task, i, split)
        last = item.response[-1]
        match item.judge:
            case Claims() as claims:
                assert faults(claims, last) == []
            case Scene() as scene:
                assert description_f1(last, scene) == 1.0
            case Question() as question:
                assert last == question.answer
            case Edit() as edit:
                assert judge_edit(edit, last) == (True, True)
            case Story() as story:
                assert item.response == tuple(part for frame in story.frames for part in frame)
        if task == "think":
            assert parse_plan(item.response[0]) == last


@pytest.mark.parametrize("task", TASKS)
def test_training_examples_contain_no_heldout_pair_in_pictures_or_words(task):
    held = re.compile("|".join(rf"\b{color} {kind}" for kind, color in HELDOUT_PAIRS))
    for split in ("train", "test"):
        for i in range(400):
            item = example(task, i, split)
            assert not any((t.kind, t.color) in HELDOUT_PAIRS for s in scenes_of(item) for t in s.things)
            words = " | ".join([item.prompt, *(part for part in item.response if isinstance(part, str))])
            assert not held.search(words), words


def test_each_split_holds_what_it_is_named_for():
    for i in range(200):
        pairs = {(t.kind, t.color) for s in scenes_of(example("generate", i, "heldout_pairs")) for t in s.things}
        assert pairs & HELDOUT_PAIRS
        assert len(example("generate", i, "more_objects").response[0].things) in (5, 6)
        assert len(example("generate", i, "train").response[0].things) in (1, 2, 3, 4)
        for task in ("generate", "t2i_two"):
            text = example(task, i, "heldout_relations").prompt
            assert re.search(r" with an? .* it\b|^(left of|right of|above|below) ", text)


def test_examples_are_the_same_on_every_machine():
    assert [
        example("generate", 0, "train").prompt,
        example("generate", 7, "test").prompt,
        example("think", 0, "test").response[0],
        example("caption", 7, "train").response[0],
        example("question", 0, "train").prompt,
        example("question", 0, "train").response[0],
        example("edit", 0, "test").prompt,
        example("story", 0, "test").prompt,
        example("t2i_two", 7, "train").prompt,
    ] == [
        "a large purple cross but no ring, gray background",
        "a large yellow arrow, a small brown circle, a large purple digit 3 and a small green triangle on white",
        "black. large blue cup row 3 column 4.",
        "a small pink fish on gray",
        "is the red car smaller than the green car?",
        "yes",
        "change the cup to purple",
        "a purple house on cream. a small purple ring appears below it. the ring disappears.",
        "an orange car above a pink digit 5 on gray",
    ]


def test_splits_and_indices_give_different_examples():
    items = [example("generate", i, split).prompt for split in ("train", "test") for i in range(500)]
    assert len(set(items)) > 900


def test_prompts_of_the_scores_say_one_thing_or_two_with_a_true_relation():
    for i in range(300):
        one, two = example("t2i_one", i, "test"), example("t2i_two", i, "test")
        assert len(one.judge.things) == len(one.response[0].things) == 1
        assert re.fullmatch(r"an? (\w+ )?\w+ \w+( [1-5])? on \w+", one.prompt)
        assert len(two.judge.relations) == 1
        a, b = two.response[0].things
        assert abs(a.row - b.row) != abs(a.col - b.col)
        mirrored = Scene(two.response[0].background, (Thing(b.row, b.col, *_looks(a)), Thing(a.row, a.col, *_looks(b))))
        assert faults(two.judge, mirrored)


def _looks(thing: Thing) -> tuple[str, str, str, str]:
    return thing.kind, thing.color, thing.size, thing.glyph


def test_the_language_is_small():
    words = set()
    longest = 0
    for task in TASKS:
        for i in range(500):
            item = example(task, i, "train")
            texts = [item.prompt, *(part for part in item.response if isinstance(part, str))]
            words |= {word for text in texts for word in re.findall(r"\w+", text)}
            longest = max(longest, *(len(text) for text in texts))
    assert len(words) <= 130, len(words)
    assert longest < 220
    assert all(word.isascii() and word == word.lower() for word in words)


def test_an_example_takes_less_than_a_third_of_a_millisecond():
    for task in TASKS:
        start = time.process_time()
        for i in range(300):
            example(task, i, "train")
        assert (time.process_time() - start) / 300 < 0.3e-3, task
