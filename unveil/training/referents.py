"""What do I speak of: an auxiliary task that teaches the backbone to find in a picture what words name.

"what color is the star?" asks to find the star before anything can be said of it, "is there a red star?" whether it can
be found, "how many stars are there?" how often. The one word of an answer teaches that slowly. Here every noun after a
picture must tell how many of its things the noun with its adjectives fits, and where the only one lies: a masked noun,
too, since its cell follows from the words beside it. The probe is dropped after training.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import nn

from unveil.scenes.phrase import Like
from unveil.scenes.scene import COLORS, DIGITS, KINDS, LATTICE, SIZES
from unveil.shapes import Bool, Float, Int, Tensor
from unveil.training.packing import Packed, Row
from unveil.training.places import PlaceProbe, by_line
from unveil.training.probe import even_loss, initialize_readings
from unveil.vocab.text import Text

MOST = 4
"""More things than this count as so many."""


class ReferentProbe(nn.Module):
    """Three linear readings of a noun's state: how many things it names, and row and column of the only one."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.cell = PlaceProbe(width, (LATTICE, LATTICE))
        self.number = nn.Linear(width, MOST + 1)

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights, biases zero."""
        self.cell.initialize(generator)
        initialize_readings(self.number, generator=generator)

    def forward(
        self, states: Float[Tensor, "N D"], numbers: Int[Tensor, " N"], cells: Int[Tensor, " N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
        """The loss, and the shares of numbers (each number weighing the same) and of cells that are right."""
        scores = self.number(F.rms_norm(states, states.shape[-1:]))
        loss, counted = even_loss(scores, numbers)
        if not (cells >= 0).any():
            return loss, counted, torch.ones(())
        where, exact = self.cell(states[cells >= 0], cells[cells >= 0])
        return loss + where, counted, exact


@dataclass(frozen=True)
class Words:
    """Ids of one-piece words: nouns with the kind they name (None: "thing", any), adjectives and digits."""

    nouns: Mapping[int, str | None]
    colors: Mapping[int, str]
    sizes: Mapping[int, str]
    glyphs: Mapping[int, str]
    space: int | None  # a piece of its own between "digit" and its number

    @classmethod
    def of(cls, text: Text) -> "Words":
        """At the start of a line and within one, in the singular and the plural; words cut into pieces are left out."""

        def ids(words: Mapping[str, str | None]) -> dict[int, str | None]:
            pieces = ((text.encode(lead + word), meant) for word, meant in words.items() for lead in ("", " "))
            return {found[0]: meant for found, meant in pieces if len(found) == 1}

        kinds = [Like(kind) for kind in (None, *KINDS)]
        nouns = {like.noun: like.kind for like in kinds} | {like.many: like.kind for like in kinds}
        colors, sizes, glyphs = ({word: word for word in group} for group in (COLORS, SIZES, DIGITS))
        space = text.encode(" ")
        return cls(ids(nouns), ids(colors), ids(sizes), ids(glyphs), space[0] if len(space) == 1 else None)  # type: ignore[arg-type]


def phrases(line: Sequence[int], words: Words) -> Iterator[tuple[int, Like]]:
    """Every noun of a line of ids: its index, and what it says together with the adjectives before it."""
    for index, token in enumerate(line):
        if token not in words.nouns:
            continue
        kind, before, color, size = words.nouns[token], index - 1, None, None
        if before >= 0 and line[before] in words.colors:
            color, before = words.colors[line[before]], before - 1
        if before >= 0 and line[before] in words.sizes:
            size = words.sizes[line[before]]
        after = [i for i in line[index + 1 : index + 3] if i != words.space][:1]
        yield index, Like(kind, color, size, words.glyphs.get(after[0]) if kind == "digit" and after else None)


def referents_of(
    rows: Sequence[Row], packed: Packed, masked: Bool[Tensor, "B L"], words: Words
) -> tuple[Int[Tensor, "B L"], Int[Tensor, "B L"]]:
    """For each noun that speaks of its row's picture: how many things it names (0 to `MOST`), and the cell
    (row * LATTICE + column) of the only one. -1 for no noun; no cell where it names none or several.

    A masked noun counts only if it names one thing: otherwise nothing tells what it is.
    """  # fmt: skip
    numbers, cells = [], []
    for row in rows:
        lines = row.lines
        numbers.append([[-1] * len(line) for line in lines])
        cells.append([[-1] * len(line) for line in lines])
        for branch, line in enumerate(lines if row.scene else ()):
            for index, like in phrases(line, words):
                named = like.among(row.scene)  # type: ignore[arg-type]
                numbers[-1][branch][index] = min(len(named), MOST)
                if len(named) == 1:
                    cells[-1][branch][index] = named[0].row * LATTICE + named[0].col
    number, cell = by_line(numbers, packed), by_line(cells, packed)
    return number.masked_fill(masked & (number != 1), -1), cell


def referent_loss(
    probe: ReferentProbe, states: Float[Tensor, "B L D"], numbers: Int[Tensor, "B L"], cells: Int[Tensor, "B L"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""], Float[Tensor, ""]]:
    """The probe's loss and its two shares over all nouns of a batch."""
    here = numbers >= 0
    loss, counted, exact = probe(states[here], numbers[here], cells[here])
    return loss, counted, exact
