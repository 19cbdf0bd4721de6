"""A model directory as modules, strictly: one error tells all that is missing, extra, misshaped or damaged.

The directory holds

    config.yaml  tokenizer.json  manifest.json
    backbone.safetensors  image_tokenizer.safetensors  code_embedding.safetensors  decoder.safetensors  vae.safetensors
    retrieval.safetensors (may be absent)
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import torch
from diffusers import AutoencoderKL
from torch import nn

from unveil.config import ModelConfig, load_config
from unveil.errors import WeightsError
from unveil.model.backbone import Backbone
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.model.image_tokenizer.retrieval import Retrieval
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text
from unveil.weights.fp8 import read_factors
from unveil.weights.manifest import damages, read_manifest, weights_hash
from unveil.weights.names import CONFIG_FILE, PART_FILES, TOKENIZER_FILE
from unveil.weights.tensors import file_misfits, read_tensors

_QUICK = 1 << 28  # bytes of weights whose checksums take well under a second

__all__ = ["Parts", "assign", "build", "check_tensors", "load", "load_part", "weights_hash"]


@dataclass(frozen=True)
class Parts:
    """Everything a loaded model consists of. `hash` names the weights; a model just trained may have none yet ("")."""

    config: ModelConfig
    text: Text
    layout: Layout
    backbone: Backbone
    image_tokenizer: ImageTokenizer
    code_embedding: CodeEmbedding
    decoder: ImageDecoder
    vae: AutoencoderKL
    retrieval: Retrieval | None
    hash: str
    absent: Mapping[str, str] = field(default_factory=dict)  # part without weights -> the line that says so

    def require(self, *names: str) -> None:
        """Raise WeightsError unless these parts have weights: a released directory may lack some of its image parts."""
        lacking = dict.fromkeys(self.absent[name] for name in names if name in self.absent)
        if lacking:
            raise WeightsError("; ".join(lacking))

    @property
    def modules(self) -> dict[str, nn.Module]:
        """The parts that hold weights, by the names of `PART_FILES`."""
        found = {name: getattr(self, name) for name in PART_FILES}
        return {n: module for n, module in found.items() if module is not None and n not in self.absent}


def build(config: ModelConfig, *, retrieval: bool = False) -> dict[str, nn.Module]:
    """The modules of a configuration on the meta device: shapes without memory, by the names of `PART_FILES`."""
    with torch.device("meta"):
        modules: dict[str, nn.Module] = {
            "backbone": Backbone(config.backbone, config.vocab),
            "image_tokenizer": ImageTokenizer(config.image_tokenizer),
            "code_embedding": CodeEmbedding(config),
            "decoder": ImageDecoder(config.decoder, config.vae.latent_channels),
            "vae": build_vae(config.vae),
        }
        if retrieval:
            modules["retrieval"] = Retrieval(config)
    return modules


def load(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, *, verify: bool = False
) -> Parts:
    """The model in a directory of our own layout, ready to sample from: eval mode, no gradients.

    File sizes are always checked against the manifest; contents when `verify`, and when the model is small. Raises
    WeightsError (files, tensors, tokenizer) or ConfigError (config.yaml).
    """
    path = Path(path)
    files = _check_directory(path, verify=verify)
    config, text = load_config(path / CONFIG_FILE), Text.load(path / TOKENIZER_FILE)
    layout = Layout.of(config.vocab, text)
    modules = build(config, retrieval=PART_FILES["retrieval"] in files)
    check_tensors(modules, {name: path / PART_FILES[name] for name in modules})
    for name, module in modules.items():
        load_part(module, path / PART_FILES[name], device, dtype)
        module.eval().requires_grad_(False)
    fields = {"retrieval": None, **modules}
    return Parts(config=config, text=text, layout=layout, hash=weights_hash(path), **fields)  # type: ignore[arg-type]


def load_part(
    module: nn.Module, file: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Give a module (also one on the meta device) the weights in a file; it ends on `device` in `dtype`.

    Raises one WeightsError with every tensor that is missing, extra or misshaped, before anything is changed.
    """
    file = Path(file)
    problems = file_misfits(module, file)
    if problems:
        raise WeightsError("; ".join(problems))
    assign(module, dict(read_tensors(file, device, dtype, read_factors([file]))))


def assign(module: nn.Module, state: Mapping[str, torch.Tensor]) -> None:
    """Make the tensors of a complete state dict the module's own, without a copy."""
    module.load_state_dict(state, strict=True, assign=True)
    held = [*module.named_parameters(), *module.named_buffers()]
    assert not [name for name, tensor in held if tensor.is_meta], "a module keeps a buffer that no file holds"


def _check_directory(path: Path, *, verify: bool) -> Collection[str]:
    """The files listed in the manifest. Raises WeightsError for what names, sizes and checksums can tell."""
    if not (path / CONFIG_FILE).is_file():
        raise WeightsError(f"{path}: no model there ({CONFIG_FILE} is missing); give a directory written by unveil")
    manifest = read_manifest(path)
    needed = [TOKENIZER_FILE, *(file for part, file in PART_FILES.items() if part != "retrieval")]
    problems = [f"{path / n}: not listed in the manifest" for n in needed if n not in manifest.files]
    small = sum(entry.bytes for entry in manifest.files.values()) <= _QUICK
    problems += damages(path, manifest, verify=verify or small)
    if problems:
        raise WeightsError("; ".join(problems))
    return manifest.files


def check_tensors(modules: Mapping[str, nn.Module], files: Mapping[str, Path]) -> None:
    """Raise one WeightsError with every tensor, over all files, that does not fit the module of the same part."""
    problems = [p for name, file in files.items() for p in file_misfits(modules[name], file)]
    if problems:
        raise WeightsError("; ".join(problems))
