"""Requests for pictures, many at a time: what is asked becomes drawings, these are drawn, and each has its recipe."""

import time
from collections.abc import Sequence
from dataclasses import replace

import torch

from unveil.metadata import Recipe
from unveil.pictures import PictureInput, load_picture
from unveil.pipeline.draw import Drawn, draw, edited, pinned, planned, prompted
from unveil.pipeline.inputs import checked_text, one_each, tokenize
from unveil.pipeline.pins import Earlier, MaskInput, Pins, keep_outside, place_earlier
from unveil.pipeline.results import ImageResult
from unveil.pipeline.settings import PictureOptions, PictureSettings, Streams, checked_seed
from unveil.pipeline.watch import Watch
from unveil.shapes import Int, Tensor
from unveil.trace import Trace
from unveil.weights.read import Parts


def generate_around(
    parts: Parts,
    prompts: Sequence[str],
    seeds: Sequence[int | None],
    earlier: Sequence[Earlier],
    options: PictureOptions,
    watch: Watch,
    *,
    thinking: bool = False,
) -> list[ImageResult]:
    """A picture of each prompt, around what stays of the earlier picture that its request names."""
    settings, pins = place_earlier(earlier, options, parts.config, parts.layout, parts.hash, thinking=thinking)
    return generate(parts, prompts, seeds, settings, watch, pins)


def edit_within(
    parts: Parts,
    images: Sequence[PictureInput],
    instructions: Sequence[str],
    seeds: Sequence[int | None],
    masks: Sequence[MaskInput | None],
    settings: PictureSettings,
    watch: Watch,
) -> list[ImageResult]:
    """Each picture changed as its instruction says; where it has a mask, only what that marks."""
    pictures = [load_picture(image) for image in images]
    codes = tokenize(parts, pictures)
    pins = [
        None if mask is None else keep_outside(old, mask, picture, parts.config)
        for old, mask, picture in zip(codes, masks, pictures, strict=True)
    ]
    return edit(parts, codes, instructions, seeds, settings, watch, pins)


def generate(
    parts: Parts,
    prompts: Sequence[str],
    seeds: Sequence[int | None],
    settings: PictureSettings,
    watch: Watch,
    pins: Sequence[Pins | None] = (),
) -> list[ImageResult]:
    """A picture of each prompt; with pins around what is kept of earlier pictures."""
    one_each(prompts=prompts, seeds=seeds)
    start, chosen = time.perf_counter(), [checked_seed(seed) for seed in seeds]
    said = [checked_text(prompt, "prompt") for prompt in prompts]
    parts.require("code_embedding", "decoder", "vae")
    streams = [Streams.of(seed) for seed in chosen]
    if settings.thinking:
        settings, words = settings.with_words(parts.config, parts.config.sampling.thinking_tokens)
        drawings = planned(parts, said, streams, settings, words, watch)
    else:
        drawings = prompted(parts, said, settings)
    drawn = draw(parts, pinned(drawings, pins), streams, settings, settings.simple_guidance, watch)
    recipes = [recipe_of(parts, "generate", p, s, settings) for p, s in zip(said, chosen, strict=True)]
    return _results(recipes, drawn, start, watch)


def edit(
    parts: Parts,
    sources: Int[Tensor, "B h w"],
    instructions: Sequence[str],
    seeds: Sequence[int | None],
    settings: PictureSettings,
    watch: Watch,
    pins: Sequence[Pins | None] = (),
) -> list[ImageResult]:
    """Each picture changed as its instruction says; with pins around what is kept of it."""
    one_each(pictures=sources, instructions=instructions, seeds=seeds)
    start, chosen = time.perf_counter(), [checked_seed(seed) for seed in seeds]
    said = [checked_text(text, "instruction") for text in instructions]
    drawings = pinned(edited(parts, sources, said, settings), pins)
    streams = [Streams.of(seed) for seed in chosen]
    drawn = draw(parts, drawings, streams, settings, settings.edit_guidance, watch)
    recipes = [
        replace(recipe_of(parts, "edit", text, seed, settings), source=codes.tolist())
        for text, seed, codes in zip(said, chosen, sources, strict=True)
    ]
    return _results(recipes, drawn, start, watch)


def recipe_of(parts: Parts, task: str, prompt: str, seed: int, settings: PictureSettings) -> Recipe:
    """What a picture depends on."""
    threads = f", {torch.get_num_threads()} threads" if parts.device.type == "cpu" else ""
    tiled = ", the VAE in tiles" if parts.vae.use_tiling else ""
    made_on = f"PyTorch {torch.__version__} on {parts.device.type}{threads}{tiled}"
    return Recipe(task, prompt, seed, settings.plain(), parts.hash, precision=parts.precision, made_on=made_on)


def _results(recipes: Sequence[Recipe], drawn: Sequence[Drawn], start: float, watch: Watch) -> list[ImageResult]:
    """Results of one batch; each says how long the whole batch took."""
    seconds, results = time.perf_counter() - start, []
    for recipe, d in zip(recipes, drawn, strict=True):
        kept = replace(recipe, pinned=None if d.pins is None else d.pins.plain())
        trace = Trace(recipe.prompt, d.stages) if watch.keep else None
        results.append(ImageResult(d.image, d.codes, recipe.seed, kept, seconds, d.plan, trace))
    return results
