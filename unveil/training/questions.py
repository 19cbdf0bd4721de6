"""What am I asked about: an auxiliary task that teaches the backbone to bring together what a question names.

"is the star left of the fish?" can be answered where both cells are known, and nowhere else; an answer of one word
teaches to bring them there slowly. Here every question mark after a picture must tell row, column, size and color of
the first and of the second thing that its question names. The probe is dropped after training.
"""

from collections.abc import Iterator, Sequence

import torch
import torch.nn.functional as F
from torch import nn

from unveil.scenes.scene import COLORS, LATTICE, SIZES, Scene, Thing
from unveil.shapes import Float, Int, Tensor
from unveil.training.packing import Packed, Row
from unveil.training.places import by_line
from unveil.training.referents import Words, phrases
from unveil.vocab.text import Text

NAMED = 2
"""Things of a question that are asked for."""
ATTRIBUTES = (LATTICE, LATTICE, len(SIZES), len(COLORS))
"""Values of row, column, size and color."""


class QuestionProbe(nn.Module):
    """One linear reading for each attribute of each of the `NAMED` things."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.read = nn.Linear(width, NAMED * sum(ATTRIBUTES))

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights, biases zero."""
        nn.init.normal_(self.read.weight, std=0.02, generator=generator)
        nn.init.zeros_(self.read.bias)

    def forward(
        self, states: Float[Tensor, "N D"], asked: Int[Tensor, "N 2*4"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy, a sum over attributes of means over things, and the share of values that are right.

        Values of -1 do not count.
        """
        scores = self.read(F.rms_norm(states, states.shape[-1:])).split(ATTRIBUTES * NAMED, dim=-1)
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


def asked_about(rows: Sequence[Row], packed: Packed, text: Text, words: Words) -> Int[Tensor, "B L 2*4"]:
    """For each question mark the attributes of the things that its question names first and second; else -1.

    -1 also for a thing that is not the only one of its name, and for questions about no picture.
    """
    named = [[[[-1] * len(line) for line in lines] for lines in map(_lines, rows)] for _ in range(NAMED)]
    for number, row in enumerate(rows):
        for branch, line in enumerate(_lines(row) if row.scene else ()):
            found = [(index, like.among(row.scene)) for index, like in phrases(line, words)]  # type: ignore[arg-type]
            for mark, begin in question_marks(line, text):
                things = [things for index, things in found if begin <= index < mark]
                for table, those in zip(named, things, strict=False):
                    if len(those) == 1:
                        table[number][branch][mark] = row.scene.things.index(those[0])  # type: ignore[union-attr]
    values = _values([row.scene for row in rows])
    which = torch.stack([by_line(table, packed) for table in named], -1)  # (B, L, NAMED)
    at = torch.arange(len(rows))[:, None, None]
    return values[at, which.clamp_min(0)].masked_fill(which[..., None] < 0, -1).flatten(-2)


def question_loss(
    probe: QuestionProbe, states: Float[Tensor, "B L D"], asked: Int[Tensor, "B L 2*4"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The probe's loss and exactness over all question marks of a batch that have a value."""
    here = (asked >= 0).any(-1)
    loss, exact = probe(states[here], asked[here])
    return loss, exact


def _lines(row: Row) -> list[list[int]]:
    return [[*row.prefix, *branch.given, *branch.response] for branch in row.branches]


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
