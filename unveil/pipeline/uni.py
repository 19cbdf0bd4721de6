"""`Uni`: the whole model for one user. The single forms tell everything; the batched ones are for evaluation."""

from collections.abc import Callable, Generator, Iterator, Sequence
from contextlib import closing
from functools import cached_property
from pathlib import Path
from typing import Self, TypeVar, Unpack

import torch
from PIL import Image

from unveil.engine import Engine
from unveil.errors import RequestError
from unveil.memory.moments import Task
from unveil.memory.plan import parse_bytes
from unveil.metadata import Recipe
from unveil.model.backbone.recorded import check_recordable
from unveil.pictures import PictureInput
from unveil.pipeline.draw import render_codes
from unveil.pipeline.find import checked_query, similarity
from unveil.pipeline.fit import Budget, Placed, choose_precision, place_parts
from unveil.pipeline.images import edit_within, generate_around
from unveil.pipeline.inputs import new_engine, one_each, refuse, tokenize
from unveil.pipeline.pins import CodesInput, Earlier, MaskInput, check_codes, for_each
from unveil.pipeline.place import choose_device, model_directory, unread_model
from unveil.pipeline.preview import Preview, code_colors, preview
from unveil.pipeline.replay import replayed
from unveil.pipeline.results import ImageResult, StoryResult, TextResult
from unveil.pipeline.settings import PictureOptions, PictureSettings, Streams, TextOptions, TextSettings, checked_seed
from unveil.pipeline.story import told
from unveil.pipeline.stream import stream, words_so_far
from unveil.pipeline.watch import Heard, Moment, Seen, Watch, silent
from unveil.pipeline.words import Message, answer, converse, fill_in
from unveil.shapes import Float, Int, Tensor, UInt8
from unveil.weights.official_config import DecoderKind
from unveil.weights.read import Parts

R = TypeVar("R")
_SIZE = ("height", "width")
_EARLIER, _NOTHING_EARLIER = ("image_guidance_scale",), "there is no earlier picture that could count"


