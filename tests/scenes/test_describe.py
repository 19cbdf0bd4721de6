"""The canonical caption and its F1 score."""

import pytest

from unveil.scenes.describe import Description, describe, description_f1, parse_description
from unveil.scenes.phrase import Like
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import Scene, Thing


def test_a_scene_is_described_in_reading_order(star_and_fish):
    assert describe(star_and_fish) == "a large red star, a small blue fish on white"
    orange = Scene("gray", (Thing(3, 0, "digit", "orange", "small", "3"), Thing(0, 2, "arrow", "pink", "large")))
    assert describe(orange) == "a large pink arrow, a small orange digit 3 on gray"
    assert describe(Scene("black")) == "nothing on black"


def test_parsing_reads_back_what_describe_wrote():
    for i in range(500):
        scene = sample_scene(generator("test", "describe", i), (1, 6), pairs="any")
        things = tuple(Like(t.kind, t.color, t.size, t.glyph or None) for t in scene.things)
        assert parse_description(describe(scene)) == Description(scene.background, things)
        assert description_f1(describe(scene), scene) == 1.0


@pytest.mark.parametrize(
    ("text", "score"),
    [
        ("a small blue fish, a large red star on white", 1.0),  # any order
        ("a large red star, a small blue fish on white.", 1.0),
        ("a large red star, a small blue fish on gray", 2 / 3),
        ("a large red star on white", 4 / 5),
        ("a large red star, a large red star, a small blue fish on white", 6 / 7),
        ("a large red star, a small green fish on white", 2 / 3),
        ("a large red star, a small blue fish", 4 / 5),
        ("a large red star, fish a on white", 4 / 5),
        ("a large red star 3, a small blue fish on white", 4 / 5),
        ("on on on", 0.0),
        ("", 0.0),
    ],
)
def test_f1_counts_background_and_whole_things(star_and_fish, text, score):
    assert description_f1(text, star_and_fish) == pytest.approx(score)
