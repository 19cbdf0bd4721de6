"""Relatives of the released layout: other spellings of the names, stacked experts, block-FP8. All give one model."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from unveil.errors import WeightsError
from unveil.shapes import Tensor
from unveil.vocab.text import Text
from unveil.weights.convert import convert
from unveil.weights.fp8 import SCALE, multiplied, side_of
from unveil.weights.names import from_official
from unveil.weights.official import INDEX_FILE, load_official_backbone, official_config
from unveil.weights.official_model import load_official

GOLDEN = Path(__file__).parents[1] / "golden" / "backbone-A" / "checkpoint"
UP = "model.layers.1.mlp.experts.3.up_proj.weight"
STACK = "model.layers.1.mlp.experts.up_proj"
Change = Callable[[dict[str, Tensor]], dict[str, Tensor]]


def golden() -> dict[str, Tensor]:
    """Every tensor of the golden checkpoint under its released name."""
    return {name: tensor for file in sorted(GOLDEN.glob("*.safetensors")) for name, tensor in load_file(file).items()}


def read(directory: Path, dtype: torch.dtype = torch.float32) -> dict[str, Tensor]:
    text = Text.load(directory / "tokenizer.json")
    return load_official_backbone(directory, *official_config(directory, text), dtype=dtype)


def write(state: dict[str, Tensor], directory: Path) -> Path:
    """The golden checkpoint with these tensors, dealt out over three shards so that neighbours lie apart."""
    shutil.copytree(GOLDEN, directory, ignore=shutil.ignore_patterns("*.safetensors*"))
    names = sorted(state)
    for k in range(3):
        save_file(
            {n: state[n].contiguous() for n in names[k::3]}, directory / f"model-0000{k + 1}-of-00003.safetensors"
        )
    placed = {n: f"model-0000{i % 3 + 1}-of-00003.safetensors" for i, n in enumerate(names)}
    (directory / INDEX_FILE).write_text(json.dumps({"metadata": {}, "weight_map": placed}))
    return directory


def as_llada_image(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """As spec backbone 2.2 words it: `model.language_model.` and `model.lm_head.`, experts merged."""
    renamed = {name.replace("model.", "model.language_model.", 1): t for name, t in from_official(state).items()}
    return {("model.lm_head.weight" if name == "lm_head.weight" else name): t for name, t in renamed.items()}


def prefixed_alone(state: dict[str, Tensor]) -> dict[str, Tensor]:
    renamed = {name.replace("model.", "model.language_model.", 1): t for name, t in state.items()}
    return {("model.lm_head.weight" if name == "lm_head.weight" else name): t for name, t in renamed.items()}


@pytest.mark.parametrize("change", [from_official, as_llada_image, prefixed_alone])
def test_every_spelling_of_the_names_gives_the_same_backbone(change: Change, tmp_path: Path) -> None:
    state, expected = read(write(change(golden()), tmp_path / "m")), read(GOLDEN)
    assert set(state) == set(expected) and all(torch.equal(state[n], t) for n, t in expected.items())


def test_the_merged_layout_has_the_names_and_shapes_of_dfactory() -> None:
    merged = from_official(golden())
    assert {n: tuple(t.shape) for n, t in merged.items() if "layers.1" in n and ".experts." in n} == {
        "model.layers.1.mlp.experts.gate_proj": (16, 32, 64),
        "model.layers.1.mlp.experts.up_proj": (16, 32, 64),
        "model.layers.1.mlp.experts.down_proj": (16, 64, 32),
    }


@pytest.mark.parametrize("change", [from_official, as_llada_image])
def test_a_whole_model_of_another_spelling_converts_to_the_same_bytes(
    change: Change, released_directory: Path, tmp_path: Path
) -> None:
    def unheard(what: str, done: int, total: int) -> None:
        pass

    other = write(change(golden()), tmp_path / "other")
    for part in ("image_tokenizer", "decoder", "vae"):
        shutil.copytree(released_directory / part, other / part)
    convert(other, tmp_path / "a", "unveil", unheard)
    convert(released_directory, tmp_path / "b", "unveil", unheard)
    made, expected = ((tmp_path / x / "backbone.safetensors").read_bytes() for x in "ab")
    assert made == expected


def test_a_stack_of_the_wrong_shape_and_a_missing_expert_are_named_in_their_own_spelling(tmp_path: Path) -> None:
    merged = from_official(golden())
    with pytest.raises(WeightsError, match=f"{STACK} is 15x32x64, expected 16x32x64$"):
        read(write(merged | {STACK: merged[STACK][:15]}, tmp_path / "a"))
    alone = prefixed_alone(golden())
    del alone[UP.replace("model.", "model.language_model.", 1)]
    with pytest.raises(WeightsError, match="model.language_model.layers.1.mlp.experts.3.up_proj.weight is missing$"):
        read(write(alone, tmp_path / "b"))


def coded(weight: Tensor, side: int) -> tuple[Tensor, Tensor, Tensor]:
    """Float8 numbers, factors, and the float32 weight that they stand for, block by block."""
    rows, columns = weight.shape
    factors = torch.zeros(-(-rows // side), -(-columns // side))
    numbers, exact = torch.zeros(rows, columns, dtype=torch.float8_e4m3fn), torch.zeros(rows, columns)
    for i in range(0, rows, side):
        for j in range(0, columns, side):
            here = (slice(i, i + side), slice(j, j + side))
            factors[i // side, j // side] = weight[here].float().abs().max() / 448
            numbers[here] = (weight[here].float() / factors[i // side, j // side]).to(torch.float8_e4m3fn)
            exact[here] = numbers[here].float() * factors[i // side, j // side]
    return numbers, factors, exact


def fp8(state: dict[str, Tensor], side: int) -> tuple[dict[str, Tensor], dict[str, Tensor]]:
    """Attention and experts in block-FP8; and all of it in float32."""
    made, exact = dict(state), {name: tensor.float() for name, tensor in state.items()}
    for name in [
        n for n in state if n.endswith("_proj.weight") or n.endswith(("query_key_value.weight", "dense.weight"))
    ]:
        made[name], made[name + SCALE], exact[name] = coded(state[name], side)
    return made, exact


@pytest.mark.parametrize("side", [128, 32, 16])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_block_fp8_is_multiplied_out_while_it_is_read(side: int, dtype: torch.dtype, tmp_path: Path) -> None:
    made, exact = fp8(golden(), side)
    assert made[UP].dtype == torch.float8_e4m3fn and not torch.equal(exact[UP], golden()[UP].float())
    state = read(write(made, tmp_path / "m"), dtype)
    for name, tensor in from_official(exact).items():
        kept = torch.float32 if name.endswith("expert_bias") else dtype
        assert torch.equal(state[name], tensor.to(kept)), name


def test_stacked_experts_in_block_fp8_are_multiplied_out_too(tmp_path: Path) -> None:
    made, exact = fp8(golden(), 16)
    names = {n.removesuffix(".weight" + SCALE) for n in made if ".experts." in n and n.endswith(SCALE)}
    factors = from_official({n + ".weight": made.pop(n + ".weight" + SCALE) for n in names})
    numbers = {n: made.pop(n) for n in [n for n in made if ".experts." in n]}
    stacked = {
        n: t.to(torch.float8_e4m3fn) for n, t in from_official({n: t.float() for n, t in numbers.items()}).items()
    }
    state = read(write(made | stacked | {n + SCALE: t for n, t in factors.items()}, tmp_path / "m"))
    assert all(torch.equal(state[name], tensor) for name, tensor in from_official(exact).items())


def test_an_image_part_in_block_fp8_loads(released_directory: Path, tmp_path: Path) -> None:
    model = Path(shutil.copytree(released_directory, tmp_path / "m"))
    file, name = model / "decoder" / "model.safetensors", "layers.0.attention.to_q.weight"
    state = load_file(file)
    state[name], state[name + SCALE], exact = coded(state[name], 16)
    save_file(state, file)
    assert torch.equal(load_official(model).decoder.state_dict()[name], exact)
    with pytest.raises(WeightsError, match=f"{name} is in float8, and bytes alone are copied"):
        convert(model, tmp_path / "t", "unveil", lambda *_: None)


def test_the_last_blocks_may_be_smaller_and_the_side_is_read_off_the_shapes() -> None:
    weight = torch.randn(300, 130, generator=torch.Generator().manual_seed(0))
    numbers, factors, exact = coded(weight, 128)
    assert factors.shape == (3, 2) and torch.equal(multiplied(numbers, factors), exact)
    assert (side_of((300, 130), (3, 2)), side_of((300, 130), (5, 3)), side_of((300, 130), (4, 2))) == (128, 64, None)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        ("no factors", f"{UP} is F8_E4M3, expected floats"),
        ("factors of another shape", f"{UP}{SCALE} is 3x1, expected 1x1"),
        ("factors beside bfloat16", f"{UP} is BF16, expected F8_E4M3"),
        ("factors of nothing", f"nothing{SCALE} is not expected"),
        ("infinite factors", f"{UP} holds NaN or infinity"),
    ],
)
def test_factors_that_do_not_fit_are_named(fault: str, said: str, tmp_path: Path) -> None:
    made, _ = fp8(golden(), 128)
    match fault:
        case "no factors":
            del made[UP + SCALE]
        case "factors of another shape":
            made[UP + SCALE] = torch.ones(3, 1)
        case "factors beside bfloat16":
            made[UP] = golden()[UP]
        case "factors of nothing":
            made["nothing" + SCALE] = torch.ones(1, 1)
        case "infinite factors":
            made[UP + SCALE] = torch.full((1, 1), torch.inf)
    with pytest.raises(WeightsError, match=said):
        read(write(made, tmp_path / "m"))
