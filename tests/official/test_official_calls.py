"""Our calls under the released names: what the released code gave, and the sane thing where that is a quirk."""

import re
import shutil
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unveil.errors import GenerationError, PromptError, RequestError
from unveil.official import (
    AutoModelForCausalLM,
    ImageTokenizer,
    Model,
    decode_vq_tokens,
    generate_crop_size_list,
    smart_resize_images,
    var_center_crop,
)
from unveil.official.load import open_parts, place_of
from unveil.official.model import _line
from unveil.parity.golden import Golden
from unveil.sampling import Allowed, Stop, Task

GOLDEN = Golden.read(Path(__file__).parents[1] / "golden" / "backbone-A")
HIGH = [name for name, entry in GOLDEN.entries.items() if entry["kind"] == "high_level"]
SMALL: dict[str, Any] = {"image_h": 256, "image_w": 256, "steps": 2, "block_length": 8}
OFFSET = 768


@cache
def model(behavior: str) -> Model:
    return AutoModelForCausalLM.from_pretrained(GOLDEN.checkpoint, behavior=behavior)  # type: ignore[arg-type]


def asked(name: str) -> tuple[str, dict[str, Any]]:
    """The call of a golden case and its arguments."""
    case = GOLDEN.case(name)
    arguments = dict(case.params["arguments"])
    if "image_tokens" in arguments:
        arguments["image_tokens"] = case.ids("image_tokens")
    return case.params["call"], arguments


def test_all_high_level_cases_are_here() -> None:
    assert len(HIGH) == 15 and {asked(name)[0] for name in HIGH} == {"generate_image", "edit_image", "understand_image"}


@pytest.mark.parametrize("name", HIGH)
def test_the_official_behavior_gives_what_the_released_code_gave(name: str) -> None:
    case, (call, arguments) = GOLDEN.case(name), asked(name)
    ask, expected = getattr(model("official"), call), dict(case.params["result"])
    if "error" in expected:
        with pytest.raises(GenerationError, match="the plan never began its picture"):
            ask(**arguments)
        return
    given = ask(**arguments)
    sprint = arguments.get("use_sprint", False)
    if call == "understand_image":
        assert given == expected["text"] and given.approximate is sprint
        return
    expected["token_ids"] = case.outputs["token_ids"].flatten().tolist()
    assert given == {**expected, "approximate": sprint}


def test_a_small_budget_cuts_the_picture_only_officially() -> None:
    _, arguments = asked("g05_generate_image_truncated")
    assert len(model("official").generate_image(**arguments)["token_ids"]) == 32
    assert len(model("sane").generate_image(**arguments)["token_ids"]) == 64


def test_sizes_that_cannot_be_announced_are_spelled_only_officially() -> None:
    with pytest.raises(RequestError, match="a picture cannot be 288 pixels in height; nearest: 256 or 320"):
        model("sane").generate_image("a cat", **SMALL | {"image_h": 288})
    given = model("official").generate_image("a cat", **SMALL | {"image_h": 300, "gen_length": 72})
    assert (given["h"], given["w"]) == (9, 8)


def test_a_plan_without_a_picture_is_an_error_only_officially() -> None:
    _, arguments = asked("g13_thinking_error")
    given = model("sane").generate_image(**arguments)
    assert len(given["token_ids"]) == 64 and given["thinking"]
    assert "<IMAGE" not in given["thinking"]


def test_an_answer_repeats_its_question_only_officially() -> None:
    _, arguments = asked("g09_understand_image")
    assert model("official").understand_image(**arguments).startswith(arguments["question"])
    sane = model("sane").understand_image(**arguments)
    assert sane and not sane.startswith(arguments["question"])


def test_codes_are_part_of_an_answer_only_officially() -> None:
    _, arguments = asked("g09_understand_image")
    assert "<IMAGE" in model("official").understand_image(**arguments)
    assert "<IMAGE" not in model("sane").understand_image(**arguments)


