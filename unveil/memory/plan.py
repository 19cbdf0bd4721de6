"""What a model needs on the device and on the host, told before a byte of weights is read."""

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from typing import Literal, TypeAlias, get_args

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import nn

from unveil.config import ModelConfig
from unveil.errors import RequestError
from unveil.memory.live import peak_bytes
from unveil.memory.moments import PARTS, Work, cache_bytes, look_at, tile, use_of
from unveil.model.backbone import Backbone
from unveil.model.hold import Precision, floats_of, format_of, hold, weight_bytes
from unveil.model.layers.quantized import Format
from unveil.weights.read import build

Residency: TypeAlias = Literal["resident", "staged", "streamed"]
"""resident: all parts lie on the device. staged: each comes to it for its turn and goes again. streamed: staged, and
of the backbone only two layers lie on the device at a time."""


@dataclass(frozen=True)
class Machine:
    """How much memory a plan may use, in bytes."""

    device: int
    host: int | None  # None: the device is the process itself, and there is no other memory


@dataclass(frozen=True)
class Need:
    """Bytes that one part takes; a part that the task does not use takes none."""

    name: str
    dtype: str
    weights: int
    largest: int  # of its tensors: what passes through the host when the part is read to the device
    cache: int = 0
    activations: int = 0
    tiled: int = 0  # activations when it works in tiles; 0 when it cannot
    embedding: int = 0  # of the weights: a table that can be looked up on the host
    layers: int = 0  # of the weights: what can be streamed
    layer: int = 0  # the largest of these layers
    used: bool = True


@dataclass(frozen=True)
class Plan:
    """The needs of all parts in one precision and residency, and their peaks."""

    precision: Precision
    residency: Residency
    needs: tuple[Need, ...]
    machine: Machine
    tiled: bool = False  # the VAE decodes in tiles

    @property
    def used(self) -> list[Need]:
        """The parts that the task uses."""
        return [need for need in self.needs if need.used]

    @property
    def device(self) -> int:
        """The peak on the device: with the weights of all parts, or of the one whose turn it is."""
        if self.residency == "resident":
            return sum(map(self.lying, self.used)) + max(need.cache + self.active(need) for need in self.used)
        return max(self.lying(need) + need.cache + self.active(need) for need in self.used)

    @property
    def host(self) -> int:
        """The peak on the host: what waits there and the embedding; otherwise the largest tensor, passing through."""
        if self.machine.host is None:
            return 0
        if self.residency != "resident" and not self.rereads:
            return self._waiting
        return max(need.largest for need in self.used) + sum(need.embedding for need in self.used)

    @property
    def rereads(self) -> bool:
        """Whether parts are read from their files for every turn: there is no host, or it has no room for them."""
        if self.residency == "resident":
            return False
        return self.machine.host is None or (self.residency == "staged" and self._waiting > self.machine.host)

    @property
    def fits(self) -> bool:
        """Whether both peaks stay within the machine."""
        return self.device <= self.machine.device and self.host <= (self.machine.host or 0)

    def lying(self, need: Need) -> int:
        """Bytes of a part's weights that lie on the device during its turn. The host, if there is one, looks up."""
        away = 0 if self.machine.host is None else need.embedding
        if self.residency == "streamed":
            away += max(need.layers - 2 * need.layer, 0)
        return need.weights - away

    def active(self, need: Need) -> int:
        """Bytes that a part's activations take, in tiles if it works in them."""
        return need.tiled if self.tiled and need.tiled else need.activations

    @property
    def _waiting(self) -> int:
        return sum(need.weights for need in self.used)


def down_from(best: Precision) -> tuple[Precision, ...]:
    """The precisions to try, in order of loss; float16 and fp8 only when asked for.

    bfloat16 is as small as float16 and has the range of float32; int8 is as small as fp8 and more exact.
    """
    known = get_args(Precision)[get_args(Precision).index(best) :]
    return tuple(precision for precision in known if precision == best or precision not in ("float16", "fp8"))


def plans(config: ModelConfig, work: Work, machine: Machine, precisions: Sequence[Precision]) -> Iterator[Plan]:
    """Every plan in these precisions, in order of preference, worked out one at a time, as they are asked for.

    First in order of loss of quality: staging loses nothing, tiling little. Streaming loses nothing either, but every
    look brings all layers to the device; so it comes last, and only where there is a host to stream from.
    """
    found = dict[Precision, tuple[Need, ...]]()
    for precision in precisions:
        found[precision] = needs(config, work, precision)
        yield Plan(precision, "resident", found[precision], machine)
        yield from _with_tiles(Plan(precision, "staged", found[precision], machine))
    if machine.host is not None:
        for precision, each in found.items():
            yield from _with_tiles(Plan(precision, "streamed", each, machine))


