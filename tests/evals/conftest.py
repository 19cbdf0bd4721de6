"""Players that need no weights: one that knows the truth, one that knows nothing."""

from collections.abc import Iterator, Sequence

import numpy as np
import pytest
import torch
from PIL import Image

from unveil.evals.play import captioned, draw, items
from unveil.scenes.describe import DESCRIBE, describe
from unveil.scenes.oracle import read_scene
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import Scene

SPLITS = ("test", "heldout_pairs", "heldout_relations", "more_objects")


def scene_of(picture: Image.Image) -> Scene:
    return read_scene(np.asarray(picture))


class Truth:
    """Answers every held-out item as its own response says, so every score must be 1. Knows the first `n` items."""

    weights = "truth"

    def __init__(self, n: int, splits: Sequence[str] = SPLITS) -> None:
        self.drawn: dict[str, list[Scene]] = {}
        self.said: dict[tuple[Scene, str], str] = {}
        self.edited: dict[tuple[Scene, str], Scene] = {}
        for split in splits:
            for task in ("t2i_one", "t2i_two", "generate"):
                for item in items(task, n, split):
                    self.drawn.setdefault(item.prompt, []).append(item.response[0])
            for item in items("question", n, split):
                self.said[item.sources[0], item.prompt] = item.response[0]
            for item in items("edit", n, split):
                self.edited[item.sources[0], item.prompt] = item.judge.after
        self.texts = {split: captioned(0, 100, split) for split in splits}
        self.calls: list[tuple[str, int]] = []

    def reconstruct(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[Image.Image]:
        self.calls.append(("reconstruct", len(pictures)))
        return list(pictures)

    def generate_images(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        self.calls.append(("generate", len(prompts)))
        assert len(prompts) == len(seeds)
        return [draw(self.drawn[prompt][0]) for prompt in prompts]

    def answer(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        self.calls.append(("answer", len(pictures)))
        scenes = [scene_of(p) for p in pictures]
        return [
            describe(s) if q == DESCRIBE else self.said.get((s, q), "no idea")
            for s, q in zip(scenes, questions, strict=True)
        ]

    def edit_images(
        self, pictures: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return [draw(self.edited[scene_of(p), text]) for p, text in zip(pictures, instructions, strict=True)]

    def similarity(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        scenes = [scene_of(p) for p in pictures]
        known = {t: s for all_scenes, said in self.texts.values() for s, t in zip(all_scenes, said, strict=True)}
        return torch.tensor([[float(known[text] == scene) for scene in scenes] for text in texts])


class Guesser(Truth):
    """Draws any scene, says one of the commonest answers, changes nothing, ranks by chance."""

    weights = "guess"

    def _any(self, seeds: Sequence[int], counts: tuple[int, int]) -> list[Image.Image]:
        return [draw(sample_scene(generator("train", "guess", seed), counts)) for seed in seeds]

    def reconstruct(self, pictures: Sequence[Image.Image], seeds: Sequence[int]) -> list[Image.Image]:
        return self._any(seeds, (1, 4))

    def generate_images(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Image.Image]:
        return self._any(seeds, (1, 2))

    def answer(self, pictures: Sequence[Image.Image], questions: Sequence[str]) -> list[str]:
        return ["a large red star on white" if q == DESCRIBE else "yes" for q in questions]

    def edit_images(
        self, pictures: Sequence[Image.Image], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Image.Image]:
        return list(pictures)

    def similarity(self, pictures: Sequence[Image.Image], texts: Sequence[str]) -> torch.Tensor:
        return torch.rand(len(texts), len(pictures), generator=torch.Generator().manual_seed(0))


@pytest.fixture(scope="session")
def truth() -> Iterator[Truth]:
    yield Truth(100)


@pytest.fixture(scope="session")
def guesser() -> Iterator[Guesser]:
    yield Guesser(1, ("test",))
