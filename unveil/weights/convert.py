"""From one layout to another, byte for byte: tensors are cut out of files and joined, nothing is computed.

Memory stays at a few MiB whatever the model. The target is a new directory with a manifest, whole or not there at all.
"""

import json
import shutil
import tempfile
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Literal

from unveil.config import ModelConfig, dump, load_config
from unveil.errors import OutputError, RequestError, WeightsError
from unveil.files import check_inside
from unveil.vocab.text import Text
from unveil.weights.diffusers_decoder import checked, is_diffusers, read_diffusers, written
from unveil.weights.fp8 import FLOAT8
from unveil.weights.manifest import damages, read_manifest
from unveil.weights.names import CONFIG_FILE, PART_FILES, TOKENIZER_FILE, official_names, place
from unveil.weights.official import INDEX_FILE, check_shards, shards_of
from unveil.weights.official_config import (
    DecoderKind,
    official_decoder,
    official_model_config,
    official_vae,
    released_decoder,
    released_json,
    released_vae,
)
from unveil.weights.official_model import image_files, is_official, part_files, read_settings
from unveil.weights.pieces import Joined, Piece, Tensors, read_pieces, write_pieces
from unveil.weights.read import build, check_tensors
from unveil.weights.save import write_files
from unveil.weights.tensors import shapes

LayoutName = Literal["official", "unveil", "diffusers-decoder"]
Heard = Callable[[str, int, int], None]
Writers = dict[str, Callable[[Path], None]]

SHARD_BYTES = 5 << 30


def convert(
    source: Path,
    target: Path,
    layout: LayoutName,
    heard: Heard,
    *,
    decoder: DecoderKind = "normal",
    shard_bytes: int = SHARD_BYTES,
) -> None:
    """Write the model in `source` anew in another layout; `decoder` says which one a released model brings along.

    "diffusers-decoder" is image decoder and VAE alone, and becomes the same two parts of a released directory. Raises
    RequestError, OutputError or WeightsError before anything is written, unless the disk fails.
    """
    source, target = Path(source), Path(target)
    if _layout(source) == layout:
        raise RequestError(f"{source}: is in the {layout} layout already; copy it, or choose another layout")
    if target.is_file() or any(file.is_file() for file in target.rglob("*")):
        raise OutputError(f"{target}: is there already; choose a new directory")
    if target.resolve().is_relative_to(source.resolve()):
        raise OutputError(f"{target}: lies inside {source}, which stays as it is; choose a directory outside of it")
    if layout == "diffusers-decoder":
        files, writers = _to_diffusers(source, decoder)
    elif is_diffusers(source):
        files, writers = _from_diffusers(source, layout, decoder)
    elif layout == "unveil":
        files, writers = _to_unveil(source, decoder)
    else:
        files, writers = _to_official(source, shard_bytes)
    _check_bytes(source, files)
    for done, (name, tensors) in enumerate(files.items()):
        writers[name] = partial(write_pieces, tensors=tensors, begun=partial(heard, name, done, len(files)))
    write_files(target, writers, needed=sum(t.bytes for tensors in files.values() for t in tensors.values()))
    heard("", 1, 1)


def _layout(path: Path) -> LayoutName:
    return "official" if is_official(path) else "diffusers-decoder" if is_diffusers(path) else "unveil"


def _check_bytes(source: Path, files: Mapping[str, Tensors]) -> None:
    """Raise WeightsError for block-FP8, whose weights would have to be computed."""
    coded = [name for tensors in files.values() for name, tensor in tensors.items() if tensor.dtype == FLOAT8]
    if coded:
        raise WeightsError(f"{source}: {coded[0]} is in float8, and bytes alone are copied; load this model as it is")


def _to_unveil(source: Path, decoder: DecoderKind) -> tuple[dict[str, Tensors], Writers]:
    """Our weights files of a released model, and what writes the other files."""
    text, config, _ = read_settings(source, decoder)
    files, absent = image_files(source, decoder)
    if absent:
        raise WeightsError("; ".join(dict.fromkeys(absent.values())))
    modules, shards = build(config), shards_of(source)
    check_shards(shards, shapes(modules["backbone"]), source)
    check_tensors(modules, files)
    parts = {"backbone": _stack(read_pieces(source / shard for shard in shards))}
    parts |= {part: read_pieces([file]) for part, file in files.items()}
    writers: Writers = {
        TOKENIZER_FILE: partial(_copy_file, source / TOKENIZER_FILE),
        CONFIG_FILE: partial(_write_text, dump(config)),
    }
    return {PART_FILES[part]: tensors for part, tensors in parts.items()}, writers


def _to_official(source: Path, shard_bytes: int) -> tuple[dict[str, Tensors], Writers]:
    """The released weights files of a model of ours, and what writes the other files."""
    config, text = _ours(source)
    settings = released_json(config)
    lost = _lost(config, settings, text)
    if (source / PART_FILES["retrieval"]).exists():
        lost.append("retrieval")
    if lost:
        raise WeightsError(f"{source}: the released layout cannot say {', '.join(lost)}; this model stays in ours")
    places = {part: source / file for part, file in PART_FILES.items() if part != "retrieval"}
    check_tensors(build(config), places)
    shards = _split(_unstack(read_pieces([places.pop("backbone")])), shard_bytes)
    kind: DecoderKind = "turbo" if config.sampling.solver == "turbo" else "normal"
    names = {part: file.as_posix() for part, file in part_files(Path(), kind).items()}
    index = {
        "metadata": {"total_size": sum(t.bytes for tensors in shards.values() for t in tensors.values())},
        "weight_map": {name: shard for shard, tensors in shards.items() for name in tensors},
    }
    writers = _json_writers({**settings, INDEX_FILE: index})
    writers[TOKENIZER_FILE] = partial(_copy_file, source / TOKENIZER_FILE)
    return {**shards, **{names[part]: read_pieces([file]) for part, file in places.items()}}, writers


