"""Stories: words and pictures in turn, each picture rendered as soon as its codes are there."""

import time
from collections.abc import Callable
from dataclasses import dataclass, replace

from PIL import Image

from unveil.errors import RequestError
from unveil.pipeline.draw import render_codes, shower, spoken
from unveil.pipeline.images import recipe_of
from unveil.pipeline.inputs import check_room, checked_text, new_engine, ready
from unveil.pipeline.results import ImageResult, Page, StoryResult
from unveil.pipeline.settings import PictureSettings, Streams, TextSettings
from unveil.pipeline.watch import Watch, stops_at
from unveil.sampling import Limits, Picture, StoryGuidance, Words, interleave
from unveil.sampling.step import StepEvent
from unveil.shapes import Int, Tensor
from unveil.trace import Stage, Trace, picture_stage, word_stage
from unveil.trace.record import runs
from unveil.vocab.prompt import Prompts
from unveil.weights.read import Parts


@dataclass(frozen=True)
class Frame:
    """Words and the picture that follows them."""

    text: str
    codes: Int[Tensor, "h w"] | None
    image: Image.Image | None


def told(parts: Parts, prompt: str, seed: int, settings: PictureSettings, watch: Watch) -> StoryResult:
    """A whole story; its pictures have one recipe, but for their numbers."""
    start, prompt = time.perf_counter(), checked_text(prompt, "prompt")
    settings, words = settings.with_words(parts.config, parts.config.sampling.text_tokens)
    recipe = recipe_of(parts, "interleave", prompt, seed, settings)
    frames, stages = tell(parts, prompt, Streams.of(seed), settings, words, watch)
    seconds, pages = time.perf_counter() - start, list[Page]()
    for number, frame in enumerate(frames):
        image = None
        if frame.image is not None and frame.codes is not None:
            image = ImageResult(frame.image, frame.codes, recipe.seed, replace(recipe, number=number), seconds)
        pages.append(Page(frame.text, image))
    return StoryResult(tuple(pages), recipe.seed, seconds, Trace(prompt, stages) if watch.keep else None)


def tell(
    parts: Parts, prompt: str, streams: Streams, settings: PictureSettings, words: TextSettings, watch: Watch
) -> tuple[list[Frame], tuple[Stage, ...]]:
    """The frames of a story, and how they came about (empty unless a trace was wanted)."""
    if settings.sprint is not None:
        raise RequestError("stories are told by the exact engine; leave out sprint")
    parts.require("code_embedding", "decoder", "vae")
    say = Prompts(parts.text, parts.layout)
    prefix, room = say.interleave(prompt), settings.rows * settings.columns
    check_room(prefix, room, parts, "prompt")
    context, most = parts.config.backbone.context, parts.config.sampling.max_pictures
    block = parts.config.backbone.block_size
    frames, text = list[Frame](), ""
    engine = new_engine(parts, shares=True, beside=watch.engine)  # a picture's prompt begins with all that came before
    for part in interleave(
        ready(parts, engine),
        prefix,
        say,
        limits=Limits(most, words.tokens, room, context),
        guidance=StoryGuidance(settings.simple_guidance, settings.edit_guidance),
        text=words.policy(block),
        picture=settings.policy(block),
        generators=[streams.tokens],
        on_step=watch.filling("tell", context - len(prefix)),
    ):
        match part:
            case Words(ids):
                text = spoken(parts, ids)
            case Picture(codes):
                image = render_codes(parts, codes[None], [streams.noise], settings, watch)[0]
                frames.append(Frame(text, codes, image))
                text = ""
                parts.enter("backbone")  # which goes on from here
    frames += [Frame(text, None, None)] if text else []
    return frames, _stages(parts, watch.events, frames)


def _stages(parts: Parts, events: list[StepEvent], frames: list[Frame]) -> tuple[Stage, ...]:
    """One stage for each canvas: words and pictures take turns, words first."""
    layout, show = parts.layout, shower(parts)
    pictures = iter([f for f in frames if f.codes is not None and f.image is not None])
    stages = list[Stage]()
    for number, run in enumerate(runs(events)):
        if number % 2:
            frame = next(pictures)
            assert frame.codes is not None and frame.image is not None
            h, w = frame.codes.shape
            stages.append(picture_stage(run, 0, layout.mask, (h, w), frame.image))
        else:
            stages.append(_word_stage(run, (layout.pad, layout.boi), layout.mask, show))
    return tuple(stages)


def _word_stage(run: list[StepEvent], stops: tuple[int, ...], mask: int, show: Callable[[int], str]) -> Stage:
    """Words through their first stop; what lies after it was thrown away."""
    blocks = {event.start: event for event in run}  # the last event of each block
    ids = [i for start in sorted(blocks) for i in blocks[start].ids[0].tolist()]
    skip = run[0].prefix - min(blocks)
    return word_stage(run, 0, mask, stops_at(ids[skip:], stops), show)
