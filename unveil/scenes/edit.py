"""Edit instructions: a scene before, words, and the scene after; each unambiguous where it is judged."""

import random
from collections.abc import Callable
from dataclasses import replace

from unveil.scenes.change import Edit, Wanted, exactly, free_cells, replaced, within
from unveil.scenes.phrase import (
    CELLS,
    CORNERS,
    RELATIONS,
    WAYS,
    Cell,
    Like,
    beside,
    call,
    cell_of,
    like,
    may_be,
)
from unveil.scenes.sample import sample_thing
from unveil.scenes.scene import BACKGROUNDS, COLORS, SIZES, Scene, Thing

Maker = Callable[[Scene, random.Random, str], Edit | None]

_BACKGROUNDS, _COLORS = tuple(BACKGROUNDS), tuple(COLORS)


def edit(scene: Scene, rng: random.Random, family: str | None = None, pairs: str = "seen") -> Edit | None:
    """An edit of the scene, of that family (see `FAMILIES`) or of a random one that suits.

    None when the scene has no unambiguous edit of the family, e.g. nothing to swap. `pairs="seen"` never makes a
    held-out (kind, color) pair.
    """
    if family is not None:
        return _MAKE[family](scene, rng, pairs)
    for name in rng.sample(FAMILIES, len(FAMILIES)):
        made = _MAKE[name](scene, rng, pairs)
        if made:
            return made
    return None


def edits(scene: Scene, rng: random.Random, turns: int, pairs: str = "seen") -> tuple[Edit, ...]:
    """Several turns on one picture: each starts from the scene the last one left."""
    made: list[Edit] = []
    while len(made) < turns:
        step = edit(made[-1].after if made else scene, rng, None, pairs)
        if step is None:  # cannot be: the background can always change
            break
        made.append(step)
    return tuple(made)


def new_color(thing: Thing, rng: random.Random, pairs: str) -> str:
    """Another color for a thing."""
    return rng.choice([c for c in _COLORS if c != thing.color and may_be(thing.kind, c, pairs)])


def other_background(scene: Scene, rng: random.Random) -> str:
    """Another background for a scene."""
    return rng.choice([b for b in _BACKGROUNDS if b != scene.background])


def other_size(thing: Thing) -> str:
    """The size that the thing has not."""
    return SIZES[thing.size == SIZES[0]]


def phrase_new(thing: Thing, rng: random.Random) -> Like:
    """How a new thing is described: mostly in full."""
    chance = rng.random()
    return like(thing, size=chance < 0.6, color=chance < 0.9)


def _referable(scene: Scene, rng: random.Random, without: str | None = None) -> tuple[Thing, str] | None:
    for thing in rng.sample(scene.things, len(scene.things)):
        name = call(scene, thing, rng, without)
        if name:
            return thing, name
    return None


