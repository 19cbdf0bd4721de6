"""Names on disk and names in memory: the release stores one tensor per expert, the model one stack per layer.

    release     model.layers.3.mlp.experts.17.up_proj.weight             (F, D)
    memory      model.layers.3.mlp.experts.up_proj                       (E, F, D)
    dFactory    as in memory
    LLaDA-Image model.language_model.layers.3.mlp.experts.up_proj        (E, F, D); model.lm_head.weight

Every other name of release and dFactory is the same as in memory.
"""

import re
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch

from unveil.shapes import Tensor

PART_FILES = {
    "backbone": "backbone.safetensors",
    "image_tokenizer": "image_tokenizer.safetensors",
    "code_embedding": "code_embedding.safetensors",
    "decoder": "decoder.safetensors",
    "vae": "vae.safetensors",
    "retrieval": "retrieval.safetensors",  # the only part that may be absent
}
"""One weights file per part in our own layout."""

CONFIG_FILE = "config.yaml"
TOKENIZER_FILE = "tokenizer.json"
SIGVQ_FILE = Path("image_tokenizer") / "sigvq_embedding.safetensors"
"""The code embedding in a released directory, once `unveil convert --sigvq` has written it."""

_ON_DISK = re.compile(r"(.*\.experts)\.(\d+)\.(gate_proj|up_proj|down_proj)\.weight")
_PREFIXES = {"model.": "model.language_model.", "lm_head.": "model.lm_head."}  # ours -> LLaDA-Image's
_IN_MEMORY = re.compile(r"(.*\.experts)\.(gate_proj|up_proj|down_proj)")


class Place(NamedTuple):
    """Where a tensor on disk goes: a name in memory and, inside an expert stack, the index on its first axis."""

    name: str
    expert: int | None


def place(disk: str) -> Place:
    """The place of a name on disk, in any of the spellings above."""
    plain = next((ours + disk[len(theirs) :] for ours, theirs in _PREFIXES.items() if disk.startswith(theirs)), disk)
    found = _ON_DISK.fullmatch(plain)
    if found is None:
        return Place(plain, None)
    return Place(f"{found[1]}.{found[3]}", int(found[2]))


def official_names(name: str, shape: Sequence[int]) -> list[str]:
    """The official names that a tensor in memory has on disk: one, or one per expert."""
    found = _IN_MEMORY.fullmatch(name)
    if found is None:
        return [name]
    return [f"{found[1]}.{e}.{found[2]}.weight" for e in range(shape[0])]


def official_shapes(shapes: Mapping[str, Sequence[int]]) -> dict[str, tuple[int, ...]]:
    """Name and shape of every tensor on disk, given those in memory. Works without any data (meta device)."""
    return {
        official: tuple(shape) if official == name else tuple(shape[1:])
        for name, shape in shapes.items()
        for official in official_names(name, shape)
    }


def disk_shapes(shapes: Mapping[str, Sequence[int]], listed: Collection[str]) -> dict[str, tuple[int, ...]]:
    """`official_shapes`, but each name in the spelling in which a directory lists it; the release's if it does not."""
    out: dict[str, tuple[int, ...]] = {}
    for name, shape in shapes.items():
        released = official_names(name, shape)
        spellings = [[spell(n) for n in names] for names in (released, [name]) for spell in (str, _prefixed)]
        names = next((s for s in spellings if any(n in listed for n in s)), released)
        out |= {n: tuple(shape) if place(n).expert is None else tuple(shape[1:]) for n in names}
    return out


def _prefixed(name: str) -> str:
    """A name as LLaDA-Image spells it."""
    return next((theirs + name[len(ours) :] for ours, theirs in _PREFIXES.items() if name.startswith(ours)), name)


def to_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict in the release's names; experts become views of their stack."""
    out: dict[str, Tensor] = {}
    for name, tensor in state.items():
        names = official_names(name, tensor.shape)
        out.update(zip(names, [tensor] if names == [name] else tensor.unbind(0), strict=True))
    return out


def from_official(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The inverse of `to_official`; experts are stacked in the order of their numbers, which must be 0, 1, 2, ..."""
    out: dict[str, Tensor] = {}
    stacks: dict[str, dict[int, Tensor]] = {}
    for official, tensor in state.items():
        name, expert = place(official)
        if expert is None:
            out[name] = tensor
        else:
            stacks.setdefault(name, {})[expert] = tensor
    for name, members in stacks.items():
        out[name] = torch.stack([members[e] for e in range(len(members))])
    return out
