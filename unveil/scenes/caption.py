"""Captions: many ways to say what is in a scene, each with the claims that judge it.

Every caption is complete: what it lists is all there is, so a picture drawn from it can be judged. What it leaves open
(sizes, sometimes colors, mostly positions) is free.
"""

import random
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import NamedTuple

from unveil.scenes.claims import Captioned, Claims
from unveil.scenes.phrase import CORNERS, Like, absent_like, cell_of, corner, join, like, relation
from unveil.scenes.scene import Scene, Thing

Family = Callable[[Scene, random.Random, str], Captioned | None]


def caption(scene: Scene, rng: random.Random, pairs: str = "seen", *, heldout_phrasing: bool = False) -> Captioned:
    """A true caption of a scene with at least one thing, background included.

    `pairs="seen"` keeps held-out (kind, color) pairs out of what the caption denies. `heldout_phrasing` says
    relations in one of two ways that never occur otherwise (needs two things).
    """
    choice = _HELDOUT if heldout_phrasing else _ALONE if len(scene.things) == 1 else _TOGETHER
    while True:
        (family,) = rng.choices(choice.families, choice.weights)
        body = family(scene, rng, pairs)
        if body is not None:
            return _on(body, rng)


def _on(body: Captioned, rng: random.Random) -> Captioned:
    """The same with the background: mostly `... on white`."""
    background, chance = body.claims.background, rng.random()
    if chance < 0.85:
        return replace(body, text=f"{body.text} on {background}")
    if chance < 0.95:
        return replace(body, text=f"{body.text} on a {background} background")
    return replace(body, text=f"{body.text}, {background} background")


def _shuffled(scene: Scene, rng: random.Random) -> list[Thing]:
    return rng.sample(scene.things, len(scene.things))


def _likes(things: Sequence[Thing], rng: random.Random) -> list[Like]:
    """Kind and color of each, and in most captions the size."""
    size = rng.random() < 0.6
    return [like(t, size=size) for t in things]


def _grouped(likes: Sequence[Like]) -> list[str]:
    """`a yellow house`, `two green trees`: equal descriptions are counted where they first occur."""
    counts: dict[Like, int] = {}
    for each in likes:
        counts[each] = counts.get(each, 0) + 1
    parts = []
    for each, number in counts.items():
        parts += [each.one] * number if each.glyph else [each.counted(number)]
    return parts


def _listed(scene: Scene, rng: random.Random) -> Captioned:
    likes = _likes(_shuffled(scene, rng), rng)
    return Captioned(join(_grouped(likes)), Claims(scene.background, tuple(likes)))


def _plain(scene: Scene, rng: random.Random, pairs: str) -> Captioned:
    """a yellow house and two green trees"""
    return _listed(scene, rng)


def _picture(scene: Scene, rng: random.Random, pairs: str) -> Captioned:
    """a picture of a red star and a blue fish"""
    body = _listed(scene, rng)
    return replace(body, text=f"a picture of {body.text}")


def _there(scene: Scene, rng: random.Random, pairs: str) -> Captioned:
    """there are two green trees and a red star"""
    body = _listed(scene, rng)
    return replace(body, text=f"there {'is' if body.text.startswith('a') else 'are'} {body.text}")


def _bare(scene: Scene, rng: random.Random, pairs: str) -> Captioned | None:
    """large red star, small blue fish"""
    likes = _likes(_shuffled(scene, rng), rng)
    if len(set(likes)) < len(likes):
        return None
    return Captioned(", ".join(each.words for each in likes), Claims(scene.background, tuple(likes)))


def _related(scene: Scene, rng: random.Random, pairs: str) -> Captioned:
    """a large red star left of a small blue fish(, and two green trees)"""
    things = _shuffled(scene, rng)
    likes = _likes(things, rng)
    word = relation(cell_of(things[0]), cell_of(things[1]), rng)
    relations = [(0, word, 1)]
    text = f"{likes[0].one} {word} {likes[1].one}"
    if len(likes) == 4 and rng.random() < 0.4:
        word = relation(cell_of(things[2]), cell_of(things[3]), rng)
        relations.append((2, word, 3))
        text += f", and {likes[2].one} {word} {likes[3].one}"
    elif len(likes) == 3 and rng.random() < 0.4:
        word = relation(cell_of(things[0]), cell_of(things[2]), rng)
        relations.append((0, word, 2))
        text += f" and {word} {likes[2].one}"
    elif len(likes) > 2:
        text += f", and {join(_grouped(likes[2:]))}"
    return Captioned(text, Claims(scene.background, tuple(likes), tuple(relations)))


