"""A scene: the graph that is the truth of a picture. A 4x4 lattice on a plain background, one thing a cell."""

from dataclasses import dataclass

RGB = tuple[int, int, int]

LATTICE = 4
SIZES = ("small", "large")
DIGITS = "12345"
KINDS = (
    "circle", "square", "triangle", "star", "heart", "diamond", "ring", "cross",
    "arrow", "moon", "house", "tree", "fish", "car", "flower", "cup", "digit",
)  # fmt: skip
COLORS: dict[str, RGB] = {
    "red": (214, 40, 40),
    "orange": (247, 140, 20),
    "yellow": (250, 214, 40),
    "green": (40, 160, 70),
    "blue": (40, 90, 210),
    "purple": (130, 60, 180),
    "pink": (245, 130, 180),
    "brown": (120, 75, 40),
}
BACKGROUNDS: dict[str, RGB] = {
    "white": (255, 255, 255),
    "gray": (190, 190, 190),
    "black": (20, 20, 20),
    "cream": (250, 240, 215),
}


@dataclass(frozen=True, order=True)
class Thing:
    """One object: what it is, how it looks, and its lattice cell (row 0 on top, column 0 on the left).

    `glyph` is the character drawn when `kind` is "digit", and "" for every other kind.
    """

    row: int
    col: int
    kind: str
    color: str
    size: str
    glyph: str = ""

    @property
    def noun(self) -> str:
        """What a caption calls it: the kind, or `digit 3`."""
        return f"{self.kind} {self.glyph}" if self.glyph else self.kind


@dataclass(frozen=True)
class Scene:
    """A background and the things on it, in reading order; never two in one cell."""

    background: str
    things: tuple[Thing, ...] = ()

    def __post_init__(self) -> None:
        object.__setattr__(self, "things", tuple(sorted(self.things)))
        assert len({(t.row, t.col) for t in self.things}) == len(self.things), "two things in one cell"

    def at(self, row: int, col: int) -> Thing | None:
        """The thing in that cell, if any."""
        return next((t for t in self.things if (t.row, t.col) == (row, col)), None)
