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


CORNERS = {"top left": (0, 0), "top right": (0, 3), "bottom left": (3, 0), "bottom right": (3, 3)}
NUMBERS = ("zero", "one", "two", "three", "four", "five", "six")
TRUE_OF = {
    "left of": lambda a, b: a.col < b.col,
    "right of": lambda a, b: a.col > b.col,
    "above": lambda a, b: a.row < b.row,
    "below": lambda a, b: a.row > b.row,
    "larger than": lambda a, b: (a.size, b.size) == ("large", "small"),
    "smaller than": lambda a, b: (a.size, b.size) == ("small", "large"),
}


def _answer(text: str, scene: Scene, phrase: str) -> str:
    """The right answer, read from the words of the question alone."""

    def yes(truth: bool) -> str:
        return "yes" if truth else "no"

    def the(words: str) -> Thing:
        (thing,) = _find(words, scene)  # a definite phrase speaks of one thing
        return thing

    patterns = {
        r"what color is the background\?": lambda: scene.background,
        r"is the background (\w+)\?": lambda b: yes(b == scene.background),
        rf"is there an? ({phrase})\?": lambda p: yes(bool(_find(p, scene))),
        rf"how many ({phrase}) are there\?": lambda p: NUMBERS[len(_find(p, scene))],
        rf"what color is the ({phrase})\?": lambda p: the(p).color,
        r"what is in the (\w+ \w+) corner\?": lambda c: scene.at(*CORNERS[c]).noun,
        rf"what is the ({phrase})\?": lambda p: the(p).noun,
        rf"what size is the ({phrase})\?": lambda p: the(p).size,
        rf"is the ({phrase}) large or small\?": lambda p: the(p).size,
        rf"is the ({phrase}) left or right of the ({phrase})\?": lambda a, b: (
            "left" if the(a).col < the(b).col else "right"
        ),
        rf"is the ({phrase}) above or below the ({phrase})\?": lambda a, b: (
            "above" if the(a).row < the(b).row else "below"
        ),
        rf"is the ({phrase}) ({'|'.join(TRUE_OF)}) the ({phrase})\?": lambda a, w, b: yes(TRUE_OF[w](the(a), the(b))),
        rf"which is larger, the ({phrase}) or the ({phrase})\?": lambda a, b: a if the(a).size == "large" else b,
        rf"which is smaller, the ({phrase}) or the ({phrase})\?": lambda a, b: a if the(a).size == "small" else b,
        rf"are the ({phrase}) and the ({phrase}) the same color\?": lambda a, b: yes(the(a).color == the(b).color),
        rf"are there more ({phrase}) than ({phrase})\?": lambda a, b: yes(len(_find(a, scene)) > len(_find(b, scene))),
    }
    (found,) = [(m, f) for pattern, f in patterns.items() if (m := re.fullmatch(pattern, text))]
    return found[1](*found[0].groups())


@pytest.fixture(scope="session")
def true_of() -> dict[str, Callable[[Thing, Thing], bool]]:
    """Relation or comparison -> whether it holds of two things."""
    return TRUE_OF


@pytest.fixture(scope="session")
def answer(noun_phrase: str) -> Callable[[str, Scene], str]:
    """Question, scene -> the right answer."""
    return lambda text, scene: _answer(text, scene, noun_phrase)


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
