"""Obeying a plan: which parts lie on the device, which come for their turn, and from where.

resident   every part is on the device from the start
staged     a part comes when it is entered, and the one before it goes. It waits on the host, or, where the host has
           no room or is the device itself, in its files, from which it is read again
streamed   staged, and the backbone's layers come one by one
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Protocol

import torch
from torch import nn

from unveil.memory.measure import is_process, return_freed
from unveil.memory.moments import tile
from unveil.memory.plan import Plan
from unveil.memory.stream import LayerStream, State
from unveil.model.backbone import Backbone
from unveil.model.hold import floats_of, format_of
from unveil.shapes import Tensor
from unveil.weights.read import Parts, Turns, Unread, assign

EMBEDDING = "model.word_embeddings.weight"
"""The backbone's table that is looked up on the host when the device has memory of its own."""


class Guest(Protocol):
    """A part that comes and goes."""

    def come(self) -> None:
        """Be on the device."""
        ...

    def go(self) -> None:
        """Hold no memory of the device."""
        ...


@dataclass(frozen=True)
class Resident:
    """All parts lie on the device."""

    device: torch.device

    def enter(self, part: str) -> torch.device:
        """The device; there is nothing to do."""
        return self.device


@dataclass
class Staged:
    """One part at a time lies on the device."""

    device: torch.device
    guests: Mapping[str, Guest]
    inside: list[str] = field(default_factory=list)

    def enter(self, part: str) -> torch.device:
        """Bring a part to the device, after the one there has gone."""
        if part in self.guests and part not in self.inside:
            while self.inside:
                self.guests[self.inside.pop()].go()
            if self.device.type == "cuda":
                torch.cuda.empty_cache()
            self.guests[part].come()
            self.inside.append(part)
        return self.device


@dataclass(frozen=True)
class Whole:
    """A part that comes with all its weights."""

    module: nn.Module
    bring: Callable[[], State]

    def come(self) -> None:
        """Be on the device."""
        assign(self.module, self.bring())

    def go(self) -> None:
        """Hold no memory."""
        nn.Module.to(self.module, "meta")  # diffusers warns in its own `to`


class Streamed:
    """A backbone whose layers stay on the host and come one by one; all else comes and goes with it."""

    def __init__(self, backbone: Backbone, waiting: dict[str, Tensor], device: torch.device) -> None:
        self.outside = {
            "lm_head.weight": backbone.lm_head,
            "model.norm.weight": backbone.model.norm,
            EMBEDDING: backbone.model.word_embeddings,
        }
        self.device = device
        self.waiting = {name: waiting.pop(name) for name in self.outside}
        layers = list(backbone.model.layers)
        states = [_taken(waiting, f"model.layers.{number}.", device) for number in range(len(layers))]
        doors = [layer.get_submodule("input_layernorm") for layer in layers]
        self.stream = LayerStream(layers, states, device, doors=doors, end=backbone.model.norm)

    def come(self) -> None:
        """Bring all but the layers."""
        for name, module in self.outside.items():
            tensor = self.waiting[name]
            assign(module, {"weight": tensor if name == EMBEDDING else tensor.to(self.device)})

    def go(self) -> None:
        """Hold no memory of the device."""
        self.stream.clear()
        for module in self.outside.values():
            module.to("meta")


def settle(source: Unread, plan: Plan, device: torch.device) -> Parts:
    """The model of a source, held and placed as a plan says. Parts that the plan's task does not use are left out."""
    if is_process(device):
        return_freed()
    dtype = floats_of(plan.precision)
    source.hold(dtype, format_of(plan.precision))
    parts, used = source.parts, [need.name for need in plan.used if need.name in source.tensors]
    on_host = () if plan.machine.host is None else (EMBEDDING,)
    if plan.tiled:
        tile(parts.vae)
    if "retrieval" in source.tensors:  # small, and no part of any plan
        assign(parts.modules["retrieval"], source.state("retrieval", device, dtype))
    guests = dict[str, Guest]()
    for name in used:
        module, read = parts.modules[name], partial(source.state, name, dtype=dtype, on_host=on_host)
        if plan.residency == "resident":
            assign(module, read(device=device))
        elif plan.rereads:
            guests[name] = Whole(module, partial(read, device=device))
        elif plan.residency == "streamed" and isinstance(module, Backbone):
            guests[name] = Streamed(module, read(device="cpu"), device)
        else:
            guests[name] = Whole(module, partial(_copy, read(device="cpu"), device, on_host))
    left_out = [n for n in source.tensors if n not in used and n != "retrieval"]
    why = "left out, since the plan for this task does not need it; load the model for the task 'anything'"
    absent = {**parts.absent, **{name: f"{name}: {why}" for name in left_out}}
    residency: Turns = Staged(device, guests) if guests else Resident(device)
    return replace(parts, absent=absent, residency=residency)


def _copy(waiting: State, device: torch.device, on_host: tuple[str, ...]) -> State:
    return {name: tensor if name in on_host else tensor.to(device) for name, tensor in waiting.items()}


def _taken(waiting: dict[str, Tensor], start: str, device: torch.device) -> State:
    """One layer's tensors, taken out; pinned for a GPU, which copies only from such memory while it works."""
    names = [name for name in waiting if name.startswith(start)]
    taken = ((name.removeprefix(start), waiting.pop(name)) for name in names)
    return {name: tensor.pin_memory() if device.type == "cuda" else tensor for name, tensor in taken}
