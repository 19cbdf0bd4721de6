"""Random scenes, the same on every machine for the same seed; some (kind, color) pairs are held out of training."""

import random

from unveil.scenes.scene import BACKGROUNDS, COLORS, DIGITS, KINDS, LATTICE, SIZES, Scene, Thing

HELDOUT_PAIRS = frozenset(
    {
        ("star", "pink"), ("heart", "green"), ("fish", "yellow"), ("car", "purple"), ("tree", "blue"),
        ("house", "orange"), ("cup", "red"), ("moon", "brown"), ("flower", "orange"), ("circle", "green"),
    }
)  # fmt: skip


def generator(split: str, task: str, index: int) -> random.Random:
    """The one source of chance of sample `index`; strings are hashed the same way on every machine."""
    return random.Random(f"{split}/{task}/{index}")


def sample_scene(
    rng: random.Random, counts: tuple[int, int] = (1, 4), *, pairs: str = "seen", repeat: float = 0.25
) -> Scene:
    """A scene with `counts[0]`..`counts[1]` things in free cells.

    `pairs` is "seen" (no held-out (kind, color) pair), "heldout" (at least one) or "any". With chance `repeat` a
    thing copies kind, color and size of an earlier one, so that counts above one occur.
    """
    cells = rng.sample(range(LATTICE * LATTICE), rng.randint(*counts))
    things: list[Thing] = []
    for cell in cells:
        row, col = divmod(cell, LATTICE)
        if things and rng.random() < repeat:
            like = rng.choice(things)
            things.append(Thing(row, col, like.kind, like.color, like.size, like.glyph))
        else:
            things.append(sample_thing(rng, row, col, pairs if not things or pairs != "heldout" else "any"))
    return Scene(rng.choice(tuple(BACKGROUNDS)), tuple(things))


def crowded_scene(rng: random.Random, counts: tuple[int, int] = (6, 16)) -> Scene:
    """Many looks at once, for networks that learn looks and not language: every noun (each digit is one) is as
    likely as any other, no (kind, color) pair is held out, and nothing repeats on purpose."""
    nouns = [(kind, glyph) for kind in KINDS for glyph in (DIGITS if kind == "digit" else ("",))]
    things = []
    for cell in rng.sample(range(LATTICE * LATTICE), rng.randint(*counts)):
        kind, glyph = rng.choice(nouns)
        things.append(Thing(*divmod(cell, LATTICE), kind, rng.choice(tuple(COLORS)), rng.choice(SIZES), glyph))
    return Scene(rng.choice(tuple(BACKGROUNDS)), tuple(things))


def sample_thing(rng: random.Random, row: int, col: int, pairs: str = "seen") -> Thing:
    """A random thing in that cell; `pairs` as in `sample_scene`."""
    if pairs == "heldout":
        kind, color = rng.choice(sorted(HELDOUT_PAIRS))
    else:
        kind, color = rng.choice(KINDS), rng.choice(tuple(COLORS))
        while pairs == "seen" and (kind, color) in HELDOUT_PAIRS:
            kind, color = rng.choice(KINDS), rng.choice(tuple(COLORS))
    return Thing(row, col, kind, color, rng.choice(SIZES), rng.choice(DIGITS) if kind == "digit" else "")
