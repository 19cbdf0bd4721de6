"""One safetensors file: opened without trust, compared with what a module expects, read tensor by tensor."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from unveil.errors import WeightsError
from unveil.shapes import Tensor

REMEDY = "copy or download it again"
_LONGEST_HEADER = 100_000_000
_FLOATS = {"F64", "F32", "F16", "BF16"}
_ALWAYS_FLOAT32 = ("expert_bias",)  # the router adds it to float32 scores; rounding it changes which experts are chosen


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything a module stores."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def header(file: Path) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the file. Raises WeightsError naming the file, its size and the remedy."""
    return {name: tuple(entry["shape"]) for name, entry in _entries(Path(file)).items()}


def misfits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], file: Path) -> list[str]:
    """Every difference between the tensors expected and those found: missing, extra or of another shape."""
    missing = [f"{file}: {n} is missing, expected {_show(s)}" for n, s in expected.items() if n not in found]
    extra = [f"{file}: {n} {_show(s)} is not expected" for n, s in found.items() if n not in expected]
    shared = [n for n in expected if n in found and expected[n] != found[n]]
    return missing + extra + [f"{file}: {n} is {_show(found[n])}, expected {_show(expected[n])}" for n in shared]


def read_tensors(file: Path, device: torch.device | str, dtype: torch.dtype) -> Iterator[tuple[str, Tensor]]:
    """Every tensor of the file on the device, cast to `dtype`. Raises WeightsError at the first NaN or infinity."""
    try:
        with safe_open(file, framework="pt", device=str(device)) as opened:
            for name in opened.keys():  # noqa: SIM118  (not a mapping)
                yield name, _cast(name, opened.get_tensor(name), dtype, file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: damaged ({error}), {_size(file)} bytes; {REMEDY}") from None


def target_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The precision a tensor is held in when its model is held in `dtype`."""
    return torch.float32 if name.endswith(_ALWAYS_FLOAT32) else dtype


def _cast(name: str, tensor: Tensor, dtype: torch.dtype, file: Path) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsError(f"{file}: {name} holds NaN or infinity; {REMEDY}")
    return tensor.to(target_dtype(name, dtype))


def _entries(file: Path) -> dict[str, dict[str, Any]]:
    """The header's entries, after the file's size was found to be what the header declares."""
    try:
        size, entries = file.stat().st_size, _parse(file)
        declared = max((e["data_offsets"][1] for e in entries.values()), default=0) + _header_end(file)
        wrong = [f"{file}: {n} is {e['dtype']}, expected floats" for n, e in entries.items() if not _is_floats(e)]
    except FileNotFoundError:
        raise WeightsError(f"{file}: missing; {REMEDY}") from None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from None
    except (ValueError, KeyError, TypeError, AttributeError, IndexError, RecursionError, OverflowError):
        raise WeightsError(f"{file}: {_size(file)} bytes without a safetensors header; {REMEDY}") from None
    if size != declared:
        raise WeightsError(f"{file}: damaged, expected {declared} bytes, found {size}; {REMEDY}")
    if wrong:
        raise WeightsError("; ".join(wrong))
    return entries


def _is_floats(entry: Mapping[str, object]) -> bool:
    """Whether the entry is a float tensor; ValueError when it is no entry at all."""
    shape = entry["shape"]
    if not isinstance(shape, list) or not all(isinstance(n, int) and n >= 0 for n in shape):
        raise ValueError("not a shape")
    return entry["dtype"] in _FLOATS


def _header_end(file: Path) -> int:
    """Offset of the first data byte: 8 bytes hold the header's length. ValueError when that cannot be."""
    with file.open("rb") as stream:
        length = int.from_bytes(stream.read(8), "little")
    if not 2 <= length <= min(_LONGEST_HEADER, file.stat().st_size - 8):
        raise ValueError("no header")
    return 8 + length


def _parse(file: Path) -> dict[str, dict[str, Any]]:
    """The JSON header without its metadata."""
    end = _header_end(file)
    with file.open("rb") as stream:
        stream.seek(8)
        entries = json.loads(stream.read(end - 8).decode("utf-8"))
    return {name: entry for name, entry in entries.items() if name != "__metadata__"}


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
