"""Files: a bad place is refused before the work, an output is whole or not there, a model's links stay inside."""

import os
from collections.abc import Collection
from contextlib import suppress
from pathlib import Path

from unveil.errors import OutputError, WeightsError


def check_target(path: Path, suffixes: Collection[str]) -> None:
    """Raise OutputError unless a file of one of these kinds can be written there."""
    if path.suffix.lower() not in suffixes:
        raise OutputError(f"{path}: must end in {' or '.join(sorted(suffixes))}")
    if not path.parent.is_dir():
        raise OutputError(f"{path}: there is no directory {path.parent}; make it first")
    if path.exists() and not path.is_file():
        raise OutputError(f"{path}: is not a file; choose another name")
    if not os.access(path.parent, os.W_OK):
        raise OutputError(f"{path}: the directory cannot be written to; choose another")


def check_directory(path: Path) -> None:
    """Raise OutputError unless there is a directory that can be written to, or one could be made there."""
    found = next(each for each in (path, *path.absolute().parents) if each.exists())
    if not found.is_dir():
        raise OutputError(f"{path}: {found} is not a directory; choose another place")
    if not os.access(found, os.W_OK):
        raise OutputError(f"{path}: {found} cannot be written to; choose another place")


def make_directory(path: Path) -> None:
    """A directory, and those above it. Raises OutputError when that cannot be."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"{path}: cannot be made ({error.strerror}); choose another place") from None


def write_atomic(path: Path, content: bytes) -> None:
    """Write a file under a temporary name, sync it, rename it: a crash or a full disk leaves what was there.

    Raises OutputError when it cannot be written.
    """
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        with temporary.open("wb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(temporary, path)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be saved ({reason}); free some space or choose another place") from None
    finally:
        with suppress(OSError):
            temporary.unlink()


def check_links(directory: Path) -> None:
    """Raise WeightsError when anything in a model's directory is a link to outside it, before anything is read."""
    for found in sorted([*directory.glob("*"), *directory.glob("*/*")]):  # no model's files lie deeper
        if found.is_symlink():
            check_inside(found, directory)


def check_inside(file: Path, directory: Path) -> None:
    """Raise WeightsError when a link leads from a model's directory to a file outside it.

    A snapshot in the cache of `huggingface_hub` consists of links to `blobs/` beside `snapshots/`: they are inside.
    """
    root = Path(directory).resolve()
    root = root.parents[1] if root.parent.name == "snapshots" else root
    if not (target := Path(file).resolve()).is_relative_to(root):
        raise WeightsError(f"{file}: leads out of its directory, to {target}; put the file itself there")
