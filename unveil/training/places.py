"""Where am I: an auxiliary task that teaches the backbone early which row and column of its picture a code stands in.

Positions are those of one long line, so a code's row and column must be counted from where its picture begins. Drawing
and copying need them in every layer, but the codes' own loss says little about them: most of a picture is background.
The probe is dropped after training, as the image tokenizer's training heads are.
"""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import nn

from unveil.shapes import Bool, Float, Int, Tensor
from unveil.training.packing import Packed, Row
from unveil.training.probe import initialize_readings


class PlaceProbe(nn.Module):
    """Two linear readings of a state: row and column."""

    def __init__(self, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.grid = grid
        self.row, self.column = nn.Linear(width, grid[0]), nn.Linear(width, grid[1])

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights, biases zero."""
        initialize_readings(self.row, self.column, generator=generator)

    def forward(
        self, states: Float[Tensor, "N D"], places: Int[Tensor, " N"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy of row plus column, and the share of codes with both right."""
        states = F.rms_norm(states, states.shape[-1:])
        rows, columns = self.row(states), self.column(states)
        row, column = places // self.grid[1], places % self.grid[1]
        right = (rows.argmax(-1) == row) & (columns.argmax(-1) == column)
        return F.cross_entropy(rows, row) + F.cross_entropy(columns, column), right.float().mean()


def places_in_line(ids: Sequence[int], offset: int) -> list[int]:
    """For each id its index among the codes of its picture, in reading order; -1 where it is no code.

    Codes are the ids from `offset` on; between two pictures there is always something else.
    """
    places: list[int] = []
    for token in ids:
        places.append((places[-1] if places else -1) + 1 if token >= offset else -1)
    return places


def places_of(rows: Sequence[Row], packed: Packed, offset: int) -> Int[Tensor, "B L"]:
    """`places_in_line` for every token of a packed batch, noised copies included."""
    lines = [[places_in_line(line, offset) for line in row.lines] for row in rows]
    return by_line(lines, packed)


def by_line(lines: Sequence[Sequence[Sequence[int]]], packed: Packed) -> Int[Tensor, "B L"]:
    """Numbers for every token of a packed batch, from one for each id of each branch of each row; -1 for padding.

    A branch's line begins with the row's prefix. Noised copies get what their clean ids have.
    """
    branches, length = max(map(len, lines)), max(len(line) for row in lines for line in row)
    table = torch.full((len(lines), branches, length), -1)
    for i, row in enumerate(lines):
        for j, line in enumerate(row):
            table[i, j, : len(line)] = torch.tensor(line)
    branch = (packed.branches - 1).clamp_min(0)  # the shared prefix is that of the first branch, too
    found = table[torch.arange(len(lines))[:, None], branch, packed.positions]
    return found.masked_fill(packed.branches < 0, -1)


def window_leaders(places: Int[Tensor, "B L"], grid: tuple[int, int], window: int) -> Int[Tensor, "B L"]:
    """For each code the index of the first one of its window (`window` x `window` codes) of its picture; else its own.

    Codes of a window are much alike, so one that is masked alone can be copied from its neighbours. Masked together
    they must be found where they come from: in the words, or in the picture that is edited.
    """
    own = torch.arange(places.shape[1]).expand_as(places)
    across = -(-grid[1] // window)
    row, column = places // grid[1], places % grid[1]
    picture = (places == 0).cumsum(1)
    key = (picture * grid[0] + row // window) * across + column // window
    key = key.masked_fill(places < 0, 0)
    first = torch.full((len(places), int(key.max()) + 1), places.shape[1])
    first = first.scatter_reduce(1, key, own.masked_fill(places < 0, places.shape[1]), "amin")
    return torch.where(places < 0, own, first.gather(1, key))


def place_loss(
    probe: PlaceProbe, states: Float[Tensor, "B L D"], places: Int[Tensor, "B L"]
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The probe's loss and exactness over all codes of a batch."""
    here: Bool[Tensor, "B L"] = places >= 0
    loss, exact = probe(states[here], places[here])
    return loss, exact
