"""A second, independent reader of the scene language, so that texts are checked by other code than wrote them."""

import re
from collections.abc import Callable

import pytest

from unveil.scenes.scene import BACKGROUNDS, COLORS, KINDS, SIZES, Scene, Thing

Finder = Callable[[str, Scene], list[Thing]]


def _singular(word: str) -> str:
    return {**{k + "s": k for k in KINDS}, "crosses": "cross", "fish": "fish", "things": "thing"}.get(word, word)


def _find(phrase: str, scene: Scene) -> list[Thing]:
    """The things a noun phrase without article or number speaks of: `large red stars`, `digit 3`, `thing`."""
    words = [_singular(word) for word in phrase.split()]
    assert all(w in {*SIZES, *COLORS, *KINDS, "thing"} or w.isdigit() for w in words), phrase
    return [t for t in scene.things if all(w in (t.size, t.color, t.kind, t.glyph, "thing") for w in words)]


@pytest.fixture(scope="session")
def find() -> Finder:
    """Noun phrase, scene -> the things it speaks of."""
    return _find


@pytest.fixture(scope="session")
def star_and_fish() -> Scene:
    """A large red star left of a small blue fish on white, and nothing else."""
    return Scene("white", (Thing(1, 0, "star", "red", "large"), Thing(1, 3, "fish", "blue", "small")))


@pytest.fixture(scope="session")
def noun_phrase() -> str:
    """A regular expression for a noun phrase without article."""
    plurals = "|".join(["things", "thing", "crosses", *(k + "s" for k in KINDS), *KINDS])
    return rf"(?:(?:{'|'.join(SIZES)}) )?(?:(?:{'|'.join(COLORS)}) )?(?:{plurals})\b(?: [1-5])?"


@pytest.fixture(scope="session")
def background_of() -> Callable[[str], str]:
    """Caption -> the background it names at its end."""

    def read(text: str) -> str:
        match = re.search(rf" (?:on (?:a )?)?({'|'.join(BACKGROUNDS)})(?: background)?$", text)
        assert match, text
        return match[1]

    return read
