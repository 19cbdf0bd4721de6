"""Write a model so that a crash or a full disk leaves the old one whole: temporary files, fsync, then renames."""

import os
import shutil
from collections.abc import Callable, Collection, Mapping
from contextlib import suppress
from pathlib import Path

import torch
from safetensors import SafetensorError
from safetensors.torch import save_file
from torch import nn

from unveil.config import dump
from unveil.errors import WeightsError
from unveil.shapes import Tensor
from unveil.weights.manifest import MANIFEST_FILE, to_json
from unveil.weights.names import CONFIG_FILE, PART_FILES, TOKENIZER_FILE
from unveil.weights.read import Parts
from unveil.weights.tensors import target_dtype

_SPARE = 1.1  # free space asked for, as a multiple of what will be written


def save(parts: Parts, path: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write all of a model into a directory that `load` reads; equal models give equal bytes.

    `dtype` is the precision on disk (float32 is exact; bfloat16 halves the size, router biases stay float32).
    Raises WeightsError with free and needed bytes when the disk is full; files there before are then untouched.
    """
    states = {PART_FILES[name]: _state(module, dtype) for name, module in parts.modules.items()}
    writers: dict[str, Callable[[Path], None]] = {name: tensor_writer(state) for name, state in states.items()}
    writers[TOKENIZER_FILE] = parts.text.save
    writers[CONFIG_FILE] = lambda file: _write_text(file, dump(parts.config))
    dropped = set(PART_FILES.values()) - set(states)
    write_files(Path(path), writers, needed=sum(map(_bytes, states.values())), dropped=dropped)


def save_part(module: nn.Module, file: Path, dtype: torch.dtype = torch.float32) -> None:
    """Write the weights of one module into one file, atomically, and bring the directory's manifest up to date."""
    state, file = _state(module, dtype), Path(file)
    write_files(file.parent, {file.name: tensor_writer(state)}, needed=_bytes(state))


def write_files(
    path: Path, writers: Mapping[str, Callable[[Path], None]], *, needed: int, dropped: Collection[str] = ()
) -> None:
    """Write files (relative name -> function that writes it) into a directory: all of them, or none.

    Everything is written and synced under temporary names before the first rename. The new manifest covers the new
    files and the weights there before, without the `dropped` ones, which are removed. Between the first rename and
    the last there is no manifest, so a crash in that moment cannot pass for a whole model.
    """
    temporary = {name: (path / name).with_name(f".{Path(name).name}.tmp") for name in (*writers, MANIFEST_FILE)}
    try:
        path.mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(path).free
        if free < needed * _SPARE:
            raise OSError("not enough space")
        for name, write in writers.items():
            temporary[name].parent.mkdir(exist_ok=True)
            write(temporary[name])
            _sync(temporary[name])
        _write_text(temporary[MANIFEST_FILE], to_json(_covered(path, temporary, dropped).items()))
        _sync(temporary[MANIFEST_FILE])
        for name in (MANIFEST_FILE, *dropped):
            (path / name).unlink(missing_ok=True)
        for name, file in temporary.items():
            os.replace(file, path / name)
        for directory in {file.parent for file in temporary.values()}:
            _sync(directory)
    except (OSError, SafetensorError) as error:
        raise WeightsError(_full(path, needed, error)) from None
    finally:
        for file in temporary.values():
            with suppress(OSError):  # there may be no directory at all
                file.unlink()


def _covered(path: Path, temporary: Mapping[str, Path], dropped: Collection[str]) -> dict[str, Path]:
    """What the manifest describes: weights and tokenizer, new ones under their temporary names; settings may change."""
    present = {file.name: file for file in (*path.glob("*.safetensors"), path / TOKENIZER_FILE) if file.is_file()}
    both = {**present, **temporary}
    return {name: file for name, file in both.items() if name not in {MANIFEST_FILE, CONFIG_FILE, *dropped}}


def _state(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    """What is written: contiguous tensors on the CPU in the precision of the file."""
    return {
        name: tensor.detach().to("cpu", target_dtype(name, dtype)).contiguous()
        for name, tensor in module.state_dict().items()
    }


def _bytes(state: Mapping[str, Tensor]) -> int:
    return sum(tensor.nbytes for tensor in state.values())


def tensor_writer(state: dict[str, Tensor]) -> Callable[[Path], None]:
    """A function that writes the tensors, readable by whom the umask allows (safetensors alone makes it private)."""

    def write(file: Path) -> None:
        file.touch()
        mode = file.stat().st_mode & 0o777
        save_file(state, file)
        file.chmod(mode)

    return write


def _write_text(file: Path, text: str) -> None:
    file.write_text(text, encoding="utf-8")


def _sync(path: Path) -> None:
    """Make sure a file, or the names in a directory, are on the disk."""
    if os.name == "nt" and path.is_dir():
        return  # Windows cannot sync a directory
    handle = os.open(path, os.O_RDONLY if path.is_dir() else os.O_RDWR)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _full(path: Path, needed: int, error: Exception) -> str:
    """The one line for a failed save."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    free = shutil.disk_usage(there).free
    return (
        f"{path}: cannot be written ({error}); needed {needed} bytes, free {free} bytes; "
        "no file there is half written; free some space or choose another place"
    )
