"""generate, understand, edit, interleave, retrieve and replay, from arguments to files."""

import json
import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from unveil.errors import RequestError
from unveil.pipeline.draw import prompted
from unveil.pipeline.settings import PictureSettings, Streams
from unveil.sampling import Loop, Sprint, generate_codes


@pytest.fixture
def star(unveil, model_directory, tmp_path):
    """A picture that `unveil generate` made."""
    path = tmp_path / "star.png"
    assert unveil("generate", "a red star", "-o", path, "--seed", 7, "--model", model_directory).code == 0
    return path


def codes_of(path):
    """The codes that a PNG says it was rendered from."""
    with Image.open(path) as picture:
        return np.array(json.loads(picture.text["codes"]))


def test_generate_writes_the_picture_and_prints_one_object(unveil, model_directory, tmp_path):
    path = tmp_path / "a.png"
    outcome = unveil(
        "generate", "a red star", "-o", path, "--seed", 7, "--steps", 3, "--guidance", 1.5, "--solver-steps", 4,
        "--json", "--model", model_directory, "--device", "cpu",
    )  # fmt: skip
    said = json.loads(outcome.out)
    assert outcome.code == 0 and outcome.err == "running on cpu\n"
    assert said["seed"] == 7 and said["steps"] == 3 and said["guidance"] == 1.5 and said["solver_steps"] == 4
    assert (said["width"], said["height"], said["file"]) == (128, 128, str(path)) and said["seconds"] > 0
    with Image.open(path) as picture:
        assert picture.size == (128, 128) and picture.text["prompt"] == "a red star" and picture.text["seed"] == "7"


def test_a_seed_makes_the_same_file_again(unveil, model_directory, tmp_path, star):
    again, other = tmp_path / "again.png", tmp_path / "other.png"
    unveil("generate", "a red star", "-o", again, "--seed", 7, "--model", model_directory)
    unveil("generate", "a red star", "-o", other, "--seed", 8, "--model", model_directory)
    assert again.read_bytes() == star.read_bytes() != other.read_bytes()


def test_other_formats_can_be_asked_for(unveil, model_directory, tmp_path):
    for name, kind in (("a.jpg", "JPEG"), ("a.webp", "WEBP"), ("a.bmp", "BMP")):
        assert unveil("generate", "a", "-o", tmp_path / name, "--model", model_directory).code == 0
        with Image.open(tmp_path / name) as picture:
            assert picture.format == kind


def test_traces_are_written_for_pictures_and_words(unveil, model_directory, tmp_path, star):
    gif, page = tmp_path / "t.gif", tmp_path / "t.html"
    unveil("generate", "a", "-o", tmp_path / "a.png", "--trace", gif, "--model", model_directory)
    unveil("understand", star, "what?", "--trace", page, "--model", model_directory)
    with Image.open(gif) as shown:
        assert shown.n_frames > 4
    assert page.read_text().startswith("<!doctype html>")


def test_sprint_by_either_rule_is_the_loops_and_says_approximate(unveil, uni, model_directory, tmp_path):
    parts, shares, found = uni.parts, {"text_keep_ratio": 0.4, "image_keep_ratio": 0.2}, {}
    asked = ("--seed", 7, "--temperature", 1, "--steps", 8, "--model", model_directory)
    keep = ("--text-keep-ratio", 0.4, "--image-keep-ratio", 0.2)
    for name, more in {"exact": (), "official": keep, "paper": keep, "paper, shares of its own": ()}.items():
        path, rule = tmp_path / f"{name}.png", name.split(",")[0]
        how = () if name == "exact" else ("--sprint", rule, *more)
        said = json.loads(unveil("generate", "a red star", "-o", path, *asked, *how, "--json").out)
        assert said["approximate"] is (name != "exact")
        line = unveil("generate", "a red star", "-o", path, *asked, *how, "-q").out.rstrip("\n")
        assert line.endswith("approximate") is (name != "exact")
        settings = PictureSettings.of(parts.config, parts.layout, {"num_inference_steps": 8, "temperature": 1.0})
        (drawing,) = prompted(parts, ["a red star"], settings)
        policy = settings.policy(parts.config.backbone.block_size)
        if name != "exact":
            policy = replace(policy, sprint=Sprint(rule=rule, **(shares if more else {})))
        found[name] = generate_codes(
            Loop(parts.backbone, parts.layout), [drawing.prefix], parts.layout, grid=settings.grid, policy=policy,
            branches=[drawing.branches], guidance=settings.simple_guidance, generators=[Streams.of(7).tokens],
        )[0]  # fmt: skip
        assert np.array_equal(codes_of(path), found[name].numpy()), name
    assert len({tuple(codes.flatten().tolist()) for codes in found.values()}) == 4


