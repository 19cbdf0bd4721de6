"""Tensors as bytes of files: a new safetensors file is put together from pieces of others, nothing is computed."""

import json
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import BinaryIO, NamedTuple

from unveil.errors import WeightsError
from unveil.weights.tensors import REMEDY, WIDTHS, stored

_CHUNK = 1 << 22


class Piece(NamedTuple):
    """Consecutive bytes of a file."""

    file: Path
    begin: int
    bytes: int


class Joined(NamedTuple):
    """A tensor to be written: the bytes of its pieces, one after another."""

    dtype: str
    shape: tuple[int, ...]
    pieces: tuple[Piece, ...]

    @property
    def bytes(self) -> int:
        """How many it takes."""
        return sum(piece.bytes for piece in self.pieces)


Tensors = Mapping[str, Joined]


def read_pieces(files: Iterable[Path]) -> dict[str, Joined]:
    """Every tensor of the files, each as one piece."""
    return {
        name: Joined(entry.dtype, entry.shape, (Piece(file, entry.begin, entry.bytes),))
        for file in files
        for name, entry in stored(file).items()
    }


def write_pieces(file: Path, tensors: Tensors, begun: Callable[[], None]) -> None:
    """A safetensors file, in the order in which the library itself writes: wide numbers first, then by name."""
    begun()
    entries: dict[str, object] = {}
    end = 0
    ordered = sorted(tensors, key=lambda name: (-WIDTHS[tensors[name].dtype], name))
    for name in ordered:
        tensor = tensors[name]
        entries[name] = {"dtype": tensor.dtype, "shape": tensor.shape, "data_offsets": (end, end + tensor.bytes)}
        end += tensor.bytes
    text = json.dumps(entries, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for name in ordered:
            for piece in tensors[name].pieces:
                _copy(piece, out)


def _copy(piece: Piece, out: BinaryIO) -> None:
    """Append a piece. Raises WeightsError when its file has become shorter meanwhile."""
    with piece.file.open("rb") as stream:
        stream.seek(piece.begin)
        for begin in range(0, piece.bytes, _CHUNK):
            wanted = min(_CHUNK, piece.bytes - begin)
            if out.write(stream.read(wanted)) != wanted:
                raise WeightsError(f"{piece.file}: ended while it was read; {REMEDY}")
