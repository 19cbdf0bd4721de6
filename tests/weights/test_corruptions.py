"""Forty-odd ways to break a released directory, each refused in a line of its own before a model is there."""

import json
import pickle
import shutil
import struct
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from safetensors.torch import load_file, save_file

from unveil.errors import ConfigError, WeightsError
from unveil.pipeline import Uni
from unveil.shapes import Tensor

SHARD, OTHER = "model-00001-of-00003.safetensors", "model-00002-of-00003.safetensors"
LAST = "model-00003-of-00003.safetensors"
INDEX, CONFIG, TOKENIZER = "model.safetensors.index.json", "config.json", "tokenizer.json"
VAE, DECODER, SIGVQ = (
    "vae/diffusion_pytorch_model.safetensors",
    "decoder/model.safetensors",
    "image_tokenizer/sigvq_embedding.safetensors",
)
NORM, WORDS = "model.norm.weight", "model.word_embeddings.weight"
Header = dict[str, dict[str, Any]]


class Corruption(NamedTuple):
    """What is done to a copy of the directory, and what the line that refuses it must say."""

    title: str
    damage: Callable[[Path], object]
    says: tuple[str, ...]


def edit(name: str, change: Callable[[dict[str, Any]], object]) -> Callable[[Path], None]:
    """Change the object in a JSON file."""

    def damage(model: Path) -> None:
        data = json.loads((model / name).read_text())
        change(data)
        (model / name).write_text(json.dumps(data))

    return damage


def keys(name: str, **values: object) -> Callable[[Path], None]:
    return edit(name, lambda data: data.update(values))


def without(name: str, key: str) -> Callable[[Path], None]:
    return edit(name, lambda data: data.pop(key))


def tensors(name: str, change: Callable[[dict[str, Tensor]], object]) -> Callable[[Path], None]:
    """Change the tensors of a file, which stays a good safetensors file."""

    def damage(model: Path) -> None:
        state = load_file(model / name)
        change(state)
        save_file(state, model / name)

    return damage


def header(name: str, change: Callable[[Header], object]) -> Callable[[Path], None]:
    """Change what a file's header says of its tensors, which stay where they are."""

    def damage(model: Path) -> None:
        raw = (model / name).read_bytes()
        length = struct.unpack("<Q", raw[:8])[0]
        entries = json.loads(raw[8 : 8 + length])
        change(entries)
        text = json.dumps(entries).encode()
        (model / name).write_bytes(struct.pack("<Q", len(text)) + text + raw[8 + length :])

    return damage


def replaced(name: str, content: bytes) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes(content)


def gone(name: str) -> Callable[[Path], None]:
    return lambda model: (model / name).unlink()


def shortened(name: str, by: int) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes()[:-by])


def lengthened(name: str) -> Callable[[Path], object]:
    return lambda model: (model / name).write_bytes((model / name).read_bytes() + bytes(3))


def linked_outside(model: Path) -> None:
    shutil.move(model / SHARD, model.parent / "elsewhere.safetensors")
    (model / SHARD).symlink_to(model.parent / "elsewhere.safetensors")


def poisoned(name: str, tensor: str, value: float) -> Callable[[Path], None]:
    return tensors(name, lambda state: state[tensor].view(-1)[0].fill_(value))


def mapped(value: object) -> Callable[[Path], None]:
    return edit(INDEX, lambda data: data["weight_map"].update({NORM: value}))


def moved(name: str, tensor: str, begin: int, stop: int) -> Callable[[Path], None]:
    return header(name, lambda entries: entries[tensor].update(data_offsets=[begin, stop]))


def renamed_token(model: Path) -> None:
    file = model / TOKENIZER
    file.write_text(file.read_text().replace('"<boi>"', '"<bio>"'))


def declares(header: bytes) -> bytes:
    return struct.pack("<Q", len(header)) + header


BIAS = "encoder.conv_in.bias"
EXPERT = "model.layers.1.mlp.experts.3.up_proj.weight"

