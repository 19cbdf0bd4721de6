"""Checkpoints that survive a kill at any moment: written aside, checked by a manifest, renamed into place."""

import json
import os
import re
import shutil
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors.torch import load, save

from unveil.config.tree import Config
from unveil.errors import TrainingError

FORMAT = 1
_NAME = re.compile(r"step-(\d+)$")
_FILES = ("weights.safetensors", "average.safetensors", "optimizer.safetensors", "run.yaml")


class _File(Config):
    """What the manifest says of one file."""

    bytes: int
    crc32: int


class _Manifest(Config):
    """What `manifest.json` holds; written last, so a checkpoint without it is not complete."""

    format: int
    step: int
    files: dict[str, _File]


@dataclass(frozen=True)
class Snapshot:
    """All that a run needs to go on bit for bit: weights, their running mean, optimizer tensors, and the step."""

    step: int
    weights: dict[str, torch.Tensor]
    average: dict[str, torch.Tensor]
    optimizer: dict[str, torch.Tensor]
    run: str  # the run's configuration as YAML; resuming says when it has changed


def save_checkpoint(directory: Path, snapshot: Snapshot, keep: int) -> Path:
    """Write `directory/step-N`, then drop all but the newest `keep`.

    Raises TrainingError naming the checkpoint and the space left if it cannot; older ones are then untouched.
    """
    final = directory / f"step-{snapshot.step:08d}"
    temporary = final.with_suffix(".tmp")
    try:
        shutil.rmtree(temporary, ignore_errors=True)
        temporary.mkdir(parents=True)
        files = {}
        for name, content in _contents(snapshot):
            _write_synced(temporary / name, content)
            files[name] = _File(bytes=len(content), crc32=zlib.crc32(content))
        manifest = _Manifest(format=FORMAT, step=snapshot.step, files=files)
        _write_synced(temporary / "manifest.json", manifest.model_dump_json(indent=1).encode())
        _sync_directory(temporary)
        shutil.rmtree(final, ignore_errors=True)
        os.replace(temporary, final)
        _sync_directory(directory)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        free = shutil.disk_usage(directory).free if directory.exists() else 0
        raise TrainingError(f"{final}: checkpoint not written ({error}; {free / 1e6:.0f} MB free)") from None
    _prune(directory, final, keep)
    return final


def newest_checkpoint(directory: Path) -> tuple[Snapshot | None, list[str]]:
    """The newest complete checkpoint (None if there is none), and a line for each damaged one that was passed over."""
    found = sorted((p for p in directory.glob("step-*") if _NAME.search(p.name)), reverse=True)
    passed: list[str] = []
    for path in found:
        try:
            return read_checkpoint(path), passed
        except TrainingError as error:
            passed.append(str(error))
    return None, passed


def read_checkpoint(path: Path) -> Snapshot:
    """Read and check one checkpoint. Raises TrainingError naming the file, expected and actual."""
    content = {}
    manifest = _read_manifest(path)
    for name, expected in manifest.files.items():
        file = path / name
        data = file.read_bytes() if file.is_file() else b""
        if len(data) != expected.bytes:
            raise TrainingError(f"{file}: {len(data)} bytes, expected {expected.bytes}; use an earlier checkpoint")
        if zlib.crc32(data) != expected.crc32:
            raise TrainingError(f"{file}: checksum differs from manifest.json; use an earlier checkpoint")
        content[name] = data
    weights, average, optimizer, run = (content[name] for name in _FILES)
    return Snapshot(manifest.step, load(weights), load(average), load(optimizer), run.decode())


def optimizer_tensors(optimizer: torch.optim.Optimizer) -> dict[str, torch.Tensor]:
    """The optimizer's state as flat names: `<parameter index>.<field>`."""
    state = optimizer.state_dict()["state"]
    return {f"{index}.{name}": torch.as_tensor(v) for index, fields in state.items() for name, v in fields.items()}


def restore_optimizer(optimizer: torch.optim.Optimizer, tensors: Mapping[str, torch.Tensor]) -> None:
    """Inverse of `optimizer_tensors`. Raises ValueError for the state of parameters that learned otherwise."""
    state: dict[int, dict[str, torch.Tensor]] = {}
    for name, tensor in tensors.items():
        index, field = name.split(".", 1)
        state.setdefault(int(index), {})[field] = tensor
    means = ["momentum" if g.get("orthogonal") else "exp_avg" for g in optimizer.param_groups for _ in g["params"]]
    parameters = [parameter for group in optimizer.param_groups for parameter in group["params"]]
    for number, fields in state.items():
        mean = fields.get(means[number])
        if mean is None or mean.shape != parameters[number].shape:
            raise ValueError("optim.orthogonal or optim.slow has changed")
    optimizer.load_state_dict({"state": state, "param_groups": optimizer.state_dict()["param_groups"]})


def _contents(snapshot: Snapshot) -> list[tuple[str, bytes]]:
    tensors = (snapshot.weights, snapshot.average, snapshot.optimizer)
    return list(zip(_FILES, [*(save(_plain(t)) for t in tensors), snapshot.run.encode()], strict=True))


def _plain(tensors: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: t.detach().cpu().contiguous() for name, t in tensors.items()}


def _read_manifest(path: Path) -> _Manifest:
    """The manifest, checked: it is not covered by a checksum itself, so nothing in it is taken on trust."""
    file = path / "manifest.json"
    try:
        data = json.loads(file.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise TrainingError(f"{file}: no readable manifest ({error}); use an earlier checkpoint") from None
    if isinstance(data, dict) and data.get("format", FORMAT) != FORMAT:
        raise TrainingError(f"{file}: not a checkpoint of format {FORMAT}; it needs a converter")
    try:
        manifest = _Manifest.model_validate(data, strict=True)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"]))
        raise TrainingError(f"{file}: damaged ({where}: {first['msg']}); use an earlier checkpoint") from None
    named = _NAME.search(path.name)
    if set(manifest.files) != set(_FILES) or named is None or int(named[1]) != manifest.step:
        found = f"step {manifest.step}, files {', '.join(manifest.files)}"
        raise TrainingError(f"{file}: does not describe {path.name} ({found}); use an earlier checkpoint")
    return manifest


def _write_synced(path: Path, content: bytes) -> None:
    with path.open("wb") as file:
        file.write(content)
        file.flush()
        os.fsync(file.fileno())


def _sync_directory(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _prune(directory: Path, newest: Path, keep: int) -> None:
    """Drop all but the last `keep` up to `newest`; later ones were passed over as damaged and count for nothing."""
    found = sorted(p for p in directory.glob("step-*") if _NAME.search(p.name) and p.name <= newest.name)
    for old in found[:-keep]:
        shutil.rmtree(old, ignore_errors=True)
    for left in directory.glob("step-*.tmp"):
        shutil.rmtree(left, ignore_errors=True)
