"""The image tokenizer: codes that keep the picture, say what it shows, and are easy to predict.

Four losses on the quantised features: pixels of each lattice cell, words of what each code covers, SigLIP between
picture and caption, commitment; a fifth draws the codes of one window together. All heads but SigLIP's are dropped.
The codebook follows its members by running means; entries without members restart at the worst-served features.
"""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from einops import rearrange, repeat
from torch import nn

from unveil.config import ImageTokenizerConfig, ModelConfig
from unveil.config.run import TokenizerTask
from unveil.model.image_tokenizer import ImageTokenizer, Quantized, usage
from unveil.model.image_tokenizer.retrieval import Retrieval, contrastive_loss
from unveil.scenes.scene import BACKGROUNDS, COLORS, DIGITS, KINDS, LATTICE, SIZES, Scene
from unveil.shapes import Float, Int, Tensor
from unveil.training.captions import captioned_scenes, pad_texts
from unveil.training.data import dense_scenes, numbers, pictures
from unveil.vocab.text import Text

WORDS = (*KINDS, *COLORS, *SIZES, *DIGITS, *BACKGROUNDS, "empty")
_CONFIDENCE = 8.0  # entries lie on the unit sphere; word logits need more room than [-1, 1]


class TokenizerObjective:
    """Learns `image_tokenizer`, and `retrieval` along with it."""

    def __init__(self, model: ModelConfig, task: TokenizerTask, text: Text, seed: int) -> None:
        self.task, self.text = task, text
        self.config = model.image_tokenizer
        self.side = model.sampling.grid[0] * self.config.patch_size
        self.module = _TokenizerTraining(model, torch.Generator().manual_seed(seed))
        self._last: Quantized | None = None
        self._wrong: Float[Tensor, "B h w"] | None = None

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """All five losses of one batch: crowded pictures first, then captioned ones."""
        task, net = self.task, self.module
        dense = dense_scenes("image tokenizer", step * task.dense, task.dense)
        sparse, texts = captioned_scenes("train", step * task.captioned, task.captioned)
        pixels = net.tokenizer.prepare(pictures(dense + sparse, self.side))
        quantized = net.tokenizer(pixels)
        self._last = quantized
        features = net.tokenizer.quantizer.expand(quantized.straight)
        words, truth = net.words(quantized.straight) * _CONFIDENCE, cell_words(dense + sparse, features.shape[1])
        pixel_loss = (net.pixels(features) - pixels).abs().mean()
        word_loss = F.binary_cross_entropy_with_logits(words, truth)
        contrast = contrastive_loss(*net.retrieval(features[task.dense :], pad_texts(self.text, texts)))
        commitment = (quantized.nearest.detach() - quantized.direction).square().sum(-1).mean()
        agreement = window_spread(quantized.direction, self.config.window or 1)
        loss = (
            task.pixel_weight * pixel_loss
            + task.words_weight * word_loss
            + task.contrast_weight * contrast
            + task.commitment_weight * commitment
            + task.agreement_weight * agreement
        )
        _, perplexity = usage(quantized.codes, self.config.codes)
        self._wrong = ((words > 0) != (truth > 0)).any(-1).float()
        yield (
            loss,
            numbers(
                pixels=pixel_loss,
                words=word_loss,
                contrast=contrast,
                commitment=commitment,
                words_exact=1 - self._wrong.mean(),
                use=(net.counts > 0.01).float().mean(),
                perplexity=perplexity,
                same=same_code_share(quantized.codes),
            ),
        )

    @torch.no_grad()
    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """Codebook entries move to the mean of their members; idle ones restart at badly served features."""
        assert self._last is not None and self._wrong is not None
        net, decay = self.module, self.task.codebook_decay
        codes = self._last.codes.flatten()
        direction = self._last.direction.detach().reshape(len(codes), -1)
        count = torch.bincount(codes, minlength=self.config.codes).float()
        net.counts.lerp_(count, 1 - decay)
        net.sums.lerp_(torch.zeros_like(net.sums).index_add_(0, codes, direction), 1 - decay)
        net.idle.add_(1).masked_fill_(count > 0, 0)
        codebook = net.tokenizer.quantizer.codebook
        served = net.counts > 1e-3
        codebook[served] = F.normalize(net.sums[served], dim=-1)
        if step % 20 == 0 and step < self.task.revive_until * steps:
            miss = (direction - codebook[codes]).square().sum(-1) + self._wrong.flatten()
            self._revive(direction, miss, generator)

    def _revive(self, direction: Float[Tensor, "N C"], miss: Float[Tensor, " N"], generator: torch.Generator) -> None:
        """Idle entries take the place of badly served features: far from their code, or with a code of wrong words.

        Two looks that share a code have wrong words; an entry at the feature of one of them sets them apart.
        """
        net = self.module
        idle = (net.idle > self.task.revive_after).nonzero().flatten()[: len(direction) // 8]
        if not len(idle):
            return
        chosen = direction[torch.multinomial(miss + 1e-6, len(idle), generator=generator)]
        net.tokenizer.quantizer.codebook[idle] = chosen
        net.counts[idle], net.sums[idle], net.idle[idle] = 0.02, chosen * 0.02, 0

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """The tokenizer and the retrieval heads."""
        assert isinstance(averaged, _TokenizerTraining)
        return {"image_tokenizer": averaged.tokenizer, "retrieval": averaged.retrieval}


class _TokenizerTraining(nn.Module):
    """The tokenizer, its training heads, and the running means of the codebook."""

    def __init__(self, model: ModelConfig, generator: torch.Generator) -> None:
        super().__init__()
        config = model.image_tokenizer
        self.tokenizer = ImageTokenizer(config)
        self.tokenizer.initialize(generator)
        self.tokenizer.quantizer.codebook.requires_grad_(False)
        self.pixels = PixelHead(config)
        self.words = nn.Linear(config.code_width, len(WORDS))
        self.retrieval = Retrieval(model)
        for head in (self.pixels, self.words, self.retrieval):
            for p in head.parameters():
                nn.init.zeros_(p) if p.ndim < 2 else nn.init.normal_(p, std=p.shape[-1] ** -0.5, generator=generator)
        self.retrieval.initialize(generator)
        self.register_buffer("counts", torch.zeros(config.codes))
        self.register_buffer("sums", torch.zeros(config.codes, config.code_width))
        self.register_buffer("idle", torch.zeros(config.codes))
        self.counts: Tensor
        self.sums: Tensor
        self.idle: Tensor


class PixelHead(nn.Module):
    """Features of one attention window -> its pixels. Sees nothing outside the window, so codes must be local."""

    def __init__(self, config: ImageTokenizerConfig, hidden: int = 512) -> None:
        super().__init__()
        self.window = config.window or 1
        side = self.window * config.patch_size
        self.side = side
        self.layers = nn.Sequential(
            nn.Linear(self.window**2 * config.width, hidden), nn.GELU(),
            nn.Linear(hidden, hidden), nn.GELU(),
            nn.Linear(hidden, side * side * 3),
        )  # fmt: skip

    def forward(self, features: Float[Tensor, "B h w D"]) -> Float[Tensor, "B 3 H W"]:
        """Normalised pixels of the whole picture."""
        windows = rearrange(features, "B (h m) (w n) D -> B h w (m n D)", m=self.window, n=self.window)
        return rearrange(self.layers(windows), "B h w (C p q) -> B C (h p) (w q)", C=3, p=self.side)


def cell_words(scenes: list[Scene], grid: int) -> Float[Tensor, "B h w W"]:
    """For every code, the words true of the lattice cell it lies in, as 0 and 1 over `WORDS`."""
    index = {word: i for i, word in enumerate(WORDS)}
    truth = torch.zeros(len(scenes), LATTICE, LATTICE, len(WORDS))
    for n, scene in enumerate(scenes):
        truth[n, :, :, index[scene.background]] = 1
        truth[n, :, :, index["empty"]] = 1
        for t in scene.things:
            truth[n, t.row, t.col, index["empty"]] = 0
            for word in (t.kind, t.color, t.size, *t.glyph):
                truth[n, t.row, t.col, index[word]] = 1
    times = grid // LATTICE
    return repeat(truth, "B r c W -> B (r m) (c n) W", m=times, n=times)


def window_spread(direction: Float[Tensor, "B h w C"], window: int) -> Float[Tensor, ""]:
    """Mean squared distance of the features of a window from their mean."""
    grouped = rearrange(direction, "B (h m) (w n) C -> B h w (m n) C", m=window, n=window)
    return (grouped - grouped.mean(-2, keepdim=True)).square().sum(-1).mean()


def same_code_share(codes: Int[Tensor, "B h w"]) -> float:
    """Share of 2x2 windows whose first and last code are the same."""
    return float((codes[:, ::2, ::2] == codes[:, 1::2, 1::2]).float().mean())
