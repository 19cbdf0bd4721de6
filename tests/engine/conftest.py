"""Any request, as data; and how the reference answers it."""

import pytest
import torch
from hypothesis import strategies as st

from unveil.diffusion.guidance import Guidance
from unveil.engine import Request
from unveil.sampling import Allowed, Draw, Policy, Quota, Stop, Task, unmask

IDS = st.integers(0, 29)  # below MASK and the codes of the tiny vocabulary; 30 ends a text
STOPS = (30, 22, 3, 4)


@st.composite
def requests(draw):
    """A text, a picture, an edit with two other branches, or a plan that ends with begin-of-image."""
    kind = draw(st.sampled_from(["text", "picture", "edit", "think", "story"]))
    prompt, branch = st.lists(IDS, min_size=1, max_size=14), st.lists(IDS, min_size=0, max_size=20)
    weights = {"picture": [(2.5, -1.5), (0.0, 1.0), (1.0,)], "edit": [(3.0, -1.0, -1.0), (4.0, -3.0, 0.0)]}
    guidance = Guidance(draw(st.sampled_from(weights.get(kind, [(1.0,)]))), draw(st.sampled_from([0.0, 0.7])))
    task = {
        "prompts": [draw(prompt)],
        "tokens": draw(st.integers(1, 18)),
        "allowed": {"text": Allowed(0, 32), "think": Allowed(0, 48)}.get(kind, Allowed(32, 48)),
        "stop": Stop(STOPS, draw(st.booleans())) if kind in ("text", "think") else Stop(),
        "branches": [[draw(branch)] for _ in guidance.weights[1:]],
        "guidance": guidance,
        "whole_blocks": draw(st.booleans()),
        "crop_branches": kind != "story",
    }
    quota = Quota(draw(st.sampled_from([0.0, 0.2, 0.6, 2.0])), draw(st.integers(1, 12)))
    chance = draw(st.sampled_from([Draw(), Draw(), Draw(1.0), Draw(0.8, top_k=5, top_p=0.9)]))
    return Task(**task), Policy(quota, draw(st.integers(1, 9)), chance), draw(st.integers(0, 2**32))


@pytest.fixture(scope="session")
def ask():
    """A request of what `requests` drew."""

    def make(drawn, **more):
        task, policy, seed = drawn
        return Request(task, policy, torch.Generator().manual_seed(seed), **more)

    return make


@pytest.fixture(scope="session")
def plainly(backbone, layout):
    """The same by the plain loop: everything computed again at every step."""

    def run(drawn, model=backbone):
        task, policy, seed = drawn
        policy = Policy(policy.quota, policy.block_size, policy.draw, reuse_prefix=False)
        return unmask(model, task, policy, layout, generators=[torch.Generator().manual_seed(seed)])[0]

    return run
