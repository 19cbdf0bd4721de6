"""A directory in the released layout with random weights: official in size, or a fraction of it. No network.

    python benchmarks/make_official_size.py DIR                       # all of it: 48 GB in bfloat16
    python benchmarks/make_official_size.py DIR --width-divisor 16    # every width a sixteenth
    python benchmarks/make_official_size.py DIR --layers 2            # at most two layers of every part

Deterministic: a tensor's numbers follow from its name and shape. Tensors are made and written one by one, so memory
stays at one of them. The tokenizer is a stand-in of the right size: bytes, and every special token at its official id.
"""

import argparse
import hashlib
import json
import math
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path

import torch

from unveil.config import ModelConfig, load_preset, validate
from unveil.vocab.text import Text, control_tokens, unused_tokens
from unveil.weights.names import TOKENIZER_FILE, official_shapes
from unveil.weights.official import INDEX_FILE
from unveil.weights.official_config import released_json
from unveil.weights.official_model import part_files
from unveil.weights.read import build
from unveil.weights.tensors import shapes

EXPERT_SHARDS, OTHER_SHARDS = 6, 7
Shapes = Mapping[str, tuple[int, ...]]


def scaled(divisor: int, layers: int | None) -> ModelConfig:
    """The official configuration with every width divided, and at most so many layers in each part.

    Counts stay: experts, heads, codes, the vocabulary.
    """
    official = load_preset("official").model_dump()
    divide: dict[str, tuple[str, ...]] = {
        "image_tokenizer": ("width", "mlp_width", "code_width"),
        "backbone": ("width", "head_dim", "mlp_width", "expert_width"),
        "decoder": ("width", "condition_width"),
    }
    for part, names in divide.items():
        for name in names:
            official[part][name] //= divisor
        if layers is not None:
            official[part]["layers"] = min(layers, official[part]["layers"])
    head = official["decoder"]["width"] // official["decoder"]["heads"]
    side = max(2, official["decoder"]["axes_dims"][1] // divisor // 2 * 2)  # rotary tables take pairs
    official["decoder"]["axes_dims"] = (head - 2 * side, side, side)
    channels = tuple(n // divisor for n in official["vae"]["block_channels"])
    official["vae"] |= {"block_channels": channels, "norm_groups": math.gcd(32, *channels)}
    return validate(ModelConfig, official, f"--width-divisor {divisor}")


def write(target: Path, config: ModelConfig, dtype: torch.dtype) -> None:
    """The whole directory, which must be new."""
    target.mkdir(parents=True)
    for name, data in released_json(config).items():
        (target / name).parent.mkdir(exist_ok=True)
        (target / name).write_text(json.dumps(data, indent=2))
    stand_in(config).save(target / TOKENIZER_FILE)
    modules = build(config)
    parts = {name: shapes(module) for name, module in modules.items()}
    shards = split(official_shapes(parts.pop("backbone")))
    index = {name: shard for shard, held in shards.items() for name in held}
    (target / INDEX_FILE).write_text(json.dumps({"weight_map": index}))
    files = {target / shard: held for shard, held in shards.items()}
    files |= {part_files(target, "normal")[name]: held for name, held in parts.items()}
    for file, held in files.items():
        print(file, file=sys.stderr, flush=True)
        write_tensors(file, held, dtype)


def stand_in(config: ModelConfig) -> Text:
    """A tokenizer with as many ids as the official one: bytes, numbered fillers, then the special tokens in place."""
    data = json.loads(Text.train(["a few words to begin with, again and again"], bpe_size=257).parsing.to_str())
    special = [*control_tokens(), *unused_tokens()]
    first = config.vocab.pad - control_tokens().index("<|endoftext|>")
    pieces = [piece for piece in data["model"]["vocab"] if piece not in special][:257]
    names = [*pieces, *(f"<filler {i}>" for i in range(first - len(pieces))), *special]
    names += [f"<spare {i}>" for i in range(config.vocab.image_offset - len(names))]
    flags = {"single_word": False, "lstrip": False, "rstrip": False}
    data["model"]["vocab"] = {name: i for i, name in enumerate(names) if i < first or i >= first + len(special)}
    data["added_tokens"] = [
        {"id": first + k, "content": name, "normalized": False, "special": k < len(control_tokens()), **flags}
        for k, name in enumerate(special)
    ]
    return Text.parse(json.dumps(data), "the stand-in")


def split(held: Shapes) -> dict[str, dict[str, tuple[int, ...]]]:
    """The tensors of each shard. As in the release the experts lie in the first ones, all else in others."""
    experts = [name for name in held if ".experts." in name]
    others = [name for name in held if ".experts." not in name]
    shares = [share for share in (*cut(experts, EXPERT_SHARDS), *cut(others, OTHER_SHARDS)) if share]
    files = [f"model-{k:05}-of-{len(shares):05}.safetensors" for k in range(1, len(shares) + 1)]
    return {file: {name: held[name] for name in share} for file, share in zip(files, shares, strict=True)}


def cut(names: list[str], count: int) -> list[list[str]]:
    """So many shares, one after another, as even as can be."""
    return [names[len(names) * k // count : len(names) * (k + 1) // count] for k in range(count)]


def write_tensors(file: Path, held: Shapes, dtype: torch.dtype) -> None:
    """A safetensors file, tensor by tensor."""
    entries, end = dict[str, object](), 0
    for name, shape in held.items():
        size = math.prod(shape) * dtype.itemsize
        kind = {torch.bfloat16: "BF16", torch.float32: "F32"}[dtype]
        entries[name] = {"dtype": kind, "shape": shape, "data_offsets": (end, end + size)}
        end += size
    text = json.dumps(entries).encode()
    text += b" " * (-len(text) % 8)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for piece in numbers(held, dtype):
            out.write(piece.flatten().view(torch.uint8).numpy().data)


def numbers(held: Shapes, dtype: torch.dtype) -> Iterator[torch.Tensor]:
    """Random weights of every shape, of a size that keeps activations near one; norms are one and biases zero."""
    for name, shape in held.items():
        seed = int.from_bytes(hashlib.sha256(f"{name} {shape}".encode()).digest()[:8], "little") >> 1
        generator = torch.Generator().manual_seed(seed)
        if len(shape) > 1:
            yield torch.randn(shape, generator=generator).mul_(math.prod(shape[1:]) ** -0.5).to(dtype)
        else:
            yield torch.full(shape, float(name.endswith("weight")), dtype=dtype)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("target", type=Path, metavar="DIR", help="where to, a new directory")
    parser.add_argument("--width-divisor", type=int, default=1, choices=(1, 2, 4, 8, 16))
    parser.add_argument("--layers", type=int, help="of backbone, decoder and image tokenizer, each at most")
    parser.add_argument("--dtype", choices=("bfloat16", "float32"), default="bfloat16")
    given = parser.parse_args()
    if given.target.exists():
        parser.error(f"{given.target}: is there already; choose a new directory")
    if given.layers is not None and given.layers < 1:
        parser.error("--layers must be at least 1")
    write(given.target, scaled(given.width_divisor, given.layers), getattr(torch, given.dtype))


if __name__ == "__main__":
    main()
