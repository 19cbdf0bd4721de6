"""Where a model lies and where it runs."""

from importlib import resources
from pathlib import Path

import torch

from unveil.errors import RequestError, WeightsError
from unveil.files import check_links
from unveil.model.layers.quantized import FP8_WIDTHS, multiply_fp8, pack_fp8
from unveil.weights.manifest import MANIFEST_FILE
from unveil.weights.names import CONFIG_FILE
from unveil.weights.official_config import DECODER_DIRECTORIES, DecoderKind
from unveil.weights.official_model import is_official, open_official
from unveil.weights.read import Unread, open_model

_MARKS = (CONFIG_FILE, MANIFEST_FILE, "config.json", "decoder/config.json")
"""One of these lies in every model's directory, ours, released or of diffusers, unless its weights alone are left."""


def shipped_models() -> dict[str, Path]:
    """The models inside the package, by name."""
    inside = Path(str(resources.files("unveil.weights")))
    return {found.parent.name: found.parent for found in sorted(inside.glob(f"*/{CONFIG_FILE}"))}


def model_directory(model: str | Path) -> Path:
    """The directory of a model given by its name in the package or by its path; no link leads out of it."""
    shipped = shipped_models()
    if str(model) in shipped:
        return shipped[str(model)]
    path = Path(model)
    if str(model) and path.is_dir():
        if not any((path / name).exists() for name in _MARKS) and not any(path.glob("*.safetensors")):
            names = f"neither {CONFIG_FILE} nor config.json"
            raise WeightsError(f"{path}: no model there ({names}); give a directory with a model")
        check_links(path)
        return path
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


def choose_device(name: str) -> torch.device:
    """The device of that name; "auto" is the best one here. Raises RequestError, saying why there is none such."""
    if name == "auto":
        usable = (torch.cuda.is_available(), torch.backends.mps.is_available())
        return torch.device("cuda" if usable[0] else "mps" if usable[1] else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise RequestError(f"no device '{name}'; there are auto, cpu, cuda, cuda:1 and so on, mps") from None
    reason = _why_not(device)
    if reason is not None:
        raise RequestError(f"device '{name}' cannot be used here: {reason}; or use cpu or auto")
    return torch.device("cpu") if device.type == "cpu" else device  # there is one, whatever its number


def _why_not(device: torch.device) -> str | None:
    """What keeps a model from running on a device, and what could be done about it; None when nothing does."""
    match device.type:
        case "cpu":
            return None
        case "cuda":
            if not torch.backends.cuda.is_built():
                return "this PyTorch is built without CUDA; install one with it (pytorch.org)"
            count = torch.cuda.device_count()
            if count == 0:
                return "no NVIDIA GPU is found; check the driver (nvidia-smi)"
            return (
                None if (device.index or 0) < count else f"the GPUs are cuda:0 to cuda:{count - 1}; choose one of them"
            )
        case "mps":
            if torch.backends.mps.is_available():
                return None
            return "it needs macOS 14 or newer on an Apple chip, and a PyTorch built for it"
    return "models run on cpu, cuda and mps alone; choose one of them"


def check_precision(device: torch.device, dtype: torch.dtype) -> None:
    """Raise RequestError unless the device computes in this precision: a small product and a softmax are tried."""
    try:
        x = torch.ones(2, 2, device=device, dtype=dtype)
        (x @ x).softmax(-1).sum().item()
    except (RuntimeError, TypeError, AssertionError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        name = str(dtype).removeprefix("torch.")
        raise RequestError(f"{device} does not compute in {name} ({said}); use float32, or --device cpu") from None


def check_fp8(device: torch.device) -> None:
    """Raise RequestError unless the device multiplies float8 numbers: a small product is tried.

    NVIDIA's do from compute capability 8.9 on; Apple's have no such numbers. PyTorch's CPU product imitates it.
    """
    try:
        x = torch.ones(FP8_WIDTHS, FP8_WIDTHS, device=device, dtype=torch.bfloat16)
        multiply_fp8(x, *pack_fp8(x), None).sum().item()
    except (RuntimeError, TypeError, AssertionError) as error:
        said = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise RequestError(f"{device} does not multiply in fp8 ({said}); use int8, which is as small") from None


def choose_dtype(name: str | torch.dtype) -> torch.dtype:
    """float32, bfloat16 or float16, by name or as PyTorch has it. Raises RequestError for another."""
    known = {"float32": torch.float32, "bfloat16": torch.bfloat16, "float16": torch.float16}
    if isinstance(name, torch.dtype) and name in known.values():
        return name
    if str(name) not in known:
        raise RequestError(f"dtype '{name}' cannot be used; use {', '.join(known)}")
    return known[str(name)]
