"""Every file of a model directory against its manifest, byte by byte; and a manifest for one that came without."""

from collections.abc import Callable
from pathlib import Path

from unveil.errors import OutputError, WeightsError
from unveil.files import write_atomic
from unveil.weights.manifest import MANIFEST_FILE, Entry, Manifest, describe, is_inside, read_manifest
from unveil.weights.names import CONFIG_FILE
from unveil.weights.tensors import REMEDY

Heard = Callable[[str, int, int], None]  # what, MiB done, MiB in all


def verify(path: Path, heard: Heard) -> tuple[int, list[str]]:
    """How many files the manifest lists, and a line for each that is damaged, missing or not listed.

    Raises WeightsError when there is no manifest, or none that can be read.
    """
    path = Path(path)
    if not (path / MANIFEST_FILE).exists():
        raise WeightsError(
            f"{path / MANIFEST_FILE}: missing, so nothing says how the files should be; "
            f"to record them as they are now, run: unveil verify --write {path}"
        )
    listed, present = read_manifest(path).files, _present(path)
    described = _describe({name: file for name, file in present.items() if name in listed}, heard)
    problems = [p for name, entry in listed.items() if (p := _problem(path, name, entry, described.get(name)))]
    extra = [name for name in present if name not in listed]
    problems += [f"{path / n}: not in the manifest, {present[n].stat().st_size} bytes; remove it" for n in extra]
    return len(listed), problems


def write_manifest(path: Path, heard: Heard) -> int:
    """Record every file there as it is now, once; how many. Raises OutputError when there is a manifest already."""
    path = Path(path)
    target = path / MANIFEST_FILE
    if target.exists():
        raise OutputError(f"{target}: is there already; remove it first if you trust the files as they are now")
    files = _describe(_present(path), heard)
    lost = [name for name, entry in files.items() if isinstance(entry, str)]
    if lost or not files:
        raise OutputError(f"{path}: {', '.join(lost) or 'nothing there'} cannot be recorded; check your rights to read")
    held = {name: entry for name, entry in files.items() if isinstance(entry, Entry)}
    write_atomic(target, (Manifest(files=held).model_dump_json(indent=1) + "\n").encode())
    return len(held)


def record(path: Path, name: str) -> None:
    """Bring an existing manifest up to date with one file that was written after it."""
    target = path / MANIFEST_FILE
    if target.exists():
        files = {**read_manifest(path).files, name: describe(path / name)}
        write_atomic(target, (Manifest(files=files).model_dump_json(indent=1) + "\n").encode())


def _present(path: Path) -> dict[str, Path]:
    """Every file below a directory by its relative name, without hidden ones, the manifest and our own settings."""
    found = {file.relative_to(path).as_posix(): file for file in sorted(path.rglob("*")) if file.is_file()}
    unlisted = {MANIFEST_FILE, CONFIG_FILE}
    return {n: f for n, f in found.items() if n not in unlisted and not any(p[0] == "." for p in n.split("/"))}


def _describe(files: dict[str, Path], heard: Heard) -> dict[str, Entry | str]:
    """Size and checksums of each file, or why it cannot be read."""
    done, total = 0, sum(file.stat().st_size for file in files.values())
    described: dict[str, Entry | str] = {}
    for name, file in files.items():

        def tell(count: int, name: str = name) -> None:
            nonlocal done
            done += count
            heard(name, done >> 20, max(total >> 20, 1))

        try:
            described[name] = describe(file, tell)
        except OSError as error:
            described[name] = error.strerror or str(error)
    heard("", 1, 1)
    return described


def _problem(path: Path, name: str, expected: Entry, found: Entry | str | None) -> str | None:
    """What is wrong with a file that the manifest lists."""
    if not is_inside(name):
        return f"{path / MANIFEST_FILE}: entry '{name}' leads out of its directory"
    if found is None:
        return f"{path / name}: missing, expected {expected.bytes} bytes; {REMEDY}"
    if isinstance(found, str):
        return f"{path / name}: cannot be read ({found}), expected {expected.bytes} bytes"
    if found.bytes != expected.bytes:
        return f"{path / name}: damaged, expected {expected.bytes} bytes, found {found.bytes}; {REMEDY}"
    if found.sha256 != expected.sha256:
        return f"{path / name}: damaged, expected sha256 {expected.sha256}, found {found.sha256}; {REMEDY}"
    return None
