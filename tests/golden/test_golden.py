"""Every recorded case of both directories through the runner of `unveil parity`, and what it leaves out."""

from pathlib import Path

import pytest
import torch

from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.parity import Runner
from unveil.parity.models import BackboneSide
from unveil.parity.unmasking import policy_of, task_of
from unveil.sampling import Loop, generate_codes, generate_text

HERE = Path(__file__).parent
RUNNERS = {name: Runner(HERE / name) for name in ("backbone-A", "image-A")}
BACKBONE = RUNNERS["backbone-A"]


def models() -> BackboneSide:
    assert isinstance(BACKBONE.models, BackboneSide)
    return BACKBONE.models


@pytest.mark.parametrize(("directory", "name"), [(d, name) for d, runner in RUNNERS.items() for name in runner.names])
def test_we_compute_what_the_official_code_computed(directory: str, name: str) -> None:
    verdict, *skipped = RUNNERS[directory].run(name)
    assert verdict.status == "passed", verdict.line
    assert [s.name for s in skipped] == (["j1_tokenizer/chats_official_template"] if name == "j1_tokenizer" else [])


def test_every_case_is_known() -> None:
    kinds = {BACKBONE.golden.case(name).kind for name in BACKBONE.names}
    assert (len(BACKBONE.names), len(RUNNERS["image-A"].names)) == (113, 12)
    assert kinds == set(BACKBONE.known) and set(RUNNERS["image-A"].names) == set(RUNNERS["image-A"].known)


def test_the_case_in_bfloat16_has_its_weights_in_bfloat16() -> None:
    network = models().read(torch.bfloat16)
    assert {p.dtype for p in network.parameters()} == {torch.bfloat16}


@pytest.mark.parametrize("name", ["c1_forward", "c9_forward_block32", "b_layer1"])
def test_our_block_causal_mask_is_the_official_one(name: str) -> None:
    case = BACKBONE.golden.case(name)
    expected = case.inputs["mask"]
    blocks = block_of(torch.arange(expected.shape[-1]), case.params["block"])
    assert torch.equal(visible_block_causal(blocks, blocks).expand_as(expected), expected)


@pytest.mark.parametrize("name", ["g01_generate_image_8x8", "g06_generate_image_sprint", "g08_edit_image_both_scales"])
def test_codes_come_out_of_our_own_call_in_their_grid(name: str) -> None:
    case, layout = BACKBONE.golden.case(name), models().layout
    params, (h, w) = case.params["phases"][0]["params"], (case.params["result"][side] for side in "hw")
    ids = {key.removeprefix("phase0_"): case.ids(key) for key in case.inputs}
    task = task_of(params, ids["input_ids"], ids, layout, image=True)
    codes = generate_codes(
        Loop(models().backbone, layout), task.prompts, layout, grid=(h, w), policy=policy_of(params, h * w),
        branches=task.branches, guidance=task.guidance,
    )  # fmt: skip
    assert codes.shape == (1, h, w)
    assert codes.flatten().tolist() == case.outputs["token_ids"].tolist()


def test_an_answer_comes_out_of_our_own_call_without_its_question() -> None:
    case = BACKBONE.golden.case("g09_understand_image")
    params, prompt = case.params["phases"][0]["params"], case.ids("phase0_input_ids")
    tokens = params["gen_length"]
    policy = policy_of(params, tokens)
    rows = generate_text(
        Loop(models().backbone, models().layout), [prompt], models().layout, tokens=tokens, policy=policy
    )
    assert [*prompt, *rows[0]] == case.outputs["phase0_ids"].tolist()