def test_a_picture_by_sprint_replays_and_keeps_pins(unveil, model_directory, tmp_path, star):
    first, again, model = tmp_path / "a.png", tmp_path / "b.png", ("--model", model_directory)
    masked = Image.new("L", (8, 8))
    masked.paste(255, (0, 0, 4, 8))
    masked.save(tmp_path / "m.png")
    how = ("--seed", 8, "--sprint", "paper", "--image-keep-ratio", 0.3, "--codes", star, "--keep", tmp_path / "m.png")
    assert unveil("generate", "a fish", "-o", first, *how, *model).code == 0
    assert unveil("replay", first, "-o", again, *model).code == 0
    assert again.read_bytes() == first.read_bytes()
    assert np.array_equal(codes_of(first)[:, :4], codes_of(star)[:, :4])


def test_sprint_that_cannot_be_is_refused(refused, uni, model_directory, tmp_path):
    ask = ("generate", "a", "-o", tmp_path / "a.png", "--model", model_directory)
    assert "--sprint" in refused(*ask, "--sprint", "mine")
    assert "choose its rule as well: official, paper" in refused(*ask, "--text-keep-ratio", 0.5)
    assert "image_keep_ratio must be a number from 0 to 1, not 2" in refused(
        *ask, "--sprint", "paper", "--image-keep-ratio", 2
    )
    assert "leave out sprint" in refused(*ask, "--sprint", "paper", "--memory", "4GB")
    with pytest.raises(RequestError, match="no rule of SPRINT named 'mine'"):
        uni.generate_image("a", sprint="mine")
    with pytest.raises(RequestError, match="leave out sprint"):
        uni.generate_interleaved("a", sprint="paper")


def test_a_preview_file_shows_the_codes_as_patches(unveil, refused, model_directory, tmp_path, star):
    shown, model = tmp_path / "p.png", ("--seed", 7, "--model", model_directory)
    assert unveil("generate", "a red star", "-o", tmp_path / "a.png", "--preview", shown, *model).code == 0
    assert (tmp_path / "a.png").read_bytes() == star.read_bytes()
    with Image.open(shown) as preview:
        patches = np.asarray(preview).reshape(8, 16, 8, 16, 3)
    assert (patches == patches[:, :1, :, :1]).all() and len(np.unique(patches[:, 0, :, 0].reshape(-1, 3), axis=0)) > 5
    shown.unlink()
    assert unveil("edit", star, "make it blue", "-o", tmp_path / "b.png", "--preview", shown, *model).code == 0
    assert shown.exists()
    assert "must end in" in refused("generate", "a", "-o", tmp_path / "a.png", "--preview", "p.txt", *model)


def test_understand_prints_the_answer(unveil, model_directory, star):
    plain = unveil("understand", star, "what color?", "--model", model_directory)
    machine = unveil("understand", star, "what color?", "--json", "--model", model_directory)
    assert plain.code == machine.code == 0
    assert json.loads(machine.out)["text"] == plain.out.rstrip("\n")
    caption = unveil("understand", star, "--json", "--model", model_directory)
    assert json.loads(caption.out)["text"] != json.loads(machine.out)["text"]


def test_understand_takes_choices(unveil, refused, model_directory, star):
    outcome = unveil("understand", star, "what color?", "--choices", "yes, no,a red fish", "--model", model_directory)
    assert outcome.code == 0 and outcome.out.rstrip("\n") in ("yes", "no", "a red fish")
    for bad, why in (("", "a choice is empty"), ("yes,", "a choice is empty"), ("yes", "different choices, not 1")):
        assert why in refused("understand", star, "what?", "--choices", bad, "--model", model_directory)


