"""A released directory as it was downloaded, as modules; parts that are not there are named when they are needed.

    config.json  tokenizer.json  model-*.safetensors  model.safetensors.index.json
    image_tokenizer/  config.json  preprocessor_config.json  model.safetensors  sigvq_embedding.safetensors
    decoder/  decoder-turbo/  config.json  model.safetensors
    vae/  config.json  diffusion_pytorch_model.safetensors

The release has `sigvq_embedding.pt` in place of the safetensors file; it is never read here. `unveil convert --sigvq`
writes the one from the other, once.
"""

import hashlib
from collections.abc import Collection, Mapping
from functools import partial
from pathlib import Path

import torch

from unveil.config import ModelConfig
from unveil.errors import WeightsError
from unveil.files import check_inside
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text
from unveil.weights.names import CONFIG_FILE, SIGVQ_FILE, TOKENIZER_FILE
from unveil.weights.official import INDEX_FILE, SINGLE_FILES, backbone_files, check_backbone
from unveil.weights.official_config import DECODER_DIRECTORIES, DecoderKind, official_model_config
from unveil.weights.read import Parts, Unread, build, check_tensors, filled
from unveil.weights.tensors import REMEDY, read_files

_RENDERING = ("code_embedding", "decoder", "vae")
_TURBO = {"solver": "turbo", "solver_steps": 8, "decoder_guidance": 0.0}
_SAMPLE = 1 << 16  # bytes at each place where a fingerprint looks
_PLACES = 16


def is_official(path: Path) -> bool:
    """Whether a directory is in the released layout, whole or not: some of its files, no configuration of ours."""
    path = Path(path)
    theirs = ("config.json", INDEX_FILE, SINGLE_FILES[0])
    return not (path / CONFIG_FILE).exists() and any((path / name).is_file() for name in theirs)


def load_official(
    path: Path,
    device: torch.device | str = "cpu",
    dtype: torch.dtype = torch.float32,
    *,
    decoder: DecoderKind = "normal",
    only: Collection[str] | None = None,
) -> Parts:
    """The model in a released directory, ready to sample from; `decoder` and `only` as for `open_official`.

    Raises ConfigError or WeightsError.
    """
    return filled(open_official(path, decoder=decoder, only=only), device, dtype)


def open_official(path: Path, *, decoder: DecoderKind = "normal", only: Collection[str] | None = None) -> Unread:
    """The model in a released directory, not read yet; `decoder` says which of its two image decoders.

    With `only` no other part will be read.

    Raises ConfigError (JSON files), or one WeightsError with everything missing, extra or misshaped in all image parts
    or in the backbone.
    """
    path = Path(path)
    text, config, layout = read_settings(path, decoder)
    files, absent = image_files(path, decoder)
    modules = build(config)
    unread = [name for name in modules if only is not None and name not in only]
    files = {name: file for name, file in files.items() if name not in unread}
    absent |= {name: f"{path}: its {name} was not asked for" for name in unread}
    check_tensors(modules, files)
    tensors = {name: partial(read_files, [file]) for name, file in files.items()}
    if "backbone" not in unread:
        check_backbone(modules["backbone"], path)
        tensors = {"backbone": partial(read_files, backbone_files(path)), **tensors}
    for module in modules.values():
        module.eval().requires_grad_(False)
    shards = sorted(path.glob("model*.safetensors"))
    fields = {"retrieval": None, "absent": absent, "hash": fingerprint([*shards, *files.values()], path)}
    parts = Parts(config=config, text=text, layout=layout, **modules, **fields)  # type: ignore[arg-type]
    places = {"backbone": tuple(backbone_files(path)) if "backbone" in tensors else ()}
    return Unread(parts, tensors, places | {name: (file,) for name, file in files.items()})


def read_settings(path: Path, decoder: DecoderKind) -> tuple[Text, ModelConfig, Layout]:
    """All of a released directory but its weights."""
    text = Text.load(path / TOKENIZER_FILE)
    try:
        config = _for_solver(official_model_config(path, text, decoder), decoder)
        return text, config, Layout.of(config.vocab, text)
    except WeightsError as error:
        raise WeightsError(f"{path / TOKENIZER_FILE}: {error}") from None


def image_files(path: Path, decoder: DecoderKind) -> tuple[dict[str, Path], dict[str, str]]:
    """The weights file of each image part to load, and of each other part the line that says what is missing.

    What renders is loaded all or not at all: without one of the three the other two are of no use. Raises WeightsError
    with the command to run when only the features of the codes are in the way, because they are there as `.pt`.
    """
    files = part_files(path, decoder)
    found = {part: file for part, file in files.items() if file.is_file()}
    absent = {
        part: f"{file}: missing, so this model has no {part}; {REMEDY}"
        for part, file in files.items()
        if part not in found
    }
    for file in found.values():
        check_inside(file, path)
    pickled = (path / SIGVQ_FILE).with_suffix(".pt")
    lacking = [part for part in _RENDERING if part in absent]
    if lacking == ["code_embedding"] and pickled.is_file():
        raise WeightsError(
            f"{pickled}: is not read, since such files can hold code; run: unveil convert --sigvq {path}"
        )
    if lacking:
        why = "; ".join(absent[part] for part in lacking)
        absent |= dict.fromkeys(_RENDERING, why)
    return {part: file for part, file in found.items() if part not in absent}, absent


def part_files(path: Path, decoder: DecoderKind) -> dict[str, Path]:
    """Where each image part's weights are: under the name that is there, or the newest one when none is."""
    places = {
        "image_tokenizer": (path / "image_tokenizer", SINGLE_FILES[:2]),
        "code_embedding": (path / SIGVQ_FILE.parent, (SIGVQ_FILE.name,)),
        "decoder": (path / DECODER_DIRECTORIES[decoder], (SINGLE_FILES[0], SINGLE_FILES[2])),
        "vae": (path / "vae", (SINGLE_FILES[3], SINGLE_FILES[0])),
    }
    return {
        part: next((place / name for name in names if (place / name).is_file()), place / names[0])
        for part, (place, names) in places.items()
    }


def fingerprint(files: list[Path], path: Path) -> str:
    """A name for weights without a manifest: 16 hex digits over each file's name, size and samples of its bytes.

    Cheap at any size, and it tells models apart; it is no proof that a file is whole.
    """
    digest = hashlib.sha256()
    for file in sorted(files):
        size = file.stat().st_size
        digest.update(f"{file.relative_to(path).as_posix()} {size}\n".encode())
        with file.open("rb") as stream:
            for k in range(_PLACES):
                stream.seek(k * max(size - _SAMPLE, 0) // (_PLACES - 1))
                digest.update(stream.read(_SAMPLE))
    return digest.hexdigest()[:16]


def _for_solver(config: ModelConfig, decoder: DecoderKind) -> ModelConfig:
    """The turbo decoder has learned to arrive in a few jumps, without guidance; so the defaults differ."""
    changes: Mapping[str, object] = _TURBO if decoder == "turbo" else {}
    return config.model_copy(update={"sampling": config.sampling.model_copy(update=dict(changes))})
