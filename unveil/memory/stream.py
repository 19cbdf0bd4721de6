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
    """Brings each layer when it is called and takes it away again; at most two are on the device.

    Whole layers, not experts: every look visits nearly all experts of a layer. On a CUDA device the next layer is
    copied in a stream of its own; it is asked for only when the layer before the present one is done, so that the
    memory of that one is free.
    """

    def __init__(self, layers: Sequence[nn.Module], states: Sequence[State], device: torch.device) -> None:
        self.layers, self.states, self.device = layers, states, device
        self.side = torch.cuda.Stream(device) if device.type == "cuda" else None
        self.coming = dict[int, State]()
        for number, layer in enumerate(layers):
            layer.register_forward_pre_hook(partial(self._arrive, number))
            layer.register_forward_hook(partial(self._leave, number))

    def clear(self) -> None:
        """Forget the layer that is on its way."""
        self.coming.clear()

    def _arrive(self, number: int, layer: nn.Module, given: object) -> None:
        if self.side is not None:
            torch.cuda.current_stream(self.device).synchronize()
        if number not in self.coming:
            self.clear()
            self._fetch(number)
        if self.side is not None:
            torch.cuda.current_stream(self.device).wait_stream(self.side)
        assign(layer, self.coming.pop(number))
        self._fetch((number + 1) % len(self.layers))

    def _leave(self, number: int, layer: nn.Module, given: object, made: object) -> None:
        layer.to("meta")

    def _fetch(self, number: int) -> None:
        with nullcontext() if self.side is None else torch.cuda.stream(self.side):
            state = self.states[number].items()
            self.coming[number] = {n: tensor.to(self.device, non_blocking=True, copy=True) for n, tensor in state}
