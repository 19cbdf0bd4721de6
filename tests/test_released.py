"""A directory in the released layout, through `Uni.load` and the command line: whole, incomplete, hostile."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file

from unveil.config import load_preset
from unveil.errors import RequestError, WeightsError
from unveil.pipeline import Uni
from unveil.weights.names import SIGVQ_FILE
from unveil.weights.official_model import fingerprint, is_official
from unveil.weights.sigvq import convert_sigvq

GOLDEN = Path(__file__).parent / "golden"
FILES = {
    "image_tokenizer": "image_tokenizer/model.safetensors",
    "code_embedding": "image_tokenizer/sigvq_embedding.safetensors",
    "decoder": "decoder/model.safetensors",
    "vae": "vae/diffusion_pytorch_model.safetensors",
}
SIZE: dict[str, Any] = {"height": 256, "width": 256, "num_inference_steps": 2}


@pytest.fixture
def whole(released_directory: Path) -> Path:
    """Treat as read-only."""
    return released_directory


@pytest.fixture
def copy(whole: Path, tmp_path: Path) -> Path:
    """To be damaged."""
    return Path(shutil.copytree(whole, tmp_path / "model"))


def picture() -> Image.Image:
    return Image.new("RGB", (512, 512), (200, 30, 30))


def command(*words: object) -> subprocess.CompletedProcess[str]:
    line = [sys.executable, "-m", "unveil", *map(str, words)]
    return subprocess.run(line, capture_output=True, text=True, timeout=120, env=dict(os.environ))


def test_every_part_holds_what_its_released_file_holds(whole: Path) -> None:
    parts = Uni.load(whole, "cpu").parts
    assert is_official(whole) and not parts.absent
    assert parts.config.sampling == load_preset("official").sampling
    for name, file in FILES.items():
        state, expected = parts.modules[name].state_dict(), load_file(whole / file)
        assert set(state) == set(expected)
        assert all(torch.equal(state[n], expected[n]) for n in expected), name
    shards = [load_file(file) for file in whole.glob("model-*.safetensors")]
    norm = next(shard["model.norm.weight"] for shard in shards if "model.norm.weight" in shard)
    assert torch.equal(parts.backbone.state_dict()["model.norm.weight"], norm)


def test_normal_and_turbo_decoders_draw_differently_from_the_same_codes(whole: Path) -> None:
    codes = torch.arange(64).view(8, 8)
    normal = Uni.load(whole, "cpu").render(codes, seed=1, solver_steps=3)
    turbo = Uni.load(whole, "cpu", decoder="turbo")
    assert turbo.parts.config.sampling.solver == "turbo"
    assert turbo.parts.config.sampling.solver_steps == 8
    held = turbo.parts.decoder.state_dict()
    assert all(torch.equal(held[n], t) for n, t in load_file(whole / "decoder-turbo/model.safetensors").items())
    assert turbo.render(codes, seed=1, solver_steps=3).tobytes() != normal.tobytes()


def test_the_turbo_decoder_is_evaluated_as_often_as_it_has_solver_steps(whole: Path) -> None:
    seen = list[tuple[str, int, int]]()
    uni = Uni.load(whole, "cpu", decoder="turbo", heard=lambda *event: seen.append(event))
    uni.render(torch.zeros(8, 8, dtype=torch.long), seed=1, solver_steps=1)
    assert seen[-1][1:] == (1, 1)


def test_a_picture_is_made_again_only_with_the_decoder_that_rendered_it(whole: Path) -> None:
    turbo = Uni.load(whole, "cpu", decoder="turbo")
    made = turbo.generate_image("a star", seed=2, solver_steps=1, **SIZE)
    assert turbo.replay(made.recipe).image.tobytes() == made.image.tobytes()
    with pytest.raises(WeightsError, match="made with weights"):
        Uni.load(whole, "cpu").replay(made.recipe)


@pytest.mark.parametrize("absent", ["decoder", "vae"])
def test_without_a_part_that_renders_it_understands_and_says_what_is_missing(copy: Path, absent: str) -> None:
    shutil.rmtree(copy / absent)
    uni = Uni.load(copy, "cpu")
    assert uni.understand_image(picture(), "what?", seed=1, max_tokens=4, num_inference_steps=1).seed == 1
    for ask in (
        lambda: uni.generate_image("a star", seed=1, **SIZE),
        lambda: uni.generate_image("a star", seed=1, thinking=True, **SIZE),
        lambda: uni.generate_interleaved("a star", seed=1, **SIZE),
        lambda: uni.render(torch.zeros(8, 8, dtype=torch.long), seed=1),
        lambda: uni.edit_image(picture(), "blue", seed=1),
    ):
        with pytest.raises(WeightsError, match=f"{FILES[absent]}: missing, so this model has no {absent}"):
            ask()


def test_without_the_image_tokenizer_only_pictures_cannot_be_read(copy: Path) -> None:
    (copy / "image_tokenizer" / "model.safetensors").unlink()
    uni = Uni.load(copy, "cpu")
    uni.render(torch.zeros(8, 8, dtype=torch.long), seed=1, solver_steps=2)
    with pytest.raises(WeightsError, match="image_tokenizer/model.safetensors: missing"):
        uni.understand_image(picture(), "what?")


def test_a_part_under_its_old_file_name_loads(copy: Path, whole: Path) -> None:
    (copy / "decoder/model.safetensors").rename(copy / "decoder/decoder_model.safetensors")
    (copy / "image_tokenizer/model.safetensors").rename(copy / "image_tokenizer/image_tokenizer.safetensors")
    state, expected = (Uni.load(path, "cpu").parts.decoder.state_dict() for path in (copy, whole))
    assert all(torch.equal(state[name], expected[name]) for name in expected)


def test_one_error_lists_what_is_wrong_in_every_image_part(copy: Path) -> None:
    for part, drop in (("decoder", "x_pad_token"), ("vae", "encoder.conv_in.bias")):
        state = load_file(copy / FILES[part])
        del state[drop]
        save_file(state | {f"{part}.extra": torch.zeros(2)}, copy / FILES[part])
    with pytest.raises(WeightsError) as caught:
        Uni.load(copy, "cpu")
    message = str(caught.value)
    assert f"{copy / FILES['decoder']}: x_pad_token is missing, expected 1x32" in message
    assert f"{copy / FILES['vae']}: encoder.conv_in.bias is missing, expected 8" in message
    assert f"{copy / FILES['vae']}: vae.extra 2 is not expected" in message
    assert "\n" not in message


def test_the_fingerprint_tells_changed_weights_and_the_decoders_apart(copy: Path) -> None:
    first = Uni.load(copy, "cpu").weights
    assert len(first) == 16 and Uni.load(copy, "cpu").weights == first
    assert Uni.load(copy, "cpu", decoder="turbo").weights != first
    state = load_file(copy / FILES["vae"])
    save_file(state | {"encoder.conv_in.bias": state["encoder.conv_in.bias"] + 1}, copy / FILES["vae"])
    assert Uni.load(copy, "cpu").weights != first
    assert fingerprint([copy / FILES["vae"]], copy) != fingerprint([copy / FILES["decoder"]], copy)


def test_another_decoder_is_refused_by_name(whole: Path, model_directory: Path) -> None:
    with pytest.raises(RequestError, match="no decoder 'fast'; there are normal and turbo"):
        Uni.load(whole, "cpu", decoder="fast")  # type: ignore[arg-type]
    with pytest.raises(RequestError, match="has one decoder"):
        Uni.load(model_directory, "cpu", decoder="turbo")


def test_features_that_are_there_only_as_a_torch_file_give_the_command_to_run(copy: Path) -> None:
    state = load_file(copy / SIGVQ_FILE)
    (copy / SIGVQ_FILE).unlink()
    torch.save(state, (copy / SIGVQ_FILE).with_suffix(".pt"))
    with pytest.raises(WeightsError, match=f"sigvq_embedding.pt: is not read.*run: unveil convert --sigvq {copy}$"):
        Uni.load(copy, "cpu")
    done = command("convert", "--sigvq", copy, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["file"] == str(copy / SIGVQ_FILE)
    held = Uni.load(copy, "cpu").parts.code_embedding.state_dict()
    assert all(torch.equal(held[name], state[name]) for name in state)
    again = command("convert", "--sigvq", copy)
    assert again.returncode == 2 and "is there already; --force writes it anew" in again.stderr


def test_the_golden_torch_file_converts_bit_for_bit(tmp_path: Path) -> None:
    source = GOLDEN / "image-A" / "checkpoint" / "image_tokenizer" / "sigvq_embedding.pt"
    convert_sigvq(source, tmp_path / "out.safetensors")
    made, expected = load_file(tmp_path / "out.safetensors"), torch.load(source, weights_only=True)
    assert set(made) == set(expected)
    assert all(torch.equal(made[n], t) and made[n].dtype == t.dtype for n, t in expected.items())


class Canary:
    """What runs code when a pickle is read without care."""

    def __init__(self, file: Path) -> None:
        self.file = file

    def __reduce__(self) -> tuple[Any, ...]:
        return (Path.touch, (self.file,))


@pytest.mark.parametrize("content", ["canary", "legacy", "others", "integers", "text"])
def test_a_hostile_torch_file_is_refused_in_one_line_and_runs_nothing(tmp_path: Path, content: str) -> None:
    source, canary = tmp_path / "sigvq_embedding.pt", tmp_path / "canary"
    good = torch.load(GOLDEN / "image-A/checkpoint/image_tokenizer/sigvq_embedding.pt", weights_only=True)
    match content:
        case "canary":
            torch.save(good | {"prior_projector.net.2.bias": Canary(canary)}, source)
        case "legacy":
            torch.save(Canary(canary), source, _use_new_zipfile_serialization=False)
        case "others":
            torch.save(good | {"more": torch.zeros(1)}, source)
        case "integers":
            torch.save({name: tensor.int() for name, tensor in good.items()}, source)
        case "text":
            source.write_text("no tensors")
    with pytest.raises(WeightsError, match="sigvq_embedding.pt: cannot be converted .*; download it again") as caught:
        convert_sigvq(source, tmp_path / "out.safetensors")
    assert "\n" not in str(caught.value)
    assert not canary.exists() and sorted(p.name for p in tmp_path.iterdir()) == [source.name]
    if content == "canary":  # the control: read without care, it does run
        torch.load(source, weights_only=False)
        assert canary.exists()


def test_every_verb_takes_a_released_directory(whole: Path, tmp_path: Path) -> None:
    file = tmp_path / "star.png"
    options = ["--model", whole, "--device", "cpu", "--seed", 1, "--quiet"]
    size = ["--height", 256, "--width", 256, "--steps", 1, "--solver-steps", 1]
    made = command("generate", "a star", "-o", file, *options, *size, "--decoder", "turbo")
    assert made.returncode == 0, made.stderr
    assert Image.open(file).size == (256, 256)
    again = command("replay", file, "--model", whole, "--device", "cpu", "--decoder", "turbo")
    assert again.returncode == 0 and "identical" in again.stdout
