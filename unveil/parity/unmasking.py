"""The sampling loop, step by step: ids, the block before every step, its surest probabilities, its first logits."""

import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any

import torch

from unveil.diffusion.guidance import Guidance, guide
from unveil.parity.golden import Case
from unveil.parity.judge import Check
from unveil.parity.models import BackboneSide
from unveil.sampling import Allowed, Canvas, Denoiser, Draw, Past, Policy, Quota, Sprint, StepEvent, Stop, Task, fill
from unveil.sampling.draw import hide
from unveil.sampling.loop import finish
from unveil.shapes import Bool, Float, Int, Tensor
from unveil.vocab.layout import Layout

BRANCHES = ("uncond_ids", "uncond_text", "uncond_img")
_THRESHOLD, _RESCALE = 0.95, 0.7  # what the official calls use when told nothing


class Watched:
    """A denoiser whose first logits of each step are kept until they are taken."""

    def __init__(self, inner: Denoiser) -> None:
        self.inner = inner
        self.seen: Float[Tensor, "R N V"] | None = None

    def hidden(
        self,
        tokens: Int[Tensor, "B L"],
        positions: Int[Tensor, "B L"],
        visible: Bool[Tensor, "B L S"],
        past: Past | None = None,
    ) -> tuple[Float[Tensor, "B L D"], Past]:
        """As of the denoiser within."""
        return self.inner.hidden(tokens, positions, visible, past)

    def logits(self, states: Float[Tensor, "B N D"]) -> Float[Tensor, "B N V"]:
        """As of the denoiser within; SPRINT asks for more of them within a step."""
        found = self.inner.logits(states)
        self.seen = found if self.seen is None else self.seen
        return found

    def take(self) -> Float[Tensor, "R N V"]:
        """The logits of the step that has just ended, of every branch."""
        if self.seen is None:
            raise RuntimeError("a step without logits")
        taken, self.seen = self.seen, None
        return taken


def unmasked(models: BackboneSide, case: Case) -> Iterator[Check]:
    """One call of the official block generators."""
    p, image = case.params, case.kind == "image"
    own = models.layout
    layout = dataclasses.replace(own, mask=p.get("mask_id", own.mask), pad=p.get("eos_id", own.pad))
    branches = {name: case.ids(name) for name in BRANCHES if name in case.inputs}
    task = task_of(p, case.ids("prompt"), branches, layout, image)
    policy, watched = policy_of(p, task.tokens), Watched(models.backbone)
    steps = list[tuple[StepEvent, Tensor]]()
    canvas = fill(
        watched,
        task,
        policy,
        layout,
        generators=[torch.Generator().manual_seed(p.get("torch_seed", 0))],
        on_step=lambda event: steps.append((event, guide(watched.take()[:, None], task.guidance)[0])),
    )
    events = [event for event, _ in steps]
    before = torch.stack([e.ids[0].masked_fill(e.committed[0], layout.mask) for e in events])
    masked = before == layout.mask
    yield Check("ids", line_of(canvas, task, layout))
    yield Check("steps_run", len(events), p.get("steps_run"), tolerance="exact")
    yield Check("trace_tokens", before)
    yield Check("trace_window_end", [e.end for e in events])
    yield Check("trace_max_prob", torch.stack([_surest(*step, task, policy, layout) for step in steps]), counted=masked)
    yield Check("first_step_logits", steps[0][1][None], counted=masked[:1])
    firsts = [i for i, event in enumerate(events) if event.step == 0]
    codes = torch.stack([steps[i][1][:, layout.image_offset :] for i in firsts])
    yield Check("first_step_image_logits", codes, counted=masked[firsts])


def task_of(
    p: Mapping[str, Any], prompt: list[int], branches: Mapping[str, list[int]], layout: Layout, image: bool
) -> Task:
    """What is asked for, in the official parameters."""
    if image:
        others = [[branches[name]] for name in BRANCHES if name in branches]
        return Task([prompt], p["gen_length"], Allowed.codes(layout, True), Stop(), others, _guidance(p))
    stop = Stop((layout.pad,), p.get("eos_early_stop", True))
    return Task([prompt], p["gen_length"], Allowed.text(layout, True), stop)


def policy_of(p: Mapping[str, Any], tokens: int) -> Policy:
    """How to sample, in the official parameters. Three-way editing has officially no SPRINT."""
    steps = min(p["steps"], tokens // p.get("minimal_topk", 1))
    chance = Draw(p.get("temperature", 0.0), p.get("top_k") or None, p.get("top_p"))
    quota = Quota(p.get("threshold", _THRESHOLD), steps)
    sprint = sprint_of(p) if p.get("use_sprint") and not _edits(p) else None
    return Policy(quota, p["block_length"], chance, official=True, sprint=sprint)


def sprint_of(p: Mapping[str, Any]) -> Sprint:
    """How much SPRINT keeps, in the official parameters."""
    return Sprint(
        keep_ratio=p.get("keep_ratio", 0.7),
        warmup=p.get("cache_warmup_steps", 2),
        alpha=p.get("confidence_alpha", 0.5),
        score=p.get("remasking", "low_confidence"),
        image_keep_ratio=p.get("image_keep_ratio"),
        text_keep_ratio=p.get("text_keep_ratio"),
        least=p.get("minimal_topk", 1),
    )


def line_of(canvas: Canvas, task: Task, layout: Layout) -> list[int]:
    """Prompt and new ids, as the official code returns them.

    A prompt that holds the end of sequence is itself cut there as soon as another one is written (spec backbone 10.1).
    """
    prompt: list[int] = canvas.ids[0, : canvas.prefix].tolist()
    new = finish(canvas, task)[0]
    line = [*prompt, *new]
    quirk = bool(task.stop.ids) and task.stop.at_once and layout.pad in new
    return line[: line.index(layout.pad) + 1] if quirk else line


def _guidance(p: Mapping[str, Any]) -> Guidance:
    rescale = p.get("cfg_rescale", _RESCALE)
    if _edits(p):
        return Guidance.edit(p.get("cfg_text_scale", 0), p.get("cfg_image_scale", 0), rescale)
    return Guidance.simple(p["cfg_scale"], rescale) if "cfg_scale" in p else Guidance()


def _edits(p: Mapping[str, Any]) -> bool:
    """Whether the three-way guidance of edits is on."""
    return p.get("mode") == "editing" and bool(p.get("cfg_text_scale", 0) or p.get("cfg_image_scale", 0))


def _surest(
    event: StepEvent, logits: Float[Tensor, "N V"], task: Task, policy: Policy, layout: Layout
) -> Float[Tensor, " N"]:
    """The largest probability at each place; our own confidence is that of the drawn id."""
    if policy.draw.temperature == 0 or policy.sprint is not None:
        return event.confidence[0]
    return hide(logits, task.allowed, layout.mask).softmax(-1).amax(-1)
