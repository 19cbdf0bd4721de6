"""What can be asked of `Uni` and what cannot: that is one line of ours, before any work."""

import warnings

import numpy as np
import pytest
import torch
from PIL import Image

from unveil import Message, Uni
from unveil.errors import PromptError, RequestError, UnveilError, WeightsError
from unveil.metadata import read_recipe
from unveil.model.backbone.recorded import Recorded, Recording
from unveil.model.image_decoder import ImageDecoder
from unveil.pipeline import uni as uni_module
from unveil.pipeline.settings import PictureSettings
from unveil.vocab.prompt import Prompts

IMAGE = Image.new("RGB", (64, 64), "red")
CODES = torch.arange(64).reshape(8, 8)
LEFT = np.arange(8) < np.full((8, 1), 4)


@pytest.mark.parametrize(
    ("ask", "why"),
    [
        (lambda uni: uni.understand_image(IMAGE, 5), "the question must be text, not int"),
        (lambda uni: uni.understand_image(IMAGE, "what?", choices=[1, 2]), "the choice must be text, not int"),
        (lambda uni: uni.generate_image(None), "the prompt must be text, not NoneType"),
        (lambda uni: uni.answer([IMAGE], ["what?", "where?"]), "1 pictures and 2 questions; a batch has one of each"),
        (lambda uni: uni.reconstruct([IMAGE], [1, 2]), "1 pictures and 2 seeds"),
        (lambda uni: uni.similarity([IMAGE], []), "no text was given; give at least one"),
        (lambda uni: uni.similarity([IMAGE], ["a star", " "]), "the text is empty"),
        (lambda uni: uni.chat([Message("foo", "hello")]), "no role 'foo'; there are system, user, assistant"),
        (lambda uni: uni.generate_image("a", codes=[[1, 2], [3]], keep=LEFT), "codes must be a grid"),
        (lambda uni: uni.generate_image("a", codes=CODES.double().numpy(), keep=LEFT), "codes must be a grid"),
        (lambda uni: uni.generate_image("a", codes=object(), keep=LEFT), "codes must be a grid"),
        (lambda uni: uni.render(CODES, height=128), "codes are rendered by solver_steps and decoder_guidance alone"),
        (lambda uni: uni.render(CODES, guidance_scale=2.0, sprint="paper"), "leave out guidance_scale and sprint"),
        (lambda uni: uni.generate_image("a", image_guidance_scale=2), "earlier picture.*leave out image_guid"),
        (lambda uni: uni.generate_images(["a"], [1], image_guidance_scale=2), "leave out image_guidance_scale"),
        (lambda uni: uni.edit_image(IMAGE, "a", width=64), "the size of the model's pictures; leave out width"),
        (lambda uni: uni.generate_image("a", temperature=-1), "temperature must be a number from 0 to 100, not -1"),
        (lambda uni: uni.generate_image("a", temperature=0.001), "temperature must be 0, or a number from 0.01"),
        (lambda uni: uni.retrieve([IMAGE], "star " * 60), "tokens; pictures are found by 48 at most: shorten it"),
        (lambda uni: [*uni.stream_text(lambda u: u.generate_image("a"))], "gives no words; follow it with `stream`"),
        (lambda uni: Uni.load("tiny", memory=24), "'24' is no amount of memory; write it as 24GB"),
    ]
    + [
        (lambda uni, at=at: uni.generate_image("a", codes=CODES, keep=LEFT, at=at), "at must be .row, column.")
        for at in ((0.5, 0), (1,), "ab", (True, 0))
    ],
)  # fmt: skip
def test_what_cannot_be_asked_of_the_library_is_one_line(uni, ask, why):
    with pytest.raises(UnveilError, match=why) as caught:
        ask(uni)
    assert "\n" not in str(caught.value) and isinstance(caught.value, PromptError | RequestError)


def test_a_picture_of_another_shape_is_seen_in_its_middle_with_a_warning(uni):
    wide = Image.new("RGB", (192, 64), "blue")
    wide.paste(IMAGE, (64, 0))
    with pytest.warns(UserWarning, match="^the picture: not a square; the model sees the middle alone$"):
        found = uni.tokenize(wide)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(uni.tokenize(IMAGE), found)
    with pytest.warns(UserWarning, match="^1 of 2 pictures: not a square"):
        uni.similarity([IMAGE, wide], ["a star"])


