"""`recipes/tiny/blend.py`: the mean of two backbones."""

import subprocess
import sys
import zlib
from pathlib import Path

import torch
from safetensors.torch import load_file, save_file

from unveil.weights.manifest import read_manifest

SCRIPT = Path(__file__).parents[2] / "recipes/tiny/blend.py"


def test_the_blend_lies_between_the_two_and_may_overwrite_one(tmp_path: Path) -> None:
    first, second = tmp_path / "first.safetensors", tmp_path / "second.safetensors"
    save_file({"a": torch.tensor([0.0, 10.0]), "b": torch.ones(1)}, first)
    save_file({"a": torch.tensor([5.0, 0.0]), "b": torch.ones(1)}, second)
    subprocess.run([sys.executable, SCRIPT, first, second, "0.6", second], check=True)
    found = load_file(second)
    assert torch.allclose(found["a"], torch.tensor([3.0, 4.0])) and found["b"].item() == 1
    assert zlib.crc32(second.read_bytes()) == int(read_manifest(tmp_path).files["second.safetensors"].crc32, 16)
