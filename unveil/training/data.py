"""Pictures for training: scenes by sample index, rendered on the fly, the same on every machine."""

import random

import numpy as np
import torch

from unveil.scenes.render import render
from unveil.scenes.sample import crowded_scene, generator, sample_scene
from unveil.scenes.scene import Scene
from unveil.shapes import Tensor, UInt8


def dense_scenes(task: str, first: int, count: int) -> list[Scene]:
    """Crowded training scenes `first`..`first + count - 1`: many looks, little background."""
    return [crowded_scene(generator("train", task, first + i)) for i in range(count)]


def sparse_scenes(task: str, first: int, count: int) -> list[Scene]:
    """Scenes as users ask for them, with 1 to 4 things; every (kind, color) pair occurs (looks, not language)."""
    return [sample_scene(generator("train", f"{task} sparse", first + i), pairs="any") for i in range(count)]


def pictures(scenes: list[Scene], side: int) -> UInt8[Tensor, "B side side 3"]:
    """Rendered scenes as one tensor of bytes."""
    return torch.from_numpy(np.stack([render(scene, side) for scene in scenes]))


def crops(whole: UInt8[Tensor, "B side side 3"], size: int, rng: random.Random) -> UInt8[Tensor, "B size size 3"]:
    """One random square per picture, its corner on a multiple of 8 pixels."""
    places = [rng.randrange(0, whole.shape[1] - size + 1, 8) for _ in range(2 * len(whole))]
    pairs = zip(places[::2], places[1::2], strict=True)
    return torch.stack([p[y : y + size, x : x + size] for p, (y, x) in zip(whole, pairs, strict=True)])


def numbers(**values: Tensor | float) -> dict[str, float]:
    """Scalars for the log."""
    return {name: float(v.detach()) if isinstance(v, Tensor) else v for name, v in values.items()}
