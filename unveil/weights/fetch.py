"""A released model from a hub: weights and settings of one commit, nothing that could run, every file proved whole.

    DIR.partial/    while it comes: fetched.json says which commit, NAME.part is a file whose end is missing
    DIR/            once all of it is there and has the hashes that the commit gives, with a manifest

What came before an interruption is kept; the same call goes on from there, at the same commit.
"""

import errno
import hashlib
import os
import shutil
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple, Self

from pydantic import BaseModel, ConfigDict, ValidationError

from unveil.errors import OutputError, RequestError, UnveilError, WeightsError
from unveil.files import make_directory, write_atomic
from unveil.version import VERSION
from unveil.weights.manifest import MANIFEST_FILE, is_inside, read_manifest
from unveil.weights.names import SIGVQ_FILE
from unveil.weights.tensors import REMEDY
from unveil.weights.verify import Heard, write_manifest

if TYPE_CHECKING:
    from huggingface_hub.hf_api import RepoSibling

SOURCE_FILE = "fetched.json"
_DATA = (".safetensors", ".json")
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EIO)
_PICKLED = SIGVQ_FILE.with_suffix(".pt").as_posix()  # opened only by `unveil convert --sigvq`, tensors only


class Source(BaseModel):
    """Where a model directory came from; the commit pins every byte."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    repository: str
    revision: str  # the branch, tag or commit that was asked for
    commit: str


class _Remote(NamedTuple):
    """What the hub says of one file: its size, and the sha256 of a large file or the git hash of a small one."""

    bytes: int
    sha256: str | None
    git: str | None


def fetch(repository: str, revision: str | None, target: Path, heard: Heard) -> Source:
    """Bring the model in a hub's repository into the new directory `target`; says where it came from.

    Without a revision the one begun before is gone on with, or the main branch taken. A directory that holds just this
    model already is left alone. Raises RequestError (repository, revision, network), OutputError (disk) or WeightsError
    (what came is not what the hub promised).
    """
    from huggingface_hub.utils import validate_repo_id

    with _one_line(repository, ""):
        validate_repo_id(repository)
    there = read_source(target)
    if there is not None and there.repository == repository and revision in (None, there.revision, there.commit):
        return there
    if target.exists():
        raise OutputError(f"{target}: is there already{_of(there)}; choose a new directory")
    begun = target.with_name(f"{target.name}.partial")
    held = read_source(begun)
    if held is not None and (held.repository != repository or revision not in (None, held.revision, held.commit)):
        raise OutputError(f"{begun}: is there already{_of(held)}; remove it, or choose a new directory")
    asked = revision if held is None else held.commit
    source, files = _look_up(repository, revision or "main", asked)
    make_directory(begun)
    if held is None:
        write_atomic(begun / SOURCE_FILE, (source.model_dump_json(indent=1) + "\n").encode())
    _check_space(begun, files)
    count = _Count(heard, sum(remote.bytes for remote in files.values()))
    for name, remote in files.items():
        _load(source, name, remote, begun, count)
    (begun / MANIFEST_FILE).unlink(missing_ok=True)
    write_manifest(begun, heard)
    _check_hashes(begun, files)
    begun.rename(target)
    return source


def read_source(path: Path) -> Source | None:
    """Where a directory came from, None when it was not fetched. Raises WeightsError when the note is damaged."""
    file = path / SOURCE_FILE
    try:
        return Source.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        return None
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{file}: cannot be read ({str(error).splitlines()[0]}); {REMEDY}") from None


def _of(source: Source | None) -> str:
    return "" if source is None else f" with {source.repository} at {source.commit}"


def _look_up(repository: str, revision: str, asked: str | None) -> tuple[Source, dict[str, _Remote]]:
    """The commit behind a revision, and the files of it that we take."""
    from huggingface_hub import HfApi

    with _one_line(repository, revision):
        api = HfApi(library_name="unveil", library_version=VERSION)
        info = api.model_info(repository, revision=asked, files_metadata=True)
    if info.sha is None:
        raise RequestError(f"{repository}: the hub does not say which commit this is; choose another hub")
    return Source(repository=repository, revision=revision, commit=info.sha), _taken(repository, info.siblings or ())


def _taken(repository: str, listed: Iterable["RepoSibling"]) -> dict[str, _Remote]:
    """The weights and settings in a hub's listing, in its order. Raises WeightsError for a name that leads out."""
    found: dict[str, _Remote] = {}
    for sibling in listed:
        name = sibling.rfilename
        if not is_inside(name):
            raise WeightsError(f"{repository}: lists a file outside its directory, '{name}'; choose another repository")
        hidden = any(step.startswith(".") for step in name.split("/"))
        if hidden or name in (MANIFEST_FILE, SOURCE_FILE) or not (name.endswith(_DATA) or name == _PICKLED):
            continue
        if sibling.size is None:
            raise RequestError(f"{repository}: the hub does not say how large {name} is; choose another hub")
        found[name] = _Remote(sibling.size, sibling.lfs.sha256 if sibling.lfs else None, sibling.blob_id)
    if not any(name.endswith(".safetensors") for name in found):
        raise WeightsError(f"{repository}: holds no safetensors files; choose another repository or revision")
    return found


