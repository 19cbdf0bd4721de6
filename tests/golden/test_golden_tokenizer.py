"""Case j1 (tokenizer, chat template) and the prompts of the g cases, id for id with the official code."""

import json
from pathlib import Path
from typing import Any

import pytest
from safetensors.torch import load_file

from unveil.config import VocabConfig
from unveil.shapes import Tensor
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts, Turn
from unveil.vocab.text import Text

DIRECTORY = Path(__file__).parent / "backbone-A"
MANIFEST = json.loads((DIRECTORY / "manifest.json").read_text())
CASES = {case["name"]: case for case in MANIFEST["cases"]}
PIECES = CASES["j1_tokenizer"]["params"]["pieces"]
CHATS = CASES["j1_tokenizer"]["params"]["chats"]


def named(call: str, mode: str | None = None) -> list[str]:
    """Names of the high-level cases that make one call."""
    found = [(n, c["params"]) for n, c in CASES.items() if c["kind"] == "high_level"]
    return [n for n, p in found if p["call"] == call and p["arguments"].get("mode") == mode]


@pytest.fixture(scope="module")
def arrays() -> dict[str, Tensor]:
    return load_file(DIRECTORY / "goldens.safetensors")


@pytest.fixture(scope="module")
def prompts() -> Prompts:
    text = Text.load(DIRECTORY / "checkpoint" / "tokenizer.json")
    ids = MANIFEST["ids"]
    vocab = VocabConfig(size=ids["vocab"], image_offset=ids["offset"], pad=ids["eos"], mask=ids["mask"])
    return Prompts(text, Layout.of(vocab, text), spell_sizes=True)


def case(arrays: dict[str, Tensor], name: str) -> tuple[dict[str, Any], dict[str, list[int]]]:
    """A case's arguments and its inputs as lists."""
    inputs = {key: arrays[tensor].flatten().tolist() for key, tensor in CASES[name]["inputs"].items()}
    return CASES[name]["params"]["arguments"], inputs


def grid(ids: list[int], offset: int, h: int, w: int) -> Tensor:
    """Vocabulary ids of a picture as a grid of codes."""
    return Tensor(ids).long().reshape(h, w) - offset


@pytest.mark.parametrize("piece", PIECES, ids=range(len(PIECES)))
def test_a_template_piece_has_the_official_ids_and_text(prompts: Prompts, piece: dict[str, Any]) -> None:
    assert prompts.text.encode_template(piece["text"]) == piece["ids"]
    assert prompts.text.decode(piece["ids"]) == piece["back"]


@pytest.mark.parametrize("chat", CHATS, ids=range(len(CHATS)))
def test_a_conversation_has_the_official_ids(prompts: Prompts, chat: dict[str, Any]) -> None:
    assert prompts.chat([Turn(m["role"], m["content"]) for m in chat["messages"]]) == chat["ids"]


@pytest.mark.parametrize("name", named("generate_image"))
def test_a_text_to_image_prompt_has_the_official_ids(prompts: Prompts, arrays: dict[str, Tensor], name: str) -> None:
    asked, inputs = case(arrays, name)
    h, w = asked["image_h"] // 32, asked["image_w"] // 32
    assert prompts.generate(asked["prompt"], h, w) == inputs["phase0_input_ids"]
    assert prompts.generate_unconditional(h, w) == inputs["phase0_uncond_ids"]


@pytest.mark.parametrize("name", named("generate_image", "thinking"))
def test_a_thinking_prompt_has_the_official_ids(prompts: Prompts, arrays: dict[str, Tensor], name: str) -> None:
    asked, inputs = case(arrays, name)
    assert prompts.think(asked["prompt"]) == inputs["phase0_input_ids"]
    if "phase1_uncond_ids" in inputs:  # g13 ends before the picture
        unconditional = prompts.think_unconditional(asked["image_h"] // 32, asked["image_w"] // 32)
        assert unconditional == inputs["phase1_uncond_ids"]


@pytest.mark.parametrize("name", named("edit_image"))
def test_an_edit_prompt_and_its_branches_have_the_official_ids(
    prompts: Prompts, arrays: dict[str, Tensor], name: str
) -> None:
    asked, inputs = case(arrays, name)
    h, w = asked["image_h"], asked["image_w"]
    codes = grid(inputs["image_tokens"], prompts.layout.image_offset, h, w)
    assert prompts.edit(codes, asked["instruction"]) == inputs["phase0_input_ids"]
    assert prompts.edit_no_text(codes) == inputs["phase0_uncond_text"]
    assert prompts.edit_no_image(h, w, asked["instruction"]) == inputs["phase0_uncond_img"]


@pytest.mark.parametrize("name", named("understand_image"))
def test_a_bare_question_has_the_official_ids_and_its_result_the_official_text(
    prompts: Prompts, arrays: dict[str, Tensor], name: str
) -> None:
    asked, inputs = case(arrays, name)
    codes = grid(inputs["image_tokens"], prompts.layout.image_offset, asked["image_h"], asked["image_w"])
    ids = prompts.understand_bare(codes, asked["question"])
    assert ids == inputs["phase0_input_ids"]
    result = arrays[f"{name}/phase0_ids"].flatten().tolist()
    start = len(ids) - len(prompts.text.encode(asked["question"]))
    assert prompts.text.decode(result[start:]) == CASES[name]["params"]["result"]["text"]


@pytest.mark.parametrize("name", ["g12_thinking_0", "g12_thinking_1"])
def test_a_plan_decodes_to_the_official_text(prompts: Prompts, arrays: dict[str, Tensor], name: str) -> None:
    asked, inputs = case(arrays, name)
    result = arrays[f"{name}/phase0_ids"].flatten().tolist()
    plan = result[len(inputs["phase0_input_ids"]) : result.index(prompts.layout.boi)]
    assert prompts.text.decode(plan) == CASES[name]["params"]["result"]["thinking"]


def test_the_goldens_hold_cases_of_every_call() -> None:
    counts = [len(named("generate_image")), len(named("generate_image", "thinking"))]
    assert counts + [len(named("edit_image")), len(named("understand_image"))] == [7, 3, 2, 3]
