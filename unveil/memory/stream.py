"""Layers that lie on the host and come to the device one after another, each while the one before it works."""

from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from functools import partial

import torch
from torch import nn

from unveil.shapes import Tensor
from unveil.weights.read import assign

State = Mapping[str, Tensor]


class LayerStream:
    """Brings each layer when its turn comes and takes the one before it away; at most two are on the device.

    A layer's turn begins when its door is called (the module in it that works first), and the last one's ends when
    `end` is. Whole layers, not experts: every look visits nearly all experts of a layer. On a CUDA device the next one
    is copied in a stream of its own; it is asked for only when the layer before the present one is done, so that the
    memory of that one is free.
    """

    def __init__(
        self,
        layers: Sequence[nn.Module],
        states: Sequence[State],
        device: torch.device,
        *,
        doors: Sequence[nn.Module],
        end: nn.Module,
    ) -> None:
        self.layers, self.states, self.device = layers, states, device
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.coming = dict[int, State]()
        self.present: int | None = None
        for number, door in enumerate(doors):
            door.register_forward_pre_hook(partial(self._arrive, number))
        end.register_forward_pre_hook(self._end)

    def clear(self) -> None:
        """Let go of the layer that is here and of the one on its way."""
        self.coming.clear()
        self._leave()

    def _arrive(self, number: int, door: nn.Module, given: object) -> None:
        if number == self.present:
            return
        if self.side is not None:
            torch.cuda.current_stream(self.device).synchronize()
        self._leave()
        if number not in self.coming:
            self.coming.clear()
            self._fetch(number)
        if self.side is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side)
        assign(self.layers[number], self.coming.pop(number))
        self.present = number
        self._fetch((number + 1) % len(self.layers))

    def _end(self, end: nn.Module, given: object) -> None:
        if self.side is not None:
            torch.cuda.current_stream(self.device).synchronize()
        self._leave()

    def _leave(self) -> None:
        if self.present is not None:
            self.layers[self.present].to("meta")
            self.present = None

    def _fetch(self, number: int) -> None:
        with nullcontext() if self.side is None else torch.cuda.stream(self.side):
            state = self.states[number].items()
            self.coming[number] = {n: tensor.to(self.device, non_blocking=True, copy=True) for n, tensor in state}
