"""plan: what a model would need, and what would fit."""

import json

import pytest

from unveil.config import preset_names


def test_the_command_prints_every_part_and_says_what_would_fit(unveil):
    plain = unveil("plan", "tiny", "--gpu", "1GB", "--ram", "1GB")
    lines = plain.out.splitlines()
    assert plain.code == 0 and [line.split()[0] for line in lines[1:6]] == [
        "backbone",
        "image_tokenizer",
        "code_embedding",
        "decoder",
        "vae",
    ]
    assert "fits 1GB on the device" in lines[6] and "not loaded" in lines[2]
    said = json.loads(unveil("plan", "tiny", "--gpu", "30MB", "--ram", "1GB", "--dtype", "float32", "--json").out)
    assert said["fits"] is True and said["residency"] == "staged"
    said = json.loads(unveil("plan", "tiny", "--gpu", "20MB", "--ram", "1GB", "--dtype", "float32", "--json").out)
    assert said["fits"] is True and said["residency"] == "streamed" and ["bfloat16", "staged"] in said["would_fit"]
    said = json.loads(unveil("plan", "tiny", "--ram", "20MB", "--dtype", "float32", "--json").out)
    assert said["fits"] is False and ["bfloat16", "staged"] in said["would_fit"]  # nothing streams without a GPU
    assert "nothing that is known here would fit" in unveil("plan", "tiny", "--gpu", "1KB", "--ram", "1KB").out


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["tiny", "--gpu", "24XB", "--ram", "64GB"], "'24XB' is no amount of memory"),
        (["tinny", "--gpu", "24GB", "--ram", "64GB"], "did you mean 'tiny'?"),
        (["tiny", "--gpu", "24GB", "--ram", "64GB", "--size", "100"], "multiple of 16"),
        (["tiny", "--gpu", "24GB", "--ram", "64GB", "--size", "4096"], "exceed the context"),
        (["tiny", "--gpu", "24GB", "--ram", "64GB", "--size", "128", "--task", "understand"], "leave out the size"),
        (["tiny", "--gpu", "24GB", "--ram", "64GB", "--dtype", "int2"], "--dtype"),
        (["tiny", "--gpu", "64GB"], "--ram"),
    ],
)
def test_bad_requests_for_a_plan_are_one_line_and_code_2(refused, arguments, why):
    assert why in refused("plan", *arguments)


@pytest.mark.parametrize("task", ["generate", "understand", "edit", "anything"])
def test_the_defaults_of_every_preset_can_be_planned(unveil, task):
    for preset in preset_names():
        planned = unveil("plan", preset, "--ram", "1TB", "--task", task)
        assert planned.code == 0 and "fits 1TB of the process" in planned.out


def test_a_directory_is_planned_from_its_configuration(unveil, model_directory):
    named = unveil("plan", model_directory, "--gpu", "1GB", "--ram", "1GB", "--json")
    weights = {part["part"]: part["weights"] for part in json.loads(named.out)["parts"]}
    assert weights["backbone"] < (model_directory / "backbone.safetensors").stat().st_size < 2.1 * weights["backbone"]
