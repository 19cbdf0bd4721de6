"""A checkpoint is whole or it is not there: kills at every boundary, cut and rotten files, full disks."""

import json
import os
import random
import resource
import shutil
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save

from unveil.errors import TrainingError
from unveil.training.checkpoint import (
    Snapshot,
    newest_checkpoint,
    optimizer_tensors,
    read_checkpoint,
    restore_optimizer,
    save_checkpoint,
)

Writer = Callable[[Path, Snapshot], object]
BOUNDARIES = ("open", "replace", "fsync", "close", "mkdir", "rmdir", "unlink")


def snapshot(step: int, numbers: int = 50) -> Snapshot:
    values = torch.randn(numbers, generator=torch.Generator().manual_seed(step))
    return Snapshot(step, {"w": values}, {"w": values / 2}, {"0.step": torch.tensor(float(step))}, f"name: é{step}\n")


def same(a: Snapshot | None, b: Snapshot) -> bool:
    if a is None or (a.step, a.run) != (b.step, b.run):
        return False
    pairs = ((a.weights, b.weights), (a.average, b.average), (a.optimizer, b.optimizer))
    return all(x.keys() == y.keys() and all(torch.equal(x[k], y[k]) for k in y) for x, y in pairs)


def ours(directory: Path, value: Snapshot) -> object:
    return save_checkpoint(directory, value, keep=2)


def naive(directory: Path, value: Snapshot) -> object:
    """How one would write it in a hurry: in place, piece by piece, no manifest. Must fail what ours passes."""
    path = directory / f"step-{value.step:08d}"
    path.mkdir(parents=True, exist_ok=True)
    for name, tensors in (("weights", value.weights), ("average", value.average), ("optimizer", value.optimizer)):
        content = save(tensors)
        with (path / f"{name}.safetensors").open("wb", buffering=0) as file:
            for i in range(0, len(content), 100):
                file.write(content[i : i + 100])
                file.flush()
                os.fsync(file.fileno())
    (path / "run.yaml").write_text(value.run)


def naive_newest(directory: Path) -> Snapshot | None:
    """The reader that belongs to it: the highest number, whatever is inside."""
    from safetensors.torch import load

    path = max(directory.glob("step-*"))
    weights, average, optimizer = (
        load((path / f"{n}.safetensors").read_bytes()) for n in ("weights", "average", "optimizer")
    )
    return Snapshot(int(path.name[5:]), weights, average, optimizer, (path / "run.yaml").read_text())


def killed_at(boundary: int, write: Writer, directory: Path, value: Snapshot, *, after: bool) -> bool:
    """Run the writer in a child that is killed before (or after) its call number `boundary`; whether it was."""
    child = os.fork()
    if child == 0:
        calls = 0

        def guarded(name: str) -> Callable[..., object]:
            real = getattr(os, name)

            def call(*args: object, **kwargs: object) -> object:
                nonlocal calls
                calls += 1
                mine = calls == boundary
                if mine and not after:
                    os.kill(os.getpid(), signal.SIGKILL)
                result = real(*args, **kwargs)
                if mine:
                    os.kill(os.getpid(), signal.SIGKILL)
                return result

            return call

        for name in BOUNDARIES:
            setattr(os, name, guarded(name))
        real_open = Path.open

        def opened(self: Path, *args: object, **kwargs: object) -> object:
            os.close(os.open(os.devnull, os.O_RDONLY))  # counts as two boundaries before the file exists
            file = real_open(self, *args, **kwargs)
            os.close(os.open(os.devnull, os.O_RDONLY))  # and two with the file there, still empty
            return file

        Path.open = opened  # type: ignore[assignment,method-assign]
        try:
            write(directory, value)
        finally:
            os._exit(0)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def kills(write: Writer, newest: Callable[[Path], Snapshot | None], root: Path) -> tuple[int, int]:
    """Kill a save of step 30 at every boundary; how many kills there were, and after how many resuming fails."""
    bare, expected = root / "bare", [snapshot(20), snapshot(30)]
    for step in (10, 20):
        write(bare, snapshot(step))
    count = failed = 0
    for after in (False, True):
        for boundary in range(1, 10_000):
            directory = root / "killed"
            shutil.rmtree(directory, ignore_errors=True)
            shutil.copytree(bare, directory)
            if not killed_at(boundary, write, directory, snapshot(30), after=after):
                break
            count += 1
            try:
                found = newest(directory)
                write(directory, snapshot(40))
                whole = any(same(found, value) for value in expected) and same(newest(directory), snapshot(40))
                failed += not whole or any(directory.glob("*.tmp"))
            except Exception:
                failed += 1
    return count, failed


