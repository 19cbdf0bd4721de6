"""A golden directory: `manifest.json` in either of its two kinds, `goldens.safetensors`, `checkpoint/`.

The backbone's manifest has a list of `cases`; the image side's names one topic after the other.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Self

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from unveil.errors import RequestError
from unveil.shapes import Tensor
from unveil.weights.official_config import read_json

MANIFEST, ARRAYS, CHECKPOINT = "manifest.json", "goldens.safetensors", "checkpoint"
_PROSE = {"about", "versions", "conventions", "ids", "sizes", "checks"}
"""What a manifest says beside its cases."""

_GIVEN = {"x", "t", "features", "z", "x0", "x1", "lat", "img"}
"""Last words of the image side's tensors that are inputs; all others under a topic's name are outputs."""


@dataclass(frozen=True)
class Case:
    """One recorded call. Tensors go by their short names, on the image side by their full ones; integers are int64."""

    name: str
    kind: str
    what: str
    params: Mapping[str, Any]
    inputs: Mapping[str, Tensor]
    outputs: Mapping[str, Tensor]
    tolerance: Mapping[str, str]
    manifest: Mapping[str, Any]  # all of it: a case may name another's values

    def ids(self, name: str) -> list[int]:
        """An input as a list of ids."""
        found: list[int] = self.inputs[name].flatten().tolist()
        return found


@dataclass(frozen=True)
class Golden:
    """What lies in the directory."""

    directory: Path
    manifest: Mapping[str, Any]
    arrays: Mapping[str, Tensor]

    @classmethod
    def read(cls, directory: Path) -> Self:
        """Raises RequestError, naming what is missing or unreadable, when it is no golden directory."""

        def refuse(problem: str) -> RequestError:
            return RequestError(f"{directory} is no golden directory: {problem}")

        directory = Path(directory)
        missing = [name for name in (MANIFEST, ARRAYS, CHECKPOINT) if not (directory / name).exists()]
        if missing:
            raise refuse(f"it lacks {', '.join(missing)}")
        manifest = read_json(directory / MANIFEST, refuse)
        try:
            arrays = load_file(directory / ARRAYS)
        except (SafetensorError, OSError) as error:
            raise refuse(f"{ARRAYS} cannot be read ({error})") from None
        golden = cls(directory, manifest, {name: _wide(tensor) for name, tensor in arrays.items()})
        cases = [] if golden.of_images else manifest["cases"]
        if not all(isinstance(case, dict) and isinstance(case.get("name"), str) for case in cases):
            raise refuse(f"{MANIFEST} has a case without a name")
        if not golden.entries or len(golden.entries) < len(cases):
            raise refuse(f"{MANIFEST} names {'a case twice' if cases else 'no case'}")
        return golden

    @property
    def of_images(self) -> bool:
        """Whether it is the image side's."""
        return not isinstance(self.manifest.get("cases"), list)

    @property
    def entries(self) -> dict[str, Any]:
        """Each case's name and its part of the manifest."""
        if self.of_images:
            topics = self.manifest.items()
            return {name: topic for name, topic in topics if isinstance(topic, dict) and name not in _PROSE}
        return {case["name"]: case for case in self.manifest["cases"]}

    @property
    def checkpoint(self) -> Path:
        """The weights that the recording was made with."""
        return self.directory / CHECKPOINT

    def case(self, name: str) -> Case:
        """One case with its tensors. Raises KeyError with what it lacks."""
        entry = self.entries[name]
        tolerance = entry.get("tolerance", {})
        if self.of_images:
            outputs = {output: self.arrays[output] for output in self._outputs(name, entry)}
            return Case(name, name, entry.get("what", ""), entry, self.arrays, outputs, tolerance, self.manifest)
        given, results = ({n: self.arrays[t] for n, t in entry[key].items()} for key in ("inputs", "outputs"))
        what, params = entry.get("what", ""), entry["params"]
        return Case(name, entry["kind"], what, params, given, results, tolerance, self.manifest)

    def _outputs(self, topic: str, entry: Mapping[str, Any]) -> list[str]:
        """Names of a topic's recorded results: those its entry names, else all under its name but the inputs."""
        rows = [entry, *(row for row in entry.get("cases", []) if isinstance(row, dict))]
        fields = ("out", "features", "pixel_values", "hidden", "latent")
        named = [row[field] for row in rows for field in fields if isinstance(row.get(field), str)]
        mine = [name for name in self.arrays if name.startswith(f"{topic}.")]
        return list(dict.fromkeys([*named, *(n for n in mine if n not in named and n.rsplit(".", 1)[1] not in _GIVEN)]))


def _wide(tensor: Tensor) -> Tensor:
    return tensor.long() if tensor.dtype == torch.int32 else tensor
