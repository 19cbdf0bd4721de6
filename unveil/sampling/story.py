"""Words and pictures in turn: a small state machine over the one loop (spec backbone 5.8)."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import torch

from unveil.diffusion.guidance import Guidance
from unveil.errors import GenerationError
from unveil.sampling.generate import generate_codes, generate_text
from unveil.sampling.loop import Filler
from unveil.sampling.step import OnStep, Policy
from unveil.sampling.stop import Stop
from unveil.shapes import Int, Tensor
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts


@dataclass(frozen=True)
class Words:
    """A stretch of text, without the header or end that followed it."""

    ids: list[int]


@dataclass(frozen=True)
class Picture:
    """One picture of the story."""

    codes: Int[Tensor, "h w"]


@dataclass(frozen=True)
class Limits:
    """Where a story must end."""

    pictures: int  # of the whole story
    text_tokens: int  # of one stretch of text
    codes: int  # of one picture
    context: int  # positions in all


@dataclass(frozen=True)
class StoryGuidance:
    """The first picture is guided away from "no prompt"; later ones like edits, away from "no text" and "no image"."""

    first: Guidance
    later: Guidance


def interleave(
    filler: Filler,
    prompt: Sequence[int],
    prompts: Prompts,
    *,
    limits: Limits,
    guidance: StoryGuidance,
    text: Policy,
    picture: Policy,
    generators: Sequence[torch.Generator] = (),
    on_step: OnStep | None = None,
) -> Iterator[Words | Picture]:
    """Words, picture, words, picture... as they are finished; `prompt` is `prompts.interleave(...)`.

        text     -- header, begin of image -->  picture
        text     -- end of sequence, budget --> end
        picture  -- h * w codes, then we write end of image --> text, or end at the last allowed picture

    The model chooses each picture's grid. Raises GenerationError when its header cannot be read or the story
    grows beyond `limits`.
    """
    layout, history = prompts.layout, list(prompt)
    for number in range(limits.pictures):
        new = generate_text(
            filler,
            [history],
            layout,
            tokens=limits.text_tokens,
            policy=text,
            stop=Stop((layout.pad, layout.boi)),
            generators=generators,
            on_step=on_step,
        )[0]
        ends = new[-1] != layout.boi
        words, grid = (_without_end(new, layout), (0, 0)) if ends else read_header(new, layout)
        if words:
            yield Words(words)
        if ends:
            return
        history += new
        branches = story_branches(prompts, history, words, grid, guidance.later if number else guidance.first)
        _check_room(grid, max(len(history), *(len(b[0]) for b in branches), 0), limits)
        codes = generate_codes(
            filler,
            [history],
            layout,
            grid=grid,
            policy=picture,
            branches=branches,
            guidance=guidance.later if number else guidance.first,
            crop_branches=False,
            generators=generators,
            on_step=on_step,
        )[0]
        yield Picture(codes)
        history += [*(codes.flatten() + layout.image_offset).tolist(), layout.eoi]


def read_header(new: Sequence[int], layout: Layout) -> tuple[list[int], tuple[int, int]]:
    """The words before a picture, and its grid: a stretch of text that ends with begin-of-image, taken apart.

    Raises GenerationError unless exactly height and width stand between the last start-of-image and the end.
    """
    starts = [i for i, token in enumerate(new) if token == layout.soi]
    sides = [layout.side_of(token) for token in new[starts[-1] + 1 : -1]] if starts else []
    match sides:
        case [int(h), int(w)]:
            return list(new[: starts[-1]]), (h, w)
    raise GenerationError("the model began a picture without saying its size; try another seed or wording")


def story_branches(
    prompts: Prompts, history: Sequence[int], words: Sequence[int], grid: tuple[int, int], guidance: Guidance
) -> list[list[list[int]]]:
    """The other branches' prefixes for the picture that `history` has just announced, one per weight of `guidance`."""
    match len(guidance.weights):
        case 1:
            return []
        case 2:
            return [[prompts.interleave_unconditional(*grid)]]
    return [[prompts.interleave_no_text(history, *grid)], [prompts.interleave_no_image(words, *grid)]]


def _without_end(new: Sequence[int], layout: Layout) -> list[int]:
    return [token for token in new if token != layout.pad]


def _check_room(grid: tuple[int, int], prefix: int, limits: Limits) -> None:
    """GenerationError when the picture is larger than allowed or does not fit behind its prefix."""
    codes = grid[0] * grid[1]
    if codes > limits.codes:
        raise GenerationError(f"the model wants a picture of {codes} codes, at most {limits.codes} are allowed")
    if prefix + codes + 1 > limits.context:
        raise GenerationError(f"the story grew beyond the context of {limits.context} tokens; ask for fewer pictures")
