"""What am I asked about: an auxiliary task that teaches the backbone to bring together what a question names.

"is the star left of the fish?" can be answered where both cells are known, and nowhere else; an answer of one word
teaches to bring them there slowly. Here every question mark after a picture must tell row, column, size and color of
the first and of the second thing that its question names, and which of the two lies further up and further left. The
probe is dropped after training.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from unveil.scenes.scene import COLORS, LATTICE, SIZES, Scene, Thing
from unveil.shapes import Float, Int, Tensor
from unveil.training.packing import Packed, Row
from unveil.training.places import by_line
from unveil.training.probe import initialize_readings
from unveil.training.referents import Words, phrases
from unveil.vocab.text import Text

NAMED = 2
"""Things of a question that are asked for."""
ATTRIBUTES = (LATTICE, LATTICE, len(SIZES), len(COLORS))
"""Values of row, column, size and color."""
ORDERS = (3, 3)
"""Values of the rows' and of the columns' order: the first thing's is less, equal or more than the second's."""


class QuestionProbe(nn.Module):
    """One linear reading for each attribute of each of the `NAMED` things, and for each order of the two."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, NAMED * sum(ATTRIBUTES))
        self.order = nn.Linear(width, sum(ORDERS))

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights, biases zero."""
        initialize_readings(self.read, self.order, generator=generator)

    def forward(
        self, states: Float[Tensor, "N D"], asked: Int[Tensor, "N 2*4+2"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy, half of the sum over all readings of means over questions, and the share of values right.

        Values of -1 do not count.
        """
        states = F.rms_norm(states, states.shape[-1:])
        scores = self.read(states).split(ATTRIBUTES * NAMED, -1) + self.order(states).split(ORDERS, -1)
        loss, right = states.new_zeros(()), []
        for score, value in zip(scores, asked.unbind(-1), strict=True):
            there = value >= 0
            if there.any():
                loss = loss + F.cross_entropy(score[there], value[there]) / NAMED
                right.append((score[there].argmax(-1) == value[there]).float())
        return loss, torch.cat(right).mean()


def question_marks(line: Sequence[int], text: Text) -> Iterator[tuple[int, int]]:
    """Every question mark of a line of ids, with where its question begins: after a line break or the mark before."""
    (mark,), (newline,) = text.encode("?"), text.encode("\n")
    begin = 0
    for index, token in enumerate(line):
        if token == mark:
            yield index, begin
        if token in (mark, newline):
            begin = index + 1


def asked_about(rows: Sequence[Row], packed: Packed, text: Text, words: Words) -> Int[Tensor, "B L 2*4+2"]:
    """For each question mark the attributes of the things that its question names first and second, and their orders.

    -1 for a thing that is not the only one of its name, for questions about no picture, and for all other ids.
    """
    named = [[[[-1] * len(line) for line in row.lines] for row in rows] for _ in range(NAMED)]
    for number, row in enumerate(rows):
        for branch, line in enumerate(row.lines if row.scene else ()):
            found = [(index, like.among(row.scene)) for index, like in phrases(line, words)]  # type: ignore[arg-type]
            for mark, begin in question_marks(line, text):
                things = [things for index, things in found if begin <= index < mark]
                for table, those in zip(named, things, strict=False):
                    if len(those) == 1:
                        table[number][branch][mark] = row.scene.things.index(those[0])  # type: ignore[union-attr]
    values = _values([row.scene for row in rows])
    which = torch.stack([by_line(table, packed) for table in named], -1)  # (B, L, NAMED)
    at = torch.arange(len(rows))[:, None, None]
    told = values[at, which.clamp_min(0)].masked_fill(which[..., None] < 0, -1)  # (B, L, NAMED, 4)
    first, second = told[..., 0, : len(ORDERS)], told[..., 1, : len(ORDERS)]  # rows and columns
    orders = ((first - second).sign() + 1).masked_fill((first < 0) | (second < 0), -1)
    return torch.cat((told.flatten(-2), orders), -1)


def question_loss(
    probe: QuestionProbe, states: Float[Tensor, "B L D"], asked: Int[Tensor, "B L 2*4+2"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The probe's loss and exactness over all question marks of a batch that have a value."""
    here = (asked >= 0).any(-1)
    loss, exact = probe(states[here], asked[here])
    return loss, exact


def _values(scenes: Sequence[Scene | None]) -> Int[Tensor, "B T 4"]:
    """The attributes of every thing of every scene, zeros where a scene has fewer."""
    most = max(len(scene.things) if scene else 0 for scene in scenes)
    values = torch.zeros(len(scenes), max(1, most), len(ATTRIBUTES), dtype=torch.long)
    for row, scene in enumerate(scenes):
        for number, thing in enumerate(scene.things if scene else ()):
            values[row, number] = torch.tensor(_attributes(thing))
    return values


def _attributes(thing: Thing) -> list[int]:
    return [thing.row, thing.col, list(SIZES).index(thing.size), list(COLORS).index(thing.color)]