def _counted(scene: Scene, rng: random.Random, pairs: str) -> Captioned:
    """two stars and a fish; three things"""
    things = _shuffled(scene, rng)
    whole = len(things) > 1 and rng.random() < 0.25
    likes = [Like() if whole else Like(t.kind) for t in things]
    return Captioned(join(_grouped(likes)), Claims(scene.background, tuple(likes)))


def _denied(scene: Scene, rng: random.Random, pairs: str) -> Captioned | None:
    """a red star and nothing else; two things but no blue fish"""
    if rng.random() < 0.4:
        body = _listed(scene, rng)
        return replace(body, text=f"{body.text} and nothing else")
    missing = absent_like(scene, rng, pairs)
    if missing is None:
        return None
    if missing.kind != "digit" and rng.random() < 0.5 and not Like(missing.kind).among(scene):
        missing = Like(missing.kind)
    body = _listed(scene, rng) if rng.random() < 0.6 else _counted(scene, rng, pairs)
    return Captioned(f"{body.text} but no {missing.words}", replace(body.claims, absent=(missing,)))


def _compared(scene: Scene, rng: random.Random, pairs: str) -> Captioned | None:
    """a red star larger than a blue fish(, and a green tree)"""
    things = _shuffled(scene, rng)
    if things[0].size == things[1].size:
        return None
    word = "larger" if things[0].size == "large" else "smaller"
    likes = [like(t, size=False) for t in things]
    text = f"{likes[0].one} {word} than {likes[1].one}"
    if likes[2:]:
        text += f", and {join(_grouped(likes[2:]))}"
    sized = tuple(like(t) for t in things[:2])
    return Captioned(text, Claims(scene.background, sized + tuple(likes[2:])))


def _placed(scene: Scene, rng: random.Random, pairs: str) -> Captioned | None:
    """a red star in the top left corner and a blue fish"""
    things = _shuffled(scene, rng)
    first = next((t for t in things if corner(cell_of(t))), None)
    if first is None:
        return None
    things.remove(first)
    likes = _likes([first, *things], rng)
    where = corner(cell_of(first)) or ""
    parts = [f"{likes[0].one} in the {where} corner", *_grouped(likes[1:])]
    return Captioned(join(parts), Claims(scene.background, tuple(likes), places=((0, CORNERS[where]),)))


def _otherwise(scene: Scene, rng: random.Random, pairs: str) -> Captioned:
    """a small blue fish with a large red star left of it(, and two green trees)"""
    things = _shuffled(scene, rng)
    likes = _likes(things, rng)
    word = relation(cell_of(things[0]), cell_of(things[1]), rng)
    text = heldout_relation(likes[0], word, likes[1], rng)
    if likes[2:]:
        text += f", and {join(_grouped(likes[2:]))}"
    return Captioned(text, Claims(scene.background, tuple(likes), ((0, word, 1),)))


def heldout_relation(a: Like, word: str, b: Like, rng: random.Random) -> str:
    """`a` left of `b` in one of two orders of words that training never has, though it has all the words."""
    return rng.choice((f"{b.one} with {a.one} {word} it", f"{word} {b.one}, {a.one}"))


class _Choice(NamedTuple):
    families: tuple[Family, ...]
    weights: tuple[int, ...]


_ALONE = _Choice((_plain, _picture, _there, _bare, _counted, _denied, _placed), (14, 2, 1, 1, 1, 2, 3))
_TOGETHER = _Choice(
    (_plain, _related, _picture, _there, _bare, _counted, _denied, _compared, _placed), (12, 16, 3, 1, 1, 3, 3, 3, 3)
)
_HELDOUT = _Choice((_otherwise,), (1,))