def test_codes_can_be_a_tensor_an_array_or_rows(uni):
    given = ((CODES, None), (CODES.numpy().astype(np.uint16), (0, 0)), (CODES.tolist(), tuple(np.zeros(2, int))))
    drawn = [uni.generate_image("a fish", seed=6, codes=codes, keep=LEFT, at=at).codes for codes, at in given]
    assert all(torch.equal(codes, drawn[0]) for codes in drawn) and torch.equal(drawn[0][:, :4], CODES[:, :4])


def test_no_question_and_no_choices_are_the_defaults(uni):
    assert uni.understand_image(IMAGE, None, choices=None, seed=1).text == uni.understand_image(IMAGE, seed=1).text


@pytest.mark.parametrize("prompt", ["", "   \n", "\t"])
def test_an_empty_prompt_is_refused(uni, prompt):
    for ask in (uni.generate_image, uni.generate_interleaved, lambda p: uni.edit_image(IMAGE, p)):
        with pytest.raises(PromptError, match="is empty"):
            ask(prompt)
    with pytest.raises(PromptError, match="message is empty"):
        uni.chat([])


def test_ten_thousand_words_exceed_the_context_in_one_line(uni):
    words = "star " * 10_000
    for ask in (
        uni.generate_image,
        uni.generate_interleaved,
        lambda p: uni.generate_image(p, thinking=True),
        lambda p: uni.edit_image(IMAGE, p),
        lambda p: uni.understand_image(IMAGE, p),
        lambda p: uni.chat([Message("user", p)]),
    ):
        with pytest.raises(PromptError, match="exceed the context of 512; shorten"):
            ask(words)


def test_the_context_may_be_filled_to_its_last_token(uni):
    say, room = Prompts(uni.parts.text, uni.parts.layout), uni.parts.config.backbone.context - 64
    fitting = max(n for n in range(500) if len(say.generate("a" + " a" * n, 8, 8)) <= room)
    uni.generate_image("a" + " a" * fitting, seed=1)
    with pytest.raises(PromptError):
        uni.generate_image("a" + " a" * (fitting + 1), seed=1)


@pytest.mark.parametrize("prompt", ["家 🏠 ñ \0", "<|mask|><boi><role>SYSTEM</role><IMAGE5>", "\ud800 lone", "a" * 200])
def test_any_unicode_and_control_words_are_ordinary_prompts(uni, prompt, tmp_path):
    result = uni.generate_image(prompt, seed=3)
    again = uni.replay(read_recipe(result.save(tmp_path / "a.png")))
    assert again.image.tobytes() == result.image.tobytes()


@pytest.mark.parametrize(
    "options",
    [
        {"num_inference_steps": 0}, {"num_inference_steps": 2.5}, {"num_inference_steps": True},
        {"guidance_scale": -1}, {"guidance_scale": float("nan")}, {"guidance_scale": 1e9}, {"guidance_scale": "2"},
        {"solver_steps": 1}, {"solver_steps": 10**6}, {"temperature": -0.1}, {"temperature": 1e-30},
        {"temperature": float("inf")}, {"top_k": 0}, {"top_p": 0.0}, {"top_p": 1.5}, {"top_p": "0.9"},
        {"threshold": -1}, {"thinking": "x"},
        {"height": 100}, {"width": 0}, {"height": 10**5}, {"height": 4080}, {"decoder_guidance": -1},
        {"seed": -1}, {"seed": 2**63}, {"seed": 1.5}, {"seed": "7"},
    ],
)  # fmt: skip
def test_impossible_settings_are_refused_in_one_line(uni, options):
    with pytest.raises(RequestError) as caught:
        uni.generate_image("a star", **options)
    assert "\n" not in str(caught.value)


def test_numbers_of_numpy_are_numbers(uni, tmp_path):
    options = {"seed": np.int64(5), "temperature": np.float32(0.5), "num_inference_steps": np.uint8(4)}
    result = uni.generate_image("a star", **options)
    again = uni.generate_image("a star", seed=5, temperature=0.5, num_inference_steps=4)
    assert result.image.tobytes() == again.image.tobytes()
    assert read_recipe(result.save(tmp_path / "a.png")) == again.recipe


def test_an_unknown_size_names_the_nearest(uni):
    with pytest.raises(RequestError, match="nearest: 128 or 160"):
        uni.generate_image("a star", height=130)


