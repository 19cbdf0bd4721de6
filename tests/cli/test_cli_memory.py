"""--memory and --dtype: what is said before and after, and what is refused."""

import re
from pathlib import Path

import pytest


def test_a_verb_tells_how_the_model_was_placed_and_its_peak_beside_the_plan(unveil, model_directory: Path, tmp_path):
    asked = ("generate", "a star", "-o", tmp_path / "a.png", "--model", model_directory, "--device", "cpu")
    told = unveil(*asked, "--memory", "20GB", "--dtype", "int8")
    assert told.code == 0 and "a.png" in told.out
    placed, peak = told.err.splitlines()
    planned = re.fullmatch(r"int8 on cpu, resident: (\d+\.\d\d GB) planned", placed)
    assert planned is not None
    assert re.fullmatch(rf"peak \d+\.\d\d GB, planned {planned[1]}", peak)
    assert unveil(*asked, "--memory", "20GB", "--dtype", "int8", "--quiet").err == ""
    assert unveil(*asked).err == "running on cpu\n"


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (["--memory", "24XB"], "'24XB' is no amount of memory; write it as 24GB or 24GiB"),
        (["--memory", "1MB", "--dtype", "float16"], "does not fit: the least, float16 staged, needs"),
        (["--dtype", "int2"], "--dtype"),
    ],
)
def test_what_cannot_be_planned_is_one_line_and_code_2(refused, model_directory: Path, tmp_path, options, why):
    assert why in refused("generate", "a star", "-o", tmp_path / "a.png", "--model", model_directory, *options)
