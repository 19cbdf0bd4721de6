"""What do I speak of: an auxiliary task that teaches the backbone to find in a picture the thing that a word names.

"what color is the star?" asks to find the star before anything can be said of it, and the one word of the answer
teaches that slowly. Here every word after a picture that fits exactly one of its things must tell in which cell that
thing lies; a masked word, too: its cell follows from the words beside it. The probe (a `PlaceProbe` over the lattice)
is dropped after training.
"""

from collections.abc import Mapping, Sequence

import torch

from unveil.scenes.scene import COLORS, KINDS, LATTICE, Scene
from unveil.shapes import Int, Tensor
from unveil.training.packing import Packed
from unveil.vocab.text import Text


def naming_ids(text: Text) -> dict[str, list[int]]:
    """For each kind and color the ids of it as a word of its own, at the start of a line and within one.

    A word that the tokenizer cuts into pieces has none.
    """
    pieces = {word: [text.encode(word), text.encode(f" {word}")] for word in (*KINDS, *COLORS)}
    return {word: [ids[0] for ids in both if len(ids) == 1] for word, both in pieces.items()}


def referents_of(
    scenes: Sequence[Scene | None], packed: Packed, naming: Mapping[str, Sequence[int]], words: int
) -> Int[Tensor, "B L"]:
    """The cell (row * LATTICE + column) of the one thing that each token names; -1 where it names none or several.

    `scenes` are those of the rows, None for a row without a picture; `words` is where the ids of words end.
    """
    table = torch.full((len(scenes), words + 1), -1)  # the last column stands for every code
    for row, scene in enumerate(scenes):
        for word, ids in naming.items():
            named = [t for t in scene.things if word in (t.kind, t.color)] if scene else []
            if len(named) == 1:
                table[row, ids] = named[0].row * LATTICE + named[0].col
    found = table.gather(1, packed.ids.clamp_max(words))
    return found.masked_fill(packed.branches < 0, -1)
