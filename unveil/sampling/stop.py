"""When a row is finished: the first stop id that no masked position precedes."""

from dataclasses import dataclass

import torch

from unveil.shapes import Bool, Int, Tensor


@dataclass(frozen=True)
class Stop:
    """Any of `ids` ends a row; the default is to end by budget alone, as pictures do.

    With `at_once` a row ends in the middle of its block, as soon as nothing before its first stop id can change;
    without, its block is filled first. The ids that leave are the same (spec backbone 5.3). The prefix is not
    searched: a prompt may hold stop ids.
    """

    ids: tuple[int, ...] = ()
    at_once: bool = True

    def places(self, tokens: Int[Tensor, "B N"]) -> Bool[Tensor, "B N"]:
        """Where a stop id lies."""
        return torch.isin(tokens, tokens.new_tensor(self.ids))

    def reached(self, tokens: Int[Tensor, "B N"], mask: int) -> Bool[Tensor, " B"]:
        """Rows in which a stop id lies before the first `mask`."""
        return first(self.places(tokens)) < first(tokens == mask)


def first(flags: Bool[Tensor, "B N"]) -> Int[Tensor, " B"]:
    """The index of the first True in each row; N where there is none."""
    beyond = flags.new_ones((flags.shape[0], 1))
    return torch.cat((flags, beyond), dim=-1).to(torch.uint8).argmax(-1)
