"""Claims say in words what of them is false."""

from dataclasses import replace

from unveil.scenes.claims import Claims, faults
from unveil.scenes.phrase import Like
from unveil.scenes.scene import Scene, Thing

RED_STAR, BLUE_FISH = Like("star", "red"), Like("fish", "blue")


def test_a_true_claim_has_no_fault(star_and_fish):
    claims = Claims("white", (RED_STAR, BLUE_FISH), ((0, "left of", 1),), ((0, (1, 0)),), (Like("tree"),))
    assert faults(claims, star_and_fish) == []


def test_each_fault_is_said(star_and_fish):
    assert faults(Claims("gray", (RED_STAR, BLUE_FISH)), star_and_fish) == ["background: expected gray, found white"]
    assert faults(Claims("white", (RED_STAR, BLUE_FISH), ((0, "right of", 1),)), star_and_fish) == [
        "the red star is not right of the blue fish"
    ]
    assert faults(Claims("white", (RED_STAR, Like("tree"))), star_and_fish) == [
        "missing: a tree",
        "not asked for: small blue fish at (1, 3)",
    ]
    assert faults(Claims("white", (RED_STAR, BLUE_FISH), places=((1, (3, 3)),)), star_and_fish) == [
        "the blue fish is at (1, 3), not at (3, 3)"
    ]
    assert faults(Claims("white", (Like(), Like()), absent=(Like("fish"),)), star_and_fish) == ["there is a fish"]


def test_things_in_one_row_are_neither_above_nor_below(star_and_fish):
    for word in ("above", "below"):
        assert faults(Claims("white", (RED_STAR, BLUE_FISH), ((0, word, 1),)), star_and_fish)


def test_a_star_left_of_a_star_needs_two_stars(star_and_fish):
    claims = Claims("white", (Like("star"), Like("star")), ((0, "left of", 1),))
    two = Scene("white", tuple(Thing(2, col, "star", "red", "small") for col in (1, 2)))
    assert faults(claims, two) == []
    assert faults(claims, star_and_fish)
    assert faults(replace(claims, relations=((0, "right of", 1),)), two) == []
    column = Scene("white", tuple(replace(t, row=i, col=1) for i, t in enumerate(two.things)))
    assert faults(claims, column) == ["the star is not left of the star"]


def test_things_are_matched_so_that_most_is_true():
    scene = Scene("white", (Thing(0, 0, "star", "blue", "small"), Thing(0, 1, "star", "red", "small")))
    assert faults(Claims("white", (Like("star"), Like("star", "blue"))), scene) == []
    assert faults(Claims("white", (Like("star"), RED_STAR), ((0, "left of", 1),)), scene) == []
    assert faults(Claims("white", (RED_STAR, Like("star")), ((0, "left of", 1),)), scene)
