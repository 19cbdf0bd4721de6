"""Edits do what their words say, and the judge tells right results from wrong ones."""

import re
from collections import Counter
from dataclasses import replace

import pytest

from unveil.scenes.change import Edit, Wanted, exactly, free_cells, judge_edit, within
from unveil.scenes.edit import FAMILIES, edit, edits
from unveil.scenes.example import example
from unveil.scenes.phrase import Like
from unveil.scenes.sample import HELDOUT_PAIRS, generator, sample_scene
from unveil.scenes.scene import COLORS, Scene, Thing


@pytest.fixture(scope="module")
def made() -> list[Edit]:
    """2000 training edits."""
    return [example("edit", i, "train").judge for i in range(2000)]


def recolored(scene: Scene, thing: Thing) -> Scene:
    """The scene with another color for that thing."""
    color = "blue" if thing.color != "blue" else "red"
    return Scene(scene.background, tuple(replace(t, color=color) if t == thing else t for t in scene.things))


def test_the_true_result_is_done_and_kept(made):
    assert [e.instruction for e in made if judge_edit(e, e.after) != (True, True)] == []


def test_doing_nothing_is_kept_and_not_done(made):
    for e in made:
        assert e.before != e.after
        assert judge_edit(e, e.before) == (False, True), e.instruction


def test_a_changed_bystander_is_not_kept(made):
    seen = 0
    for e in made:
        for bystander in e.after.things:
            if (bystander.row, bystander.col) not in e.touched:
                seen += 1
                assert judge_edit(e, recolored(e.after, bystander)) == (True, False), e.instruction
                gone = Scene(e.after.background, tuple(t for t in e.after.things if t != bystander))
                assert judge_edit(e, gone) == (True, False)
    assert seen > 2000


def test_a_changed_background_is_not_kept_unless_asked_for(made):
    for e in made:
        other = next(b for b in ("gray", "white", "black") if b not in (e.after.background, e.before.background))
        result = replace(e.after, background=other)
        assert judge_edit(e, result) == ((False, True) if e.family == "background" else (True, False))


def test_a_wrong_thing_in_a_touched_cell_is_not_done(made):
    for e in made:
        for thing in e.after.things:
            if (thing.row, thing.col) in e.touched:
                kind = "ring" if thing.kind != "ring" else "moon"
                things = tuple(replace(t, kind=kind, glyph="") if t == thing else t for t in e.after.things)
                vague = any(w.like.kind is None for w in e.wanted)
                assert vague or not judge_edit(e, Scene(e.after.background, things)).done, e.instruction
                gone = Scene(e.after.background, tuple(t for t in e.after.things if t != thing))
                assert not judge_edit(e, gone).done


def test_words_and_change_agree(made):
    """Each instruction, read by brute force, names just what changes."""
    for e in made:
        old, new = set(e.before.things) - set(e.after.things), set(e.after.things) - set(e.before.things)
        text = e.instruction
        if e.family == "recolor":
            ((was,), (now,)) = old, new
            assert replace(was, color=now.color) == now
            assert text.endswith(" " + now.color)
            assert f" {was.noun} " in text
        elif e.family == "resize":
            ((was,), (now,)) = old, new
            assert replace(was, size=now.size) == now
            assert text.endswith((f" {now.size}", " larger" if now.size == "large" else " smaller"))
        elif e.family == "remove":
            assert (len(old), len(new)) == (1, 0)
            assert text.endswith(next(iter(old)).noun)
        elif e.family == "add":
            assert (len(old), len(new)) == (0, 1)
            assert re.match(rf"add an? (\w+ )?(\w+ )?{next(iter(new)).noun}\b", text)
        elif e.family == "move":
            ((was,), (now,)) = old, new
            assert replace(was, row=now.row, col=now.col) == now
            assert f" {was.noun} " in text
        elif e.family == "swap":
            a, b = sorted(old)
            assert new == {replace(a, row=b.row, col=b.col), replace(b, row=a.row, col=a.col)}
            assert text.count("the ") == 2
        elif e.family == "background":
            assert (old, new) == (set(), set())
            assert text.endswith(e.after.background)
        else:
            assert "all " in text
            assert len(e.touched) >= 1
            assert text.startswith("remove") == (not new)


def test_all_families_occur_equally_often(made):
    counts = Counter(e.family for e in made)
    assert set(counts) == set(FAMILIES)
    assert min(counts.values()) > len(made) / len(FAMILIES) * 0.7


def test_the_named_thing_is_unambiguous(made, find):
    for e in made:
        if e.family == "recolor":
            phrase = re.fullmatch(r"(?:make|change|paint) the (.*?)(?: to)? \w+", e.instruction)[1]
            (thing,) = find(phrase, e.before)
            assert thing not in e.after.things


def test_an_added_thing_may_be_anywhere_on_the_right_side(star_and_fish):
    fish = Thing(1, 3, "fish", "blue", "small")
    tree = Thing(1, 2, "tree", "green", "large")
    after = Scene("white", (*star_and_fish.things, tree))
    wanted = Wanted(Like("tree", "green"), free_cells(star_and_fish, "left of", (fish.row, fish.col)))
    added = within("add", "add a green tree left of the fish", star_and_fish, after, wanted)
    assert len(added.touched) == 11  # 12 cells left of column 3, less the star's
    for row, col, done in ((0, 0, True), (3, 2, True), (0, 3, False)):
        result = Scene("white", (*star_and_fish.things, replace(tree, row=row, col=col, size="small")))
        assert judge_edit(added, result) == (done, done)
    both = Scene("white", (*after.things, replace(tree, row=0, col=0)))
    assert judge_edit(added, both) == (False, True)
    wrong = Scene("white", (*star_and_fish.things, replace(tree, color="red")))
    assert judge_edit(added, wrong) == (False, True)


def test_an_exact_edit_touches_just_the_cells_that_differ(star_and_fish):
    green = Scene("white", (replace(star_and_fish.things[0], color="green"), star_and_fish.things[1]))
    e = exactly("recolor", "make the star green", star_and_fish, green)
    assert e.touched == {(1, 0)}
    assert e.wanted == (Wanted(Like("star", "green", "large"), frozenset({(1, 0)})),)
    assert judge_edit(e, recolored(green, green.things[1])) == (True, False)
    assert judge_edit(e, recolored(green, green.things[0])) == (False, True)


def test_turns_follow_on_each_other():
    for i in range(200):
        rng = generator("test", "turns", i)
        first = sample_scene(rng)
        turns = edits(first, rng, 3)
        assert [t.before for t in turns] == [first, turns[0].after, turns[1].after]


def test_training_edits_make_no_heldout_pair_and_others_do():
    held = {(c, k) for k, c in HELDOUT_PAIRS}
    for i in range(500):
        rng = generator("train", "pairs", i)
        scene = sample_scene(rng)
        e = edit(scene, rng, "recolor")
        assert e is None or not {(t.color, t.kind) for t in e.after.things} & held
    star = Scene("white", (Thing(0, 0, "star", "red", "large"),))
    colors = {edit(star, generator("x", "any", i), "recolor", "any").after.things[0].color for i in range(200)}
    assert colors == set(COLORS) - {"red"}


def test_what_cannot_be_named_is_not_edited():
    twins = Scene("white", tuple(Thing(1, col, "star", "red", "small") for col in (1, 2)))
    for i in range(30):
        rng = generator("test", "twins", i)
        assert all(edit(twins, rng, family) is None for family in ("recolor", "remove", "move", "resize", "swap"))
    made = [edit(twins, generator("test", "twins", i), "all") for i in range(30)]
    assert {len(e.touched) for e in made if e} == {2}