def test_control_tokens_in_a_question_count_only_officially() -> None:
    official, sane = (model(behavior)._prompts.text for behavior in ("official", "sane"))
    assert official.encode("<|endoftext|>") == [GOLDEN.manifest["ids"]["eos"]]
    assert len(sane.encode("<|endoftext|>")) > 1


def test_a_prompt_with_an_end_of_sequence_is_returned_cut_only_officially() -> None:
    case = GOLDEN.case("e14_text_eos_in_prompt_quirk")
    prompt, p = case.ids("prompt"), case.params
    found = {}
    for behavior in ("official", "sane"):
        layout = model(behavior).parts.layout
        policy = model(behavior)._policy(p["threshold"], p["steps"], p["block_length"], None)
        task = Task([prompt], p["gen_length"], Allowed.text(layout, behavior == "official"), Stop((layout.pad,)))
        found[behavior] = model(behavior)._unmask(task, policy)
    end = model("official").parts.layout.pad
    assert _line(prompt, found["official"], end) == case.outputs["ids"].flatten().tolist() == prompt[:3]
    assert len(found["sane"]) > 3


def test_the_header_that_a_plan_wrote_stays_only_officially(monkeypatch: pytest.MonkeyPatch) -> None:
    _, arguments = asked("g12_thinking_0")
    seen = []
    for behavior in ("official", "sane"):
        draw = model(behavior)._draw
        monkeypatch.setattr(
            model(behavior), "_draw", lambda prefix, *rest, draw=draw: seen.append(prefix) or draw(prefix, *rest)
        )
        model(behavior).generate_image(**arguments)
    official, sane = seen
    header = model("sane")._prompts.header(8, 8)
    assert official == GOLDEN.case("g12_thinking_0").ids("phase1_input_ids") and official[-4:] != header
    assert sane[-4:] == header


def test_sprint_in_edits_counts_only_in_the_sane_behavior() -> None:
    _, arguments = asked("g07_edit_image")
    plain = model("official").edit_image(**arguments)
    assert model("official").edit_image(**arguments, use_sprint=True, keep_ratio=0.3, cache_warmup_steps=1) == plain
    pruned = model("sane").edit_image(**arguments, use_sprint=True, keep_ratio=0.3, cache_warmup_steps=1)
    assert pruned["approximate"] and len(pruned["token_ids"]) == 64
    assert pruned["token_ids"] != model("sane").edit_image(**arguments)["token_ids"]


def test_nothing_to_say_is_refused_in_the_sane_behavior() -> None:
    with pytest.raises(PromptError, match="the prompt is empty"):
        model("sane").generate_image(" ", **SMALL)
    with pytest.raises(PromptError, match="exceed the context of 8192"):
        model("sane").understand_image([OFFSET] * 64, 8, 8, "what?", gen_length=9000)


@pytest.mark.parametrize(
    ("options", "line"),
    [
        ({"mode": "thinkin"}, "no mode 'thinkin'; did you mean 'thinking'"),
        ({"use_sprint": True, "remasking": "best"}, "no way to rank positions named 'best'"),
        ({"steps": 0}, "steps must be at least 1"),
    ],
)
def test_impossible_words_and_numbers_give_one_line(options: dict[str, Any], line: str) -> None:
    with pytest.raises(RequestError, match=line):
        model("sane").generate_image("a cat", **SMALL | options)


def test_unknown_names_are_refused_by_name() -> None:
    with pytest.raises(TypeError, match="cfg_scal"):
        model("sane").generate_image("a cat", cfg_scal=2.0)  # type: ignore[call-arg]
    with pytest.raises(RequestError, match="no behavior 'offical'; did you mean 'official'"):
        AutoModelForCausalLM.from_pretrained(GOLDEN.checkpoint, behavior="offical")  # type: ignore[arg-type]


