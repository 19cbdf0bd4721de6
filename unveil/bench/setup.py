"""What is measured: a backbone with random weights, and one picture to draw with guidance."""

from dataclasses import dataclass
from types import MappingProxyType

import torch

from unveil.config import ModelConfig
from unveil.config.tree import VocabConfig
from unveil.diffusion.guidance import Guidance
from unveil.errors import RequestError
from unveil.model.backbone import Backbone
from unveil.sampling import Allowed, Policy, Quota, Task
from unveil.vocab.layout import SPECIAL, Layout


@dataclass(frozen=True)
class Setup:
    """A model and a request, both made from a seed. With random weights no code is ever sure: the quota decides."""

    config: ModelConfig
    backbone: Backbone
    layout: Layout
    task: Task
    policy: Policy


def set_up(
    config: ModelConfig,
    *,
    prompt: int,
    nothing: int,
    codes: int,
    steps: int,
    seed: int = 0,
    backbone: Backbone | None = None,
) -> Setup:
    """A prompt of that many random ids, a shorter unconditional branch, and a canvas of codes.

    The weights are random too, unless a backbone is given.
    Raises RequestError when they do not fit the context.
    """
    context, defaults, block = config.backbone.context, config.sampling, config.backbone.block_size
    if prompt + codes > context:
        raise RequestError(f"{prompt} tokens of prompt and {codes} codes exceed the context of {context}")
    if min(prompt, nothing, codes, steps) < 1:
        raise RequestError("prompt, unconditional branch, codes and steps must be at least 1")
    generator = torch.Generator().manual_seed(seed)
    if backbone is None:
        backbone = Backbone(config.backbone, config.vocab).initialize(generator).eval().requires_grad_(False)
    layout = plain_layout(config.vocab)
    words = min(getattr(layout, field) for field in SPECIAL)  # ordinary ids lie below the special ones
    asked, unasked = (torch.randint(words, (n,), generator=generator).tolist() for n in (prompt, nothing))
    guidance = Guidance.simple(defaults.guidance, defaults.rescale)
    task = Task([asked], codes, Allowed.codes(layout), branches=[[unasked]], guidance=guidance)
    return Setup(config, backbone, layout, task, Policy(Quota(defaults.threshold, steps), block))


def plain_layout(vocab: VocabConfig) -> Layout:
    """A layout without a tokenizer: the ids between MASK and the codes serve as the other special tokens."""
    free = iter(range(vocab.mask + 1, vocab.image_offset))
    special = {field: next(free) for field in SPECIAL if field not in ("pad", "mask")}
    return Layout(
        size=vocab.size,
        image_offset=vocab.image_offset,
        codes=vocab.size - vocab.image_offset,
        pad=vocab.pad,
        mask=vocab.mask,
        size_ids=MappingProxyType({}),
        **special,
    )
