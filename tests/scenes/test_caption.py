"""Captions are true of their scenes, complete, and judged by their claims."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest

from unveil.scenes.caption import caption
from unveil.scenes.claims import Captioned, faults
from unveil.scenes.sample import HELDOUT_PAIRS, generator, sample_scene
from unveil.scenes.scene import COLORS, Scene, Thing

NUMBERS = {"a": 1, "an": 1, "two": 2, "three": 3, "four": 4}


@pytest.fixture(scope="module")
def captioned() -> list[tuple[Captioned, Scene]]:
    """2000 captions with their scenes."""
    pairs = []
    for i in range(2000):
        rng = generator("train", "test captions", i)
        scene = sample_scene(rng)
        pairs.append((caption(scene, rng), scene))
    return pairs


def test_claims_of_a_caption_hold_in_its_scene(captioned):
    assert [(c.text, faults(c.claims, s)) for c, s in captioned if faults(c.claims, s)] == []


def test_the_words_of_a_caption_count_every_thing_of_its_scene(captioned, find, noun_phrase, background_of):
    for said, scene in captioned:
        text = re.sub(rf" but no {noun_phrase}", "", said.text)
        text = re.sub(r"a picture of ", "", text)
        assert background_of(text) == scene.background
        bare = ", " in text and not re.match(r"(there|a|an|two|three|four) ", text)
        if bare or not re.match(r"(there|a|an|two|three|four) ", text):
            parts = [(1, phrase) for phrase in re.findall(noun_phrase, text)]
        else:
            found = re.findall(rf"\b(a|an|two|three|four) ({noun_phrase})", text)
            parts = [(NUMBERS[n], phrase) for n, phrase in found]
        assert sum(n for n, _ in parts) == len(scene.things), said.text
        for phrase, number in Counter(p for n, p in parts for _ in range(n)).items():
            assert len(find(phrase, scene)) >= number, said.text


def test_relations_and_comparisons_in_words_are_true_of_some_pair(captioned, find, noun_phrase, true_of):
    seen = Counter()
    for said, scene in captioned:
        for a, word, b in re.findall(rf"an? ({noun_phrase}) ({'|'.join(true_of)}) an? ({noun_phrase})", said.text):
            seen[word] += 1
            assert any(true_of[word](x, y) for x in find(a, scene) for y in find(b, scene)), said.text
    assert min(seen[word] for word in true_of) > 10


def test_denied_things_are_not_in_the_scene(captioned, find, noun_phrase):
    denials = [(m[1], scene) for c, scene in captioned if (m := re.search(rf" but no ({noun_phrase})", c.text))]
    assert len(denials) > 60
    assert all(find(phrase, scene) == [] for phrase, scene in denials)


def test_every_family_occurs_and_most_captions_are_lists_or_relations(captioned):
    texts = [c.text for c, _ in captioned]
    for part in ("a picture of ", "there is ", "there are ", " corner", " nothing else", " but no ", "larger than"):
        assert sum(part in t for t in texts) >= 10, part
    special = re.compile("picture|there|corner|nothing|but no|larger|smaller|background")
    assert 0.5 < sum(not special.search(t) for t in texts) / len(texts) < 0.8


@pytest.mark.parametrize(
    ("things", "text"),
    [
        ((("star", "red", "large"), ("fish", "blue", "small")), "a large red star left of a small blue fish on white"),
        ((("fish", "blue", "small"),), "a small blue fish on white"),
        (
            (("house", "yellow", "large"), ("tree", "green", "large"), ("tree", "green", "small")),
            "a yellow house and two green trees on white",
        ),
        ((("car", "red", "large"),), "a red car on white"),
    ],
)
def test_the_sentences_of_the_readme_are_in_the_language(things, text):
    scene = Scene("white", tuple(Thing(1, col, *thing) for col, thing in enumerate(things)))
    assert text in {caption(scene, random.Random(i)).text for i in range(400)}


def test_claims_catch_a_wrong_background_a_missing_thing_and_one_too_many(captioned):
    for said, scene in captioned:
        other = "gray" if scene.background != "gray" else "black"
        assert faults(said.claims, replace(scene, background=other))
        assert faults(said.claims, Scene(scene.background, scene.things[1:]))
        row, col = next((r, c) for r in range(4) for c in range(4) if scene.at(r, c) is None)
        assert faults(said.claims, Scene(scene.background, (*scene.things, Thing(row, col, "star", "red", "large"))))


def test_claims_catch_a_mirrored_picture_exactly_when_the_caption_says_left_or_right(captioned):
    for said, scene in captioned:
        if len(scene.things) == 2 and scene.things[0].noun != scene.things[1].noun and "corner" not in said.text:
            mirrored = Scene(scene.background, tuple(replace(t, col=3 - t.col) for t in scene.things))
            assert bool(faults(said.claims, mirrored)) == bool(re.search("left|right", said.text)), said.text


def test_heldout_phrasings_never_occur_otherwise(captioned):
    held = re.compile(r" with an? .* it\b|^(left of|right of|above|below) ")
    assert not any(held.search(c.text) for c, _ in captioned)
    for i in range(200):
        rng = generator("heldout_relations", "test captions", i)
        scene = sample_scene(rng, (2, 4))
        said = caption(scene, rng, heldout_phrasing=True)
        assert held.search(said.text)
        assert faults(said.claims, scene) == []


def test_training_captions_name_no_heldout_pair_not_even_to_deny_it(captioned):
    held = {f"{color} {kind}" for kind, color in HELDOUT_PAIRS}
    assert not any(re.search(rf"\b({'|'.join(held)})", c.text) for c, _ in captioned)
    assert {c for c in COLORS if any(c in said.text for said, _ in captioned)} == set(COLORS)
