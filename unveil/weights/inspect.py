"""What a model directory holds, from its headers and JSON files alone: no tensor is read, at any size."""

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from unveil.config import load_config
from unveil.errors import WeightsError
from unveil.files import check_inside
from unveil.vocab.layout import SPECIAL, Layout
from unveil.vocab.text import Text
from unveil.weights.fetch import read_source
from unveil.weights.names import CONFIG_FILE, PART_FILES, TOKENIZER_FILE
from unveil.weights.official import shards_of
from unveil.weights.official_config import DECODER_DIRECTORIES
from unveil.weights.official_model import is_official, part_files, read_settings
from unveil.weights.tensors import Stored, stored


@dataclass(frozen=True)
class PartFacts:
    """What the files of one part declare; experts that lie apart on disk count as tensors of their own."""

    files: tuple[str, ...]
    tensors: int
    parameters: int
    bytes: int
    dtypes: dict[str, int]  # name in the header -> parameters


@dataclass(frozen=True)
class Facts:
    """A model from outside."""

    path: str
    layout: Literal["unveil", "official"]
    parts: dict[str, PartFacts]
    absent: tuple[str, ...]  # parts that could be there
    context: int
    vocabulary: int
    image_offset: int
    special: dict[str, int]  # special token -> id
    source: dict[str, str] | None  # repository, revision and commit, when it was fetched


def inspect(path: Path) -> Facts:
    """The facts of a directory of our own layout, or of a released one. Raises WeightsError or ConfigError."""
    path = Path(path)
    official = is_official(path)
    if not official and not (path / CONFIG_FILE).is_file():
        raise WeightsError(f"{path}: no model there (neither {CONFIG_FILE} nor config.json); give another directory")
    if official:
        _, config, layout = read_settings(path, "normal")
        files = {"backbone": [path / name for name in shards_of(path)]}
        for kind, name in DECODER_DIRECTORIES.items():
            files |= {name if part == "decoder" else part: [file] for part, file in part_files(path, kind).items()}
    else:
        config = load_config(path / CONFIG_FILE)
        layout = Layout.of(config.vocab, Text.load(path / TOKENIZER_FILE))
        files = {part: [path / name] for part, name in PART_FILES.items()}
    source = read_source(path)
    absent = tuple(part for part, found in files.items() if part != "backbone" and not found[0].exists())
    return Facts(
        path=str(path),
        layout="official" if official else "unveil",
        parts={part: _part(found, path) for part, found in files.items() if part not in absent},
        absent=absent,
        context=config.backbone.context,
        vocabulary=layout.size,
        image_offset=layout.image_offset,
        special={token: getattr(layout, field) for field, token in SPECIAL.items()},
        source=None if source is None else source.model_dump(),
    )


def _part(files: Iterable[Path], path: Path) -> PartFacts:
    """One part, its files taken together."""
    names, held = list[str](), list[Stored]()
    for file in files:
        check_inside(file, path)
        names.append(file.relative_to(path).as_posix())
        held += stored(file).values()
    dtypes = dict.fromkeys(sorted({entry.dtype for entry in held}), 0)
    for entry in held:
        dtypes[entry.dtype] += entry.parameters
    return PartFacts(
        files=tuple(names),
        tensors=len(held),
        parameters=sum(entry.parameters for entry in held),
        bytes=sum(entry.bytes for entry in held),
        dtypes=dtypes,
    )
