"""`unveil parity` sees what is wrong, says where, goes on with the rest, and leaves with the right code."""

import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

SPOILED = {
    "backbone-A": {
        "a1_router": "weight_sorted",
        "b_layer2": "ffn_of_hidden",
        "b_rope": "sin",
        "c1_forward": "router_idx_sorted",
        "c5_forward_kv_cache": "value_cache",
        "c8_forward_inputs_embeds": "logits",
        "d1_loss_and_gradients": "embedding_grad_row_norms",
        "e01_text": "first_step_logits",
        "e16_text_sampled": "ids",
        "f02_image_cfg2": "first_step_image_logits",
        "f13_image_block32": "trace_window_end",
        "g06_generate_image_sprint": "token_ids",
        "g12_thinking_1": "phase1_ids",
        "h03_sprint_text_margin": "trace_max_prob",
        "i1_schedule": "8_3",
        "i2_filter_1": "probs",
        "i3_adaptive_neg_entropy_2_1": "accepted",
        "i4_prune_2": "kept",
    },
    "image-A": {
        "tokenizer": "tok.1.latent",
        "whiten": "rgba.out",
        "velocity": "velocity.ragged.1.out",
        "ode": "ode.out",
        "turbo": "turbo.out",
        "flow": "flow.ut",
        "vae": "vae.logvar",
        "picture": "picture.decoder-turbo",
    },
}


def spoil(tensor: torch.Tensor, name: str = "") -> None:
    """Change one value: by 2 where it is an integer, else by 1% of the largest.

    Of what only counts where a place is masked: the last place of the first block, which is masked at first.
    """
    flat = (tensor[0, -1:] if name.startswith(("first_step", "trace_max")) else tensor).view(-1)
    at = int(flat.double().abs().argmax())
    flat[at] = flat[at] + 0.01 * tensor.abs().max() if tensor.is_floating_point() else flat[at] - 2


@pytest.mark.parametrize("directory", SPOILED)
def test_one_spoiled_value_in_each_of_several_cases_fails_just_these(directory: str, parity: Any, copy: Any) -> None:
    damaged, spoiled = copy(directory), SPOILED[directory]
    for name, tensor in spoiled.items():
        spoil(damaged.arrays[tensor if directory == "image-A" else f"{name}/{tensor}"], tensor)
    total = len(damaged.manifest.get("cases", damaged.manifest))
    outcome = parity(damaged.write())
    assert sorted(outcome.having("failed")) == sorted(spoiled) and outcome.code == 1
    said = {line.split("  ")[0]: line for line in outcome.lines}
    assert [name for name, tensor in spoiled.items() if f"  failed  {tensor}[" not in said[name]] == []
    assert outcome.lines[-1].startswith(f"{total - len(spoiled)} passed, {len(spoiled)} failed")


def test_a_case_fails_that_is_unknown_incomplete_or_compares_nothing_and_the_rest_goes_on(
    parity: Any, copy: Any
) -> None:
    names = ["a1_router", "b_layer0", "b_rope", "c1_forward", "d1_loss_and_gradients", "i1_schedule", "i2_filter_1"]
    damaged = copy("backbone-A", [*names, "j1_tokenizer", "g09_understand_image"])
    damaged.case("a1_router")["kind"] = "oracle"
    del damaged.case("b_layer0")["params"]["layer"]
    damaged.case("b_rope")["outputs"]["tan"] = "b_rope/sin"
    damaged.case("c1_forward")["tolerance"]["logits"] = "about right"
    damaged.case("d1_loss_and_gradients")["params"]["grad_norms"]["lm_head.weight"] *= 1.01
    damaged.case("i1_schedule").update(params={"pairs": []}, outputs={})
    del damaged.arrays["i2_filter_1/logits"]
    damaged.case("j1_tokenizer")["params"]["pieces"][3]["ids"][0] += 1
    damaged.case("g09_understand_image")["params"]["result"]["text"] += "!"
    outcome = parity(damaged.write())
    said = {line.split("  ")[0]: line.split("  ", 2)[2] for line in outcome.lines[:-1]}
    assert outcome.code == 1 and outcome.lines[-1] == "0 passed, 9 failed, 1 skipped"
    assert said["a1_router"].startswith("RequestError: its kind 'oracle' is not known; there are router, layer,")
    assert said["b_layer0"] == "the recording lacks 'layer'"
    assert said["b_rope"] == "not compared, since nothing here computes it: tan"
    assert said["c1_forward"] == "RequestError: the manifest's tolerance 'about right' is not known"
    assert said["d1_loss_and_gradients"].startswith("grad_norms.lm_head.weight is ")
    assert said["i1_schedule"] == "nothing was compared"
    assert said["i2_filter_1"] == "the recording lacks 'i2_filter_1/logits'"
    assert said["j1_tokenizer"].startswith("pieces[3].ids[0] is ")
    assert said["g09_understand_image"].startswith("result.text[") and "goes on ''" in said["g09_understand_image"]


