"""Where a model lies and where it runs."""

from importlib import resources
from pathlib import Path

import torch

from unveil.errors import RequestError, WeightsError
from unveil.weights.names import CONFIG_FILE
from unveil.weights.official_config import DECODER_DIRECTORIES, DecoderKind
from unveil.weights.official_model import is_official, open_official
from unveil.weights.read import Parts, Unread, filled, open_model


def shipped_models() -> dict[str, Path]:
    """The models inside the package, by name."""
    inside = Path(str(resources.files("unveil.weights")))
    return {found.parent.name: found.parent for found in sorted(inside.glob(f"*/{CONFIG_FILE}"))}


def model_directory(model: str | Path) -> Path:
    """The directory of a model given by its name in the package or by its path."""
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    if Path(model).is_dir():
        return Path(model)
    names = f"inside the package: {', '.join(shipped)}" if shipped else "there is none inside this package"
    raise WeightsError(f"no model '{model}'; give a directory with {CONFIG_FILE}, or a name ({names})")


def unread_model(path: Path, decoder: DecoderKind = "normal") -> Unread:
    """The model in a directory of our own layout or as released, checked but not read.

    Raises WeightsError, ConfigError, and RequestError for a decoder it cannot have.
    """
    if decoder not in DECODER_DIRECTORIES:
        raise RequestError(f"no decoder '{decoder}'; there are {' and '.join(DECODER_DIRECTORIES)}")
    if is_official(path):
        return open_official(path, decoder=decoder)
    if decoder != "normal":
        raise RequestError(f"{path}: has one decoder; leave out decoder '{decoder}'")
    return open_model(path)


def open_directory(path: Path, device: torch.device, dtype: torch.dtype, decoder: DecoderKind = "normal") -> Parts:
    """The model in a directory of our own layout or as released. Raises RequestError for a decoder it cannot have."""
    return filled(unread_model(path, decoder), device, dtype)


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the best one here. Raises RequestError when there is none such."""
    if name == "auto":
        usable = (torch.cuda.is_available(), torch.backends.mps.is_available())
        return torch.device("cuda" if usable[0] else "mps" if usable[1] else "cpu")
    try:
        device = torch.device(name)
        torch.empty(1, device=device)
    except (RuntimeError, AssertionError, NotImplementedError):
        raise RequestError(f"device '{name}' cannot be used here; use cpu or auto") from None
    if device.type == "meta":
        raise RequestError("device 'meta' holds no numbers; use cpu or auto")
    return torch.device("cpu") if device.type == "cpu" else device  # there is one, whatever its number


def choose_dtype(name: str | torch.dtype) -> torch.dtype:
    """float32, bfloat16 or float16, by name or as PyTorch has it. Raises RequestError for another."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, torch.dtype) and name in known.values():
        return name
    if str(name) not in known:
        raise RequestError(f"dtype '{name}' cannot be used; use {', '.join(known)}")
    return known[str(name)]