class Uni:
    """One model that draws, reads and edits pictures, tells stories and chats.

    What a request gives depends on the weights, the request and its seed, on nothing else. `heard` is told of
    progress: (what is going on, how much is done, of how much).

    Several threads may ask at once and then share denoise steps; not where a memory plan lets parts come in turns.
    """

    def __init__(
        self, parts: Parts, heard: Heard = silent, seen: Seen | None = None, placed: Placed | None = None, *,
        engine: Engine | None = None,
    ) -> None:  # fmt: skip
        self.parts, self.heard, self.seen, self.placed = parts, heard, seen, placed
        self.engine = new_engine(parts) if engine is None else engine

    @classmethod
    def load(
        cls, model: str | Path = "tiny", device: str = "auto", dtype: str | torch.dtype = "auto", *,
        memory: str | None = None, task: Task = "anything", size: int | None = None,
        decoder: DecoderKind = "normal", heard: Heard = silent, share_prompts: bool = False,
        graphs: bool = False, compiled: bool = False,
    ) -> Self:  # fmt: skip
        """The model of that name inside the package, or in that directory, ours or as released; needs no network.

        dtype: float32, bfloat16, float16, int8, fp8, int4 or "auto": on a GPU the one of the files, on a CPU float32,
        or when that does not fit bfloat16.

        memory: "24GB", what the device may use (on a CPU, this process). Precision, when `dtype` is auto, and residency
        then follow the plan for one request of the `task`, for pictures of `size` pixels along a side and all else as
        the model's defaults say. Parts that the task does not use are left out, and several requests run one after
        another. `placed` tells what was chosen, and the peak.

        A released directory has two image decoders: "normal" and "turbo" (8 solver steps, no guidance).

        share_prompts: keep keys and values of prompts, up to 256 MiB, for later requests that begin alike. These answer
        sooner, so who asks could learn what was asked before: only for one user's requests.

        graphs: replay denoise steps from CUDA graphs; for bfloat16 on an NVIDIA GPU of compute capability 9 or 10,
        without `memory`. compiled: `torch.compile` the layers of the image decoder. Neither was tried on a GPU yet.

        Raises WeightsError or ConfigError for a missing or damaged model, RequestError for the device, dtype or
        decoder, and for less memory than the smallest plan needs.
        """
        path, where = model_directory(model), choose_device(device)
        choose_precision(dtype)  # a wrong name is told before any file is read
        if graphs:
            check_recordable(where)
        if graphs and memory is not None:
            raise RequestError("graphs: under a memory plan weights have no fixed place; leave out one of the two")
        budget = None if memory is None else Budget(parse_bytes(memory), task, size)
        parts, placed = place_parts(unread_model(path, decoder), where, dtype, budget)
        if compiled:
            parts.decoder.compile_layers()
        engine = new_engine(parts, shares=share_prompts, graphs=graphs)
        return cls(parts, heard, placed=placed, engine=engine)

    @property
    def weights(self) -> str:
        """The hash that names the weights."""
        return self.parts.hash

    @property
    def device(self) -> torch.device:
        """Where the model runs."""
        return self.parts.device

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
        decoder_guidance, temperature, top_k, top_p, threshold; sprint, text_keep_ratio, image_keep_ratio (the result
        is then `approximate`). Raises PromptError, RequestError, WeightsError for codes of other weights, and
        GenerationError when a plan comes to no picture.
        """
        refuse(options, _EARLIER, _NOTHING_EARLIER)
        earlier, watch = [Earlier(codes, keep, vary, at)], self._watch(trace)
        return generate_around(self.parts, [prompt], [seed], earlier, options, watch, thinking=thinking)[0]

    def generate_images(
        self,
        prompts: Sequence[str],
        seeds: Sequence[int],
        *,
        thinking: bool = False,
        codes: CodesInput | list[CodesInput | None] | None = None,
        keep: MaskInput | list[MaskInput | None] | None = None,
        vary: MaskInput | list[MaskInput | None] | None = None,
        at: tuple[int, int] | list[tuple[int, int] | None] | None = None,
        **options: Unpack[PictureOptions],
    ) -> list[Image.Image]:
        """A picture of each prompt, each with its own seed: what `generate_image` gives, faster.

        Of codes, keep, vary and at a list has one for each prompt, or None; anything else is for all of them.
        """
        refuse(options, _EARLIER, _NOTHING_EARLIER)
        earlier, watch = Earlier.each(len(prompts), codes, keep, vary, at), self._watch()
        drawn = generate_around(self.parts, prompts, seeds, earlier, options, watch, thinking=thinking)
        return [result.image for result in drawn]

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

        What comes has the model's usual size: of a picture of another shape the middle alone is seen, with a warning.
        Options as for `generate_image`, and image_guidance_scale.
        """
        settings, watch = self._edit_settings(options), self._watch(trace)
        return edit_within(self.parts, [image], [instruction], [seed], [mask], settings, watch)[0]

    def edit_images(
        self,
        pictures: Sequence[PictureInput],
        instructions: Sequence[str],
        seeds: Sequence[int],
        *,
        mask: MaskInput | list[MaskInput | None] | None = None,
        **options: Unpack[PictureOptions],
    ) -> list[Image.Image]:
        """Each picture changed as its instruction says, each with its own seed; `mask`: one for all, or a list."""
        masks, settings = for_each("mask", mask, len(pictures)), self._edit_settings(options)
        results = edit_within(self.parts, pictures, instructions, seeds, masks, settings, self._watch())
        return [result.image for result in results]

    def understand_image(
        self,
        image: PictureInput,
        question: str | None = "",
        *,
        choices: Sequence[str] | None = None,
        seed: int | None = None,
        trace: bool = False,
        **options: Unpack[TextOptions],
    ) -> TextResult:
        """The answer to a question about a picture; without a question, a description; with `choices`, one of these.

        Options: num_inference_steps, temperature, top_k, top_p, threshold, max_tokens.
        """
        settings, watch = TextSettings.of(self.parts.config, options), self._watch(trace)
        codes, seeds = tokenize(self.parts, [image]), [checked_seed(seed)]
        return answer(self.parts, codes, [question], seeds, settings, watch, choices)[0]

    def answer(
        self, pictures: Sequence[PictureInput], questions: Sequence[str], **options: Unpack[TextOptions]
    ) -> list[str]:
        """The answer to the question about each picture; item i has seed i."""
        settings = TextSettings.of(self.parts.config, options)
        codes = tokenize(self.parts, pictures)
        watch = self._watch()
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
        return told(self.parts, prompt, checked_seed(seed), settings, self._watch(trace))

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
        return converse(self.parts, turns, checked_seed(seed), settings, self._watch(trace))

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
        settings, watch = TextSettings.of(self.parts.config, options), self._watch(trace)
        return fill_in(self.parts, text, image, length, checked_seed(seed), settings, watch)

    def stream(self, ask: Callable[["Uni"], R]) -> Generator[Moment | R, None, None]:
        """Any one request while it is made: its canvas after every denoise step, then its result.

        `uni.stream(lambda uni: uni.chat(turns))`. Who breaks off the loop stops the request. Stories show no canvas.
        A stream waits for who looks on, so it has an engine of its own and makes nobody else wait.
        """
        engine = new_engine(self.parts, beside=self.engine)
        return stream(lambda seen: ask(type(self)(self.parts, self.heard, seen, engine=engine)))

    def stream_text(self, ask: Callable[["Uni"], TextResult]) -> Iterator[str]:
        """The words of a request as soon as they can no longer change; joined they are its text."""
        return words_so_far(self.stream(ask), self.parts)

    def stream_image(self, ask: Callable[["Uni"], ImageResult]) -> Iterator[Preview | ImageResult]:
        """A picture on its way as patches of color, after every denoise step, then the result.

        `render(preview.guess)` makes real pixels of a preview.
        """
        colors, scale = self.code_colors, self.parts.config.picture_scale
        with closing(self.stream(ask)) as parts:
            for part in parts:
                if not isinstance(part, Moment):
                    yield part
                elif part.grid is not None:
                    yield preview(part, colors, self.parts.layout, scale)

    @cached_property
    def code_colors(self) -> UInt8[Tensor, "codes 3"]:
        """The mean color of each code, for previews; computed when it is first asked for, in seconds."""
        return code_colors(self.parts)

    def retrieve(self, images: Sequence[PictureInput], text: str) -> list[tuple[int, float]]:
        """(index, likeness) of every picture, the one that fits the text best first; likeness lies in -1..1."""
        scores = self.similarity(images, [checked_query(self.parts, text)])[0].tolist()
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
        rendering = ("solver_steps", "decoder_guidance")
        refuse(options, set(options) - set(rendering), f"codes are rendered by {' and '.join(rendering)} alone")
        codes = check_codes(codes, self.parts.layout)
        settings = PictureSettings.of(self.parts.config, self.parts.layout, options)
        noise = Streams.of(checked_seed(seed)).noise
        return render_codes(self.parts, codes[None], [noise], settings, self._watch())[0]

    def reconstruct(self, pictures: Sequence[PictureInput], seeds: Sequence[int]) -> list[Image.Image]:
        """Each picture through tokenizer and decoder: the best that drawing could give."""
        settings = PictureSettings.of(self.parts.config, self.parts.layout, {})
        one_each(pictures=pictures, seeds=seeds)
        noise = [Streams.of(checked_seed(seed)).noise for seed in seeds]
        return render_codes(self.parts, tokenize(self.parts, pictures), noise, settings, self._watch())

    def replay(self, recipe: Recipe) -> ImageResult:
        """The picture that a recipe made. Raises WeightsError when it was made with other weights."""
        return replayed(self.parts, recipe, self._watch())

    def _edit_settings(self, options: PictureOptions) -> PictureSettings:
        """Edits keep the picture's grid and follow their instruction more closely."""
        refuse(options, _SIZE, "an edit has the size of the model's pictures")
        strength = self.parts.config.sampling.edit_text_guidance
        return PictureSettings.of(self.parts.config, self.parts.layout, options, guidance=strength)

    def _watch(self, trace: bool = False) -> Watch:
        return Watch(self.heard, trace, self.seen, self.engine)
