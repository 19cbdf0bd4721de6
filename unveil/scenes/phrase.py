"""The words of the world: partial descriptions of things, their noun phrases, relations and places."""

import random
from collections.abc import Sequence
from dataclasses import dataclass

from unveil.scenes.sample import HELDOUT_PAIRS
from unveil.scenes.scene import COLORS, DIGITS, KINDS, LATTICE, SIZES, Scene, Thing

Cell = tuple[int, int]

NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
RELATIONS = ("left of", "right of", "above", "below")
OPPOSITE = {"left of": "right of", "right of": "left of", "above": "below", "below": "above"}
WAYS = {"left of": "left", "right of": "right", "above": "up", "below": "down"}
CORNERS: dict[str, Cell] = {
    "top left": (0, 0),
    "top right": (0, LATTICE - 1),
    "bottom left": (LATTICE - 1, 0),
    "bottom right": (LATTICE - 1, LATTICE - 1),
}
CELLS = tuple((row, col) for row in range(LATTICE) for col in range(LATTICE))
_STEPS: dict[str, Cell] = {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}


@dataclass(frozen=True)
class Like:
    """A partial description of a thing, as words give it; None leaves that attribute open."""

    kind: str | None = None
    color: str | None = None
    size: str | None = None
    glyph: str | None = None

    def matches(self, thing: Thing) -> bool:
        """Whether nothing that is said is false of the thing."""
        return (
            self.kind in (None, thing.kind)
            and self.color in (None, thing.color)
            and self.size in (None, thing.size)
            and self.glyph in (None, thing.glyph)
        )

    def among(self, scene: Scene) -> tuple[Thing, ...]:
        """The things of a scene that answer to it."""
        return tuple(t for t in scene.things if self.matches(t))

    @property
    def noun(self) -> str:
        """`star`, `digit 3`, or `thing` when the kind is open."""
        if self.kind is None:
            return "thing"
        return f"{self.kind} {self.glyph}" if self.glyph else self.kind

    @property
    def words(self) -> str:
        """Without an article: `large red star`."""
        return " ".join(word for word in (self.size, self.color, self.noun) if word)

    @property
    def one(self) -> str:
        """With the indefinite article: `a large red star`, `an orange arrow`."""
        words = self.words
        return f"an {words}" if words[0] in "aeiou" else f"a {words}"

    @property
    def many(self) -> str:
        """In the plural: `large red stars`, `fish`, `crosses`."""
        words = self.words
        if self.kind == "fish":
            return words
        return words + ("es" if words.endswith("s") else "s")

    def counted(self, number: int) -> str:
        """`a red star` for one, `two red stars` for more."""
        return self.one if number == 1 else f"{NUMBERS[number]} {self.many}"


def like(thing: Thing, *, size: bool = True, color: bool = True, kind: bool = True) -> Like:
    """What a phrase with these attributes says of the thing."""
    return Like(
        thing.kind if kind else None,
        thing.color if color else None,
        thing.size if size else None,
        thing.glyph if kind and thing.glyph else None,
    )


_LEVELS = ((False, False, True), (False, True, True), (True, False, True), (True, True, True))
_KINDLESS = ((False, True, False), (True, True, False))


def names(scene: Scene, thing: Thing, without: str | None = None) -> list[Like]:
    """Descriptions that only this thing of the scene answers to, shortest first.

    `without` is an attribute ("color", "size", "kind") that must not be given away.
    """
    levels = _KINDLESS if without == "kind" else _LEVELS
    found = []
    for size, color, kind in levels:
        if (size and without == "size") or (color and without == "color"):
            continue
        candidate = like(thing, size=size, color=color, kind=kind)
        if len(candidate.among(scene)) == 1:
            found.append(candidate)
    return found


def call(scene: Scene, thing: Thing, rng: random.Random, without: str | None = None) -> str | None:
    """`the star`: an unambiguous definite phrase, mostly the shortest; None when there is none."""
    found = names(scene, thing, without)
    if not found:
        return None
    return "the " + (found[0] if rng.random() < 0.7 else rng.choice(found)).words


def holds(word: str, a: Cell, b: Cell) -> bool:
    """Whether cell `a` is `word` (left of, right of, above, below) cell `b`."""
    drow, dcol = _STEPS[word]
    return (a[0] - b[0]) * drow + (a[1] - b[1]) * dcol > 0


def relation(a: Cell, b: Cell, rng: random.Random) -> str:
    """The word for where `a` is from `b`, along the axis on which they are further apart."""
    down, right = a[0] - b[0], a[1] - b[1]
    vertical = abs(down) > abs(right) or (abs(down) == abs(right) and rng.random() < 0.5)
    if vertical:
        return "below" if down > 0 else "above"
    return "right of" if right > 0 else "left of"


def beside(word: str, cell: Cell) -> Cell | None:
    """The neighbouring cell in that direction; None beyond the lattice."""
    row, col = cell[0] + _STEPS[word][0], cell[1] + _STEPS[word][1]
    return (row, col) if 0 <= row < LATTICE and 0 <= col < LATTICE else None


def corner(cell: Cell) -> str | None:
    """`top left` and so on, when the cell is a corner of the lattice."""
    return next((name for name, at in CORNERS.items() if at == cell), None)


def cell_of(thing: Thing) -> Cell:
    """Row and column."""
    return thing.row, thing.col


def join(parts: Sequence[str]) -> str:
    """`a`, `a and b`, `a, b and c`."""
    return parts[0] if len(parts) == 1 else ", ".join(parts[:-1]) + " and " + parts[-1]


def may_be(kind: str | None, color: str | None, pairs: str) -> bool:
    """Whether words may name this pair; only `pairs="seen"` hides those held out of training."""
    return pairs != "seen" or (kind, color) not in HELDOUT_PAIRS


def absent_like(scene: Scene, rng: random.Random, pairs: str, *, size: bool = False) -> Like | None:
    """A description that nothing in the scene answers to, near to what is there; None when chance finds none."""
    for _ in range(8):
        base = rng.choice(scene.things) if scene.things and rng.random() < 0.75 else None
        change = rng.choice(("kind", "color", "size")) if size else rng.choice(("kind", "color"))
        kind = rng.choice(KINDS) if base is None or change == "kind" else base.kind
        color = rng.choice(_COLORS) if base is None or change == "color" else base.color
        flipped = SIZES[base is not None and base.size == SIZES[0]]
        glyph = rng.choice(DIGITS) if kind == "digit" else None
        found = Like(kind, color, flipped if size and change == "size" else None, glyph)
        if may_be(kind, color, pairs) and not found.among(scene):
            return found
    return None


_COLORS = tuple(COLORS)
