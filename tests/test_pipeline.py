"""`Uni` with random weights: the same request gives the same result, and what cannot be is one line."""

import dataclasses
import threading

import numpy as np
import pytest
import torch
from PIL import Image

from unveil import Message, Uni
from unveil.errors import GenerationError, RequestError, WeightsError
from unveil.metadata import read_recipe
from unveil.pipeline.draw import draw, prompted
from unveil.pipeline.inputs import by_length, fit_picture, new_engine
from unveil.pipeline.settings import PictureSettings, Streams
from unveil.pipeline.watch import Watch
from unveil.scenes.describe import DESCRIBE
from unveil.vocab.prompt import Prompts

DRAW = {"temperature": 1.0}  # random weights at temperature 0 give nearly the same codes for every prompt


def pixels(picture: Image.Image) -> np.ndarray:
    return np.asarray(picture).astype(int)


def noise(seed: int, side: int = 128) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (side, side, 3), dtype=np.uint8))


class Reciter:
    """A model that knows one text by heart: at position p it says `text[p]`."""

    def __init__(self, text: list[int], size: int):
        self.text, self.size = torch.tensor(text), size

    def allocate(self, branches, length):
        return torch.zeros(branches, 1, 2, 1, length, 1)

    def packed(self, tokens, positions, segments, tile):
        runs = positions.split([segment.end - segment.start for segment in segments])
        return torch.cat([p[s.wanted] for p, s in zip(runs, segments, strict=True)])[:, None].float()

    def logits(self, states, tile):
        at = states[..., 0].long().clamp_max(len(self.text) - 1)
        return torch.nn.functional.one_hot(self.text[at], self.size).float() * 9

    def parameters(self):
        yield torch.zeros(1)


def reciting(uni: Uni, prefix: list[int], said: list[int]) -> Uni:
    """The same model, but its words are known: after the prefix it says these ids, then end of sequence."""
    parts = uni.parts
    text = [*prefix, *said, *[parts.layout.pad] * 200]
    return Uni(dataclasses.replace(parts, backbone=Reciter(text, parts.layout.size)))


@pytest.fixture(scope="module")
def drawn(uni):
    return uni.generate_image("a red star on white", seed=5, trace=True, **DRAW)


def test_the_same_request_gives_the_same_pixels_and_another_seed_others(uni, drawn):
    again = uni.generate_image("a red star on white", seed=5, **DRAW)
    other = uni.generate_image("a red star on white", seed=6, **DRAW)
    assert torch.equal(again.codes, drawn.codes) and again.image.tobytes() == drawn.image.tobytes()
    assert not torch.equal(other.codes, drawn.codes)
    assert drawn.image.size == (128, 128) and drawn.codes.shape == (8, 8) and drawn.seed == 5


def test_a_batch_gives_what_its_items_give_alone(uni, drawn):
    prompts = ["a red star on white", "a much longer prompt about a small blue fish", "a red star on white"]
    batch = uni.generate_images(prompts, [5, 1, 2], **DRAW)
    alone = [drawn.image, *(uni.generate_image(prompts[i], seed=i, **DRAW).image for i in (1, 2))]
    for i in range(3):
        apart = [np.abs(pixels(batch[i]) - pixels(picture)).max() for picture in alone]
        assert apart[i] <= 1 and min(apart[:i] + apart[i + 1 :]) > 10


def test_in_a_batch_each_picture_has_its_own_draws_and_its_own_noise(uni, drawn):
    parts, settings = uni.parts, PictureSettings.of(uni.parts.config, uni.parts.layout, DRAW)
    drawings = prompted(parts, ["a red star on white"] * 2, settings)
    streams = [Streams.of(6), Streams.of(5)]
    both = draw(parts, drawings, streams, settings, settings.simple_guidance, Watch())
    assert torch.equal(both[1].codes, drawn.codes) and not torch.equal(both[0].codes, drawn.codes)


def test_the_noise_of_rendering_is_apart_from_the_draws_of_codes(uni, drawn):
    first, second = uni.render(drawn.codes, seed=5), uni.render(drawn.codes, seed=6)
    assert first.tobytes() == drawn.image.tobytes() and second.tobytes() != first.tobytes()
    one, two = Streams.of(5), Streams.of(5)
    tokens = torch.rand(4, generator=one.tokens)
    assert torch.equal(tokens, torch.rand(4, generator=two.tokens))
    assert not torch.equal(tokens, torch.rand(4, generator=one.noise))


