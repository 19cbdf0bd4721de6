"""Random numbers by counter: what a position draws follows from its request's key, block, step and place alone.

No number depends on what was drawn before it, in this request or in another, so a canvas can be resumed, or share its
steps with any company, and draws the same.
"""

from collections.abc import Sequence

import numpy as np
import torch

from unveil.shapes import Float, Tensor


def canvas_keys(generators: Sequence[torch.Generator]) -> tuple[int, ...]:
    """One key per row for one canvas: the next number of each row's generator."""
    return tuple(int(torch.randint(2**62, (), generator=g, device=g.device)) for g in generators)


def step_numbers(keys: Sequence[int], block: int, step: int, count: int) -> Float[Tensor, "B N"]:
    """A number from [0, 1) for each of the `count` positions of a block at a step, one row for each key (Philox)."""
    rows = [np.random.Generator(np.random.Philox(key=k, counter=[0, 0, step, block])).random(count) for k in keys]
    return torch.from_numpy(np.stack(rows))