CORRUPTIONS = [
    Corruption("a truncated shard", shortened(OTHER, 7), (OTHER, "damaged, expected", "bytes, found")),
    Corruption("a truncated part", shortened(DECODER, 1), (DECODER, "damaged, expected")),
    Corruption("a part with more bytes than declared", lengthened(VAE), (VAE, "damaged, expected")),
    Corruption("a missing shard", gone(OTHER), (OTHER, "missing")),
    Corruption("an empty file", replaced(VAE, b""), (VAE, "0 bytes", "shorter than 8 bytes")),
    Corruption("a zip as safetensors", replaced(VAE, b"PK\x03\x04" + bytes(99)), (VAE, "zip archive")),
    Corruption("a pickle as safetensors", replaced(VAE, pickle.dumps([1] * 99)), (VAE, "a pickle")),
    Corruption(
        "a header of 2^63 bytes", replaced(VAE, struct.pack("<Q", 1 << 63) + bytes(99)), (VAE, str(1 << 63), "at most")
    ),
    Corruption(
        "a header over the limit",
        replaced(VAE, struct.pack("<Q", 11_000_000) + b" " * 11_000_000),
        (VAE, "11000000 bytes", "at most 10000000"),
    ),
    Corruption("a header that is not JSON", replaced(VAE, declares(b"{'a': 1}")), (VAE, "not JSON")),
    Corruption("a header that is a list", replaced(VAE, declares(b"[1, 2]")), (VAE, "not a JSON object")),
    Corruption("a header nested deeply", replaced(VAE, declares(b"[" * 100_000)), (VAE, "nested too deeply")),
    Corruption(
        "a tensor that stands twice", replaced(VAE, declares(b'{"same": {}, "same": {}}')), (VAE, "'same'", "twice")
    ),
    Corruption("an entry that is no tensor", header(VAE, lambda h: h.update(odd=3)), (VAE, "odd is no tensor")),
    Corruption("a dtype nobody knows", header(VAE, lambda h: h[BIAS].update(dtype="F99")), (VAE, BIAS, "F99")),
    Corruption("overlapping tensors", moved(SIGVQ, "prior_projector.net.2.bias", 0, 32), (SIGVQ, "prior_", "lies at")),
    Corruption("negative offsets", moved(VAE, BIAS, -32, 0), (VAE, BIAS, "lies at bytes -32 to 0")),
    Corruption("offsets that overflow", moved(VAE, BIAS, 0, 1 << 62), (VAE, f"to {1 << 62}")),
    Corruption("offsets beyond 64 bits", moved(VAE, BIAS, 0, 1 << 70), (VAE, f"{BIAS} is no tensor")),
    Corruption("a missing tensor", tensors(VAE, lambda s: s.pop(BIAS)), (VAE, f"{BIAS} is missing, expected 8")),
    Corruption("a missing expert", tensors(SHARD, lambda s: s.pop(EXPERT)), (EXPERT, "is missing, expected 32x64")),
    Corruption("an extra tensor", tensors(VAE, lambda s: s.update(m=torch.ones(2))), (VAE, "m 2 is not expected")),
    Corruption("an extra tensor in a shard", tensors(OTHER, lambda s: s.update(x=torch.ones(2))), (OTHER, "x 2")),
    Corruption(
        "a misshaped decoder tensor",
        tensors(DECODER, lambda s: s.update(x_pad_token=torch.ones(1, 31))),
        (DECODER, "x_pad_token is 1x31, expected 1x32"),
    ),
    Corruption(
        "a transposed VAE tensor",
        tensors(VAE, lambda s: s.update({BIAS: s[BIAS][None].clone()})),
        (VAE, f"{BIAS} is 1x8, expected 8"),
    ),
    Corruption(
        "integers in place of floats",
        tensors(VAE, lambda s: s.update({BIAS: torch.ones(8, dtype=torch.int64)})),
        (VAE, f"{BIAS} is I64, expected floats"),
    ),
    Corruption("NaN", poisoned(VAE, BIAS, float("nan")), (VAE, f"{BIAS} holds NaN or infinity")),
    Corruption("infinity", poisoned(DECODER, "x_pad_token", float("inf")), (DECODER, "x_pad_token holds NaN")),
    Corruption("a shard that is a link outside", linked_outside, (SHARD, "leads out of its directory")),
    Corruption("an index that is not JSON", replaced(INDEX, b"{"), (INDEX, "is not JSON")),
    Corruption("an index nested deeply", replaced(INDEX, b"[" * 100_000), (INDEX, "nested too deeply")),
    Corruption("an index without weight_map", without(INDEX, "weight_map"), (INDEX, "no weight_map")),
    Corruption("an index that names an absent file", mapped("model-9.safetensors"), ("model-9.safetensors", "missing")),
    Corruption("an index that leads up", mapped("../x.safetensors"), (INDEX, "../x.safetensors")),
    Corruption("an index with an absolute path", mapped("/etc/passwd"), (INDEX, "/etc/passwd")),
    Corruption("an index that lacks a tensor", edit(INDEX, lambda d: d["weight_map"].pop(NORM)), (INDEX, NORM)),
    Corruption(
        "fewer embeddings than ids",
        tensors(LAST, lambda s: s.update({WORDS: s[WORDS][:-1].clone()})),
        (LAST, f"{WORDS} is 895x64, expected 896x64"),
    ),
    Corruption("another vocab_size", keys(CONFIG, vocab_size=960), (CONFIG, "vocab.size must be")),
    Corruption("another image_token_offset", keys(CONFIG, image_token_offset=800), (CONFIG, "vocab.image_offset")),
    Corruption("another pad_token_id", keys(CONFIG, pad_token_id=3), (TOKENIZER, "<|endoftext|> is 476", "says 3")),
    Corruption("another head count", keys(CONFIG, num_attention_heads=8), ("query_key_value", "expected 192x64")),
    Corruption("heads that do not divide", keys(CONFIG, num_attention_heads=5), (CONFIG, "heads 5", "kv_heads 2")),
    Corruption("a config that is missing", gone(CONFIG), (CONFIG, "cannot be read")),
    Corruption("a config without a key", without(CONFIG, "hidden_size"), (CONFIG, "no key 'hidden_size'")),
    Corruption("a config of another type", keys(CONFIG, hidden_size="64"), (CONFIG, "hidden_size is 64, expected")),
    Corruption("a config of NaN", replaced(CONFIG, b'{"rope_theta": NaN}'), (CONFIG, "is not JSON (NaN)")),
    Corruption("a billion layers", keys(CONFIG, num_hidden_layers=10**9), (CONFIG, "num_hidden_layers is 1000000000")),
    Corruption("an absurd width", keys(CONFIG, hidden_size=10**12), (CONFIG, "hidden_size is 1000000000000")),
    Corruption("no experts", keys(CONFIG, num_experts=0), (CONFIG, "num_experts is 0")),
    Corruption("another activation", keys(CONFIG, hidden_act="gelu"), (CONFIG, "hidden_act is gelu, only silu")),
    Corruption("a tokenizer without <boi>", renamed_token, (TOKENIZER, "no token <boi>")),
    Corruption("a tokenizer that is not JSON", replaced(TOKENIZER, b"{"), (TOKENIZER, "not a usable tokenizer.json")),
    Corruption("a tokenizer that is missing", gone(TOKENIZER), (TOKENIZER, "cannot be read")),
    Corruption(
        "an image tokenizer without depth",
        without("image_tokenizer/config.json", "depth"),
        ("image_tokenizer/config.json", "no key 'depth'"),
    ),
    Corruption(
        "image tokenizer heads that do not divide",
        keys("image_tokenizer/config.json", num_heads=3),
        ("image_tokenizer/config.json", "width 16 is not a multiple of heads 3"),
    ),
    Corruption(
        "a decoder of a billion layers",
        keys("decoder/config.json", n_layers=10**9),
        ("decoder/config.json", "n_layers is 1000000000"),
    ),
    Corruption(
        "decoder heads that do not divide",
        keys("decoder/config.json", n_heads=3, n_kv_heads=3),
        ("decoder/config.json", "axes_dims (4, 6, 6) times heads 3"),
    ),
    Corruption(
        "a VAE with other groups",
        keys("vae/config.json", norm_num_groups=3),
        ("vae/config.json", "norm_groups 3"),
    ),
    Corruption("a VAE config cut off", replaced("vae/config.json", b'{"act_fn": '), ("vae/config.json", "is not JSON")),
    Corruption("features as a torch file only", lambda m: (m / SIGVQ).rename((m / SIGVQ).with_suffix(".pt")), (".pt",)),
]


