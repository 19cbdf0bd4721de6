"""The same request in a fresh process gives the same tokens and pixels, whatever the order of its sets (G1)."""

import json
import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest

ASK = """
import hashlib, json, sys
import torch
from PIL import Image

torch.set_num_threads(1)
from unveil import Uni

seed, uni = int(sys.argv[1]), Uni.load("tiny", "cpu")
drawing = {"num_inference_steps": 4, "solver_steps": 2, "seed": seed}


def digest(*parts):
    return hashlib.sha256(b"".join(p if isinstance(p, bytes) else str(p).encode() for p in parts)).hexdigest()


def picture(result):
    return digest(result.codes.tolist(), result.image.tobytes(), result.thinking)


given = Image.effect_mandelbrot((64, 64), (-2, -1.5, 1, 1.5), 90).convert("RGB")
story = uni.generate_interleaved("a red car on white. it turns blue.", **drawing)
print(json.dumps({
    "t2i": picture(uni.generate_image("two green trees on gray", **drawing)),
    "sprint": picture(uni.generate_image("two green trees on gray", sprint="official", **drawing)),
    "thinking": picture(uni.generate_image("a blue fish on black", thinking=True, **drawing)),
    "edit": picture(uni.edit_image(given, "make it green", **drawing)),
    "understand": digest(uni.understand_image(given, "describe the picture", temperature=3.0, seed=seed).text),
    "interleaved": digest(*((p.text, p.image and picture(p.image)) for p in story.pages)),
    "order": list({"a", "b", "c", "d", "e", "f"}),
}))
"""


def ask(seed: int) -> dict:
    """What a process of its own gives, its hashes salted by chance."""
    env = {**os.environ, "PYTHONHASHSEED": "random"}
    ran = subprocess.run([sys.executable, "-c", ASK, str(seed)], env=env, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stderr
    return json.loads(ran.stdout)


@pytest.mark.parametrize("processes", [2, pytest.param(20, marks=pytest.mark.slow)])
def test_fresh_processes_give_the_same_tokens_and_pixels(processes):
    with ThreadPoolExecutor(2) as pool:
        found = [*pool.map(ask, [7] * processes + [8])]
    assert len({tuple(one.pop("order")) for one in found}) > 1  # their sets were in different orders
    other = found.pop()
    assert all(one == found[0] for one in found)
    assert all(other[task] != found[0][task] for task in other)  # each hash tells two seeds apart
