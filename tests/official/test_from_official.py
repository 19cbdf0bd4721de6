"""The scripts in docs/from-official.md, taken out of the page and run as they stand there."""

import ast
import inspect
import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

import unveil.official
from unveil.official import Model

GOLDEN = Path(__file__).parents[1] / "golden" / "backbone-A"
PAGE = Path(__file__).parents[2] / "docs" / "from-official.md"
SCRIPTS = dict(
    re.findall(r"^## [^\n]*`(\w+\.py)`\n\n```python\n(.*?)^```", PAGE.read_text(), flags=re.DOTALL | re.MULTILINE)
)


def run(directory: Path, name: str, model: Path, *words: object) -> subprocess.CompletedProcess[str]:
    (directory / name).write_text(SCRIPTS[name])
    line = [sys.executable, name, "--model_path", str(model), *map(str, words)]
    environment = dict(os.environ) | {"PYTHONPATH": str(PAGE.parents[1])}
    done = subprocess.run(line, cwd=directory, capture_output=True, text=True, timeout=240, env=environment)
    assert done.returncode == 0, done.stderr
    return done


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.radial_gradient("L").resize((300, 200)).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


def test_the_page_has_one_script_for_each_of_the_three() -> None:
    assert list(SCRIPTS) == ["t2i_generate.py", "mmu_understand.py", "image_edit.py"]


@pytest.mark.parametrize("options", [[], ["--mode", "thinking"], ["--use_sprint"], ["--decode_mode", "decoder-turbo"]])
def test_text_to_image_writes_a_picture(tmp_path: Path, released: Path, options: list[str]) -> None:
    size = ["--image_h", 256, "--image_w", 320, "--steps", 4, "--decoder_steps", 2]
    run(tmp_path, "t2i_generate.py", released, "--prompt", "a red fox", *size, *options)
    picture = Image.open(tmp_path / "image.png")
    assert picture.size == (320, 256) and len(set(picture.convert("L").tobytes())) > 10


def test_the_same_seed_gives_the_same_picture_and_another_seed_another(tmp_path: Path, released: Path) -> None:
    small, made = ["--image_h", 256, "--image_w", 256, "--steps", 2, "--decoder_steps", 2], []
    for seed in (1, 1, 2):
        run(tmp_path, "t2i_generate.py", released, "--prompt", "stars", *small, "--seed", seed)
        made.append(Image.open(tmp_path / "image.png").tobytes())
    assert made[0] == made[1] != made[2]


def test_understanding_prints_words(tmp_path: Path, released: Path, photo: Path) -> None:
    done = run(tmp_path, "mmu_understand.py", released, "--image", photo, "--question", "What?", "--gen_length", 32)
    assert len(done.stdout.removeprefix("Response:\n").strip()) > 0


def test_editing_writes_a_picture_of_the_crops_shape(tmp_path: Path, released: Path, photo: Path) -> None:
    asked = ["--instruction", "make it blue", "--steps", 2, "--decoder_steps", 2]
    run(tmp_path, "image_edit.py", released, "--image", photo, *asked)
    picture = Image.open(tmp_path / "edited.png")
    assert picture.size == (1216, 832) and len(set(picture.convert("L").tobytes())) > 10


def test_every_import_of_the_table_exists() -> None:
    named = {name for line in re.findall(r"`(from unveil[^`]*)`", PAGE.read_text()) for name in _imported(line)}
    used = {name for script in SCRIPTS.values() for name in _imported(script)}
    assert named == used and all(hasattr(unveil.official, name) for name in named)


def _imported(code: str) -> list[str]:
    found = [node for node in ast.walk(ast.parse(code)) if isinstance(node, ast.ImportFrom)]
    return [alias.name for node in found if node.module == "unveil.official" for alias in node.names]


SPRINT = ("use_sprint", "remasking", "keep_ratio", "cache_warmup_steps", "confidence_alpha", "image_keep_ratio",
          "text_keep_ratio")  # fmt: skip
THINKING = ("thinking_steps", "thinking_gen_length", "thinking_temperature", "thinking_top_p", "thinking_top_k")
NAMES = {
    "generate_image": {"prompt", "image_h", "image_w", "steps", "block_length", "cfg_scale", "gen_length", "mode",
                       *THINKING, *SPRINT},
    "understand_image": {"image_tokens", "image_h", "image_w", "question", "steps", "block_length", "gen_length",
                         "threshold", *SPRINT},
    "edit_image": {"image_tokens", "image_h", "image_w", "instruction", "steps", "block_length", "cfg_text_scale",
                   "cfg_image_scale", *SPRINT},
}  # fmt: skip
"""The argument names of the released calls (spec backbone 5.3 to 5.5)."""


@pytest.mark.parametrize("call", NAMES)
def test_every_argument_name_of_the_released_calls_is_known_and_no_other(call: str) -> None:
    assert set(inspect.signature(getattr(Model, call)).parameters) - {"self"} == NAMES[call]
    cases = json.loads((GOLDEN / "manifest.json").read_text())["cases"]
    recorded = [c["params"] for c in cases if c["kind"] == "high_level" and c["params"]["call"] == call]
    assert recorded and set().union(*(params["arguments"] for params in recorded)) <= NAMES[call]
