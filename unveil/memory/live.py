"""How many bytes of tensors are alive at once while something runs, also on the meta device, where nothing is held."""

import weakref
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from torch.nn import functional as F
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only

from unveil.shapes import Tensor


def peak_bytes(run: Callable[[], object], held: Iterable[Tensor]) -> int:
    """The most bytes that tensors made by `run` occupy at one time; `held` are those from before, weights above all.

    A view counts once, with what it views. What a kernel takes and gives back inside one operation is not seen, save
    that a convolution is taken to repack weight and result, as it does on the CPU.
    Attention counts its result alone: fused kernels hold no scores. Where one is not taken (it may not be, with a mask
    on some devices) this is too little. On the meta device, which knows no numbers, every expert gets equally many.
    """
    live = _Live(held)
    with torch.no_grad(), _Known(), live:  # inference mode would hide what composite operations do
        run()
    return live.peak


class _Live(TorchDispatchMode):
    """Adds up the storages that are alive."""

    def __init__(self, held: Iterable[Tensor]) -> None:
        super().__init__()
        self.known = {tensor.untyped_storage()._cdata for tensor in held}
        self.now = self.peak = 0
        self.seen = dict[object, tuple[Any, ...]]()  # shape, strides, dtype of results, by what was given

    def __torch_dispatch__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """Run the operation and count what it made."""
        made = self._made(func, args, kwargs or {})
        if isinstance(made, torch.Tensor):
            self._born(made)
        else:
            tree_map_only(torch.Tensor, self._born, made)
        if func is torch.ops.aten.convolution.default:
            self.peak = max(self.peak, self.now + args[1].nbytes + made.nbytes)
        return made

    def _made(self, func: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """What an operation gives. On the meta device that follows from shapes, so it is worked out once for each."""
        if func._schema.is_mutable or any(each.alias_info for each in func._schema.returns):
            return func(*args, **kwargs)
        key = (func, _shapes(args, func), _shapes(tuple(kwargs.items()), func))
        if (before := self.seen.get(key)) is not None:
            return torch.empty_strided(*before[:2], dtype=before[2], device="meta")
        made = func(*args, **kwargs)
        if isinstance(made, torch.Tensor) and made.is_meta:
            self.seen[key] = (made.shape, made.stride(), made.dtype)
        return made

    def _born(self, tensor: Tensor) -> None:
        storage = tensor.untyped_storage()
        if storage._cdata not in self.known:
            self.known.add(storage._cdata)
            self.now += storage.nbytes()
            self.peak = max(self.peak, self.now)
            weakref.finalize(storage, self._gone, storage._cdata, storage.nbytes()).atexit = False

    def _gone(self, key: int, size: int) -> None:
        self.known.discard(key)
        self.now -= size


def _shapes(value: Any, func: Any) -> object:
    """All that decides the shape of a result; in operations number by number the value of a number does not."""
    if isinstance(value, torch.Tensor):
        return value.dtype, value.shape, value.stride(), value.device
    if isinstance(value, list | tuple):
        return tuple(_shapes(inner, func) for inner in value)
    counts = isinstance(value, int | float) and torch.Tag.pointwise in func.tags
    return type(value), None if counts else value


class _Known(TorchFunctionMode):
    """Stands in for two functions: attention, and how often each expert was chosen."""

    def __torch_function__(
        self, func: Any, types: Sequence[type], args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        """The stand-in or the function itself."""
        if func is F.scaled_dot_product_attention:
            return _attention(args[0], args[2])
        if func is torch.bincount and args[0].is_meta:
            return _evenly(args[0].numel(), (kwargs or {})["minlength"])
        return func(*args, **(kwargs or {}))


def _attention(q: Tensor, v: Tensor) -> Tensor:
    """A result of the shape and layout that fused kernels give: (B, H, L, head), heads beside each other in memory."""
    batch, heads, length, _ = q.shape
    return q.new_empty(batch, length, heads, v.shape[-1]).transpose(1, 2)


def _evenly(total: int, parts: int) -> Tensor:
    return torch.tensor([total // parts + (i < total % parts) for i in range(parts)])