def test_a_seed_that_was_not_given_is_chosen_and_reported(uni):
    first, second = (uni.generate_image("a", **DRAW) for _ in range(2))
    assert first.seed != second.seed
    assert uni.generate_image("a", seed=first.seed, **DRAW).image.tobytes() == first.image.tobytes()


def test_prompt_and_guidance_reach_the_codes(uni, drawn):
    other = uni.generate_image("two blue fish on gray", seed=5, **DRAW)
    unguided = uni.generate_image("a red star on white", seed=5, guidance_scale=1.0, **DRAW)
    assert not torch.equal(other.codes, drawn.codes) and not torch.equal(unguided.codes, drawn.codes)


def test_every_code_is_in_the_book(uni, drawn):
    assert int(drawn.codes.min()) >= 0 and int(drawn.codes.max()) < uni.parts.layout.codes


def test_a_saved_picture_replays_to_the_same_pixels(uni, drawn, tmp_path):
    recipe = read_recipe(drawn.save(tmp_path / "a.png"))
    assert uni.replay(recipe).image.tobytes() == drawn.image.tobytes()


def test_a_recipe_from_before_there_was_turbo_and_sprint_replays(uni, drawn):
    later = ("turbo", "sprint", "text_keep_ratio", "image_keep_ratio")
    old = {name: value for name, value in drawn.recipe.settings.items() if name not in later}
    assert uni.replay(dataclasses.replace(drawn.recipe, settings=old)).image.tobytes() == drawn.image.tobytes()


def test_an_edit_replays_without_its_source_picture(uni, tmp_path):
    result = uni.edit_image(noise(0), "make it red", seed=9, **DRAW)
    assert result.recipe.source == uni.tokenize(noise(0)).tolist()
    assert uni.replay(read_recipe(result.save(tmp_path / "a.png"))).image.tobytes() == result.image.tobytes()
    other = uni.replay(dataclasses.replace(result.recipe, prompt="make it blue"))
    assert other.image.tobytes() != result.image.tobytes()


def test_a_recipe_of_other_weights_is_refused(uni, drawn):
    with pytest.raises(WeightsError, match="made with weights 0123"):
        uni.replay(dataclasses.replace(drawn.recipe, weights="0123"))


@pytest.mark.parametrize(
    "change",
    [{"rows": 7}, {"rows": "8"}, {"rows": -8}, {"steps": 0}, {"steps": 1e9}, {"guidance": "x"}, {"extra": 1}]
    + [{"top_p": "x"}, {"top_p": 2}, {"whole_blocks": "x"}, {"thinking": "x"}, {"thinking": 1}, {"turbo": 0}],
)
def test_changed_settings_in_a_recipe_are_refused(uni, drawn, change):
    with pytest.raises(RequestError):
        uni.replay(dataclasses.replace(drawn.recipe, settings={**drawn.recipe.settings, **change}))


def test_an_edit_sees_picture_and_instruction(uni):
    first = uni.edit_image(noise(0), "make it red", seed=9, **DRAW)
    other_words = uni.edit_image(noise(0), "remove the fish", seed=9, **DRAW)
    other_picture = uni.edit_image(noise(1), "make it red", seed=9, **DRAW)
    assert not torch.equal(first.codes, other_words.codes) and not torch.equal(first.codes, other_picture.codes)
    kept = uni.edit_image(noise(0), "make it red", seed=9, image_guidance_scale=3.0, **DRAW)
    assert not torch.equal(first.codes, kept.codes)
    assert first.recipe.settings["guidance"] == uni.parts.config.sampling.edit_text_guidance
    batch = uni.edit_images([noise(1), noise(0)], ["make it red"] * 2, [9, 9], **DRAW)
    assert np.abs(pixels(batch[1]) - pixels(first.image)).max() <= 1


def test_no_question_asks_for_a_description(uni):
    picture = noise(3)
    assert uni.understand_image(picture).text == uni.understand_image(picture, DESCRIBE).text
    assert uni.understand_image(picture, " ").text == uni.understand_image(picture, DESCRIBE).text


def test_answers_in_a_batch_are_those_given_alone(uni):
    shown, asked = [noise(1), noise(2), noise(1)], ["what color?", "how many red fish are there?", "where is it?"]
    alone = [uni.understand_image(p, q, seed=i).text for i, (p, q) in enumerate(zip(shown, asked, strict=True))]
    assert uni.answer(shown, asked) == alone
    assert len(set(alone)) > 1


