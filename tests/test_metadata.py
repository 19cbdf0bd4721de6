"""A PNG says how it was made; what was changed by hand is refused."""

import dataclasses

import pytest
from PIL import Image

from unveil.errors import PictureError
from unveil.metadata import Recipe, read_recipe
from unveil.pictures import encode

GENERATE = Recipe("generate", 'ein "Stern" 星\n<b>', 2**40, {"steps": 8, "guidance": 2.5, "top_k": None}, "abc", None)


def written(tmp_path, texts):
    path = tmp_path / "p.png"
    path.write_bytes(encode(Image.new("RGB", (4, 4)), ".png", texts))
    return path


@pytest.mark.parametrize(
    "recipe",
    [
        GENERATE,
        dataclasses.replace(GENERATE, task="edit", source=[[1, 2], [3, 4]]),
        dataclasses.replace(GENERATE, task="interleave", number=2),
        dataclasses.replace(GENERATE, pinned=[[1, None], [None, 4]]),
        dataclasses.replace(GENERATE, precision="int4", made_on="PyTorch 2 on cpu, 1 threads"),
    ],
)
def test_a_recipe_comes_back_from_its_png(tmp_path, recipe):
    assert read_recipe(written(tmp_path, recipe.texts())) == recipe


def test_prompt_seed_and_weights_can_be_read_by_any_program(tmp_path):
    with Image.open(written(tmp_path, GENERATE.texts())) as picture:
        assert picture.text["prompt"] == GENERATE.prompt
        assert picture.text["seed"] == str(2**40) and picture.text["weights"] == "abc"
        assert picture.text["Software"].startswith("unveil ")


def test_a_png_of_another_program_cannot_be_replayed(tmp_path):
    with pytest.raises(PictureError, match="only a PNG that unveil wrote"):
        read_recipe(written(tmp_path, {"Software": "paint"}))


@pytest.mark.parametrize(
    "change",
    [
        {"seed": "seven"},
        {"settings": "{"},
        {"settings": "[]"},
        {"settings": "[" * 10_000},
        {"task": "train"},
        {"task": "edit"},
        {"source": "[[1]]"},
        {"number": "1"},
        {"task": "edit", "source": "[[1], [2, 3]]"},
        {"task": "edit", "source": "[]"},
        {"task": "edit", "source": "[[]]"},
        {"task": "edit", "source": '[["a"]]'},
        {"task": "edit", "source": "[[1.5]]"},
        {"task": "edit", "source": "[[null]]"},
        {"pinned": "[[1], [null, 3]]"},
        {"pinned": "[[-1]]"},
        {"pinned": "[[1.5]]"},
        {"pinned": "[[true]]"},
        {"task": "interleave", "number": "1", "pinned": "[[1]]"},
    ],
)
def test_changed_chunks_are_refused_in_one_line(tmp_path, change):
    with pytest.raises(PictureError, match="text chunks were changed"):
        read_recipe(written(tmp_path, GENERATE.texts() | change))


def test_a_damaged_png_is_a_damaged_picture_also_when_only_its_texts_are_asked_for(tmp_path):
    path = written(tmp_path, GENERATE.texts())
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"IDAT") + 8])
    with pytest.raises(PictureError, match="p.png: damaged .*; copy it again"):
        read_recipe(path)


def test_a_picture_of_too_many_pixels_is_refused_before_its_texts_are_looked_for(tmp_path):
    path = tmp_path / "p.png"
    Image.new("1", (6000, 6000)).save(path)
    with pytest.raises(PictureError, match="6000x6000 is more than"):
        read_recipe(path)
