"""One safetensors file: opened without trust, compared with what a module expects, read tensor by tensor."""

import json
import math
from collections.abc import Collection, Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

import torch
from safetensors import SafetensorError, safe_open
from torch import nn

from unveil.errors import WeightsError
from unveil.shapes import Tensor
from unveil.weights.fp8 import FLOAT8, SCALE, expected_factors, multiplied

REMEDY = "copy or download it again"
LONGEST_HEADER = 10_000_000
"""Bytes; the largest released header has a tenth of that."""
WIDTHS = {"BOOL": 1, "U8": 1, "I8": 1, "F8_E4M3": 1, "F8_E5M2": 1, "I16": 2, "U16": 2, "F16": 2, "BF16": 2}
WIDTHS |= {"I32": 4, "U32": 4, "F32": 4, "I64": 8, "U64": 8, "F64": 8}
"""Bytes of one number, by the dtypes that are known here."""
_FLOATS = {"F64", "F32", "F16", "BF16"}
_NOT_HEADERS = {b"PK\x03\x04": "a zip archive, as torch files are", b"\x80": "a pickle"}
_ALWAYS_FLOAT32 = ("expert_bias",)  # the router adds it to float32 scores; rounding it changes which experts are chosen


class Stored(NamedTuple):
    """What a header says of one tensor."""

    dtype: str
    shape: tuple[int, ...]
    bytes: int
    begin: int  # offset of its first byte in the file

    @property
    def parameters(self) -> int:
        """How many numbers it holds."""
        return math.prod(self.shape)


def shapes(module: nn.Module) -> dict[str, tuple[int, ...]]:
    """Name and shape of everything a module stores."""
    return {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}