class Refusal(NamedTuple):
    """How a corruption ended."""

    error: BaseException | None
    seconds: float


@pytest.fixture(scope="module")
def refusals(released_directory: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Refusal]:
    """Every corruption done to a fresh copy that always lies in the same place, so that only the reasons differ."""
    found: dict[str, Refusal] = {}
    model = tmp_path_factory.mktemp("corrupt") / "model"
    for corruption in CORRUPTIONS:
        shutil.rmtree(model, ignore_errors=True)
        shutil.copytree(released_directory, model)
        corruption.damage(model)
        begin, caught = time.perf_counter(), None
        try:
            Uni.load(model, "cpu")
        except Exception as error:
            caught = error
        found[corruption.title] = Refusal(caught, time.perf_counter() - begin)
    return found


@pytest.mark.parametrize("corruption", CORRUPTIONS, ids=lambda c: c.title)
def test_it_is_refused_soon_in_one_line_that_names_the_place(
    refusals: dict[str, Refusal], corruption: Corruption
) -> None:
    refusal = refusals[corruption.title]
    assert isinstance(refusal.error, WeightsError | ConfigError), refusal.error
    message = str(refusal.error)
    assert [words for words in corruption.says if words not in message] == [], message
    assert "\n" not in message and len(message) < 1000
    assert refusal.seconds < 2


def test_no_two_corruptions_read_alike(refusals: dict[str, Refusal]) -> None:
    messages = [str(refusal.error) for refusal in refusals.values()]
    assert [title for title, refusal in refusals.items() if messages.count(str(refusal.error)) > 1] == []
    assert len(messages) == len(CORRUPTIONS) >= 40


def test_the_untouched_directory_loads(released_directory: Path) -> None:
    assert Uni.load(released_directory, "cpu").parts.absent == {}


def test_the_links_of_a_hub_cache_are_not_outside(released_directory: Path, tmp_path: Path) -> None:
    blobs, snapshot = tmp_path / "blobs", tmp_path / "snapshots" / "abc"
    shutil.copytree(released_directory, snapshot)
    blobs.mkdir()
    for name in (SHARD, VAE):
        shutil.move(snapshot / name, blobs / Path(name).name)
        (snapshot / name).symlink_to(blobs / Path(name).name)
    assert Uni.load(snapshot, "cpu").parts.absent == {}
