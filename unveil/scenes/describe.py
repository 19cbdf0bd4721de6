"""The canonical caption for understanding: every thing with size, color and kind, in reading order; and its score."""

from collections import Counter
from dataclasses import dataclass

from unveil.scenes.phrase import Like, like
from unveil.scenes.scene import COLORS, DIGITS, KINDS, SIZES, Scene

DESCRIBE = "describe the picture"  # what a caption is asked for with


@dataclass(frozen=True)
class Description:
    """What a canonical caption says: a background (None when it names none) and things."""

    background: str | None
    things: tuple[Like, ...]


def describe(scene: Scene) -> str:
    """`a large red star, a small blue fish on white`; an empty scene is `nothing on white`."""
    things = ", ".join(like(t).one for t in scene.things) or "nothing"
    return f"{things} on {scene.background}"


def parse_description(text: str) -> Description:
    """Reads what `describe` writes; a part that makes no sense is left out (and so counts as missing)."""
    body, _, background = text.strip().rstrip(".").rpartition(" on ")
    if " " in background or not body:
        body, background = text.strip().rstrip("."), ""
    found = [_parse_thing(part) for part in body.split(", ")]
    return Description(background or None, tuple(thing for thing in found if thing is not None))


def _parse_thing(part: str) -> Like | None:
    """`a large red digit 3` -> its four attributes; None when a word is missing, unknown or out of order."""
    words = part.split()
    glyph = words.pop() if len(words) == 5 and words[3] == "digit" and words[4] in DIGITS else None
    if len(words) != 4 or words[0] not in ("a", "an"):
        return None
    _, size, color, kind = words
    known = size in SIZES and color in COLORS and kind in KINDS and (kind == "digit") == (glyph is not None)
    return Like(kind, color, size, glyph) if known else None


def description_f1(text: str, scene: Scene) -> float:
    """F1 of a canonical caption: its facts are the background and each thing with all its attributes right."""
    said, true = parse_description(text), parse_description(describe(scene))
    said_facts, true_facts = _facts(said), _facts(true)
    right = (said_facts & true_facts).total()
    return 2 * right / (said_facts.total() + true_facts.total())


def _facts(description: Description) -> Counter[str | Like]:
    facts: Counter[str | Like] = Counter(description.things)
    if description.background is not None:
        facts[description.background] += 1
    return facts
