"""The image decoder and its VAE as diffusers keeps them: other names, the same bytes.

    here                                         there
    decoder/model.safetensors                    transformer/diffusion_pytorch_model.safetensors
        semantic_embedder.*                          cap_embedder.*
    vae/diffusion_pytorch_model.safetensors      vae/diffusion_pytorch_model.safetensors

`ZImageTransformer2DModel` and `AutoencoderKL` of diffusers load the two directories, each with its config.json. What
turns codes into the decoder's condition (`CodeEmbedding`) has no place there.
"""

from pathlib import Path
from typing import NamedTuple

import torch

from unveil.config.tree import DecoderConfig, VaeConfig
from unveil.errors import WeightsError
from unveil.files import check_inside
from unveil.model.image_decoder import ImageDecoder, build_vae
from unveil.weights.official_config import Json, official_decoder, official_vae, released_decoder, released_vae
from unveil.weights.pieces import Joined, Tensors, read_pieces
from unveil.weights.tensors import misfits, shapes

_DECODER_DIRECTORY, _VAE_DIRECTORY, _WEIGHTS = "transformer", "vae", "diffusion_pytorch_model.safetensors"
_HERE, _THERE = "semantic_embedder.", "cap_embedder."


class Pair(NamedTuple):
    """Image decoder and VAE: their settings, and their tensors under our names."""

    decoder: DecoderConfig
    vae: VaeConfig
    decoder_tensors: Tensors
    vae_tensors: Tensors


def is_diffusers(path: Path) -> bool:
    """Whether a directory is laid out as above."""
    return (path / _DECODER_DIRECTORY / "config.json").is_file()


def checked(decoder: DecoderConfig, vae: VaeConfig, decoder_file: Path, vae_file: Path) -> Pair:
    """The pair in two files, in either spelling. Raises one WeightsError with all that does not fit."""
    with torch.device("meta"):
        modules = {decoder_file: ImageDecoder(decoder, vae.latent_channels), vae_file: build_vae(vae)}
    held = {file: _renamed(read_pieces([file]), _THERE, _HERE) for file in modules}
    problems = [
        problem
        for file, module in modules.items()
        for problem in misfits(shapes(module), {name: t.shape for name, t in held[file].items()}, file)
    ]
    if problems:
        raise WeightsError("; ".join(problems))
    return Pair(decoder, vae, held[decoder_file], held[vae_file])


def read_diffusers(path: Path) -> Pair:
    """The pair in a directory of diffusers."""
    decoder, vae = official_decoder(path / _DECODER_DIRECTORY), official_vae(path / _VAE_DIRECTORY)
    files = [path / directory / _WEIGHTS for directory in (_DECODER_DIRECTORY, _VAE_DIRECTORY)]
    for file in files:
        check_inside(file, path)
    return checked(decoder, vae, *files)


def written(pair: Pair) -> tuple[dict[str, Tensors], dict[str, Json]]:
    """The weights files and the JSON files of a pair in the layout of diffusers."""
    files = {
        f"{_DECODER_DIRECTORY}/{_WEIGHTS}": _renamed(pair.decoder_tensors, _HERE, _THERE),
        f"{_VAE_DIRECTORY}/{_WEIGHTS}": pair.vae_tensors,
    }
    named: Json = {"_class_name": "ZImageTransformer2DModel", "in_channels": pair.vae.latent_channels}
    settings: dict[str, Json] = {
        f"{_DECODER_DIRECTORY}/config.json": named | released_decoder(pair.decoder),
        f"{_VAE_DIRECTORY}/config.json": {"_class_name": "AutoencoderKL"} | released_vae(pair.vae),
    }
    return files, settings


def _renamed(tensors: Tensors, old: str, new: str) -> dict[str, Joined]:
    """The tensors with another beginning of some names."""
    return {new + n.removeprefix(old) if n.startswith(old) else n: tensor for n, tensor in tensors.items()}
