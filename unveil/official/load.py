"""What the released scripts load with: the backbone as a model, the tokenizer of text. No remote code is ever run."""

from collections.abc import Collection, Mapping
from pathlib import Path

import torch

from unveil.errors import RequestError
from unveil.official.choices import Behavior
from unveil.official.model import Model
from unveil.pipeline.fit import choose_precision, place_parts
from unveil.pipeline.place import choose_device, model_directory, unread_model
from unveil.vocab.text import Text
from unveil.weights.names import TOKENIZER_FILE
from unveil.weights.official_config import DecoderKind
from unveil.weights.official_model import is_official, open_official
from unveil.weights.read import Parts

DeviceMap = str | torch.device | Mapping[str, str | int | torch.device] | None


class AutoModelForCausalLM:
    """Where the released scripts get their model from."""

    @staticmethod
    def from_pretrained(
        model_path: str | Path,
        *,
        behavior: Behavior = "sane",
        device_map: DeviceMap = None,
        torch_dtype: str | torch.dtype | None = None,
        trust_remote_code: bool = False,
        local_files_only: bool = False,
        low_cpu_mem_usage: bool = False,
        attn_implementation: str | None = None,
    ) -> Model:
        """The backbone in a directory, ready to sample from; on the CPU unless told otherwise.

        torch_dtype: as for `open_parts`. `behavior` is ours. The last four arguments change nothing: no code of the
        directory is run, nothing is fetched, weights are never held twice, and attention is PyTorch's own.
        """
        parts = open_parts(model_path, ("backbone",), place_of(device_map), torch_dtype)
        return Model(parts, behavior)


class AutoTokenizer:
    """Where the released scripts get their tokenizer of text from."""

    @staticmethod
    def from_pretrained(
        model_path: str | Path, *, trust_remote_code: bool = False, local_files_only: bool = False
    ) -> Text:
        """The tokenizer in a directory. The other arguments change nothing."""
        return Text.load(model_directory(model_path) / TOKENIZER_FILE)


def open_parts(
    model_path: str | Path,
    only: Collection[str],
    device: str | torch.device,
    dtype: str | torch.dtype | None,
    decoder: DecoderKind = "normal",
) -> Parts:
    """These parts of a released directory, or a model of our own layout whole.

    dtype: float32, bfloat16, float16, also int8, fp8 or int4. None or "auto" is what `Uni.load` chooses: on a GPU the
    precision of the files, on a CPU float32, or that of the files when float32 does not fit the free memory.
    """
    path, where = model_directory(model_path), choose_device(str(device))
    precision = "auto" if dtype is None else dtype
    choose_precision(precision)  # a wrong name is told before any file is read
    released = is_official(path)
    source = open_official(path, decoder=decoder, only=only) if released else unread_model(path, decoder)
    parts, _ = place_parts(source, where, precision, None)
    parts.require(*only)
    return parts


def place_of(device_map: DeviceMap) -> str:
    """The one device of a device map. Raises RequestError for a model spread over several."""
    if device_map is None:
        return "cpu"
    if not isinstance(device_map, Mapping):
        return str(device_map)
    if list(device_map) != [""]:
        raise RequestError(f'device_map must name one device, as {{"": "cuda"}} does, not {dict(device_map)}')
    place = device_map[""]
    return f"cuda:{place}" if isinstance(place, int) else str(place)