def test_infill_prints_the_text_with_its_blanks_filled(unveil, refused, model_directory, star, tmp_path):
    model, page = ("--seed", 1, "--model", model_directory), tmp_path / "t.html"
    plain = unveil("infill", "The ___ is red.", "--length", 2, "--trace", page, *model).out
    assert plain.startswith("The ") and plain.endswith(" is red.\n") and page.read_text().startswith("<!doctype")
    shown = json.loads(unveil("infill", "a ___ star", "--image", star, "--json", *model).out)["text"]
    assert shown.startswith("a ") and shown.endswith(" star")
    assert "write ___ where words are missing" in refused("infill", "The star is red.", *model)
    assert "length of a blank" in refused("infill", "a ___", "--length", 0, *model)


def test_edit_writes_another_picture(unveil, model_directory, tmp_path, star):
    path = tmp_path / "b.png"
    outcome = unveil("edit", star, "make it blue", "-o", path, "--seed", 1, "--json", "--model", model_directory)
    assert json.loads(outcome.out)["file"] == str(path)
    assert np.asarray(Image.open(path)).shape == (128, 128, 3) and path.read_bytes() != star.read_bytes()


@pytest.fixture
def half(tmp_path):
    """A mask that is white on the left."""
    path, mask = tmp_path / "half.png", Image.new("L", (128, 128))
    mask.paste(255, (0, 0, 64, 128))
    mask.save(path)
    return path


def test_generate_keeps_or_varies_codes_of_an_earlier_png(unveil, model_directory, tmp_path, star, half):
    model, old = ("--seed", 1, "--model", model_directory), codes_of(star)
    kept, varied, wide = tmp_path / "kept.png", tmp_path / "varied.png", tmp_path / "wide.png"
    unveil("generate", "two fish", "--codes", star, "--keep", half, "-o", kept, *model)
    unveil("generate", "two fish", "--codes", star, "--vary", half, "-o", varied, *model)
    unveil("generate", "two fish", "--codes", star, "--width", 160, "--at", 0, 2, "-o", wide, *model)
    assert (codes_of(kept)[:, :4] == old[:, :4]).all() and (codes_of(kept)[:, 4:] != old[:, 4:]).any()
    assert (codes_of(varied)[:, 4:] == old[:, 4:]).all() and (codes_of(varied)[:, :4] != old[:, :4]).any()
    assert (codes_of(wide)[:, 2:] == old).all()
    for file in (kept, wide):
        assert unveil("replay", file, "--model", model_directory).code == 0


def test_edit_with_a_mask_keeps_the_codes_outside(unveil, model_directory, tmp_path, star, half):
    path = tmp_path / "edited.png"
    unveil("edit", star, "make it blue", "--mask", half, "-o", path, "--seed", 1, "--model", model_directory)
    with Image.open(path) as picture:
        source = np.array(json.loads(picture.text["source"]))
    assert (codes_of(path)[:, 4:] == source[:, 4:]).all() and (codes_of(path) != source).any()
    assert unveil("replay", path, "--model", model_directory).code == 0


def test_masks_and_codes_that_cannot_be_are_one_line(refused, model_directory, tmp_path, star, half):
    plain, black = tmp_path / "plain.png", tmp_path / "black.png"
    Image.new("L", (100, 90)).save(plain)
    Image.new("L", (128, 128)).save(black)
    model = ("-o", tmp_path / "a.png", "--model", model_directory)
    for arguments, why in (
        (("--keep", half), "give its codes as well"),
        (("--codes", star), "nothing is left to draw"),
        (("--codes", star, "--keep", black), "no cell is kept"),
        (("--codes", star, "--keep", plain), "the mask has 100x90 pixels"),
        (("--codes", star, "--keep", half, "--vary", half), "one of the two"),
        (("--codes", plain, "--keep", half), "plain.png: has no codes"),
        (("--codes", tmp_path / "gone.png", "--keep", half), "gone.png: no such file"),
        (("--codes", star, "--at", 9, 9), "do not fit at row 9, column 9"),
    ):
        assert why in refused("generate", "a fish", *arguments, *model)
    assert "the mask has 100x90" in refused("edit", star, "make it red", "--mask", plain, *model)
    assert not (tmp_path / "a.png").exists()


