"""Captioned scenes for the contrastive loss."""

import torch

from unveil.scenes.caption import caption
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import Scene
from unveil.shapes import Int, Tensor
from unveil.vocab.text import Text


def captioned_scenes(split: str, first: int, count: int) -> tuple[list[Scene], list[str]]:
    """Scenes with 1 to 4 things and a true caption of each."""
    scenes, texts = [], []
    for index in range(first, first + count):
        rng = generator(split, "captioned", index)
        scenes.append(sample_scene(rng))
        texts.append(caption(scenes[-1], rng).text)
    return scenes, texts


def pad_texts(text: Text, texts: list[str], longest: int = 48) -> Int[Tensor, "B L"]:
    """Token ids, cut at `longest` and padded with -1."""
    ids = [torch.tensor(text.encode(t)[:longest]) for t in texts]
    return torch.nn.utils.rnn.pad_sequence(ids, batch_first=True, padding_value=-1)
