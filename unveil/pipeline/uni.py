"""`Uni`: the whole model for one user. The single forms tell everything; the batched ones are for evaluation."""

import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Self, Unpack

import torch
from PIL import Image

from unveil.errors import RequestError, WeightsError
from unveil.metadata import Recipe
from unveil.pictures import PictureInput, load_picture
from unveil.pipeline.draw import Drawn, draw, edited, pinned, planned, prompted, render_codes
from unveil.pipeline.find import similarity
from unveil.pipeline.inputs import checked_text, device_of, tokenize
from unveil.pipeline.pins import (
    CodesInput,
    MaskInput,
    Pins,
    check_codes,
    earlier_codes,
    keep_codes,
    keep_outside,
    of_size,
)
from unveil.pipeline.place import choose_device, choose_dtype, model_directory, open_directory
from unveil.pipeline.results import ImageResult, Page, StoryResult, TextResult
from unveil.pipeline.settings import PictureOptions, PictureSettings, Streams, TextOptions, TextSettings, checked_seed
from unveil.pipeline.story import tell
from unveil.pipeline.watch import Heard, Watch, silent
from unveil.pipeline.words import Message, answer, converse, fill_in
from unveil.shapes import Float, Int, Tensor
from unveil.trace import Stage, Trace
from unveil.weights.official_config import DecoderKind
from unveil.weights.read import Parts


