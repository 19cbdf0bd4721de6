"""A denoiser that says what it is told."""

import pytest
import torch
from torch.nn import functional as F

FAR = 512  # positions that a recital covers


class Reciter:
    """A denoiser that knows one text by heart: at position p it says `text[p]`, as surely as `sure[p]` (a logit).

    `calls` holds what it was shown: ids, positions, visibility, and how many states went through the head.
    """

    def __init__(self, text: list[int], sure: dict[int, float], size: int):
        self.text = torch.tensor([*text, *[1] * (FAR - len(text))])
        self.sure = torch.full((FAR,), 9.0).scatter(0, torch.tensor([*sure], dtype=torch.long), _floats(sure.values()))
        self.size, self.calls, self.heads = size, [], []

    def hidden(self, tokens, positions, visible, past=None):
        self.calls.append((tokens, positions, visible))
        seen = torch.zeros(len(tokens), 1, visible.shape[-1], 1)
        return positions[..., None].float(), ((seen, seen),)

    def logits(self, states):
        self.heads.append(states.shape[:2])
        at = states[..., 0].long()
        return F.one_hot(self.text[at], self.size) * self.sure[at][..., None]


def _floats(values):
    return torch.tensor([*values], dtype=torch.float32)


@pytest.fixture
def recite(layout):
    def make(text, sure=None, size=layout.size):
        return Reciter(text, sure or {}, size)

    return make