def test_a_save_killed_at_any_filesystem_boundary_resumes_from_a_whole_checkpoint(tmp_path: Path) -> None:
    count, failed = kills(ours, lambda d: newest_checkpoint(d)[0], tmp_path)
    assert count >= 50
    assert failed == 0


def test_the_kill_test_sees_that_a_naive_writer_loses_checkpoints(tmp_path: Path) -> None:
    count, failed = kills(naive, naive_newest, tmp_path)
    assert count >= 20
    assert failed >= count // 2


def test_everything_is_on_disk_before_the_rename_and_the_rename_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kill does not lose what the system holds in memory, a power cut does: so the order itself is checked."""
    trace: list[tuple[str, str]] = []
    fsync, replace = os.fsync, os.replace

    def spy_fsync(handle: int) -> None:
        trace.append(("sync", Path(os.readlink(f"/proc/self/fd/{handle}")).name))
        fsync(handle)

    def spy_replace(a: Path, b: Path) -> None:
        trace.append(("rename", Path(b).name))
        replace(a, b)

    monkeypatch.setattr(os, "fsync", spy_fsync)
    monkeypatch.setattr(os, "replace", spy_replace)
    save_checkpoint(tmp_path / "run", snapshot(10), keep=1)
    files = ["weights.safetensors", "average.safetensors", "optimizer.safetensors", "run.yaml"]
    assert trace == [
        *(("sync", name) for name in [*files, "manifest.json", "step-00000010.tmp"]),
        ("rename", "step-00000010"),
        ("sync", "run"),
    ]


def test_a_truncated_file_is_named_with_found_and_expected_size_and_the_older_checkpoint_is_taken(
    tmp_path: Path,
) -> None:
    for step in (10, 20):
        save_checkpoint(tmp_path, snapshot(step), keep=2)
    rng = random.Random(0)
    for file in sorted((tmp_path / "step-00000020").iterdir()):
        content = file.read_bytes()
        for cut in [0, len(content) - 1, *rng.choices(range(len(content)), k=20)]:
            file.write_bytes(content[:cut])
            with pytest.raises(TrainingError) as error:
                read_checkpoint(file.parent)
            assert str(file) in str(error.value)
            assert "earlier checkpoint" in str(error.value)
            assert file.name == "manifest.json" or f"{cut} bytes, expected {len(content)}" in str(error.value)
            found, passed = newest_checkpoint(tmp_path)
            assert same(found, snapshot(10)) and len(passed) == 1
        file.write_bytes(content)
    assert same(newest_checkpoint(tmp_path)[0], snapshot(20))


def test_three_hundred_single_bit_flips_are_found_or_harmless(tmp_path: Path) -> None:
    path, rng = save_checkpoint(tmp_path, snapshot(20), keep=2), random.Random(1)
    files = sorted(path.iterdir())
    harmless = 0
    for number in range(300):
        file = files[number % len(files)]
        content = file.read_bytes()
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        file.write_bytes(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
        try:
            harmless += 1
            assert same(read_checkpoint(path), snapshot(20)), f"{file.name}: byte {place}, bit {bit} passed"
        except TrainingError as error:
            harmless -= 1
            assert str(file) in str(error) or file.name == "manifest.json"
        file.write_bytes(content)
    assert harmless <= 3  # white space of the manifest


def test_safetensors_alone_would_not_see_the_flips(tmp_path: Path) -> None:
    from safetensors.torch import load

    content, rng = save({"w": torch.randn(500)}), random.Random(1)
    silent = 0
    for _ in range(100):
        place, bit = rng.randrange(len(content)), rng.randrange(8)
        try:
            load(content[:place] + bytes([content[place] ^ 1 << bit]) + content[place + 1 :])
            silent += 1
        except Exception:
            pass
    assert silent > 80


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"format": 2}, "converter"),
        ({"step": 21}, "does not describe"),
        ({"files": {}}, "does not describe"),
        ({"step": "20"}, "damaged"),
        ({"extra": 1}, "damaged"),
    ],
)
def test_a_manifest_that_says_something_else_is_refused(tmp_path: Path, change: dict[str, object], said: str) -> None:
    file = save_checkpoint(tmp_path, snapshot(20), keep=2) / "manifest.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | change))
    with pytest.raises(TrainingError, match=said):
        read_checkpoint(file.parent)


def test_only_the_newest_are_kept_and_a_damaged_later_one_never_crowds_out_a_whole_one(tmp_path: Path) -> None:
    for step in (10, 20, 30):
        save_checkpoint(tmp_path, snapshot(step), keep=2)
    assert sorted(p.name for p in tmp_path.iterdir()) == ["step-00000020", "step-00000030"]
    (tmp_path / "step-00000030" / "run.yaml").write_text("rotten")
    save_checkpoint(tmp_path, snapshot(25), keep=1)
    assert same(newest_checkpoint(tmp_path)[0], snapshot(25))


def test_no_checkpoint_is_none(tmp_path: Path) -> None:
    assert newest_checkpoint(tmp_path / "nowhere") == (None, [])


def _room(directory: Path) -> list[str]:
    return sorted(p.name for p in directory.iterdir())


@pytest.mark.parametrize("limit", [0, 100, 600, 1000])
def test_a_full_disk_fails_that_save_in_one_line_and_leaves_the_old_ones(tmp_path: Path, limit: int) -> None:
    save_checkpoint(tmp_path, snapshot(10, 500), keep=2)
    before, soft = _room(tmp_path), resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, soft[1]))
    try:
        with pytest.raises(TrainingError, match=r"step-00000020: checkpoint not written .* MB free") as error:
            save_checkpoint(tmp_path, snapshot(20, 500), keep=2)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, soft)
        signal.signal(signal.SIGXFSZ, handler)
    assert "\n" not in str(error.value)
    assert _room(tmp_path) == before
    assert same(newest_checkpoint(tmp_path)[0], snapshot(10, 500))
    save_checkpoint(tmp_path, snapshot(20, 500), keep=2)
    assert same(newest_checkpoint(tmp_path)[0], snapshot(20, 500))


def test_an_error_at_any_write_leaves_the_old_checkpoint_and_no_rest(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    save_checkpoint(tmp_path, snapshot(10), keep=2)
    real, calls, boundary = os.fsync, 0, 0

    def failing(handle: int) -> None:
        nonlocal calls
        calls += 1
        if calls == boundary:
            raise OSError(28, "No space left on device")
        real(handle)

    monkeypatch.setattr(os, "fsync", failing)
    for last in range(1, 7):  # five files and their directory, all before the rename
        calls, boundary = 0, last
        with pytest.raises(TrainingError, match="No space left"):
            save_checkpoint(tmp_path, snapshot(20), keep=2)
        assert _room(tmp_path) == ["step-00000010"]
        assert same(newest_checkpoint(tmp_path)[0], snapshot(10))


def test_the_optimizer_goes_to_flat_names_and_back() -> None:
    def trained(steps: int) -> tuple[torch.nn.Linear, torch.optim.AdamW]:
        torch.manual_seed(0)
        module = torch.nn.Linear(2, 2)
        optimizer = torch.optim.AdamW(module.parameters(), lr=0.1)
        for _ in range(steps):
            module(torch.ones(2)).sum().backward()
            optimizer.step()
        return module, optimizer

    _, source = trained(3)
    _, target = trained(0)
    tensors = optimizer_tensors(source)
    assert set(tensors) == {f"{i}.{f}" for i in (0, 1) for f in ("step", "exp_avg", "exp_avg_sq")}
    restore_optimizer(target, tensors)
    back = optimizer_tensors(target)
    assert all(torch.equal(back[name], value) for name, value in tensors.items())
