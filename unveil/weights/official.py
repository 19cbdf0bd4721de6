"""The released layout: sharded files with one tensor per expert; and its relatives in names and precision."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import nn

from unveil.config import BackboneConfig, VocabConfig
from unveil.errors import WeightsError
from unveil.files import check_inside
from unveil.model.backbone import Backbone
from unveil.shapes import Tensor
from unveil.weights.fp8 import SCALE, expected_factors, read_factors
from unveil.weights.names import disk_shapes, place
from unveil.weights.official_config import official_config, read_json
from unveil.weights.read import load_part
from unveil.weights.tensors import (
    REMEDY,
    header,
    misfits,
    read_tensors,
    shapes,
    stored,
    target_dtype,
)

__all__ = ["INDEX_FILE", "SINGLE_FILES", "load_official_backbone", "load_official_part", "official_config"]

INDEX_FILE = "model.safetensors.index.json"
SINGLE_FILES = (
    "model.safetensors",
    "image_tokenizer.safetensors",  # names of earlier snapshots of the release
    "decoder_model.safetensors",
    "diffusion_pytorch_model.safetensors",
)
"""What a part's one weights file may be called, first match wins."""


def load_official_backbone(
    directory: Path,
    backbone: BackboneConfig,
    vocab: VocabConfig,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
) -> dict[str, Tensor]:
    """The backbone's state dict from a released directory, experts stacked while the shards stream by.

    Names may be in any spelling of `unveil.weights.names`, weights in block-FP8 (`unveil.weights.fp8`). The tensors of
    a layer, or of one expert, may lie in different shards. Peak memory is the result plus one tensor.
    Raises one WeightsError with everything missing, extra or misshaped, before any data is read.
    """
    directory = Path(directory)
    with torch.device("meta"):
        ours = shapes(Backbone(backbone, vocab))
    shards = shards_of(directory)
    check_shards(shards, ours, directory)
    factors = read_factors(directory / shard for shard in shards)
    state = {n: torch.empty(s, dtype=target_dtype(n, dtype), device=device) for n, s in ours.items()}
    for shard in shards:
        for official, tensor in read_tensors(directory / shard, device, dtype, factors):
            name, expert = place(official)
            (state[name] if expert is None else state[name][expert]).copy_(tensor)
    return state


def load_official_part(
    module: nn.Module, directory: Path, device: torch.device | str = "cpu", dtype: torch.dtype = torch.float32
) -> None:
    """Give the image tokenizer, image decoder or VAE the weights in its released directory (new or old file name)."""
    found = [name for name in SINGLE_FILES if (Path(directory) / name).is_file()]
    if not found:
        raise WeightsError(f"{directory}: no weights there (looked for {', '.join(SINGLE_FILES)}); {REMEDY}")
    load_part(module, Path(directory) / found[0], device, dtype)


def shards_of(directory: Path) -> dict[str, set[str]]:
    """File name -> names of the tensors that the index puts there; a directory without index has one file.

    Raises WeightsError for an index that is none, or leads out of the directory by a name or a link.
    """
    if not (directory / INDEX_FILE).exists():
        single = directory / SINGLE_FILES[0]
        check_inside(single, directory)
        return {single.name: set(stored(single))}
    file = directory / INDEX_FILE
    listed = read_json(file, WeightsError).get("weight_map")
    if not isinstance(listed, dict) or not listed:
        raise WeightsError(f"{file}: has no weight_map; {REMEDY}")
    outside = sorted({str(v) for v in listed.values() if not _is_plain(v)})
    if outside:
        raise WeightsError(f"{file}: names files outside its directory or of another kind: {', '.join(outside)}")
    for shard in set(listed.values()):
        check_inside(directory / shard, directory)
    return {shard: {n for n, s in listed.items() if s == shard} for shard in sorted(set(listed.values()))}


def _is_plain(shard: object) -> bool:
    """Whether an index entry is the bare name of a safetensors file."""
    return isinstance(shard, str) and Path(shard).name == shard and "\\" not in shard and shard.endswith(".safetensors")


def check_shards(shards: Mapping[str, set[str]], ours: Mapping[str, tuple[int, ...]], directory: Path) -> None:
    """Compare the model's names in memory with index and files; one WeightsError for all differences."""
    listed = {name for names in shards.values() for name in names}
    expected = disk_shapes(ours, listed)
    held = {n: e.shape for shard in shards for n, e in stored(directory / shard).items() if n.endswith(SCALE)}
    factors = expected_factors(expected, held)
    scaled = {name.removesuffix(SCALE) for name in factors}
    expected |= factors
    problems = [f"{directory / INDEX_FILE}: {n} is missing" for n in expected if n not in listed]
    for shard, names in shards.items():
        file = directory / shard
        wanted = {n: expected[n] for n in sorted(names) if n in expected}
        unknown = [f"{file}: {n} is not expected" for n in sorted(names) if n not in expected]
        found = header(file, scaled)
        problems += unknown + misfits(wanted, {n: s for n, s in found.items() if n in wanted or n not in names}, file)
    if problems:
        raise WeightsError("; ".join(problems))