def test_the_plan_is_told_and_the_picture_follows_it(uni):
    parts = uni.parts
    words = parts.text.encode("white. large red star row 1 column 1.")
    say, header = Prompts(parts.text, parts.layout), Prompts(parts.text, parts.layout).header(8, 8)
    asked = say.think("a star")
    codes = [parts.layout.image_offset + i for i in range(64)]
    known = reciting(uni, asked, [*words, *header, *codes])
    result = known.generate_image("a star", thinking=True, seed=1, guidance_scale=1.0, trace=True)
    assert result.thinking == "white. large red star row 1 column 1."
    assert result.codes.flatten().tolist() == list(range(64))
    assert [stage.grid for stage in result.trace.stages] == [None, (8, 8)]
    assert "".join(result.trace.stages[0].labels).strip() == result.thinking
    assert known.replay(result.recipe).image.tobytes() == result.image.tobytes()


def test_a_plan_is_written_again_as_it_was_whatever_the_models_defaults_are_now(uni):
    parts = uni.parts
    words, header = parts.text.encode("white. large red star."), Prompts(parts.text, parts.layout).header(8, 8)
    asked = Prompts(parts.text, parts.layout).think("a star")
    known = reciting(uni, asked, [*words, *header, *[parts.layout.image_offset] * 64])
    recipe = known.generate_image("a star", thinking=True, seed=1, guidance_scale=1.0).recipe
    assert recipe.settings["words"]["tokens"] == parts.config.sampling.thinking_tokens
    sampling = parts.config.sampling.model_copy(update={"thinking_tokens": 3})
    now = Uni(dataclasses.replace(known.parts, config=parts.config.model_copy(update={"sampling": sampling})))
    assert now.replay(recipe).thinking == known.replay(recipe).thinking == "white. large red star."
    old = dataclasses.replace(recipe, settings={k: v for k, v in recipe.settings.items() if k != "words"})
    assert known.replay(old).thinking == "white. large red star."
    assert now.replay(old).thinking != "white. large red star."  # pictures from before have none, and get today's
    for wrong in ({"tokens": 3}, [3], {**recipe.settings["words"], "order": "backwards"}):
        with pytest.raises(RequestError, match="another version of unveil|no order 'backwards'"):
            known.replay(dataclasses.replace(recipe, settings={**recipe.settings, "words": wrong}))


def test_a_plan_without_a_picture_is_one_error(uni):
    with pytest.raises(GenerationError, match="never began its picture"):
        reciting(uni, [], [uni.parts.layout.pad] * 300).generate_image("a star", thinking=True, seed=1)


def test_a_story_has_words_and_pictures_in_turn(uni):
    parts = uni.parts
    say, encode = Prompts(parts.text, parts.layout), parts.text.encode
    first, second = encode("a red car."), encode("it is blue.")
    codes = [parts.layout.image_offset + i for i in range(64)]
    header, eoi, end = say.header(8, 8), parts.layout.eoi, encode("the end")
    said = [*first, *header, *codes, eoi, *second, *header, *codes[::-1], eoi, *end]
    known = reciting(uni, say.interleave("a story"), said)
    story = known.generate_interleaved("a story", seed=2, guidance_scale=1.0, trace=True)
    assert [page.text for page in story.pages] == ["a red car.", "it is blue.", "the end"]
    assert story.pages[0].image.codes.flatten().tolist() == list(range(64))
    assert story.pages[1].image.codes.flatten().tolist() == list(range(64))[::-1]
    assert story.pages[2].image is None
    assert [stage.grid for stage in story.trace.stages] == [None, (8, 8), None, (8, 8), None]
    again = known.replay(story.pages[1].image.recipe)
    assert again.image.tobytes() == story.pages[1].image.image.tobytes()


def test_codes_among_the_words_of_a_story_are_neither_told_nor_taken_for_a_picture(uni):
    say, offset = Prompts(uni.parts.text, uni.parts.layout), uni.parts.layout.image_offset
    words = [*[offset + 5] * 10, *uni.parts.text.encode("a red car.")]
    story = reciting(uni, say.interleave("a story"), words).generate_interleaved("a story", seed=2, trace=True)
    assert [(page.text, page.image) for page in story.pages] == [("a red car.", None)]
    assert [stage.grid for stage in story.trace.stages] == [None]


