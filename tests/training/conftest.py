"""The tiny preset, smaller still, and a run that takes milliseconds a step."""

import itertools
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

from unveil.config import ModelConfig, load_preset
from unveil.config.run import RunConfig, VaeTask
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.vocab.text import Text


@pytest.fixture(scope="session")
def text() -> Text:
    """A tokenizer of our own layout, learned from made-up words."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]
    return Text.train(f"a {a}{b} and two {b}{a}{a}s" for a, b in itertools.product(syllables, syllables))


@pytest.fixture(scope="session")
def small() -> ModelConfig:
    """Every part of the tiny preset, with fewer and narrower layers."""
    tiny = load_preset("tiny")
    sizes = {
        "vocab": {"size": 1088},
        "image_tokenizer": {"width": 16, "mlp_width": 32, "layers": 1, "heads": 2, "codes": 64, "code_width": 8},
        "backbone": {
            "width": 32,
            "layers": 2,
            "heads": 4,
            "kv_heads": 2,
            "head_dim": 8,
            "rope_theta": 10000,
            "mlp_width": 48,
        }
        | {"expert_width": 16},
        "decoder": {"width": 32, "layers": 1, "heads": 2, "condition_width": 16, "axes_dims": (4, 6, 6)}
        | {"time_width": 16, "time_mlp_width": 32},
        "vae": {"block_channels": (8, 8, 8, 8), "norm_groups": 4, "latent_channels": 4},
    }
    parts = {name: getattr(tiny, name).model_dump() | changes for name, changes in sizes.items()}
    return ModelConfig.model_validate(tiny.model_dump() | parts)


@pytest.fixture(scope="session")
def tokenizer(small: ModelConfig) -> ImageTokenizer:
    """The small image tokenizer with fresh weights, which nothing changes."""
    made = ImageTokenizer(small.image_tokenizer)
    made.initialize(torch.Generator().manual_seed(0))
    return made.eval().requires_grad_(False)


class Line:
    """The smallest honest objective: a linear map learns a fixed one from noise of (seed, step)."""

    def __init__(self, seed: int = 0, poison: int | None = None, on_step: Callable[[int], None] | None = None) -> None:
        generator = torch.Generator().manual_seed(seed)
        self.module = nn.Linear(4, 3)
        for p in self.module.parameters():
            nn.init.normal_(p, generator=generator)
        self.truth = torch.randn(3, 4, generator=generator)
        self.poison, self.on_step = poison, on_step

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """Two batches a step."""
        if self.on_step:
            self.on_step(step)
        for _ in range(2):
            x = torch.randn(8, 4, generator=generator)
            loss = (self.module(x) - x @ self.truth.T).square().mean()
            yield loss * (float("nan") if step == self.poison else 1.0), {"miss": float(loss.detach())}

    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """Nothing."""

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """The map."""
        return {"line": averaged}


@pytest.fixture(scope="session")
def line() -> type[Line]:
    """The objective `Line`."""
    return Line


@pytest.fixture
def settings(tmp_path: Path) -> Callable[..., RunConfig]:
    """A run in a fresh directory; keywords change it."""

    def make(**changes: object) -> RunConfig:
        values: dict[str, object] = {
            "name": "trial", "steps": 8, "seed": 3, "task": VaeTask(objective="vae", batch=2),
            "optim": {"lr": 0.02, "warmup": 2, "decay": 0.5}, "parts": tmp_path / "parts",
            "directory": tmp_path / "run", "checkpoint_every": 100, "log_every": 1, "threads": 1,
        }  # fmt: skip
        return RunConfig.model_validate(values | changes)

    return make
