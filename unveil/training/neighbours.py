"""Who stands beside me: an auxiliary task that teaches the backbone early which words belong together.

That a star is red is told by "red" standing before "star" and by nothing else. Without heads that look at the words
beside a word, a prompt is a bag of words: two things come out with colors swapped, and no question finds the thing that
it asks about. The losses of answers and codes teach such heads slowly, since they pay only together with others that
use them. The probe is dropped after training, as the place probe is.
"""

import torch
import torch.nn.functional as F
from torch import nn

from unveil.shapes import Bool, Float, Int, Tensor
from unveil.training.packing import Packed
from unveil.training.probe import even_loss, initialize_readings


class NeighbourProbe(nn.Module):
    """One linear reading of a state for each of the `2 * reach` words around it: `reach` before it, then after it."""

    def __init__(self, width: int, words: int, reach: int) -> None:
        super().__init__()
        self.words, self.reach = words, reach
        self.read = nn.Linear(width, 2 * reach * words, bias=False)

    def initialize(self, generator: torch.Generator) -> None:
        """Small random weights."""
        initialize_readings(self.read, generator=generator)

    def forward(
        self, states: Float[Tensor, "N D"], targets: Int[Tensor, "N 2*reach"]
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Cross-entropy and the share guessed right, in which each distinct word weighs the same.

        Most words are those of the templates, whose neighbours are always the same and soon known. Targets of -1 do
        not count.
        """
        scores = self.read(F.rms_norm(states, states.shape[-1:])).view(-1, self.words)
        there, wanted = targets.flatten() >= 0, targets.flatten()
        return even_loss(scores[there], wanted[there])


def neighbours_of(packed: Packed, masked: Bool[Tensor, "B L"], words: int, reach: int) -> Int[Tensor, "B L 2*reach"]:
    """The ids beside each token, nearest last before it and first after it; -1 for what it does not see.

    It sees no neighbour that is masked, in a later block, of another branch or copy; and codes (ids from `words` on)
    are no words.
    """
    length = packed.ids.shape[1]
    sides = []
    for offset in (*range(-reach, 0), *range(1, reach + 1)):
        there = torch.arange(length) + offset
        inside = (there >= 0) & (there < length)
        there = there.clamp(0, length - 1)
        ids, beside = packed.ids[:, there], packed.positions[:, there] == packed.positions + offset
        together = (packed.branches[:, there] == packed.branches) & (packed.groups[:, there] == packed.groups)
        seen = inside & beside & together & (packed.branches >= 0) & (packed.blocks[:, there] <= packed.blocks)
        sides.append(ids.masked_fill(~seen | masked[:, there] | (ids >= words) | (packed.ids >= words), -1))
    return torch.stack(sides, -1)


def neighbour_loss(
    probe: NeighbourProbe, states: Float[Tensor, "B L D"], targets: Int[Tensor, "B L 2*reach"], most: int
) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
    """The probe's loss and exactness over evenly spaced tokens that have a neighbour, at most about `most` of them."""
    here = (targets >= 0).any(-1).nonzero()
    here = here[:: max(1, len(here) // most)]
    loss, exact = probe(states[here[:, 0], here[:, 1]], targets[here[:, 0], here[:, 1]])
    return loss, exact
