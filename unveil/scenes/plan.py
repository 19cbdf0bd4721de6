"""Thinking: the layout of a picture in words, written before the picture.

`white. large red star row 2 column 1. small blue fish row 2 column 4.` Rows and columns count from 1.
"""

import random
import re

from unveil.scenes.phrase import like
from unveil.scenes.scene import BACKGROUNDS, COLORS, DIGITS, KINDS, LATTICE, SIZES, Scene, Thing

_THING = re.compile(
    rf"({'|'.join(SIZES)}) ({'|'.join(COLORS)}) ({'|'.join(KINDS)})(?: ([{DIGITS}]))? "
    rf"row ([1-{LATTICE}]) column ([1-{LATTICE}])"
)


def plan(scene: Scene, rng: random.Random | None = None) -> str:
    """The background, then each thing with its cell, in reading order or shuffled by `rng`."""
    things = rng.sample(scene.things, len(scene.things)) if rng else scene.things
    return ". ".join([scene.background, *map(placed, things)]) + "."


def placed(thing: Thing) -> str:
    """`large red star row 2 column 1`."""
    return f"{like(thing).words} row {thing.row + 1} column {thing.col + 1}"


def parse_plan(text: str) -> Scene | None:
    """The scene that a plan lays out; None when it is not a plan, or puts two things in one cell."""
    background, *parts = text.strip().rstrip(".").split(". ")
    if background not in BACKGROUNDS:
        return None
    things = []
    for part in parts:
        match = _THING.fullmatch(part)
        if match is None or (match[3] == "digit") != bool(match[4]):
            return None
        size, color, kind, glyph, row, col = match.groups()
        things.append(Thing(int(row) - 1, int(col) - 1, kind, color, size, glyph or ""))
    if len({(t.row, t.col) for t in things}) < len(things):
        return None
    return Scene(background, tuple(things))