class _Count:
    """How much of all files is there, told to whoever listens."""

    def __init__(self, heard: Heard, total: int) -> None:
        self.heard, self.total, self.done = heard, total, 0

    def add(self, name: str, count: int) -> None:
        """So many more bytes of this file."""
        self.done += count
        self.heard(name, self.done >> 20, (self.total >> 20) + 1)


class _Bar:
    """What the hub's client takes for a progress bar of one file."""

    def __init__(self, tell: Callable[[int], None], **_: object) -> None:
        self.update = tell

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        """Nothing is left to show."""


def _load(source: Source, name: str, remote: _Remote, begun: Path, count: _Count) -> None:
    """One file, from where it stopped before."""
    from huggingface_hub import hf_hub_url
    from huggingface_hub.file_download import http_get
    from huggingface_hub.utils import build_hf_headers

    file = begun / name
    tell = partial(count.add, name)
    if file.is_file() and file.stat().st_size == remote.bytes:
        tell(remote.bytes)
        return
    part = file.with_name(f"{file.name}.part")
    with _one_line(source.repository, source.revision, part, remote.bytes):
        part.parent.mkdir(parents=True, exist_ok=True)
        if part.exists() and part.stat().st_size > remote.bytes:
            part.unlink()
        with part.open("ab") as stream:
            tell(stream.tell())
            http_get(
                hf_hub_url(source.repository, name, revision=source.commit),
                stream,
                resume_size=stream.tell(),
                headers=build_hf_headers(library_name="unveil", library_version=VERSION)
                | {"Accept-Encoding": "identity"},
                expected_size=remote.bytes,
                displayed_filename=name,
                tqdm_class=partial(_Bar, tell),  # type: ignore[arg-type]  # any callable with these members will do
            )
            stream.flush()
            os.fsync(stream.fileno())
        part.replace(file)


def _check_space(begun: Path, files: Mapping[str, _Remote]) -> None:
    """Raise OutputError when what is missing will not fit."""
    there = sum(file.stat().st_size for file in begun.rglob("*") if file.is_file())
    needed, free = max(sum(remote.bytes for remote in files.values()) - there, 0), shutil.disk_usage(begun).free
    if needed > free:
        raise OutputError(f"{begun}: needs {needed} more bytes, free {free} bytes; free some space or choose --to")


def _check_hashes(begun: Path, files: Mapping[str, _Remote]) -> None:
    """Raise WeightsError naming each file that is not what the commit holds; those are removed, to come again."""
    held = read_manifest(begun).files
    wrong = [name for name, remote in files.items() if not _is_same(begun / name, remote, held[name].sha256)]
    for name in wrong:
        (begun / name).unlink()
    if wrong:
        raise WeightsError(f"{begun}: {', '.join(wrong)} came damaged and was removed; run the same command again")


def _is_same(file: Path, remote: _Remote, sha256: str) -> bool:
    """Whether a file has the hash that the hub gives it; small files have only git's."""
    if remote.sha256 is not None:
        return sha256 == remote.sha256
    data = file.read_bytes()
    return hashlib.sha1(b"blob %d\0" % len(data) + data, usedforsecurity=False).hexdigest() == remote.git


@contextmanager
def _one_line(repository: str, revision: str, file: Path | None = None, needed: int = 0) -> Iterator[None]:
    """Whatever the hub, the network or the disk raises, as one error that says what to do."""
    from huggingface_hub import constants, errors

    try:
        yield
    except UnveilError:
        raise
    except errors.HFValidationError:
        raise RequestError(f"'{repository}' is no repository; write OWNER/NAME, as inclusionAI/LLaDA2.0-Uni") from None
    except errors.GatedRepoError:
        page = f"{constants.ENDPOINT}/{repository}"
        raise RequestError(f"{repository}: is gated; accept its terms at {page}, then log in: hf auth login") from None
    except errors.RepositoryNotFoundError:
        raise RequestError(f"{repository}: no such repository; check the name, or log in: hf auth login") from None
    except errors.RevisionNotFoundError:
        raise RequestError(f"{repository}: has no revision '{revision}'; give a branch, tag or commit of it") from None
    except errors.OfflineModeIsEnabled:
        raise RequestError("HF_HUB_OFFLINE is set, so nothing is fetched; unset it") from None
    except Exception as error:  # the client's HTTP library has changed twice; its exceptions have no common root
        if file is not None and isinstance(error, OSError) and error.errno in _OF_THE_DISK:
            free = shutil.disk_usage(file.parent).free
            raise OutputError(
                f"{file}: cannot be written ({error.strerror}); needed {needed} bytes, free {free} bytes; "
                "free some space and run the same command again: what came is kept"
            ) from None
        said = f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no reason given'}"
        raise RequestError(
            f"{constants.ENDPOINT}: does not answer as a hub ({said}); check the network and run the same command "
            "again: what came is kept"
        ) from None
