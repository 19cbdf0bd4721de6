"""The networks of a checkpoint in the released layout, each loaded when it is first asked for."""

from functools import cache, cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from unveil.config import BackboneConfig, ModelConfig, VocabConfig, load_preset
from unveil.config.tree import ImageTokenizerConfig
from unveil.model.backbone import Backbone
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts
from unveil.vocab.text import Text
from unveil.weights.names import SIGVQ_FILE, TOKENIZER_FILE
from unveil.weights.official import load_official_backbone, load_official_part
from unveil.weights.official_config import (
    DECODER_DIRECTORIES,
    DecoderKind,
    official_config,
    official_decoder,
    official_image_tokenizer,
    official_vae,
)
from unveil.weights.read import assign, load_part
from unveil.weights.sigvq import convert_sigvq


class BackboneSide:
    """Backbone, tokenizer of text, prompts."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint

    @cached_property
    def text(self) -> Text:
        """The tokenizer of text."""
        return Text.load(self.checkpoint / TOKENIZER_FILE)

    @cached_property
    def config(self) -> tuple[BackboneConfig, VocabConfig]:
        """Sizes and ids."""
        return official_config(self.checkpoint, self.text)

    @cached_property
    def layout(self) -> Layout:
        """Where ids lie."""
        return Layout.of(self.config[1], self.text)

    @cached_property
    def prompts(self) -> Prompts:
        """Prompts as the official code writes them."""
        return Prompts(self.text, self.layout, spell_sizes=True)

    @cached_property
    def backbone(self) -> Backbone:
        """To sample from."""
        return self.read(torch.float32).eval().requires_grad_(False)

    def read(self, dtype: torch.dtype) -> Backbone:
        """A backbone of one's own, whose parameters take gradients."""
        with torch.device("meta"):
            network = Backbone(*self.config)
        assign(network, load_official_backbone(self.checkpoint, *self.config, dtype=dtype))
        return network


class ImageSide:
    """Image tokenizer, both image decoders, code embedding, VAE."""

    def __init__(self, checkpoint: Path) -> None:
        self.checkpoint = checkpoint
        self.config = cache(self._config)
        self.decoder = cache(self._decoder)

    @cached_property
    def tokenizer_config(self) -> ImageTokenizerConfig:
        """Sizes of the image tokenizer."""
        return official_image_tokenizer(self.checkpoint / "image_tokenizer")

    @cached_property
    def tokenizer(self) -> ImageTokenizer:
        """Pictures to codes."""
        with torch.device("meta"):
            network = ImageTokenizer(self.tokenizer_config)
        load_official_part(network, self.checkpoint / "image_tokenizer")
        return network.eval().requires_grad_(False)

    @cached_property
    def code_embedding(self) -> CodeEmbedding:
        """Codes to features; its torch file is converted in a process of its own."""
        with torch.device("meta"):
            network = CodeEmbedding(self.config("normal"))
        source = self.checkpoint / SIGVQ_FILE
        if source.exists():
            load_part(network, source)
        else:
            with TemporaryDirectory() as place:
                convert_sigvq(source.with_suffix(".pt"), Path(place) / source.name)
                load_part(network, Path(place) / source.name)
        return network.eval().requires_grad_(False)

    @cached_property
    def vae(self) -> AutoencoderKL:
        """Latents to pixels and back."""
        with torch.device("meta"):
            network = build_vae(official_vae(self.checkpoint / "vae"))
        load_official_part(network, self.checkpoint / "vae")
        return network.eval().requires_grad_(False)

    def _config(self, kind: DecoderKind) -> ModelConfig:
        """The image parts' sizes; the rest is that of the preset `official`."""
        parts = {
            "image_tokenizer": self.tokenizer_config,
            "decoder": official_decoder(self.checkpoint / DECODER_DIRECTORIES[kind]),
            "vae": official_vae(self.checkpoint / "vae"),
        }
        return load_preset("official").model_copy(update=parts)

    def _decoder(self, kind: DecoderKind) -> ImageDecoder:
        """Noise and features to a velocity."""
        config = self.config(kind)
        with torch.device("meta"):
            network = ImageDecoder(config.decoder, config.vae.latent_channels)
        load_official_part(network, self.checkpoint / DECODER_DIRECTORIES[kind])
        return network.eval().requires_grad_(False)
