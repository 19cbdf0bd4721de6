"""Tensors as they come from files, one at a time, into what a module holds: cast, quantized, experts stacked.

Beyond what is held there is at no time more in memory than the one tensor that has just been read.
"""

from collections.abc import Collection, Iterable, Mapping

import torch
from torch import nn

from unveil.model.layers.quantized import QuantizedWeight, pack
from unveil.shapes import Tensor
from unveil.weights.names import place
from unveil.weights.tensors import target_dtype


def gather(
    module: nn.Module,
    tensors: Iterable[tuple[str, Tensor]],
    device: torch.device | str,
    dtype: torch.dtype,
    on_host: Collection[str] = (),
) -> dict[str, Tensor]:
    """The module's state dict on a device, out of tensors in the names of the release or in ours.

    The module, mostly on the meta device, says what is stacked and what is a `QuantizedWeight`; all else becomes
    `dtype`. Those in `on_host` stay there. Names and shapes have been checked before.
    """
    wanted, state = module.state_dict(), dict[str, Tensor]()

    def room(name: str, dtype: torch.dtype, expert: int | None) -> Tensor:
        """Memory for a tensor, or for its share of an expert."""
        if name not in state:
            state[name] = torch.empty(wanted[name].shape, dtype=dtype, device=device)
        return state[name] if expert is None else state[name][expert]

    for official, tensor in tensors:
        name, expert = place(official)
        if f"{name}.values" in wanted:
            weight = module.get_submodule(name)
            assert isinstance(weight, QuantizedWeight)
            values = room(f"{name}.values", weight.values.dtype, expert)
            pack(tensor.to(device), weight.form, values, room(f"{name}.scale", weight.scale.dtype, expert))
        elif expert is None:
            state[name] = tensor.to(target_dtype(name, dtype)).to("cpu" if name in on_host else device)
        else:
            room(name, dtype, expert).copy_(tensor)
        del tensor  # or it would stay until the next one is there
    return state


def assign(module: nn.Module, state: Mapping[str, Tensor]) -> None:
    """Make the tensors of a complete state dict the module's own, without a copy."""
    module.load_state_dict(state, strict=True, assign=True)
    held = [*module.named_parameters(), *module.named_buffers()]
    assert not [name for name, tensor in held if tensor.is_meta], "a module keeps a buffer that no file holds"