def fitting(config: ModelConfig, work: Work, machine: Machine, precisions: Sequence[Precision]) -> Plan | None:
    """The first of `plans` that fits, sooner: what is too large by its weights alone is not traced."""
    orders: tuple[tuple[Residency, ...], ...] = (("resident", "staged"), ("streamed",))
    for residencies in orders if machine.host is not None else orders[:1]:
        for precision in precisions:
            if not Plan(precision, residencies[-1], weigh(config, work, precision), machine).fits:
                continue
            for plan in plans(config, work, machine, [precision]):
                if plan.residency in residencies and plan.fits:
                    return plan
    return None


def _with_tiles(plan: Plan) -> Iterator[Plan]:
    """A plan, and the same with tiles where that needs less."""
    yield plan
    if (tiled := replace(plan, tiled=True)).device < plan.device:
        yield tiled


def weigh(config: ModelConfig, work: Work, precision: Precision) -> tuple[Need, ...]:
    """Every part of a model with its weights alone, exactly."""
    found = []
    for name, module in build(config).items():
        small = hold(module, floats_of(precision), format_of(precision))
        dtype = precision if small else str(floats_of(precision)).removeprefix("torch.")
        largest = max(tensor.nbytes for tensor in module.state_dict().values())
        need = Need(name, dtype, weight_bytes(module), largest, used=name in PARTS[work.task])
        if isinstance(module, Backbone):
            sizes, table = [weight_bytes(layer) for layer in module.model.layers], module.model.word_embeddings.weight
            need = replace(need, embedding=table.nbytes, layers=sum(sizes), layer=max(sizes, default=0))
        found.append(need)
    return tuple(found)


def needs(config: ModelConfig, work: Work, precision: Precision) -> tuple[Need, ...]:
    """Every part of a model, from its shapes: weights and cache exactly, activations as `peak_bytes` sees them."""
    return tuple(_traced(need, config, work, precision) for need in weigh(config, work, precision))


def _traced(need: Need, config: ModelConfig, work: Work, precision: Precision) -> Need:
    """A need with activations and cache, if the task uses the part."""
    if not need.used:
        return need
    if need.name == "backbone":
        cache = cache_bytes(config, work.length, work.branches, floats_of(precision))
        return replace(need, cache=cache, activations=_of_backbone(config, work, precision) - cache)
    form = format_of(precision) if need.dtype == precision else None
    activations, tiled = _use(need.name, config, work, floats_of(precision), form)
    return replace(need, activations=activations, tiled=tiled)


@lru_cache(maxsize=32)
def _use(name: str, config: ModelConfig, work: Work, dtype: torch.dtype, form: Format | None) -> tuple[int, int]:
    """Activations of one use of a part other than the backbone, plainly and in tiles (0 when it has none).

    Remembered, since parts that are never quantized need the same in int8, fp8 and int4 as in bfloat16.
    """
    modules = build(config)
    module = modules[name]
    hold(module, dtype, form)
    run, state = use_of(name, modules, config, work), module.state_dict().values()
    plain = peak_bytes(run, state)
    if not isinstance(module, AutoencoderKL):
        return plain, 0
    tile(module)
    return plain, peak_bytes(run, state)


def parse_bytes(text: str) -> int:
    """24GB is 24 thousand million bytes, 24GiB is 24 x 2^30. Raises RequestError for anything else."""
    found = re.fullmatch(r"(\d+(?:\.\d+)?) ?([KMGT])(i?)B", str(text).strip(), flags=re.IGNORECASE)
    if found is None or not (number := float(found[1])):
        raise RequestError(f"'{text}' is no amount of memory; write it as 24GB or 24GiB")
    power = "KMGT".index(found[2].upper()) + 1
    return int(number * (1024 if found[3] else 1000) ** power)


@lru_cache(maxsize=32)
def _of_backbone(config: ModelConfig, work: Work, precision: Precision) -> int:
    """Bytes besides its weights at the backbone's worst moment, cache included.

    Every layer leaves keys and values behind, equally many, and is otherwise done when the next begins. So what a
    model of many layers takes follows from two of few.
    """
    layers, few = config.backbone.layers, config.backbone.dense_layers + 1
    shorter, longer = (_peak(config, work, precision, min(n, layers)) for n in (few, few + 1))
    return longer + max(layers - few - 1, 0) * (longer - shorter)


def _peak(config: ModelConfig, work: Work, precision: Precision, layers: int) -> int:
    """Bytes besides the weights at the worse of two moments, with so many layers: the first look, and the last.

    At the last the keys and values lie there twice: a layer copies them to add those of its block.
    """
    short = config.model_copy(update={"backbone": config.backbone.model_copy(update={"layers": layers})})
    with torch.device("meta"):
        module: nn.Module = Backbone(short.backbone, short.vocab)
    hold(module, floats_of(precision), format_of(precision))
    assert isinstance(module, Backbone)
    peaks = []
    for first in (True, False):
        run, there = look_at(module, short, work, first=first)
        held = [*module.state_dict().values(), *there]
        peaks.append(peak_bytes(run, held) + sum(tensor.nbytes for tensor in there))
    return max(peaks)
