"""Text, pictures, and pictures after a plan in words: each is one task for the loop."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch

from unveil.diffusion.guidance import Guidance
from unveil.errors import GenerationError, RequestError
from unveil.sampling.canvas import Task
from unveil.sampling.draw import Allowed
from unveil.sampling.loop import Filler
from unveil.sampling.step import OnStep, Policy
from unveil.sampling.stop import Stop
from unveil.shapes import Int, Tensor
from unveil.vocab.layout import Layout

UNGUIDED = Guidance()


@dataclass(frozen=True)
class Plan:
    """What thinking gave: the plan's words, and the prefix from which the picture continues."""

    words: list[int]
    prefix: list[int]


def generate_text(
    filler: Filler,
    prompts: Sequence[Sequence[int]],
    layout: Layout,
    *,
    tokens: int,
    policy: Policy,
    stop: Stop | None = None,
    choices: Sequence[Sequence[int]] = (),
    given: Sequence[Sequence[int]] = (),
    allowed: Allowed | None = None,
    generators: Sequence[torch.Generator] = (),
    on_step: OnStep | None = None,
) -> list[list[int]]:
    """Up to `tokens` new ids after each prompt, its stop id included; stops at end of sequence unless told otherwise.

    Also the answer to a question about a picture: the picture is part of the prompt. Where a begin-of-image stops it,
    codes may be chosen too, since the positions behind it in its block belong to the picture. With `choices`, each with
    its stop id, every row becomes one of them. What is given (`tokens` ids, MASK where one is to be written) stays.
    """
    stop = Stop((layout.pad,)) if stop is None else stop
    allow = Allowed.mixed if layout.boi in stop.ids else Allowed.text
    allowed = allow(layout, policy.official) if allowed is None else allowed
    task = Task(prompts, tokens, allowed, stop, choices=choices, given=given)
    return filler.unmask(task, policy, generators=generators, on_step=on_step)


def generate_codes(
    filler: Filler,
    prompts: Sequence[Sequence[int]],
    layout: Layout,
    *,
    grid: tuple[int, int],
    policy: Policy,
    branches: Sequence[Sequence[Sequence[int]]] = (),
    guidance: Guidance = UNGUIDED,
    crop_branches: bool = True,
    given: Sequence[Sequence[int]] = (),
    generators: Sequence[torch.Generator] = (),
    on_step: OnStep | None = None,
) -> Int[Tensor, "B h w"]:
    """The codes of one picture of `grid` = (rows, columns) per prompt, on the CPU; 0 = first code of the book.

    The prompts end with a header that announces this grid. `branches` are the prefixes of the other guidance
    branches, in the order of the guidance's weights: unconditional, or no text and no image for an edit. Codes that
    are given (as tokens, MASK where one is to be drawn) come out as they are.
    """
    h, w = grid
    if h < 1 or w < 1:
        raise RequestError(f"a picture needs at least 1x1 codes, got {h}x{w}")
    allowed = Allowed.codes(layout, policy.official)
    task = Task(
        prompts,
        h * w,
        allowed,
        branches=branches,
        guidance=guidance,
        whole_blocks=policy.whole_blocks,
        crop_branches=crop_branches,
        given=given,
    )
    rows = filler.unmask(task, policy, generators=generators, on_step=on_step)
    return torch.tensor(rows).view(-1, h, w) - layout.image_offset


def think(
    filler: Filler,
    prompts: Sequence[Sequence[int]],
    layout: Layout,
    *,
    header: Sequence[int],
    tokens: int,
    policy: Policy,
    generators: Sequence[torch.Generator] = (),
    on_step: OnStep | None = None,
) -> list[Plan]:
    """A plan in words for each prompt, and the prefix that ends with `header` for `generate_codes` to go on from.

    Ends at the first begin-of-image; what the official code writes after it is thrown away there. Raises
    GenerationError when there is no plan (officially: no begin-of-image; spec backbone 5.5).
    """
    stop = Stop((layout.pad, layout.boi))
    rows = generate_text(
        filler,
        prompts,
        layout,
        tokens=tokens,
        policy=policy,
        stop=stop,
        generators=generators,
        on_step=on_step,
    )
    return [read_plan(p, row, header, layout, policy.official) for p, row in zip(prompts, rows, strict=True)]


def read_plan(
    prompt: Sequence[int], new: Sequence[int], header: Sequence[int], layout: Layout, official: bool = False
) -> Plan:
    """The plan in the ids written after a thinking prompt.

    The model writes the header itself and may choose another grid than the one asked for: what it wrote from its
    last start-of-image on is replaced by `header`. A plan that ends without announcing its picture is followed by
    `header` all the same, unless it has no words. `official` keeps the model's header, whatever it says, and has none
    to offer when the model wrote none.
    """
    begun = bool(new) and new[-1] == layout.boi
    starts = [i for i, token in enumerate(new) if token == layout.soi]
    words = list(new[: starts[-1]] if starts else new[:-1] if begun else new)
    words = [token for token in words if token != layout.pad]
    if not begun and (official or not words):
        raise GenerationError("the plan never began its picture; try another seed, or go without thinking")
    return Plan(words, [*prompt, *new] if official else [*prompt, *words, *header])