class Uni:
    """One model that draws, reads and edits pictures, tells stories and chats.

    What a request gives depends on the weights, the request and its seed, on nothing else. `heard` is told of
    progress: (what is going on, how much is done, of how much).
    """

    def __init__(self, parts: Parts, heard: Heard = silent) -> None:
        self.parts = parts
        self.heard = heard

    @classmethod
    def load(
        cls, model: str | Path = "tiny", device: str = "auto", dtype: str | torch.dtype = "float32", *,
        decoder: DecoderKind = "normal", heard: Heard = silent,
    ) -> Self:  # fmt: skip
        """The model of that name inside the package, or in that directory, ours or as released; needs no network.

        A released directory has two image decoders: "normal" and "turbo" (8 solver steps, no guidance). Raises
        WeightsError or ConfigError for a missing or damaged model, RequestError for the device or decoder.
        """
        path, where, precision = model_directory(model), choose_device(device), choose_dtype(dtype)
        return cls(open_directory(path, where, precision, decoder), heard)

    @property
    def weights(self) -> str:
        """The hash that names the weights."""
        return self.parts.hash

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return device_of(self.parts)

    def generate_image(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        thinking: bool = False,
        codes: CodesInput | None = None,
        keep: MaskInput | None = None,
        vary: MaskInput | None = None,
        at: tuple[int, int] | None = None,
        trace: bool = False,
        **options: Unpack[PictureOptions],
    ) -> ImageResult:
        """A picture of what the prompt says.

        With `thinking` the model writes a plan in words first. With `codes` of an earlier result, those that `keep`
        marks, or that `vary` does not mark, stay exactly as they are; in a larger picture all of them, placed at
        (row, column) `at`. Options: num_inference_steps, guidance_scale, height, width, solver_steps,
        decoder_guidance, temperature, top_k, top_p, threshold. Raises PromptError, RequestError, WeightsError for
        codes of other weights, and GenerationError when a plan comes to no picture.
        """
        config, layout = self.parts.config, self.parts.layout
        if codes is None:
            if keep is not None or vary is not None or at is not None:
                raise RequestError("keep, vary and at say what to do with an earlier picture; give its codes as well")
            settings = PictureSettings.of(config, layout, options, thinking=thinking)
            return self._generate([prompt], [seed], settings, trace)[0]
        old = earlier_codes(codes, self.weights, layout)
        settings = PictureSettings.of(config, layout, of_size(options, old, config), thinking=thinking)
        pins = keep_codes(old, settings.grid, keep=keep, vary=vary, at=at)
        return self._generate([prompt], [seed], settings, trace, [pins])[0]

    def generate_images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        thinking: bool = False,
        **options: Unpack[PictureOptions],
    ) -> list[Image.Image]:
        """A picture of each prompt, each with its own seed: what `generate_image` gives, faster."""
        settings = PictureSettings.of(self.parts.config, self.parts.layout, options, thinking=thinking)
        return [result.image for result in self._generate(prompts, seeds, settings, False)]

    def edit_image(
        self,
        image: PictureInput,
        instruction: str,
        *,
        seed: int | None = None,
        mask: MaskInput | None = None,
        trace: bool = False,
        **options: Unpack[PictureOptions],
    ) -> ImageResult:
        """The picture, changed as the instruction says; with a mask only where that is white, all other codes stay.

        Options as for `generate_image`, and image_guidance_scale.
        """
        picture, settings = load_picture(image), self._edit_settings(options)
        codes = tokenize(self.parts, [picture])
        pins = None if mask is None else keep_outside(codes[0], mask, picture, self.parts.config)
        return self._edit(codes, [instruction], [seed], settings, trace, [pins])[0]

    def edit_images(
        self,
        pictures: Sequence[PictureInput],
        instructions: Sequence[str],
        seeds: Sequence[int],
        **options: Unpack[PictureOptions],
    ) -> list[Image.Image]:
        """Each picture changed as its instruction says, each with its own seed."""
        results = self._edit(tokenize(self.parts, pictures), instructions, seeds, self._edit_settings(options), False)
        return [result.image for result in results]

    def understand_image(
        self,
        image: PictureInput,
        question: str = "",
        *,
        choices: Sequence[str] = (),
        seed: int | None = None,
        trace: bool = False,
        **options: Unpack[TextOptions],
    ) -> TextResult:
        """The answer to a question about a picture; without a question, a description; with `choices`, one of these.

        Options: num_inference_steps, temperature, top_k, top_p, threshold, max_tokens.
        """
        settings, watch = TextSettings.of(self.parts.config, options), Watch(self.heard, trace)
        codes, seeds = tokenize(self.parts, [image]), [checked_seed(seed)]
        return answer(self.parts, codes, [question], seeds, settings, watch, choices)[0]

    def answer(
        self, pictures: Sequence[PictureInput], questions: Sequence[str], **options: Unpack[TextOptions]
    ) -> list[str]:
        """The answer to the question about each picture; item i has seed i."""
        settings = TextSettings.of(self.parts.config, options)
        codes = tokenize(self.parts, pictures)
        watch = Watch(self.heard)
        return [a.text for a in answer(self.parts, codes, questions, range(len(questions)), settings, watch)]

    def generate_interleaved(
        self,
        prompt: str,
        *,
        seed: int | None = None,
        trace: bool = False,
        **options: Unpack[PictureOptions],
    ) -> StoryResult:
        """A story as words and pictures in turn: `.pages` is a list of (text, image)."""
        settings = PictureSettings.of(self.parts.config, self.parts.layout, options)
        return self._tell(prompt, checked_seed(seed), settings, trace)

    def chat(
        self,
        turns: Sequence[Message],
        *,
        seed: int | None = None,
        trace: bool = False,
        **options: Unpack[TextOptions],
    ) -> TextResult:
        """The assistant's next words in a conversation. The tiny model has not learned to chat: it answers questions.

        Raises PromptError when there is no turn or the last one is empty.
        """
        settings = TextSettings.of(self.parts.config, options)
        return converse(self.parts, turns, checked_seed(seed), settings, Watch(self.heard, trace))

    def infill(
        self,
        text: str,
        *,
        image: PictureInput | None = None,
        length: int = 1,
        seed: int | None = None,
        trace: bool = False,
        **options: Unpack[TextOptions],
    ) -> TextResult:
        """The text with words in its blanks: "The ___ is red."; everything else stays exactly.

        A blank is three or more underscores and gets `length` tokens. With an image the text describes that: so the
        tiny model has learned to write; without one it guesses. Options as for `understand_image`, but max_tokens.
        """
        if options.get("max_tokens") is not None:
            raise RequestError("an infilled text is as long as its blanks; give their length instead of max_tokens")
        settings, watch = TextSettings.of(self.parts.config, options), Watch(self.heard, trace)
        return fill_in(self.parts, text, image, length, checked_seed(seed), settings, watch)

    def retrieve(self, images: Sequence[PictureInput], text: str) -> list[tuple[int, float]]:
        """(index, likeness) of every picture, the one that fits the text best first; likeness lies in -1..1."""
        scores = self.similarity(images, [checked_text(text, "text")])[0].tolist()
        return sorted(enumerate(scores), key=lambda pair: -pair[1])

    def similarity(self, pictures: Sequence[PictureInput], texts: Sequence[str]) -> Float[Tensor, "T P"]:
        """How well each text fits each picture. Raises WeightsError when the model has no retrieval part."""
        return similarity(self.parts, pictures, texts)

    def tokenize(self, image: PictureInput) -> Int[Tensor, "h w"]:
        """The codes of a picture."""
        return tokenize(self.parts, [image])[0]

    def render(
        self, codes: Int[Tensor, "h w"], *, seed: int | None = None, **options: Unpack[PictureOptions]
    ) -> Image.Image:
        """The picture of a grid of codes."""
        codes = check_codes(codes, self.parts.layout)
        settings = PictureSettings.of(self.parts.config, self.parts.layout, options)
        noise = Streams.of(checked_seed(seed)).noise
        return render_codes(self.parts, codes[None], [noise], settings, Watch(self.heard))[0]

    def reconstruct(self, pictures: Sequence[PictureInput], seeds: Sequence[int]) -> list[Image.Image]:
        """Each picture through tokenizer and decoder: the best that drawing could give."""
        settings = PictureSettings.of(self.parts.config, self.parts.layout, {})
        noise = [Streams.of(checked_seed(seed)).noise for seed in seeds]
        return render_codes(self.parts, tokenize(self.parts, pictures), noise, settings, Watch(self.heard))

    def replay(self, recipe: Recipe) -> ImageResult:
        """The picture that a recipe made. Raises WeightsError when it was made with other weights."""
        if recipe.weights != self.weights:
            theirs = f"the picture was made with weights {recipe.weights}"
            raise WeightsError(f"{theirs}, these are {self.weights}; give the model it was made with")
        layout = self.parts.layout
        settings = PictureSettings.from_plain(recipe.settings, self.parts.config, layout)
        pins = [None if recipe.pinned is None else Pins.from_plain(recipe.pinned, settings.grid, layout)]
        if recipe.task == "edit":
            codes = torch.tensor(recipe.source)[None]
            if tuple(codes.shape[1:]) != settings.grid:
                raise RequestError("the picture's recipe was changed: its source has another size")
            return self._edit(codes, [recipe.prompt], [recipe.seed], settings, False, pins)[0]
        if recipe.task == "generate":
            return self._generate([recipe.prompt], [recipe.seed], settings, False, pins)[0]
        images = [page.image for page in self._tell(recipe.prompt, recipe.seed, settings, False).pages]
        made = [image for image in images if image is not None and image.recipe.number == recipe.number]
        if not made:
            raise RequestError(f"the story has no picture number {recipe.number}; its recipe was changed")
        return made[0]

    def _generate(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int | None],
        settings: PictureSettings,
        trace: bool,
        pins: Sequence[Pins | None] = (),
    ) -> list[ImageResult]:
        start, chosen = time.perf_counter(), [checked_seed(seed) for seed in seeds]
        said = [checked_text(prompt, "prompt") for prompt in prompts]
        self.parts.require("code_embedding", "decoder", "vae")
        streams, watch = [Streams.of(seed) for seed in chosen], Watch(self.heard, trace)
        if settings.thinking:
            words = settings.words(self.parts.config, self.parts.config.sampling.thinking_tokens)
            drawings = planned(self.parts, said, streams, settings, words, watch)
        else:
            drawings = prompted(self.parts, said, settings)
        drawn = draw(self.parts, pinned(drawings, pins), streams, settings, settings.simple_guidance, watch)
        recipes = [self._recipe("generate", p, s, settings) for p, s in zip(said, chosen, strict=True)]
        return _results(recipes, drawn, start, trace)

    def _edit_settings(self, options: PictureOptions) -> PictureSettings:
        """Edits keep the picture's grid and follow their instruction more closely."""
        if options.get("height") is not None or options.get("width") is not None:
            raise RequestError("an edit has the size of its picture; leave out height and width")
        strength = self.parts.config.sampling.edit_text_guidance
        return PictureSettings.of(self.parts.config, self.parts.layout, options, guidance=strength)

    def _edit(
        self,
        sources: Int[Tensor, "B h w"],
        instructions: Sequence[str],
        seeds: Sequence[int | None],
        settings: PictureSettings,
        trace: bool,
        pins: Sequence[Pins | None] = (),
    ) -> list[ImageResult]:
        start, chosen = time.perf_counter(), [checked_seed(seed) for seed in seeds]
        said, watch = [checked_text(text, "instruction") for text in instructions], Watch(self.heard, trace)
        drawings = pinned(edited(self.parts, sources, said, settings), pins)
        streams = [Streams.of(seed) for seed in chosen]
        drawn = draw(self.parts, drawings, streams, settings, settings.edit_guidance, watch)
        recipes = [
            replace(self._recipe("edit", text, seed, settings), source=codes.tolist())
            for text, seed, codes in zip(said, chosen, sources, strict=True)
        ]
        return _results(recipes, drawn, start, trace)

    def _tell(self, prompt: str, seed: int, settings: PictureSettings, trace: bool) -> StoryResult:
        start, said = time.perf_counter(), checked_text(prompt, "prompt")
        watch = Watch(self.heard, trace)
        words = settings.words(self.parts.config, self.parts.config.sampling.text_tokens)
        frames, stages = tell(self.parts, said, Streams.of(seed), settings, words, watch)
        seconds, recipe = time.perf_counter() - start, self._recipe("interleave", said, seed, settings)
        pages = []
        for number, frame in enumerate(frames):
            image = None
            if frame.image is not None and frame.codes is not None:
                image = ImageResult(frame.image, frame.codes, seed, replace(recipe, number=number), seconds)
            pages.append(Page(frame.text, image))
        return StoryResult(tuple(pages), seed, seconds, Trace(said, stages) if trace else None)

    def _recipe(self, task: str, prompt: str, seed: int, settings: PictureSettings) -> Recipe:
        return Recipe(task, prompt, seed, settings.plain(), self.weights)


def _results(recipes: Sequence[Recipe], drawn: Sequence[Drawn], start: float, trace: bool) -> list[ImageResult]:
    """Results of one batch; each says how long the whole batch took."""
    seconds = time.perf_counter() - start

    def shown(recipe: Recipe, stages: tuple[Stage, ...]) -> Trace | None:
        return Trace(recipe.prompt, stages) if trace else None

    return [
        ImageResult(
            d.image,
            d.codes,
            r.seed,
            replace(r, pinned=None if d.pins is None else d.pins.plain()),
            seconds,
            d.plan,
            shown(r, d.stages),
        )
        for r, d in zip(recipes, drawn, strict=True)
    ]
