"""Stories: every sentence is true of its frame and of the step from the frame before."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from unveil.scenes.claims import faults
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.story import Story, story


@pytest.fixture(scope="module")
def told() -> list[Story]:
    """800 stories of 2 to 4 frames."""
    stories = []
    for i in range(800):
        rng = generator("train", "test stories", i)
        stories.append(story(sample_scene(rng, (1, 1)), rng, 2 + i % 3))
    return stories


def test_claims_of_every_frame_hold_in_it(told):
    for s in told:
        assert len(s.claims) == len(s.frames)
        assert all(faults(c, scene) == [] for c, (_, scene) in zip(s.claims, s.frames, strict=True)), s.prompt


def test_the_prompt_is_the_sentences_and_the_number_of_frames_is_kept(told):
    assert [len(s.frames) for s in told] == [2 + i % 3 for i in range(len(told))]
    assert all(s.prompt == " ".join(text for text, _ in s.frames) for s in told)
    assert all(text.endswith(".") and text.count(".") == 1 for s in told for text, _ in s.frames)


def test_each_sentence_tells_just_what_changes(told):
    seen = Counter()
    for s in told:
        hero = s.frames[0][1].things[0]
        for (_, before), (text, after) in zip(s.frames, s.frames[1:], strict=False):
            old, new = set(before.things) - set(after.things), set(after.things) - set(before.things)
            seen[re.search("turns|becomes|moves|disappears|appears", text)[0]] += 1
            if m := re.fullmatch(r"it turns (\w+)\.", text):
                assert (old, new) == ({hero}, {replace(hero, color=m[1])})
            elif m := re.fullmatch(r"it becomes (\w+)\.", text):
                assert (old, new) == ({hero}, {replace(hero, size=m[1])})
            elif m := re.fullmatch(r"it moves to the (\w+) (\w+) corner\.", text):
                cell = {"row": 3 * (m[1] == "bottom"), "col": 3 * (m[2] == "right")}
                assert (old, new) == ({hero}, {replace(hero, **cell)})
            elif m := re.fullmatch(r"an? (.*) appears (\w+)(?: of)? it\.", text):
                ((added,), word) = new, m[2]
                assert not old
                assert m[1].endswith(added.noun)
                step = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}[word]
                assert (added.row - hero.row, added.col - hero.col) == step
            elif m := re.fullmatch(r"the background turns (\w+)\.", text):
                assert (old, new, after.background) == (set(), set(), m[1])
                assert before.background != m[1]
            else:
                assert re.fullmatch(rf"the {next(iter(old)).noun} disappears\.", text)
                assert not new
            hero = next((t for t in new if t not in before.things and old == {hero}), hero)
    assert min(seen[word] for word in ("turns", "becomes", "moves", "appears", "disappears")) > 20


def test_the_claims_of_a_later_frame_fail_on_the_frame_before(told):
    assert all(
        faults(claims, before)
        for s in told
        for claims, (_, before) in zip(s.claims[1:], s.frames, strict=False)
        if "becomes" not in s.prompt
    )