def _to_diffusers(source: Path, kind: DecoderKind) -> tuple[dict[str, Tensors], Writers]:
    """Image decoder and VAE of a model, ours or released, in the layout of diffusers."""
    if is_official(source):
        places = part_files(source, kind)
        for part in ("decoder", "vae"):
            check_inside(places[part], source)
        decoder, vae = official_decoder(places["decoder"].parent), official_vae(places["vae"].parent)
    else:
        config, text = _ours(source)
        lost = [name for name in _lost(config, released_json(config), text) if name.startswith(("decoder.", "vae."))]
        if lost:
            raise WeightsError(f"{source}: diffusers has no {', '.join(lost)}; this decoder stays here")
        decoder, vae, places = config.decoder, config.vae, {part: source / file for part, file in PART_FILES.items()}
    files, settings = written(checked(decoder, vae, places["decoder"], places["vae"]))
    return files, _json_writers(settings)


def _from_diffusers(source: Path, layout: LayoutName, kind: DecoderKind) -> tuple[dict[str, Tensors], Writers]:
    """The same two parts as a released directory has them."""
    if layout != "official":
        raise RequestError(f"{source}: holds an image decoder and a VAE, no whole model; choose --layout official")
    pair, files = read_diffusers(source), part_files(Path(), kind)
    settings = {"decoder": released_decoder(pair.decoder), "vae": released_vae(pair.vae)}
    tensors = {"decoder": pair.decoder_tensors, "vae": pair.vae_tensors}
    named = {(files[part].parent / "config.json").as_posix(): data for part, data in settings.items()}
    return {files[part].as_posix(): held for part, held in tensors.items()}, _json_writers(named)


def _ours(source: Path) -> tuple[ModelConfig, Text]:
    """Settings and tokenizer of a directory of ours, when all of its files are whole."""
    config, text = load_config(source / CONFIG_FILE), Text.load(source / TOKENIZER_FILE)
    problems = damages(source, read_manifest(source), verify=True)
    if problems:
        raise WeightsError("; ".join(problems))
    return config, text


def _lost(config: ModelConfig, settings: Mapping[str, object], text: Text) -> list[str]:
    """The fields that would not come back from the released JSON files; a request's defaults are not kept there."""
    with tempfile.TemporaryDirectory() as directory:
        for name, data in settings.items():
            file = Path(directory) / name
            file.parent.mkdir(exist_ok=True)
            file.write_text(json.dumps(data), encoding="utf-8")
        kind: DecoderKind = "turbo" if config.sampling.solver == "turbo" else "normal"
        again = official_model_config(Path(directory), text, kind)
    parts = [name for name in ModelConfig.model_fields if name not in ("name", "sampling")]
    return [
        f"{part}.{field}"
        for part in parts
        for field, value in getattr(config, part)
        if getattr(getattr(again, part), field) != value
    ]


def _stack(tensors: Tensors) -> Tensors:
    """Experts joined in the order of their numbers. Raises WeightsError when those of one stack differ in dtype."""
    stacks: dict[str, dict[int, Joined]] = {}
    for official, tensor in tensors.items():
        name, expert = place(official)
        stacks.setdefault(name, {})[-1 if expert is None else expert] = tensor
    out: dict[str, Joined] = {}
    for name, members in stacks.items():
        first, *rest = (members[number] for number in sorted(members))
        if any(tensor.dtype != first.dtype for tensor in rest):
            raise WeightsError(f"{first.pieces[0].file}: the experts of {name} differ in dtype; they cannot be stacked")
        pieces = sum((tensor.pieces for tensor in rest), first.pieces)
        out[name] = first if -1 in members else Joined(first.dtype, (len(members), *first.shape), pieces)
    return out


def _unstack(tensors: Tensors) -> Tensors:
    """The inverse: each expert is its share of a stack's one piece."""
    out: dict[str, Joined] = {}
    for name, tensor in tensors.items():
        names = official_names(name, tensor.shape)
        if names == [name]:
            out[name] = tensor
            continue
        file, begin, size = tensor.pieces[0]
        share = size // len(names)
        for number, official in enumerate(names):
            out[official] = Joined(tensor.dtype, tensor.shape[1:], (Piece(file, begin + number * share, share),))
    return out


def _split(tensors: Tensors, most: int) -> dict[str, Tensors]:
    """Shards of at most so many bytes, unless one tensor alone has more."""
    shards: list[dict[str, Joined]] = [{}]
    size = 0
    for name, tensor in tensors.items():
        if shards[-1] and size + tensor.bytes > most:
            shards.append({})
            size = 0
        shards[-1][name] = tensor
        size += tensor.bytes
    return {f"model-{k:05}-of-{len(shards):05}.safetensors": shard for k, shard in enumerate(shards, start=1)}


def _json_writers(files: Mapping[str, object]) -> Writers:
    """What writes these JSON files."""
    return {name: partial(_write_text, json.dumps(data, indent=2) + "\n") for name, data in files.items()}


def _write_text(text: str, file: Path) -> None:
    file.write_text(text, encoding="utf-8")


def _copy_file(source: Path, file: Path) -> None:
    shutil.copyfile(source, file)