def header(file: Path, scaled: Collection[str] = ()) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor in the file. Raises WeightsError also for a tensor that is not of floats.

    `scaled` are the weights that have factors, here or elsewhere (`unveil.weights.fp8`): those, and only those, must be
    of float8.
    """
    held = stored(file)
    wrong = [
        f"{file}: {name} is {entry.dtype}, expected {FLOAT8 if name in scaled else 'floats'}"
        for name, entry in held.items()
        if entry.dtype not in ({FLOAT8} if name in scaled else _FLOATS)
    ]
    if wrong:
        raise WeightsError("; ".join(wrong))
    return {name: entry.shape for name, entry in held.items()}


def stored(file: Path) -> dict[str, Stored]:
    """What the header says of every tensor in the file, without reading any.

    Raises WeightsError naming the file, its size, what is wrong and the remedy, unless the header is one, the tensors
    fill the rest of the file without gap or overlap, and each has the bytes that its shape takes.
    """
    file = Path(file)
    try:
        size = file.stat().st_size
        end, entries = _parse(file, size)
    except FileNotFoundError:
        raise WeightsError(f"{file}: missing; {REMEDY}") from None
    except OSError as error:
        raise WeightsError(f"{file}: cannot be read ({error.strerror})") from None
    except ValueError as error:
        raise WeightsError(f"{file}: {size} bytes without a safetensors header ({error}); {REMEDY}") from None
    reached = 0
    for name, (entry, begin, stop) in sorted(entries.items(), key=lambda item: item[1][1:]):
        if (begin, stop) != (reached, reached + entry.bytes):
            where = f"lies at bytes {begin} to {stop}, expected {reached} to {reached + entry.bytes}"
            raise WeightsError(f"{file}: damaged, {name} {where}; {REMEDY}")
        reached = stop
    if size != end + reached:
        raise WeightsError(f"{file}: damaged, expected {end + reached} bytes, found {size}; {REMEDY}")
    return {name: entry._replace(begin=end + begin) for name, (entry, begin, _) in entries.items()}


def file_misfits(module: nn.Module, file: Path) -> list[str]:
    """Every difference between what a module stores and what a file holds, factors of float8 weights included."""
    expected, found = shapes(module), {name: entry.shape for name, entry in stored(file).items()}
    factors = expected_factors(expected, found)
    return misfits(expected | factors, header(file, {name.removesuffix(SCALE) for name in factors}), file)


def misfits(expected: Mapping[str, tuple[int, ...]], found: Mapping[str, tuple[int, ...]], file: Path) -> list[str]:
    """Every difference between the tensors expected and those found: missing, extra or of another shape."""
    missing = [f"{file}: {n} is missing, expected {_show(s)}" for n, s in expected.items() if n not in found]
    extra = [f"{file}: {n} {_show(s)} is not expected" for n, s in found.items() if n not in expected]
    shared = [n for n in expected if n in found and expected[n] != found[n]]
    return missing + extra + [f"{file}: {n} is {_show(found[n])}, expected {_show(expected[n])}" for n in shared]


def read_tensors(
    file: Path, device: torch.device | str, dtype: torch.dtype, factors: Mapping[str, Tensor] | None = None
) -> Iterator[tuple[str, Tensor]]:
    """Every weight of the file on the device, cast to `dtype`, those with factors multiplied out.

    Raises WeightsError at the first NaN or infinity.
    """
    factors = {} if factors is None else factors
    try:
        with safe_open(file, framework="pt", device=str(device)) as opened:
            for name in opened.keys():  # noqa: SIM118  (not a mapping)
                if name.endswith(SCALE):
                    continue
                tensor = opened.get_tensor(name)
                tensor = multiplied(tensor, factors[name]) if name in factors else tensor
                yield name, _cast(name, tensor, dtype, file)
    except (SafetensorError, OSError) as error:
        raise WeightsError(f"{file}: damaged ({error}), {_size(file)} bytes; {REMEDY}") from None


def target_dtype(name: str, dtype: torch.dtype) -> torch.dtype:
    """The precision a tensor is held in when its model is held in `dtype`."""
    return torch.float32 if name.endswith(_ALWAYS_FLOAT32) else dtype


def _cast(name: str, tensor: Tensor, dtype: torch.dtype, file: Path) -> Tensor:
    if not bool(torch.isfinite(tensor).all()):
        raise WeightsError(f"{file}: {name} holds NaN or infinity; {REMEDY}")
    return tensor.to(target_dtype(name, dtype))


def _parse(file: Path, size: int) -> tuple[int, dict[str, tuple[Stored, int, int]]]:
    """Offset of the first data byte, and each tensor with its first and last offset from there.

    Raises ValueError with the reason when that is no header.
    """
    with file.open("rb") as stream:
        begin = stream.read(8)
        length = int.from_bytes(begin, "little")
        if len(begin) < 8:
            raise ValueError("shorter than 8 bytes")
        if not 2 <= length <= min(LONGEST_HEADER, size - 8):
            kinds = [kind for magic, kind in _NOT_HEADERS.items() if begin.startswith(magic)]
            limit = f"a header of {length} bytes in {size}, at most {LONGEST_HEADER} are read"
            raise ValueError(kinds[0] if kinds else limit)
        text = stream.read(length)
    try:
        data = json.loads(text.decode("utf-8"), object_pairs_hook=once)
    except KeyError as twice:
        raise ValueError(f"{twice} stands there twice") from None
    except RecursionError:
        raise ValueError("nested too deeply") from None
    except ValueError:
        raise ValueError("not JSON") from None
    if not isinstance(data, dict):
        raise ValueError("not a JSON object")
    return 8 + length, {name: _entry(name, value) for name, value in data.items() if name != "__metadata__"}


def _entry(name: str, value: object) -> tuple[Stored, int, int]:
    """One tensor of the header with its offsets. Raises ValueError when it is none."""
    if not name.isprintable() or len(name) > 200:
        raise ValueError("a tensor's name cannot be printed")
    match value:
        case {"dtype": str(dtype), "shape": list(shape), "data_offsets": [begin, stop]} if all(
            type(n) is int and n.bit_length() < 64 for n in (*shape, begin, stop)
        ):
            if dtype not in WIDTHS:
                raise ValueError(f"{name} is {dtype[:40]}, a dtype not known here")
            if min(shape, default=0) >= 0 and len(shape) <= 8:
                return Stored(dtype, tuple(shape), math.prod(shape) * WIDTHS[dtype], 0), begin, stop
    raise ValueError(f"{name} is no tensor")


def once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    """A JSON object of which no key stands twice: readers disagree on which one counts. Raises KeyError."""
    found = dict(pairs)
    if len(found) < len(pairs):
        names = [name for name, _ in pairs]
        raise KeyError(next(name for name in found if names.count(name) > 1))
    return found


def _size(file: Path) -> int:
    return file.stat().st_size if file.exists() else 0


def _show(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape)) or "scalar"