def test_interleave_fills_a_directory(unveil, model_directory, tmp_path):
    outcome = unveil("interleave", "a car. it turns.", "-o", tmp_path / "x" / "s", "--json", "--model", model_directory)
    summary = json.loads((tmp_path / "x" / "s" / "story.json").read_text())
    assert json.loads(outcome.out) == summary and summary["prompt"] == "a car. it turns."
    assert summary["pages"][0]["text"] in (tmp_path / "x" / "s" / "story.md").read_text()


def test_a_shorter_story_leaves_no_page_of_the_one_before(unveil, model_directory, tmp_path):
    before = {"pages": [{"file": f"{n:02}.png"} for n in range(1, 9)] + [{"file": None}, {"file": "../x.png"}]}
    for name in ("03.png", "08.png", "09.png", "mine.png"):
        (tmp_path / "s").mkdir(exist_ok=True)
        (tmp_path / "s" / name).write_bytes(b"old")
    (tmp_path / "x.png").write_bytes(b"old")
    (tmp_path / "s" / "story.json").write_text(json.dumps(before))
    outcome = unveil("interleave", "a car. it turns.", "-o", tmp_path / "s", "--json", "--model", model_directory)
    written = {page["file"] for page in json.loads(outcome.out)["pages"]} - {None}
    kept = {"09.png", "mine.png", "story.json", "story.md"}  # not pages of that story
    assert {file.name for file in (tmp_path / "s").iterdir()} == written | kept and (tmp_path / "x.png").exists()


def test_interleave_makes_its_directory_when_there_is_something_to_write(refused, model_directory, tmp_path):
    (tmp_path / "file").write_text("")
    assert "prompt is empty" in refused("interleave", "", "-o", tmp_path / "s", "--model", model_directory)
    for place in (tmp_path / "file", tmp_path / "file" / "s"):
        assert f"{tmp_path / 'file'} is not a directory" in refused("interleave", "a", "-o", place, "--model", "nosuch")
    assert not (tmp_path / "s").exists()