def test_ids_of_a_picture_must_be_as_many_as_its_grid_and_have_the_offset() -> None:
    for behavior in ("sane", "official"):
        with pytest.raises(RequestError, match="a picture of 8x8 codes needs 64 image_tokens, not 63"):
            model(behavior).understand_image([OFFSET] * 63, 8, 8)
        with pytest.raises(RequestError, match="image_tokens must lie in 768..895: add the offset 768"):
            model(behavior).understand_image([5] * 64, 8, 8)


def test_a_model_moves_and_keeps_what_must_stay_precise() -> None:
    moved = AutoModelForCausalLM.from_pretrained(GOLDEN.checkpoint).to(torch.bfloat16).to("cpu").eval()
    held = {tensor.dtype for tensor in moved.parts.backbone.state_dict().values()}
    assert held == {torch.bfloat16, torch.float32}
    direct = AutoModelForCausalLM.from_pretrained(GOLDEN.checkpoint, torch_dtype=torch.bfloat16).parts.backbone
    assert all(torch.equal(direct.state_dict()[n], t) for n, t in moved.parts.backbone.state_dict().items())
    assert len(moved.generate_image("a cat", **SMALL)["token_ids"]) == 64


def test_without_a_precision_a_cpu_takes_float32_and_that_of_the_files_when_it_does_not_fit(
    released: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    half = Path(shutil.copytree(released, tmp_path / "half"))
    for file in half.rglob("*.safetensors"):
        save_file({name: tensor.bfloat16() for name, tensor in load_file(file).items()}, file)

    def held(**given: Any) -> torch.dtype:
        return AutoModelForCausalLM.from_pretrained(half, **given).parts.backbone.lm_head.weight.dtype

    assert held() == held(torch_dtype="auto") == torch.float32
    monkeypatch.setattr("unveil.pipeline.fit.free_memory", lambda device: 100_000)
    eye = ImageTokenizer(half, "cpu").network
    assert held() == next(eye.parameters()).dtype == torch.bfloat16
    assert held(torch_dtype="float32") == torch.float32


@pytest.mark.parametrize("precision", ["int8", "fp8", "int4"])
def test_quantized_models_answer_and_keep_their_small_weights_when_they_move(precision: str) -> None:
    small = AutoModelForCausalLM.from_pretrained(GOLDEN.checkpoint, torch_dtype=precision)
    before = {name: tensor.clone() for name, tensor in small.parts.backbone.state_dict().items()}
    experts = small.parts.backbone.model.layers[1].mlp.experts
    kept = {"int8": torch.int8, "fp8": torch.float8_e4m3fn, "int4": torch.uint8}
    assert experts.gate_proj.values.dtype == kept[precision]
    moved = small.to("cpu").to(torch.bfloat16).parts.backbone.state_dict()
    assert all(moved[n].dtype == t.dtype and torch.equal(moved[n], t) for n, t in before.items())
    assert len(small.generate_image("a cat", **SMALL)["token_ids"]) == 64
    with pytest.raises(RequestError, match="quantized weights cannot become torch.float32; load the model with that"):
        small.to(torch.float32)


def test_fp8_does_not_move_to_a_device_without_a_product_of_such_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    small = AutoModelForCausalLM.from_pretrained(GOLDEN.checkpoint, torch_dtype="fp8")

    def product(*given: object, **options: object) -> None:
        raise RuntimeError("none here")

    monkeypatch.setattr(torch, "_scaled_mm", product)
    with pytest.raises(RequestError, match=r"^cpu does not multiply in fp8 \(none here\); use int8"):
        small.to("cpu")


def test_another_precision_is_refused_before_any_file_is_read(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text("no JSON")
    with pytest.raises(RequestError, match="dtype 'float8' cannot be used; use auto, float32"):
        AutoModelForCausalLM.from_pretrained(tmp_path, torch_dtype="float8")


def test_a_device_map_names_one_device() -> None:
    assert [place_of(m) for m in (None, "cuda", {"": 0}, {"": "cpu"})] == ["cpu", "cuda", "cuda:0", "cpu"]
    with pytest.raises(RequestError, match="device_map must name one device"):
        place_of({"a": 0, "b": 1})


def test_the_shipped_model_has_the_released_calls_too() -> None:
    tiny = AutoModelForCausalLM.from_pretrained("tiny")
    scale, (rows, columns) = tiny.parts.config.picture_scale, tiny.parts.config.sampling.grid
    given = tiny.generate_image("a red star", rows * scale, columns * scale, steps=2)
    assert len(given["token_ids"]) == rows * columns and not given["approximate"]


def test_only_what_is_asked_for_is_read(released: Path) -> None:
    assert list(AutoModelForCausalLM.from_pretrained(released).parts.modules) == ["backbone"]
    rendering = ["code_embedding", "decoder", "vae"]
    assert list(open_parts(released, rendering, "cpu", None).modules) == rendering


def test_a_picture_becomes_codes_and_the_codes_a_picture(released: Path) -> None:
    tokenizer, picture = ImageTokenizer(model_path=released, device="cpu"), Image.new("RGB", (160, 128), (200, 30, 30))
    info = tokenizer.encode_with_info(picture)
    assert (info["grid_thw"], info["num_tokens"], info["image_size"]) == ((1, 8, 10), 80, (160, 128))
    assert info["pixel_values"].shape == (80, 768)
    assert info["token_ids"] == tokenizer.encode(picture) == tokenizer.encode_batch([picture])[0]
    assert (tokenizer.codebook_size, tokenizer.embed_dim) == (128, 24)
    made = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        made.append(decode_vq_tokens(info["token_ids"], 8, 10, released, "cpu", num_steps=2).tobytes())
    assert made[0] == made[1] != made[2]
    turbo = decode_vq_tokens(info["token_ids"], 8, 10, released, "cpu", num_steps=1, decode_mode="decoder-turbo")
    assert turbo.size == (320, 256)


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"decode_mode": "turbo"}, "no decode_mode 'turbo'; there are normal and decoder-turbo"),
        ({"h": 9}, "a picture of 9x8 codes needs 72 token_ids, not 64"),
        ({"resolution_multiplier": 4}, "resolution_multiplier must be 2 for this decoder, not 4"),
        ({"token_ids": [128] * 64}, "token_ids must lie in 0..127"),
    ],
)
def test_codes_that_cannot_be_rendered_give_one_line(released: Path, changes: dict[str, Any], line: str) -> None:
    request: dict[str, Any] = {"token_ids": [0] * 64, "h": 8, "w": 8, "model_path": released, "device": "cpu"}
    with pytest.raises(RequestError, match=line):
        decode_vq_tokens(**request | changes)


def test_pictures_are_resized_and_cropped_as_released() -> None:
    photo = Image.new("RGB", (1920, 1080), (200, 30, 30))
    assert [p and p.size for p in smart_resize_images([photo])] == [(1056, 576)]
    assert [p and p.size for p in smart_resize_images([photo, None])] == [(576, 320), None]
    sizes = generate_crop_size_list((512 // 32) ** 2, 32)
    assert len(sizes) == 49
    small = Image.new("RGB", (64, 64), (255, 255, 255))
    assert var_center_crop(small, crop_size_list=sizes).getpixel((500, 500)) == (255, 255, 255)
    assert var_center_crop(small, crop_size_list=sizes, behavior="official").getpixel((500, 500)) == (0, 0, 0)


def test_what_the_table_of_differences_says_shows_a_line_exists() -> None:
    page = (Path(__file__).parents[2] / "docs" / "official-differences.md").read_text(encoding="utf-8")
    tests = set(re.findall(r"`(test_\w+)`", page))
    assert len(tests) > 5 and not [name for name in tests if name not in globals()]
    cases = set(re.findall(r"`([eg]\d\d)`", page))
    assert len(cases) > 5 and not [c for c in cases if not any(name.startswith(c) for name in GOLDEN.entries)]
