"""Pictures from prompts in batches: codes by the sampling loop, pixels by the renderer."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import torch
from PIL import Image

from unveil.diffusion.guidance import Guidance
from unveil.errors import RequestError
from unveil.pipeline.inputs import Entering, by_length, check_room, ready, rows_of
from unveil.pipeline.pins import Pins
from unveil.pipeline.settings import PictureSettings, Streams, TextSettings
from unveil.pipeline.watch import Watch
from unveil.sampling import Allowed, Loop, Stop, generate_codes, generate_text, think
from unveil.sampling.loop import Filler
from unveil.sampling.render import render
from unveil.shapes import Int, Tensor
from unveil.trace import Stage, picture_stage, word_stage
from unveil.vocab.prompt import Prompts
from unveil.weights.read import Parts


@dataclass(frozen=True)
class Drawing:
    """A picture to draw: what comes before it, in every guidance branch, and what happened so far."""

    prefix: list[int]
    branches: tuple[list[int], ...]
    plan: str | None = None
    stages: tuple[Stage, ...] = ()
    pins: Pins | None = None  # codes of an earlier picture that stay as they are


@dataclass(frozen=True)
class Drawn:
    """A picture, its codes and how they came about (empty unless a trace was wanted)."""

    image: Image.Image
    codes: Int[Tensor, "h w"]
    stages: tuple[Stage, ...]
    plan: str | None
    pins: Pins | None


@dataclass(frozen=True)
class Written:
    """Tokens written after a prompt, and how."""

    tokens: list[int]
    stages: tuple[Stage, ...]


def prompted(parts: Parts, prompts: Sequence[str], settings: PictureSettings) -> list[Drawing]:
    """Pictures that a text asks for."""
    say, nothing = Prompts(parts.text, parts.layout), Prompts(parts.text, parts.layout).generate_unconditional
    return [Drawing(say.generate(p, *settings.grid), (nothing(*settings.grid),)) for p in prompts]


def planned(
    parts: Parts,
    prompts: Sequence[str],
    streams: Sequence[Streams],
    settings: PictureSettings,
    words: TextSettings,
    watch: Watch,
) -> list[Drawing]:
    """Pictures that a text asks for, after the model has written a plan of each."""
    say = Prompts(parts.text, parts.layout)
    header, asked = say.header(*settings.grid), [say.think(p) for p in prompts]
    for prefix in asked:
        check_room(prefix, words.tokens + settings.rows * settings.columns, parts, "prompt")
    out: dict[int, Drawing] = {}
    for at in by_length(asked, rows_of(parts)):
        plans = think(
            ready(parts, watch.engine),
            [asked[i] for i in at],
            parts.layout,
            header=header,
            tokens=words.tokens,
            policy=words.policy(parts.config.backbone.block_size),
            generators=[streams[i].tokens for i in at],
            on_step=watch.tokens("think", [[parts.layout.mask] * words.tokens] * len(at), parts.layout.mask),
        )
        for row, (i, plan) in enumerate(zip(at, plans, strict=True)):
            stages = (_words(parts, watch, row, len(plan.words)),) if watch.keep and plan.words else ()
            nothing = say.think_unconditional(*settings.grid)
            out[i] = Drawing(plan.prefix, (nothing,), spoken(parts, plan.words), stages)
    return [out[i] for i in range(len(prompts))]


def edited(
    parts: Parts, sources: Int[Tensor, "B h w"], instructions: Sequence[str], settings: PictureSettings
) -> list[Drawing]:
    """Pictures changed as their instructions say."""
    say = Prompts(parts.text, parts.layout)
    return [
        Drawing(say.edit(codes, text), (say.edit_no_text(codes), say.edit_no_image(*settings.grid, text)))
        for codes, text in zip(sources, instructions, strict=True)
    ]


def pinned(drawings: Sequence[Drawing], pins: Sequence[Pins | None]) -> list[Drawing]:
    """The drawings with what is kept of earlier pictures; none of them keeps anything when there are no pins."""
    return [replace(d, pins=p) for d, p in zip(drawings, pins or [None] * len(drawings), strict=True)]


def draw(
    parts: Parts,
    drawings: Sequence[Drawing],
    streams: Sequence[Streams],
    settings: PictureSettings,
    guidance: Guidance,
    watch: Watch,
) -> list[Drawn]:
    """Draw and render all, those with prompts of equal length together; each has its own random numbers."""
    parts.require("code_embedding", "decoder", "vae")
    for drawing in drawings:
        check_room(drawing.prefix, settings.rows * settings.columns, parts, "prompt")
    out: dict[int, Drawn] = {}
    for at in by_length([drawing.prefix for drawing in drawings], rows_of(parts)):
        given = [_given(drawings[i].pins, settings.grid, parts) for i in at]
        codes = generate_codes(
            _filler(parts, settings, watch),
            [drawings[i].prefix for i in at],
            parts.layout,
            grid=settings.grid,
            policy=settings.policy(parts.config.backbone.block_size),
            branches=list(zip(*(drawings[i].branches for i in at), strict=True)),
            guidance=guidance,
            given=given,
            generators=[streams[i].tokens for i in at],
            on_step=watch.tokens("draw", given, parts.layout.mask, settings.grid),
        )
        images = render_codes(parts, codes, [streams[i].noise for i in at], settings, watch)
        for row, (i, image) in enumerate(zip(at, images, strict=True)):
            mask, so_far = parts.layout.mask, drawings[i].stages
            if watch.keep:
                so_far = (*so_far, picture_stage(watch.events, row, mask, settings.grid, image, given[row]))
            out[i] = Drawn(image, codes[row], so_far, drawings[i].plan, drawings[i].pins)
    return [out[i] for i in range(len(drawings))]


def _filler(parts: Parts, settings: PictureSettings, watch: Watch) -> Filler:
    """The engine; with SPRINT, which is not exact, the plain loop."""
    if settings.sprint is None:
        return ready(parts, watch.engine)
    if parts.residency is not None:
        raise RequestError("memory is planned for the exact engine; leave out sprint, or do not plan memory")
    return Loop(parts.backbone, parts.layout, parts.enter("backbone"))


def _given(pins: Pins | None, grid: tuple[int, int], parts: Parts) -> list[int]:
    """What the canvas of a picture holds before its first denoise step."""
    return [parts.layout.mask] * (grid[0] * grid[1]) if pins is None else pins.tokens(parts.layout)


def render_codes(
    parts: Parts,
    codes: Int[Tensor, "B h w"],
    noise: Sequence[torch.Generator],
    settings: PictureSettings,
    watch: Watch,
) -> list[Image.Image]:
    """Codes of equally large pictures as pixels, with random numbers for each."""
    parts.require("code_embedding", "decoder", "vae")
    images: list[Image.Image] = []
    rows, device = rows_of(parts), parts.enter("code_embedding")
    for first in range(0, len(codes), rows):
        pixels = render(
            codes[first : first + rows].to(device),
            Entering(parts, "decoder"),
            Entering(parts, "code_embedding"),
            Entering(parts, "vae"),
            parts.config,
            solver_steps=settings.solver_steps,
            guidance=settings.decoder_guidance,
            shift=settings.solver_shift,
            generators=noise[first : first + rows],
            turbo=settings.turbo,
            on_step=watch.solver(settings.solver_steps if settings.turbo else settings.solver_steps - 1),
        )
        images += [Image.fromarray(picture) for picture in pixels.cpu().numpy()]
    return images


def write(
    parts: Parts,
    prefixes: Sequence[list[int]],
    streams: Sequence[Streams],
    settings: TextSettings,
    watch: Watch,
    what: str,
    *,
    choices: Sequence[Sequence[int]] = (),
    given: Sequence[Sequence[int]] = (),
) -> list[Written]:
    """Answers in words, those to prompts of equal length together; see `Task` for `choices` and `given`."""
    for prefix in prefixes:
        check_room(prefix, settings.tokens, parts, what)
    out: dict[int, Written] = {}
    for at in by_length(prefixes, rows_of(parts)):
        start = [given[i] for i in at] if given else [[parts.layout.mask] * settings.tokens] * len(at)
        rows = generate_text(
            ready(parts, watch.engine),
            [prefixes[i] for i in at],
            parts.layout,
            tokens=settings.tokens,
            policy=settings.policy(parts.config.backbone.block_size),
            stop=Stop() if given else None,
            choices=choices,
            given=start if given else (),
            allowed=Allowed(0, parts.text.pieces) if given else None,
            generators=[streams[i].tokens for i in at],
            on_step=watch.tokens("fill" if given else "write", start, parts.layout.mask),
        )
        for row, (i, tokens) in enumerate(zip(at, rows, strict=True)):
            pinned = given[i] if given else ()
            stages = (_words(parts, watch, row, len(tokens), pinned),) if watch.keep else ()
            out[i] = Written(tokens, stages)
    return [out[i] for i in range(len(prefixes))]


def shower(parts: Parts) -> Callable[[int], str]:
    """How a trace shows a token: control tokens by their names."""
    return lambda token: parts.text.decode([token], skip_special=False)


def spoken(parts: Parts, ids: Sequence[int]) -> str:
    """The words among the ids: where a picture may begin, a model that is unsure puts codes between them."""
    return parts.text.decode([i for i in ids if i < parts.layout.image_offset]).strip()


def _words(parts: Parts, watch: Watch, row: int, length: int, given: Sequence[int] = ()) -> Stage:
    return word_stage(watch.events, row, parts.layout.mask, length, shower(parts), given)