def test_retrieve_ranks_the_pictures_of_a_directory(unveil, model_directory, tmp_path):
    for i in range(3):
        pixels = np.random.default_rng(i).integers(0, 256, (64, 64, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(tmp_path / f"{i}.png")
    (tmp_path / "notes.txt").write_text("no picture")
    ranking = json.loads(unveil("retrieve", tmp_path, "a star", "--json", "--model", model_directory).out)
    assert sorted(entry["file"] for entry in ranking) == [str(tmp_path / f"{i}.png") for i in range(3)]
    assert [e["score"] for e in ranking] == sorted((e["score"] for e in ranking), reverse=True)
    best = unveil("retrieve", tmp_path, "a star", "--top", 1, "--model", model_directory).out
    assert best.count("\n") == 1 and ranking[0]["file"] in best


def test_retrieve_leaves_out_a_broken_picture_and_says_so(unveil, model_directory, tmp_path):
    (tmp_path / "broken.png").write_bytes(b"no picture")
    assert "none of its pictures can be read" in unveil("retrieve", tmp_path, "a star", "--model", "nosuch").err
    Image.new("RGB", (64, 64), "red").save(tmp_path / "good.png")
    outcome = unveil("retrieve", tmp_path, "a star", "--model", model_directory)
    assert outcome.code == 0 and outcome.out.endswith(f"  {tmp_path / 'good.png'}\n") and outcome.out.count("\n") == 1
    assert f"left out: {tmp_path / 'broken.png'}: not a PNG" in outcome.err


def test_replay_makes_the_same_pixels_and_says_so(unveil, model_directory, tmp_path, star):
    outcome = unveil("replay", star, "-o", tmp_path / "again.png", "--model", model_directory)
    assert outcome.code == 0 and "identical" in outcome.out
    assert (tmp_path / "again.png").read_bytes() == star.read_bytes()


def test_replay_of_a_retouched_picture_leaves_with_1(unveil, model_directory, star):
    with Image.open(star) as picture:
        texts, pixels = dict(picture.text), picture.convert("RGB")
    r, g, b = pixels.getpixel((5, 5))
    pixels.putpixel((5, 5), (r, g, b ^ 1))
    from unveil.pictures import encode

    star.write_bytes(encode(pixels, ".png", texts))
    outcome = unveil("replay", star, "--json", "--model", model_directory)
    assert outcome.code == 1 and json.loads(outcome.out)["identical"] is False
    where = f"by PyTorch {torch.__version__} on cpu, {torch.get_num_threads()} threads"
    assert f"made in float32 {where}; now float32, {where.removeprefix('by ')}" in outcome.err


def test_replay_holds_the_weights_as_they_were_held(unveil, model_directory, tmp_path):
    file, drawn = tmp_path / "small.png", ("a red star", "--seed", 7, "--model", model_directory)
    assert unveil("generate", *drawn, "-o", file, "--dtype", "int4").code == 0
    assert unveil("generate", *drawn, "-o", tmp_path / "large.png").code == 0
    assert Image.open(file).tobytes() != Image.open(tmp_path / "large.png").tobytes()
    assert Image.open(file).text["precision"] == "int4"
    outcome = unveil("replay", file, "--model", model_directory)
    assert outcome.code == 0 and "identical" in outcome.out
    other = unveil("replay", file, "--dtype", "float32", "--model", model_directory)
    assert other.code == 1 and "made in int4 by" in other.err and "now float32" in other.err


def test_replay_with_other_weights_is_an_error(refused, other_directory, star):
    assert "made with weights" in refused("replay", star, "--model", other_directory)


def test_a_place_that_cannot_be_written_is_refused_before_the_work(refused, tmp_path):
    for name, why in (("a.txt", "must end in"), ("no/a.png", "there is no directory")):
        assert why in refused("generate", "a star", "-o", tmp_path / name, "--model", "nosuch")
    target = tmp_path / "a.png"
    assert "must end in" in refused("generate", "a star", "-o", target, "--trace", "t.mp4", "--model", "nosuch")
    assert "no such file" in refused("edit", tmp_path / "gone.png", "x", "-o", target, "--model", "nosuch")


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (["", "-o", "a.png"], "prompt is empty"),
        (["star " * 10_000, "-o", "a.png"], "exceed the context"),
        (["a", "-o", "a.png", "--steps", "0"], "denoise steps"),
        (["a", "-o", "a.png", "--guidance", "nan"], "guidance"),
        (["a", "-o", "a.png", "--solver-steps", "1"], "solver steps"),
        (["a", "-o", "a.png", "--seed", "-1"], "seed"),
        (["a", "-o", "a.png", "--seed", "x"], "--seed"),
        (["a", "-o", "a.png", "--height", "100"], "nearest: 128"),
        (["a", "-o", "a.png", "--device", "warp"], "there are auto, cpu, cuda"),
        (["a", "-o", "a.png", "--temperature", "-1"], "temperature"),
        (["a", "-o", "a.png", "--nonsense"], "--nonsense"),
        (["a"], "--output"),
    ],
)
def test_bad_requests_are_one_line_and_code_2(refused, model_directory, tmp_path, monkeypatch, arguments, why):
    monkeypatch.chdir(tmp_path)
    assert why in refused("generate", *arguments, "--model", model_directory)
    assert os.listdir(tmp_path) == []


def test_bad_pictures_are_one_line_and_code_2(refused, model_directory, tmp_path):
    (tmp_path / "empty.png").write_bytes(b"")
    (tmp_path / "page.png").write_text("<html>")
    for name, why in (("gone.png", "no such file"), ("empty.png", "0 bytes"), ("page.png", "not a PNG")):
        message = refused("understand", tmp_path / name, "what?", "--model", model_directory)
        assert name in message and why in message


def test_a_damaged_weights_file_is_named(refused, model_directory, tmp_path):
    for file in model_directory.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = tmp_path / "decoder.safetensors"
    weights.write_bytes(weights.read_bytes()[:-10])
    assert "decoder.safetensors: damaged" in refused("generate", "a", "-o", tmp_path / "a.png", "--model", tmp_path)


def test_a_full_disk_is_one_line_and_leaves_nothing_behind(refused, model_directory, tmp_path, monkeypatch):
    def full(handle):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    message = refused("generate", "a", "-o", tmp_path / "a.png", "--model", model_directory, "--quiet")
    assert "No space left on device" in message and os.listdir(tmp_path) == []