def test_the_nearest_picture_comes_first(uni):
    pictures = [noise(i) for i in range(4)]
    scores = uni.similarity(pictures, ["a star", "a fish"])
    ranking = uni.retrieve(pictures, "a fish")
    assert [i for i, _ in ranking] == scores[1].argsort(descending=True).tolist()
    assert scores.shape == (2, 4) and scores.abs().max() <= 1.0001


def test_a_model_without_retrieval_says_what_is_missing(uni):
    with pytest.raises(WeightsError, match="retrieval.safetensors"):
        Uni(dataclasses.replace(uni.parts, retrieval=None)).retrieve([noise(0)], "a star")


def test_chat_hears_all_turns(uni):
    first = uni.chat([Message("user", "hello there")], seed=1, temperature=1.0).text
    shown = uni.chat([Message("user", "hello there", (noise(0),))], seed=1, temperature=1.0).text
    longer = [Message("user", "hello there"), Message("assistant", "hi"), Message("user", "hello there")]
    assert len({first, shown, uni.chat(longer, seed=1, temperature=1.0).text}) == 3


def test_a_picture_of_twice_the_size_is_averaged_exactly(uni):
    tokenizer_side = uni.parts.config.sampling.grid[0] * uni.parts.config.image_tokenizer.patch_size
    big, config = noise(4, 2 * tokenizer_side), uni.parts.config
    mean = pixels(big).reshape(tokenizer_side, 2, tokenizer_side, 2, 3).mean((1, 3))
    assert np.abs(pixels(fit_picture(big, config)) - mean).max() <= 0.5
    assert fit_picture(Image.new("RGB", (1, 9)), config).size == (tokenizer_side, tokenizer_side)


def test_the_middle_of_a_wide_picture_is_seen(uni):
    wide = Image.new("RGB", (300, 100), "white")
    wide.paste("red", (100, 0, 200, 100))
    seen = pixels(fit_picture(wide, uni.parts.config))
    assert (seen[:, 4:-4] == (255, 0, 0)).all()


def test_prompts_of_one_length_share_a_batch():
    assert list(by_length([[1], [1, 2], [3], [4], [5, 6]], most=2)) == [[0, 2], [3], [1, 4]]


def test_progress_is_heard_to_its_end(uni, model_directory):
    heard = []
    Uni(uni.parts, lambda *said: heard.append(said)).generate_image("a star", seed=1)
    drawing = [said for said in heard if said[0] == "draw"]
    assert drawing[-1][1:] == (64, 64) and heard[-1] == ("render", 2, 2)


def test_prompts_are_shared_between_calls_only_when_asked_and_change_no_answer(uni):
    parts = uni.parts
    question, picture = "how many things are there?", noise(3)
    alone, sharing = Uni(parts), Uni(parts, engine=new_engine(parts, shares=True))
    for model in (alone, sharing):
        found = [model.understand_image(picture, question, seed=1).text for _ in range(2)]
        assert found == [alone.understand_image(picture, question, seed=1).text] * 2
    assert alone.engine.prefixes.hits == alone.engine.prefixes.bytes == 0
    assert sharing.engine.prefixes.hits > 0 and sharing.engine.prefixes.bytes > 0
    hits = sharing.engine.prefixes.hits
    assert "".join(sharing.stream_text(lambda uni: uni.understand_image(picture, question, seed=1))).strip() == found[0]
    assert sharing.engine.prefixes.hits > hits


def test_an_interrupted_request_leaves_nothing_in_the_engine_of_its_model(uni):
    def interrupt(what, done, total):
        raise KeyboardInterrupt

    uni = Uni(uni.parts, interrupt)
    with pytest.raises(KeyboardInterrupt):
        uni.generate_image("a star", seed=1)
    assert not uni.engine.running and uni.engine.cache_bytes == 0 and len(uni.engine.queue) == 0


def test_threads_that_ask_one_model_at_once_get_what_each_gets_alone(uni):
    found = {}
    alone = {seed: uni.generate_image("a star", seed=seed).codes for seed in range(3)}
    ask = [threading.Thread(target=lambda s=s: found.update({s: uni.generate_image("a star", seed=s)})) for s in alone]
    for thread in ask:
        thread.start()
    for thread in ask:
        thread.join()
    assert all(torch.equal(found[seed].codes, codes) for seed, codes in alone.items())
