"""Requests of all kinds from a number alone, so that the same one can be asked again."""

import random

import pytest
import torch

from unveil.diffusion.guidance import Guidance
from unveil.engine import Request
from unveil.sampling import Allowed, Draw, Policy, Quota, Task

GUIDANCE = {"text": Guidance(), "picture": Guidance.simple(2.0, 0.7), "edit": Guidance((3.0, -1.0, -1.0), 0.0)}


@pytest.fixture(scope="session")
def numbered():
    """Request number n: a text, a picture or an edit, of its own length, pace and randomness.

    `poison`: an id that then stands in its prompt and can stand nowhere else. `generator`: not its own one.
    """

    def make(number, *, poison=None, generator=None, **more):
        chance = random.Random(number)
        kind = chance.choice(sorted(GUIDANCE))
        prompt = [chance.randrange(28) for _ in range(chance.randint(1, 14))]
        prompt[chance.randrange(len(prompt))] = prompt[0] if poison is None else poison
        branches = [[[chance.randrange(28) for _ in range(chance.randint(1, 20))]] for _ in GUIDANCE[kind].weights[1:]]
        allowed = Allowed(0, 28) if kind == "text" else Allowed(32, 48)
        task = Task([prompt], chance.randint(1, 18), allowed, branches=branches, guidance=GUIDANCE[kind])
        quota = Quota(chance.choice([0.2, 0.6, 2.0]), chance.randint(1, 12))
        policy = Policy(quota, chance.randint(1, 9), chance.choice([Draw(), Draw(1.0), Draw(0.8, top_k=5, top_p=0.9)]))
        own = torch.Generator().manual_seed(number)
        return Request(task, policy, own if generator is None else generator, **more)

    return make
