"""Questions about a scene with one short right answer; yes and no are equally frequent."""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass

from unveil.scenes.phrase import (
    NUMBERS,
    OPPOSITE,
    RELATIONS,
    Like,
    absent_like,
    call,
    cell_of,
    corner,
    holds,
    like,
)
from unveil.scenes.scene import BACKGROUNDS, COLORS, KINDS, Scene, Thing

_BACKGROUNDS, _COLORS = tuple(BACKGROUNDS), tuple(COLORS)


@dataclass(frozen=True)
class Question:
    """A question, its answer and the family it is scored in."""

    text: str
    answer: str
    family: str


Asked = tuple[str, str]


def ask(scene: Scene, rng: random.Random, family: str | None = None, pairs: str = "seen") -> Question | None:
    """A question about the scene, of that family (see `FAMILIES`) or of a random one that suits the scene.

    None when a family was asked for and the scene has no unambiguous question of it, e.g. two things to compare.
    """
    if family is not None:
        asked = _ASK[family](scene, rng, pairs)
        return Question(*asked, family) if asked else None
    for name in rng.sample(FAMILIES, len(FAMILIES)):
        asked = _ASK[name](scene, rng, pairs)
        if asked:
            return Question(*asked, name)
    return None


def _exist(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """is there a red star?"""
    level = rng.choice(("kind", "color", "both", "both", "all"))
    if rng.random() < 0.5 and scene.things:
        return f"is there {_trim(like(rng.choice(scene.things)), level).one}?", "yes"
    for _ in range(8):
        full = absent_like(scene, rng, pairs, size=level == "all")
        shown = _trim(full, level) if full else None
        if shown and not shown.among(scene):
            return f"is there {shown.one}?", "no"
    return None


def _trim(full: Like, level: str) -> Like:
    """Only the attributes of that level: the kind, the color, both, or the size too."""
    if level == "kind":
        return Like(full.kind, glyph=full.glyph)
    if level == "color":
        return Like(color=full.color)
    return Like(full.kind, full.color, full.size if level == "all" else None, full.glyph)


def _count(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """how many red things are there?"""
    chance = rng.random()
    if chance < 0.2:
        wanted = Like()
    elif chance < 0.4 or not scene.things:
        wanted = rng.choice((Like(rng.choice(KINDS)), Like(color=rng.choice(_COLORS))))
    else:
        base = _repeated(scene, rng)
        wanted = rng.choice((Like(base.kind), Like(color=base.color), Like(base.kind, base.color)))
    return f"how many {wanted.many} are there?", NUMBERS[len(wanted.among(scene))]


def _repeated(scene: Scene, rng: random.Random) -> Thing:
    """A thing, rather one of which there are more, so that `one` is not nearly every answer."""
    twins = [t for t in scene.things if len(Like(t.kind).among(scene)) > 1 or len(Like(color=t.color).among(scene)) > 1]
    return rng.choice(twins or scene.things)


def _color(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """what color is the star?"""
    picked = _pick(scene, rng, "color")
    return (f"what color is {picked[1]}?", picked[0].color) if picked else None


def _kind(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """what is the red thing? what is in the top left corner?"""
    cornered = [t for t in scene.things if corner(cell_of(t))]
    if cornered and rng.random() < 0.5:
        thing = rng.choice(cornered)
        return f"what is in the {corner(cell_of(thing))} corner?", thing.noun
    picked = _pick(scene, rng, "kind")
    return (f"what is {picked[1]}?", picked[0].noun) if picked else None


def _size(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """what size is the star? is the star large or small?"""
    picked = _pick(scene, rng, "size")
    if picked is None:
        return None
    text = rng.choice(("what size is {}?", "is {} large or small?"))
    return text.format(picked[1]), picked[0].size


def _pick(scene: Scene, rng: random.Random, without: str) -> tuple[Thing, str] | None:
    """A thing that can be named without giving away the attribute, and its name."""
    for thing in rng.sample(scene.things, len(scene.things)):
        name = call(scene, thing, rng, without)
        if name:
            return thing, name
    return None


def _two(
    scene: Scene, rng: random.Random, suits: Callable[[Thing, Thing], bool], without: str | None = None
) -> tuple[Thing, str, Thing, str] | None:
    """Two things that suit, each with a name of its own that does not tell the attribute `without`."""
    named = [(t, call(scene, t, rng, without)) for t in rng.sample(scene.things, len(scene.things))]
    for i, (a, a_name) in enumerate(named):
        for b, b_name in named[i + 1 :]:
            if a_name and b_name and suits(a, b):
                return a, a_name, b, b_name
    return None


def _background(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """what color is the background? is the background white?"""
    if rng.random() < 0.6:
        return "what color is the background?", scene.background
    if rng.random() < 0.5:
        return f"is the background {scene.background}?", "yes"
    return f"is the background {rng.choice([b for b in _BACKGROUNDS if b != scene.background])}?", "no"


def _relation(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """is the star left of the fish? is the star above or below the fish?"""
    word = rng.choice(RELATIONS)
    pair = _two(scene, rng, lambda a, b: holds(word, cell_of(a), cell_of(b)) or holds(word, cell_of(b), cell_of(a)))
    if pair is None:
        return None
    a, a_name, b, b_name = pair
    true = word if holds(word, cell_of(a), cell_of(b)) else OPPOSITE[word]
    chance = rng.random()
    if chance < 0.3:
        sides = "left or right of" if word in ("left of", "right of") else "above or below"
        return f"is {a_name} {sides} {b_name}?", true.removesuffix(" of")
    yes = chance < 0.65
    return f"is {a_name} {true if yes else OPPOSITE[true]} {b_name}?", "yes" if yes else "no"


def _comparison(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """is the star larger than the fish? which is smaller, the star or the fish? are there more stars than fish?"""
    family = rng.choice((_larger, _larger, _which, _same_color, _more))
    return family(scene, rng, pairs)


def _larger(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """Only where some pair differs in size, so that yes and no are both possible; `no` also for equal sizes."""
    pair = _two(scene, rng, lambda a, b: a.size != b.size, "size")
    if pair is None:
        return None
    yes, (word, size) = rng.random() < 0.5, rng.choice((("larger", "large"), ("smaller", "small")))
    if not yes and rng.random() < 0.3:
        pair = _two(scene, rng, lambda a, b: a.size == b.size, "size") or pair
    a, a_name, b, b_name = pair
    if a.size != b.size and (a.size == size) != yes:
        a_name, b_name = b_name, a_name
    return f"is {a_name} {word} than {b_name}?", "yes" if yes else "no"


def _which(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    pair = _two(scene, rng, lambda a, b: a.size != b.size, "size")
    if pair is None:
        return None
    a, a_name, b, b_name = pair
    word, size = rng.choice((("larger", "large"), ("smaller", "small")))
    return f"which is {word}, {a_name} or {b_name}?", (a_name if a.size == size else b_name).removeprefix("the ")


def _same_color(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """Only where one pair has the same color and another has not, so that the question gives no hint."""
    same = _two(scene, rng, lambda a, b: a.color == b.color, "color")
    other = _two(scene, rng, lambda a, b: a.color != b.color, "color")
    if same is None or other is None:
        return None
    yes = rng.random() < 0.5
    _, a_name, _, b_name = same if yes else other
    return f"are {a_name} and {b_name} the same color?", "yes" if yes else "no"


def _more(scene: Scene, rng: random.Random, pairs: str) -> Asked | None:
    """Only where two kinds differ in number; `no` also for equal numbers."""
    numbers = Counter(t.kind for t in scene.things)
    unequal = [(a, b) for a in numbers for b in numbers if numbers[a] > numbers[b]]
    equal = [(a, b) for a in numbers for b in numbers if a != b and numbers[a] == numbers[b]]
    if not unequal:
        return None
    yes = rng.random() < 0.5
    more, fewer = rng.choice(equal if equal and not yes and rng.random() < 0.5 else unequal)
    a, b = (more, fewer) if yes else (fewer, more)
    return f"are there more {Like(a).many} than {Like(b).many}?", "yes" if yes else "no"


_ASK: dict[str, Callable[[Scene, random.Random, str], Asked | None]] = {
    "exist": _exist,
    "count": _count,
    "color": _color,
    "kind": _kind,
    "size": _size,
    "background": _background,
    "relation": _relation,
    "comparison": _comparison,
}
FAMILIES = tuple(_ASK)
