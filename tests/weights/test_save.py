"""Saving: all or nothing, whatever the disk does."""

import errno
import json
import os
import resource
import shutil
from pathlib import Path

import pytest
import torch

from unveil.errors import WeightsError
from unveil.weights import save as saving
from unveil.weights.read import Parts, load
from unveil.weights.save import save, save_part, write_files


def contents(directory: Path) -> dict[str, bytes]:
    """Every file by name."""
    return {file.name: file.read_bytes() for file in directory.iterdir()}


def test_equal_models_give_equal_bytes(parts: Parts, directory: Path, tmp_path: Path) -> None:
    save(load(directory), tmp_path / "again")
    assert contents(tmp_path / "again") == contents(directory)


def test_half_precision_halves_the_file_and_keeps_the_router_bias(parts: Parts, directory: Path) -> None:
    whole = (directory / "backbone.safetensors").stat().st_size
    save(parts, directory, torch.bfloat16)
    assert (directory / "backbone.safetensors").stat().st_size < 0.6 * whole
    name = "model.layers.1.mlp.gate.expert_bias"
    loaded = load(directory, verify=True).backbone.state_dict()
    assert torch.equal(loaded[name], parts.backbone.state_dict()[name])
    assert torch.equal(loaded["lm_head.weight"], parts.backbone.lm_head.weight.bfloat16().float())


def test_saving_one_part_replaces_it_and_its_entry(parts: Parts, directory: Path) -> None:
    before = contents(directory)
    save_part(torch.nn.Linear(2, 2), directory / "retrieval.safetensors")
    after = contents(directory)
    assert {name for name in after if after[name] != before.get(name)} == {"manifest.json", "retrieval.safetensors"}
    assert set(json.loads(after["manifest.json"])["files"]) == set(after) - {"manifest.json", "config.yaml"}


def test_a_model_without_retrieval_leaves_no_old_one_behind(parts: Parts, directory: Path) -> None:
    save_part(torch.nn.Linear(2, 2), directory / "retrieval.safetensors")
    save(parts, directory)
    assert "retrieval.safetensors" not in contents(directory)
    assert load(directory, verify=True).retrieval is None


def test_saved_files_are_readable_by_whom_the_umask_allows(directory: Path) -> None:
    mask = os.umask(0)
    os.umask(mask)
    assert {file.stat().st_mode & 0o777 for file in directory.iterdir()} == {0o666 & ~mask}


def test_a_full_disk_is_one_error_with_both_sizes_and_the_old_model_stays(
    parts: Parts, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = contents(directory)
    usage = shutil.disk_usage(directory)._replace(free=1000)
    monkeypatch.setattr(saving.shutil, "disk_usage", lambda path: usage)
    with pytest.raises(WeightsError, match=r"not enough space.*needed \d+ bytes, free 1000 bytes"):
        save(parts, directory)
    assert contents(directory) == before


@pytest.mark.parametrize("k", range(9))
def test_a_disk_that_fails_at_any_write_leaves_the_old_model_whole(
    parts: Parts, directory: Path, monkeypatch: pytest.MonkeyPatch, k: int
) -> None:
    before, calls, sync = contents(directory), [0], os.fsync

    def failing(handle: int) -> None:
        calls[0] += 1
        if calls[0] > k:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(handle)

    monkeypatch.setattr(saving.os, "fsync", failing)
    changed = Parts(**{**vars(parts), "config": parts.config.model_copy(update={"name": "other"})})
    with pytest.raises(WeightsError, match="No space left on device"):
        save(changed, directory)
    after = contents(directory)
    assert (after == before) if k < 8 else (set(after) == set(before))  # the 9th sync comes after the renames
    monkeypatch.undo()
    assert load(directory, verify=True).config.name == (parts.config.name if k < 8 else "other")


def test_a_real_file_size_limit_leaves_the_old_model_whole(parts: Parts, directory: Path) -> None:
    before = contents(directory)
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (len(before["backbone.safetensors"]) // 2, hard))
    try:
        with pytest.raises(WeightsError, match=r"File too large.*needed \d+ bytes, free \d+ bytes"):
            save(parts, directory)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert contents(directory) == before


def test_a_crash_between_two_renames_cannot_pass_for_a_whole_model(
    parts: Parts, directory: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    moved, replace = [], os.replace

    def crash(source: Path, target: Path) -> None:
        if moved:
            raise KeyboardInterrupt
        moved.append(target)
        replace(source, target)

    monkeypatch.setattr(saving.os, "replace", crash)
    with pytest.raises(KeyboardInterrupt):
        save(parts, directory, torch.bfloat16)
    assert len(moved) == 1
    with pytest.raises(WeightsError, match=r"manifest.json: missing"):
        load(directory)


def test_a_place_that_cannot_be_written_is_one_error(parts: Parts, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(WeightsError, match="cannot be written"):
        save(parts, tmp_path / "file" / "model")


def test_nothing_is_renamed_when_a_later_writer_fails(tmp_path: Path) -> None:
    def fails(file: Path) -> None:
        raise OSError("broken")

    (tmp_path / "a").write_text("old")
    with pytest.raises(WeightsError, match="broken"):
        write_files(tmp_path, {"a": lambda file: file.write_text("new") and None, "b": fails}, needed=1)
    assert contents(tmp_path) == {"a": b"old"}
