"""A tiny vocabulary, a tiny real backbone, and a denoiser that says what it is told."""

from types import MappingProxyType

import pytest
import torch
from torch.nn import functional as F

from unveil.config.tree import BackboneConfig, VocabConfig
from unveil.model.backbone import Backbone
from unveil.vocab.layout import Layout

SIZE, OFFSET, MASK, EOS = 48, 32, 31, 30
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
def recite():
    def make(text, sure=None, size=SIZE):
        return Reciter(text, sure or {}, size)

    return make


@pytest.fixture(scope="session")
def layout() -> Layout:
    words = {"soi": 20, "eoi": 21, "boi": 22, "role": 23, "role_close": 24, "role_end": 25, "think": 26}
    sides = MappingProxyType({2: 28, 3: 29})
    return Layout(
        SIZE, OFFSET, SIZE - OFFSET, pad=EOS, mask=MASK, think_close=27, size_ids=sides, **words
    )  # fmt: skip


@pytest.fixture(scope="session")
def backbone() -> Backbone:
    """Real classes at tiny size, in float64: roundings of a cached and a plain run cannot part their ways."""
    config = BackboneConfig(
        width=16, layers=2, dense_layers=1, heads=4, kv_heads=2, head_dim=4, mlp_width=24, experts=4,
        chosen_experts=2, groups=2, kept_groups=1, expert_width=8, shared_experts=1, routed_scale=2.5,
        rope_theta=10000.0, rotary_fraction=0.5, context=128, initializer_range=0.6,
    )  # fmt: skip
    model = Backbone(config, VocabConfig(size=SIZE, image_offset=OFFSET, pad=EOS, mask=MASK))
    return model.initialize(torch.Generator().manual_seed(5)).double().eval().requires_grad_(False)