def test_a_tolerance_that_is_informative_skips_and_never_fails(parity: Any, copy: Any) -> None:
    damaged = copy("backbone-A", ["c10_forward_bfloat16", "b_rope"])
    damaged.arrays["c10_forward_bfloat16/logits"] *= -1
    outcome = parity(damaged.write())
    assert outcome.code == 0 and outcome.having("skipped") == ["c10_forward_bfloat16"]
    assert "informative" in outcome.lines[1] and outcome.lines[-1] == "1 passed, 0 failed, 1 skipped"


def test_steps_and_seed_of_a_picture_are_read_from_its_words(parity: Any, copy: Any) -> None:
    damaged = copy("image-A")
    damaged.manifest = {name: damaged.manifest[name] for name in ("condition", "picture")}
    words = damaged.manifest["picture"]["what"]
    damaged.manifest["picture"]["what"] = words.replace("manual_seed(21)", "manual_seed(22)")
    assert parity(damaged.write()).having("failed") == ["picture"]
    damaged.manifest["picture"]["what"] = words.replace("torch.manual_seed(21)", "some seed")
    outcome = parity(damaged.write())
    assert "the manifest does not say its seed" in outcome.lines[1] and outcome.code == 1


def test_an_unknown_topic_fails(parity: Any, copy: Any) -> None:
    damaged = copy("image-A")
    damaged.manifest = {"sound": {"what": "waves"}, "crop_list": damaged.manifest["crop_list"]}
    outcome = parity(damaged.write())
    assert outcome.having("failed") == ["sound"] and outcome.having("passed") == ["crop_list"] and outcome.code == 1


def test_the_json_says_the_same(parity: Any, copy: Any) -> None:
    damaged = copy("backbone-A", ["a1_router", "b_rope", "b_layer0"])
    spoil(damaged.arrays["a1_router/router_logits"])
    damaged.arrays["b_rope/cos"] = damaged.arrays["b_rope/cos"][..., 1:].contiguous()
    outcome = parity(damaged.write(), "--json")
    found = json.loads(outcome.out, parse_constant=pytest.fail)  # no Infinity
    assert outcome.code == 1 and [found[k] for k in ("passed", "failed", "skipped")] == [1, 2, 0]
    spoiled, whole, cut = found["cases"]
    assert (spoiled["name"], spoiled["status"], spoiled["tensor"]) == ("a1_router", "failed", "router_logits")
    assert 0.009 < spoiled["deviation"] < 0.011 and spoiled["tolerance"] == 1e-4
    assert (whole["name"], whole["status"]) == ("b_layer0", "passed") and whole["deviation"] < 1e-6
    assert (cut["name"], cut["deviation"], cut["tensor"]) == ("b_rope", None, "cos") and "shape" in cut["detail"]


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (shutil.rmtree, "lacks manifest.json, goldens.safetensors, checkpoint"),
        (lambda path: (path / "goldens.safetensors").unlink(), "lacks goldens.safetensors"),
        (lambda path: shutil.rmtree(path / "checkpoint"), "lacks checkpoint"),
        (lambda path: (path / "manifest.json").write_text("{"), "is not JSON"),
        (lambda path: (path / "manifest.json").write_text('{"about": "x"}'), "names no case"),
        (lambda path: (path / "manifest.json").write_text('{"cases": []}'), "names no case"),
        (lambda path: (path / "manifest.json").write_text('{"cases": [{"kind": "rope"}]}'), "a case without a name"),
        (lambda path: (path / "manifest.json").write_text('{"cases": [{"name": "a"}, {"name": "a"}]}'), "a case twice"),
        (lambda path: (path / "goldens.safetensors").write_bytes(b"no"), "goldens.safetensors cannot be read"),
    ],
)
def test_what_is_no_golden_directory_is_refused_in_one_line(damage: Any, said: str, parity: Any, copy: Any) -> None:
    path: Path = copy("image-A").path
    damage(path)
    outcome = parity(path)
    assert (outcome.code, outcome.out) == (2, "")
    assert outcome.err.startswith("unveil: ") and outcome.err.count("\n") == 1
    assert said in outcome.err and str(path) in outcome.err
