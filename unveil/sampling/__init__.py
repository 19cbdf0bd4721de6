"""How a model is sampled: one loop over blocks and denoise steps, and the rendering of codes."""

from unveil.sampling.canvas import Canvas, Denoiser, Past, Task
from unveil.sampling.commit import Order, Quota
from unveil.sampling.counted import Counted
from unveil.sampling.draw import Allowed, Draw
from unveil.sampling.generate import Plan, generate_codes, generate_text, read_plan, think
from unveil.sampling.loop import Filler, Loop, fill, unmask
from unveil.sampling.sprint import Sprint
from unveil.sampling.step import OnStep, Policy, StepEvent
from unveil.sampling.stop import Stop
from unveil.sampling.story import Limits, Picture, StoryGuidance, Words, interleave

__all__ = [
    "Allowed",
    "Canvas",
    "Counted",
    "Denoiser",
    "Draw",
    "Filler",
    "Limits",
    "Loop",
    "OnStep",
    "Order",
    "Past",
    "Picture",
    "Plan",
    "Policy",
    "Quota",
    "Sprint",
    "StepEvent",
    "Stop",
    "StoryGuidance",
    "Task",
    "Words",
    "fill",
    "generate_codes",
    "generate_text",
    "interleave",
    "read_plan",
    "think",
    "unmask",
]
