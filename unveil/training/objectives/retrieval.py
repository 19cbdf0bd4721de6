"""Retrieval: SigLIP heads on the frozen image tokenizer, so that the codes stay while the heads learn on."""

from collections.abc import Iterator

import torch
from torch import nn

from unveil.config import ModelConfig
from unveil.config.run import RetrievalTask
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.model.image_tokenizer.retrieval import Retrieval, contrastive_loss
from unveil.training.captions import captioned_scenes, pad_texts
from unveil.training.data import numbers, pictures
from unveil.vocab.text import Text


class RetrievalObjective:
    """Learns `retrieval`."""

    def __init__(
        self, model: ModelConfig, task: RetrievalTask, text: Text, tokenizer: ImageTokenizer, module: Retrieval
    ) -> None:
        self.task, self.text, self.module = task, text, module
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.side = model.sampling.grid[0] * model.image_tokenizer.patch_size

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """The contrastive loss, and the share of pictures whose own caption is the nearest in the batch."""
        scenes, texts = captioned_scenes("train", 10_000_000 + step * self.task.batch, self.task.batch)
        codes = self.tokenizer.tokenize(pictures(scenes, self.side))
        with torch.no_grad():
            features = self.tokenizer.quantizer.lookup(codes)
        pictures_, texts_, scale, bias = self.module(features, pad_texts(self.text, texts))
        nearest = (texts_ @ pictures_.T).argmax(-1) == torch.arange(len(scenes))
        loss = contrastive_loss(pictures_, texts_, scale, bias)
        yield loss, numbers(contrast=loss, first=nearest.float().mean())

    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """Nothing changes without gradients."""

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """The whole module."""
        return {"retrieval": averaged}
