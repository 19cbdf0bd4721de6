"""A model directory as modules, strictly: one error tells all that is missing, extra, misshaped or damaged.

The directory holds

    config.yaml  tokenizer.json  manifest.json
    backbone.safetensors  image_tokenizer.safetensors  code_embedding.safetensors  decoder.safetensors  vae.safetensors
    retrieval.safetensors (may be absent)
"""

from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Protocol

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from unveil.config import ModelConfig, load_config
from unveil.errors import WeightsError
from unveil.model.backbone import Backbone
from unveil.model.hold import Precision, hold
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.model.image_tokenizer.retrieval import Retrieval
from unveil.model.layers.quantized import Format
from unveil.shapes import Tensor
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text
from unveil.weights.fill import assign, gather
from unveil.weights.manifest import damages, read_manifest, weights_hash
from unveil.weights.names import CONFIG_FILE, PART_FILES, TOKENIZER_FILE
from unveil.weights.tensors import file_misfits, read_files

_QUICK = 1 << 28  # bytes of weights whose checksums take well under a second

__all__ = [
    "Parts", "Turns", "Unread", "assign", "build", "check_tensors", "filled", "load", "load_part", "open_model",
    "weights_hash",
]  # fmt: skip


class Turns(Protocol):
    """Who decides where parts lie when not all of them may lie on the device all the time."""

    @property
    def device(self) -> torch.device:
        """Where the model works."""
        ...

    def enter(self, part: str) -> torch.device:
        """Bring a part to where it works, and others away if they must go; gives that device."""
        ...


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
    residency: Turns | None = None  # none: every part lies where it was loaded
    precision: Precision = "float32"

    def enter(self, part: str) -> torch.device:
        """The device where a part works; it lies there when this returns."""
        if self.residency is not None:
            return self.residency.enter(part)
        return self.device

    @property
    def device(self) -> torch.device:
        """Where the model works."""
        return next(self.backbone.parameters()).device if self.residency is None else self.residency.device

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


@dataclass(frozen=True)
class Unread:
    """A model whose files have been checked, names and shapes too, but not read: its modules are on the meta device.

    `tensors` gives those of a part, read one by one, in the names of the release or in ours.
    """

    parts: Parts
    tensors: Mapping[str, Callable[[], Iterable[tuple[str, Tensor]]]]
    files: Mapping[str, tuple[Path, ...]]  # of each part

    def hold(self, dtype: torch.dtype, form: Format | None = None) -> None:
        """Say how the parts are to be held; not to be changed afterwards."""
        for name in self.tensors:
            hold(self.parts.modules[name], dtype, form)

    def state(
        self, part: str, device: torch.device | str, dtype: torch.dtype, on_host: Collection[str] = ()
    ) -> dict[str, Tensor]:
        """The weights of a part, read to a device, but those in `on_host` to the host."""
        return gather(self.parts.modules[part], self.tensors[part](), device, dtype, on_host)


def filled(source: Unread, device: torch.device | str, dtype: torch.dtype, form: Format | None = None) -> Parts:
    """The model of a source with all its weights on one device. Raises WeightsError."""
    source.hold(dtype, form)
    for name in source.tensors:
        assign(source.parts.modules[name], source.state(name, device, dtype))
    return source.parts


def load(
    path: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32, *, verify: bool = False
) -> Parts:
    """The model in a directory of our own layout, ready to sample from: eval mode, no gradients.

    Raises WeightsError (files, tensors, tokenizer) or ConfigError (config.yaml).
    """
    return filled(open_model(path, verify=verify), device, dtype)


def open_model(path: Path, *, verify: bool = False) -> Unread:
    """The model in a directory of our own layout, not read yet.

    File sizes are always checked against the manifest; contents when `verify`, and when the model is small. Raises
    WeightsError (files, tensors, tokenizer) or ConfigError (config.yaml).
    """
    path = Path(path)
    files = _check_directory(path, verify=verify)
    config, text = load_config(path / CONFIG_FILE), Text.load(path / TOKENIZER_FILE)
    layout = Layout.of(config.vocab, text)
    modules = build(config, retrieval=PART_FILES["retrieval"] in files)
    places = {name: path / PART_FILES[name] for name in modules}
    check_tensors(modules, places)
    for module in modules.values():
        module.eval().requires_grad_(False)
    fields = {"retrieval": None, **modules}
    parts = Parts(config=config, text=text, layout=layout, hash=weights_hash(path), **fields)  # type: ignore[arg-type]
    tensors = {name: partial(read_files, [file]) for name, file in places.items()}
    return Unread(parts, tensors, {name: (file,) for name, file in places.items()})


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
    assign(module, gather(module, read_files([file]), device, dtype))


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