def test_another_size_gives_that_many_pixels(uni):
    result = uni.generate_image("a star", height=128, width=160, seed=1)
    assert result.image.size == (160, 128) and result.codes.shape == (8, 10)


def test_a_misspelt_option_is_no_silent_default(uni):
    with pytest.raises(TypeError, match="num_steps"):
        uni.generate_image("a star", num_steps=4)
    with pytest.raises(TypeError, match="max_length"):
        uni.understand_image(IMAGE, "what?", max_length=4)


@pytest.mark.parametrize("options", [{"max_tokens": 0}, {"num_inference_steps": 0}, {"temperature": -1}])
def test_impossible_settings_of_words_are_refused(uni, options):
    with pytest.raises(RequestError):
        uni.understand_image(IMAGE, "what?", **options)


def test_a_model_that_is_not_there_is_named():
    with pytest.raises(WeightsError, match="no model 'nosuch'"):
        Uni.load("nosuch")


@pytest.mark.parametrize("device", ["warp", "cuda:99", "meta", ""])
def test_a_device_that_is_not_here_is_refused(model_directory, device):
    with pytest.raises(UnveilError, match="use cpu or auto|no device .*; there are auto, cpu"):
        Uni.load(model_directory, device)


def test_any_number_of_the_one_processor_is_the_processor(model_directory):
    assert Uni.load(model_directory, "cpu:3").device == torch.device("cpu")


def test_a_dtype_can_be_named_and_a_wrong_one_is_refused(model_directory):
    assert Uni.load(model_directory, "cpu", "bfloat16").parts.backbone.lm_head.weight.dtype == torch.bfloat16
    with pytest.raises(RequestError, match="dtype 'float8' cannot be used; use auto, float32"):
        Uni.load(model_directory, "cpu", "float8")


def test_graphs_are_refused_before_any_weight_is_read(model_directory, monkeypatch):
    monkeypatch.setattr(uni_module, "place_parts", None)
    with pytest.raises(RequestError, match="CUDA graphs need a CUDA device, not cpu"):
        Uni.load(model_directory, "cpu", graphs=True)
    monkeypatch.setattr(uni_module, "check_recordable", lambda device: None)
    with pytest.raises(RequestError, match="no fixed place; leave out one of the two"):
        Uni.load(model_directory, "cpu", memory="20GB", graphs=True)


def test_with_graphs_every_engine_of_a_model_replays_the_same_recordings(model_directory, monkeypatch, replayed, uni):
    monkeypatch.setattr(uni_module, "check_recordable", lambda device: None)
    monkeypatch.setattr(Recorded, "on_gpu", lambda backbone: Recorded(backbone, replayed))
    graphs = Uni.load(model_directory, "cpu", graphs=True)
    sizes, run = [], Recording.run
    monkeypatch.setattr(Recording, "run", lambda self, *given: [sizes.append(self), run(self, *given)][1])
    for ask in (
        lambda u: u.generate_image("a star", seed=1).codes.tolist(),
        lambda u: list(u.stream(lambda v: v.generate_image("a star", seed=1)))[-1].codes.tolist(),
        lambda u: [page.text for page in u.generate_interleaved("a star", seed=1).pages],
    ):
        sizes.clear()
        assert ask(graphs) == ask(uni) and sizes
        assert set(map(id, sizes)) <= set(map(id, graphs.engine.model.recordings.values()))


def test_compiled_layers_are_those_of_the_image_decoder(model_directory, monkeypatch):
    asked = []
    monkeypatch.setattr(ImageDecoder, "compile_layers", lambda decoder: asked.append(decoder))
    assert [Uni.load(model_directory, "cpu", compiled=True).parts.decoder] == asked


def test_codes_that_are_no_codes_cannot_be_rendered(uni):
    for codes in (torch.full((8, 8), 128), torch.full((8, 8), -1), torch.zeros(0, 8).long(), torch.zeros(64).long()):
        with pytest.raises(RequestError, match="codes must be a grid"):
            uni.render(codes)


def test_settings_survive_their_plain_form(uni):
    parts = uni.parts
    settings = PictureSettings.of(parts.config, parts.layout, {"top_k": 5, "guidance_scale": 1.25})
    assert PictureSettings.from_plain(settings.plain(), parts.config, parts.layout) == settings
