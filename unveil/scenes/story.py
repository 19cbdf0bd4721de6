"""Stories: one sentence a picture. `a red car on white. it turns blue. a tree appears right of it.`

The first sentence shows one thing, the hero; `it` is the hero ever after. Every frame carries the claims that judge it
by itself, so a model that chose its own cells in the first picture is judged fairly in the next ones.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass, replace

from unveil.scenes.claims import Claims
from unveil.scenes.edit import new_color, other_background, other_size, phrase_new
from unveil.scenes.phrase import CORNERS, RELATIONS, Cell, Like, beside, cell_of, like
from unveil.scenes.sample import sample_thing
from unveil.scenes.scene import Scene, Thing

MAX_FRAMES = 4


@dataclass(frozen=True)
class Story:
    """The whole text as the prompt; then for each frame its sentence, its scene and its claims."""

    prompt: str
    frames: tuple[tuple[str, Scene], ...]
    claims: tuple[Claims, ...]


@dataclass(frozen=True)
class _Now:
    """A moment of the story: the hero first, what was said of each thing, and which relations are still fresh."""

    background: str
    things: tuple[Thing, ...]
    said: tuple[Like, ...]
    relations: tuple[tuple[int, str, int], ...] = ()
    places: tuple[tuple[int, Cell], ...] = ()

    @property
    def scene(self) -> Scene:
        return Scene(self.background, self.things)

    @property
    def claims(self) -> Claims:
        return Claims(self.background, self.said, self.relations, self.places)

    def changed(self, index: int, thing: Thing, said: Like) -> "_Now":
        things = (*self.things[:index], thing, *self.things[index + 1 :])
        return replace(self, things=things, said=(*self.said[:index], said, *self.said[index + 1 :]))


def story(first: Scene, rng: random.Random, frames: int, pairs: str = "seen") -> Story:
    """A story of that many frames (2 to 4) about the one thing of the first scene."""
    hero = first.things[0]
    now = _Now(first.background, (hero,), (like(hero, size=rng.random() < 0.5),))
    text = f"{now.said[0].one} on {now.background}."
    told = [(text, now)]
    while len(told) < frames:
        step = rng.choice(_EVENTS)(now, rng, pairs)
        if step is not None:
            text, now = step
            told.append((text, now))
    prompt = " ".join(text for text, _ in told)
    return Story(prompt, tuple((text, n.scene) for text, n in told), tuple(n.claims for _, n in told))


Step = tuple[str, _Now]


def _turns(now: _Now, rng: random.Random, pairs: str) -> Step | None:
    """it turns blue."""
    color = new_color(now.things[0], rng, pairs)
    return f"it turns {color}.", now.changed(0, replace(now.things[0], color=color), replace(now.said[0], color=color))


def _grows(now: _Now, rng: random.Random, pairs: str) -> Step | None:
    """it becomes large."""
    size = other_size(now.things[0])
    changed = now.changed(0, replace(now.things[0], size=size), replace(now.said[0], size=size))
    return f"it becomes {size}.", changed


def _goes(now: _Now, rng: random.Random, pairs: str) -> Step | None:
    """it moves to the top left corner."""
    free = [name for name, cell in CORNERS.items() if now.scene.at(*cell) is None]
    if not free:
        return None
    name = rng.choice(free)
    row, col = CORNERS[name]
    moved = now.changed(0, replace(now.things[0], row=row, col=col), now.said[0])
    relations = tuple(r for r in now.relations if 0 not in (r[0], r[2]))
    places = (*(p for p in now.places if p[0] != 0), (0, (row, col)))
    return f"it moves to the {name} corner.", replace(moved, relations=relations, places=places)


def _appears(now: _Now, rng: random.Random, pairs: str) -> Step | None:
    """a tree appears right of it."""
    word = rng.choice(RELATIONS)
    cell = beside(word, cell_of(now.things[0]))
    if cell is None or now.scene.at(*cell) is not None:
        return None
    thing = sample_thing(rng, *cell, "seen" if pairs == "seen" else "any")
    said = phrase_new(thing, rng)
    if any(thing.kind == t.kind for t in now.things):
        return None
    new = replace(now, things=(*now.things, thing), said=(*now.said, said))
    new = replace(new, relations=(*now.relations, (len(now.things), word, 0)))
    return f"{said.one} appears {word} it.", new


def _vanishes(now: _Now, rng: random.Random, pairs: str) -> Step | None:
    """the tree disappears."""
    if len(now.things) < 2:
        return None
    gone = now.said[-1]
    last = len(now.things) - 1
    left = replace(now, things=now.things[:-1], said=now.said[:-1])
    left = replace(left, relations=tuple(r for r in now.relations if last not in (r[0], r[2])))
    return f"the {gone.noun} disappears.", left


def _dawns(now: _Now, rng: random.Random, pairs: str) -> Step | None:
    """the background turns gray."""
    color = other_background(now.scene, rng)
    return f"the background turns {color}.", replace(now, background=color)


_EVENTS: tuple[Callable[[_Now, random.Random, str], Step | None], ...] = (
    _turns, _turns, _appears, _appears, _appears, _grows, _goes, _vanishes, _dawns,
)  # fmt: skip
