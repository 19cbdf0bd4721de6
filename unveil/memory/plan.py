"""What a model needs on the device and on the host, told before a byte of weights is read."""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, TypeAlias, get_args

import torch
from torch import nn

from unveil.config import ModelConfig
from unveil.errors import RequestError
from unveil.memory.live import peak_bytes
from unveil.memory.moments import PARTS, Work, cache_bytes, look_at, use_of
from unveil.memory.quantize import quantize, weight_bytes
from unveil.model.backbone import Backbone
from unveil.model.backbone.router import Router
from unveil.model.image_decoder import ImageDecoder
from unveil.weights.read import build

Precision: TypeAlias = Literal["float32", "bfloat16", "float16", "int8", "int4"]
"""How numbers are held, from the most exact down; with int8 and int4 all but the large matrices is bfloat16."""
Residency: TypeAlias = Literal["resident", "staged"]
"""resident: all parts lie on the device. staged: each comes to it for its turn, from host memory, and goes again."""


@dataclass(frozen=True)
class Need:
    """Bytes that one part takes; a part that the task does not use takes none."""

    name: str
    dtype: str
    weights: int
    largest: int  # of its tensors: what passes through the host when the part is read to the device
    cache: int = 0
    activations: int = 0
    used: bool = True

    @property
    def peak(self) -> int:
        """While the part works."""
        return self.weights + self.cache + self.activations


@dataclass(frozen=True)
class Plan:
    """The needs of all parts in one precision and residency, and their peaks."""

    precision: Precision
    residency: Residency
    needs: tuple[Need, ...]

    @property
    def used(self) -> list[Need]:
        """The parts that the task uses."""
        return [need for need in self.needs if need.used]

    @property
    def device(self) -> int:
        """The peak on the device: with the weights of all parts, or of the one whose turn it is."""
        if self.residency == "staged":
            return max(need.peak for need in self.used)
        return sum(need.weights for need in self.used) + max(n.cache + n.activations for n in self.used)

    @property
    def host(self) -> int:
        """The peak on the host: all weights when staged, otherwise the largest tensor, as it passes through."""
        return sum(n.weights for n in self.used) if self.residency == "staged" else max(n.largest for n in self.used)

    def fits(self, gpu: int, ram: int) -> bool:
        """Whether both peaks stay within so many bytes."""
        return self.device <= gpu and self.host <= ram


def plans(config: ModelConfig, work: Work, best: Precision = "bfloat16") -> Iterator[Plan]:
    """Every plan from precision `best` down, in order of loss of quality: staging loses nothing, so it comes first.

    They are worked out one at a time, as they are asked for.
    """
    for precision in get_args(Precision)[get_args(Precision).index(best) :]:
        if precision != "float16" or best == "float16":  # as many bytes as bfloat16, and overflows
            found = needs(config, work, precision)
            yield from (Plan(precision, residency, found) for residency in get_args(Residency))


def needs(config: ModelConfig, work: Work, precision: Precision) -> tuple[Need, ...]:
    """Every part of a model, from its shapes: weights and cache exactly, activations as `peak_bytes` sees them."""
    modules = build(config)
    found = []
    for name, module in modules.items():
        small = hold(module, precision)
        state, used = module.state_dict().values(), name in PARTS[work.task]
        cache = activations = 0
        if used and isinstance(module, Backbone):
            cache = cache_bytes(config, work.length, work.branches, _floats(precision))
            activations = _backbone_peak(module, config, work) - cache
        elif used:
            activations = peak_bytes(use_of(name, modules, config, work), state)
        largest = max(tensor.nbytes for tensor in state)
        dtype = precision if small else str(_floats(precision)).removeprefix("torch.")
        found.append(Need(name, dtype, weight_bytes(module), largest, cache, activations, used))
    return tuple(found)


def hold(module: nn.Module, precision: Precision) -> bool:
    """Hold a part in a precision, as it is when loaded; tells whether `precision` is the one of its large matrices.

    int8 and int4 take the layers of the backbone and of the image decoder; the other parts stay in bfloat16. The
    router's bias is float32 always.
    """
    nn.Module.to(module, _floats(precision))  # diffusers warns in its own `to`
    for router in (part for part in module.modules() if isinstance(part, Router)):
        router.expert_bias = router.expert_bias.float()
    if precision != "int8" and precision != "int4":
        return True
    layers = module.model.layers if isinstance(module, Backbone) else None
    layers = module.layers if isinstance(module, ImageDecoder) else layers
    return layers is not None and quantize(layers, precision) > 0


def parse_bytes(text: str) -> int:
    """24GB is 24 thousand million bytes, 24GiB is 24 x 2^30. Raises RequestError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B", text.strip(), flags=re.IGNORECASE)
    size = (
        0
        if found is None
        else int(float(found[1]) * (1024 if found[3] else 1000) ** ("KMGT".index(found[2].upper()) + 1))
    )
    if not size:
        raise RequestError(f"'{text}' is no amount of memory; write it as 24GB or 24GiB")
    return size


def _floats(precision: Precision) -> torch.dtype:
    """The precision of what is computed."""
    return {"float32": torch.float32, "float16": torch.float16}.get(precision, torch.bfloat16)


def _backbone_peak(module: Backbone, config: ModelConfig, work: Work) -> int:
    """Bytes besides the weights at the worse of two moments: the first look, and the last.

    At the last the keys and values lie there twice: a layer copies them to add those of its block.
    """
    peaks = []
    for first in (True, False):
        run, there = look_at(module, config, work, first=first)
        held = [*module.state_dict().values(), *there]
        peaks.append(peak_bytes(run, held) + sum(tensor.nbytes for tensor in there))
    return max(peaks)
