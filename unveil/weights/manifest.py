"""`manifest.json` beside the weights: size, crc32 and sha256 of each file, so damage is found and weights have a name.

safetensors itself notices a short file but loads 298 of 300 flipped bits silently. Sizes are checked at every load,
contents (about 1 s per GB) on request and in small models.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Iterable
from pathlib import Path, PurePosixPath

from pydantic import BaseModel, ConfigDict, ValidationError

from unveil.errors import WeightsError
from unveil.weights.tensors import REMEDY

MANIFEST_FILE = "manifest.json"
_CHUNK = 1 << 22


class Entry(BaseModel):
    """What one file was when it was written."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    bytes: int
    crc32: str
    sha256: str


class Manifest(BaseModel):
    """Every file of a model directory that damage could hide in, by name."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    files: dict[str, Entry]


def describe(file: Path, heard: Callable[[int], object] = int) -> Entry:
    """Size and checksums of a file, in one pass; `heard` is told the bytes of each piece read."""
    crc, sha, size = 0, hashlib.sha256(), 0
    with file.open("rb") as stream:
        while chunk := stream.read(_CHUNK):
            crc, size = zlib.crc32(chunk, crc), size + len(chunk)
            sha.update(chunk)
            heard(len(chunk))
    return Entry(bytes=size, crc32=f"{crc:08x}", sha256=sha.hexdigest())


def to_json(files: Iterable[tuple[str, Path]]) -> str:
    """The manifest's text for (name in the directory, file to describe) pairs."""
    return Manifest(files={name: describe(file) for name, file in sorted(files)}).model_dump_json(indent=1) + "\n"


def read_manifest(path: Path) -> Manifest:
    """The manifest of a model directory. Raises WeightsError when it is missing or unreadable."""
    file = Path(path) / MANIFEST_FILE
    try:
        return Manifest.model_validate_json(file.read_bytes())
    except FileNotFoundError:
        raise WeightsError(f"{file}: missing, so the weights beside it cannot be checked; {REMEDY}") from None
    except (OSError, ValidationError) as error:
        raise WeightsError(f"{file}: not a manifest ({str(error).splitlines()[0]}); {REMEDY}") from None


def is_inside(name: str) -> bool:
    """Whether an entry's name stays in its directory whatever the system: relative, forward slashes, no `..`."""
    path = PurePosixPath(name)
    return name == str(path) and path.parts[:1] != ("/",) and not {"..", "."} & set(path.parts) and "\\" not in name


def damages(path: Path, manifest: Manifest, *, verify: bool) -> list[str]:
    """Every listed file that is absent or of another size; with `verify` also those of other content."""
    problems = []
    for name, entry in manifest.files.items():
        file = Path(path) / name
        if not is_inside(name):
            problems.append(f"{MANIFEST_FILE}: entry '{name}' leads out of its directory")
        elif not file.is_file():
            problems.append(f"{file}: missing, expected {entry.bytes} bytes; {REMEDY}")
        elif (size := file.stat().st_size) != entry.bytes:
            problems.append(f"{file}: damaged, expected {entry.bytes} bytes, found {size}; {REMEDY}")
        elif verify and (now := describe(file)) != entry:
            problems.append(f"{file}: damaged, expected crc32 {entry.crc32}, found {now.crc32}; {REMEDY}")
    return problems


def weights_hash(path: Path) -> str:
    """The name of the weights in a directory: 16 hex digits that differ when any weights file does.

    It is the sha256 over name and sha256 of each `*.safetensors` file that the manifest lists, so it costs no reading;
    `load(verify=True)` is what proves those sums.
    """
    files = read_manifest(path).files
    pairs = sorted((name, entry.sha256) for name, entry in files.items() if name.endswith(".safetensors"))
    return hashlib.sha256(json.dumps(pairs).encode()).hexdigest()[:16]
