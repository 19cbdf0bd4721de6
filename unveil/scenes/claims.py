"""What a sentence says of a picture, in a form that a machine can judge."""

from collections.abc import Iterator
from dataclasses import dataclass

from unveil.scenes.phrase import Cell, Like, cell_of, holds
from unveil.scenes.scene import Scene, Thing


@dataclass(frozen=True)
class Claims:
    """All that a caption says: these things and no others on this background, so placed.

    relations: (i, word, j) claims that thing i is `word` thing j; places: (i, cell) claims where thing i is; both
    count in `things`. `absent` are descriptions nothing may answer to.
    """

    background: str
    things: tuple[Like, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    places: tuple[tuple[int, Cell], ...] = ()
    absent: tuple[Like, ...] = ()


@dataclass(frozen=True)
class Captioned:
    """A caption and what it claims."""

    text: str
    claims: Claims


def faults(claims: Claims, scene: Scene) -> list[str]:
    """What of the claims is false of the scene, in words; empty when all is right.

    The things are matched one to one in the way that makes most claims true, so "a star left of a star" needs
    two stars, and "a red star and a star" is right for two red ones.
    """
    wrong = []
    if scene.background != claims.background:
        wrong.append(f"background: expected {claims.background}, found {scene.background}")
    wrong += [f"there is {a.one}" for a in claims.absent if a.among(scene)]
    best: list[str] | None = None
    for match in _matches(claims.things, scene.things):
        misplaced = _misplaced(claims, match)
        if best is None or len(misplaced) < len(best):
            best = misplaced
        if not best:
            break
    return wrong + (_inventory(claims.things, scene.things) if best is None else best)


def _matches(likes: tuple[Like, ...], things: tuple[Thing, ...]) -> Iterator[tuple[Thing, ...]]:
    """Every way to give each description a thing of its own, with none left over."""
    if len(likes) != len(things):
        return
    if not likes:
        yield ()
        return
    for i, thing in enumerate(things):
        if likes[0].matches(thing):
            for rest in _matches(likes[1:], things[:i] + things[i + 1 :]):
                yield (thing, *rest)


def _misplaced(claims: Claims, match: tuple[Thing, ...]) -> list[str]:
    cells = [cell_of(t) for t in match]
    wrong = [
        f"the {claims.things[i].words} is not {word} the {claims.things[j].words}"
        for i, word, j in claims.relations
        if not holds(word, cells[i], cells[j])
    ]
    return wrong + [
        f"the {claims.things[i].words} is at {cells[i]}, not at {cell}" for i, cell in claims.places if cells[i] != cell
    ]


def _inventory(likes: tuple[Like, ...], things: tuple[Thing, ...]) -> list[str]:
    """Which descriptions go without a thing and which things without a description, most specific words first."""
    left, missing = list(things), []
    for wanted in sorted(likes, key=lambda a: -sum(x is not None for x in (a.kind, a.color, a.size, a.glyph))):
        found = next((t for t in left if wanted.matches(t)), None)
        if found is None:
            missing.append(f"missing: {wanted.one}")
        else:
            left.remove(found)
    return missing + [f"not asked for: {t.size} {t.color} {t.noun} at {cell_of(t)}" for t in left]