def _recolor(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """make the star green"""
    picked = _referable(scene, rng)
    if picked is None:
        return None
    thing, name = picked
    color = new_color(thing, rng, pairs)
    text = rng.choice(("make {} {}", "make {} {}", "change {} to {}", "paint {} {}")).format(name, color)
    return exactly("recolor", text, scene, replaced(scene, {thing: replace(thing, color=color)}))


def _resize(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """make the star large; make the star larger"""
    picked = _referable(scene, rng)
    if picked is None:
        return None
    thing, name = picked
    size = other_size(thing)
    word = rng.choice((size, "larger" if size == "large" else "smaller"))
    return exactly("resize", f"make {name} {word}", scene, replaced(scene, {thing: replace(thing, size=size)}))


def _remove(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """remove the star"""
    picked = _referable(scene, rng) if len(scene.things) > 1 else None
    if picked is None:
        return None
    thing, name = picked
    after = Scene(scene.background, tuple(t for t in scene.things if t != thing))
    return exactly("remove", f"{rng.choice(('remove', 'remove', 'delete'))} {name}", scene, after)


def _add(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """add a small red fish (left of the tree | in the top right corner)"""
    chance = rng.random()
    spot = _beside(scene, rng) if chance < 0.5 else _corner(scene, rng) if chance < 0.85 else _anywhere(scene, rng)
    if spot is None:
        return None
    where, cell, cells = spot
    thing = sample_thing(rng, *cell, "seen" if pairs == "seen" else "any")
    described = phrase_new(thing, rng)
    after = Scene(scene.background, (*scene.things, thing))
    return within("add", f"add {described.one}{where}", scene, after, Wanted(described, cells))


Spot = tuple[str, Cell, frozenset[Cell]]  # words, the cell to use, the cells that would be right


def _beside(scene: Scene, rng: random.Random) -> Spot | None:
    """The neighbouring cell of a thing; right is every free cell on that side of it."""
    picked = _referable(scene, rng)
    if picked is None:
        return None
    anchor, name = picked
    for word in rng.sample(RELATIONS, len(RELATIONS)):
        cell = beside(word, cell_of(anchor))
        if cell and scene.at(*cell) is None:
            return f" {word} {name}", cell, free_cells(scene, word, cell_of(anchor))
    return None


def _corner(scene: Scene, rng: random.Random) -> Spot | None:
    free = [name for name, cell in CORNERS.items() if scene.at(*cell) is None]
    if not free:
        return None
    name = rng.choice(free)
    return f" in the {name} corner", CORNERS[name], frozenset({CORNERS[name]})


def _anywhere(scene: Scene, rng: random.Random) -> Spot | None:
    free = free_cells(scene)
    return ("", rng.choice([cell for cell in CELLS if cell in free]), free) if free else None


def _move(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """move the star to the bottom left corner; one step up; left of the tree"""
    picked = _referable(scene, rng)
    if picked is None:
        return None
    thing, name = picked
    spot = rng.choice((_to_corner, _to_corner, _step, _next_to))(scene, thing, rng)
    if spot is None:
        return None
    where, cell, cells = spot
    after = replaced(scene, {thing: replace(thing, row=cell[0], col=cell[1])})
    return within("move", f"move {name} {where}", scene, after, Wanted(like(thing), cells))


def _to_corner(scene: Scene, thing: Thing, rng: random.Random) -> Spot | None:
    spot = _corner(scene, rng)
    if spot is None:
        return None
    where, cell, cells = spot
    where = where.removeprefix(" in ")
    return "to " + (where if rng.random() < 0.7 else where.removesuffix(" corner")), cell, cells


def _step(scene: Scene, thing: Thing, rng: random.Random) -> Spot | None:
    for word in rng.sample(RELATIONS, len(RELATIONS)):
        cell = beside(word, cell_of(thing))
        if cell and scene.at(*cell) is None:
            return f"one step {WAYS[word]}", cell, frozenset({cell})
    return None


def _next_to(scene: Scene, thing: Thing, rng: random.Random) -> Spot | None:
    """Beside another thing, on a side where it is not yet."""
    for anchor in rng.sample(scene.things, len(scene.things)):
        name = call(scene, anchor, rng) if anchor != thing else None
        for word in rng.sample(RELATIONS, len(RELATIONS)) if name else ():
            cell, free = beside(word, cell_of(anchor)), free_cells(scene, word, cell_of(anchor))
            already = cell_of(thing) in free_cells(Scene(scene.background, (anchor,)), word, cell_of(anchor))
            if cell in free and cell is not None and not already:
                return f"{word} {name}", cell, free
    return None


def _swap(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """swap the star and the fish"""
    if len(scene.things) < 2:
        return None
    a, b = rng.sample(scene.things, 2)
    a_name, b_name = call(scene, a, rng), call(scene, b, rng)
    if a_name is None or b_name is None:
        return None
    moved = {a: replace(a, row=b.row, col=b.col), b: replace(b, row=a.row, col=a.col)}
    return exactly("swap", f"swap {a_name} and {b_name}", scene, replaced(scene, moved))


def _background(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """change the background to gray"""
    color = other_background(scene, rng)
    text = rng.choice(("change the background to {}", "make the background {}")).format(color)
    return exactly("background", text, scene, replace(scene, background=color))


def _all(scene: Scene, rng: random.Random, pairs: str) -> Edit | None:
    """make all stars blue; make all red things large; remove all stars"""
    likes = [like(t, size=False, color=c, kind=k) for t in scene.things for c, k in ((True, False), (False, True))]
    groups = [each for each in likes if each.glyph is None and len(each.among(scene)) > 1]
    if not groups:
        return None
    group = rng.choice(groups)
    things, chance = group.among(scene), rng.random()
    if chance < 0.6:
        color = rng.choice([c for c in _COLORS if c != group.color and all(may_be(t.kind, c, pairs) for t in things)])
        text, new = f"make all {group.many} {color}", {t: replace(t, color=color) for t in things}
    elif chance < 0.85 or len(things) == len(scene.things):
        size = other_size(rng.choice(things))
        text, new = f"make all {group.many} {size}", {t: replace(t, size=size) for t in things}
    else:
        after = Scene(scene.background, tuple(t for t in scene.things if t not in things))
        return exactly("all", f"remove all {group.many}", scene, after)
    after = replaced(scene, new)
    return exactly("all", text, scene, after) if after != scene else None


_MAKE: dict[str, Maker] = {
    "recolor": _recolor,
    "remove": _remove,
    "add": _add,
    "move": _move,
    "resize": _resize,
    "swap": _swap,
    "background": _background,
    "all": _all,
}
FAMILIES = tuple(_MAKE)
