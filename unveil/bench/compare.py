"""One picture by the plain loop, by SPRINT and by the engine: seconds, forward positions, and the same codes?"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial

from unveil.bench.setup import Setup
from unveil.engine import Engine, Request
from unveil.sampling import Counted, Policy, Sprint, unmask

Said = Callable[[str, int, int], None]
DEFAULTS = Sprint()
PUBLISHED = Sprint(keep_ratio=0.5, warmup=1)


@dataclass(frozen=True)
class Run:
    """The codes, the time and the positions that went through the layers, all branches counted."""

    codes: list[int]
    seconds: float
    positions: int


@dataclass(frozen=True)
class Comparison:
    """The best run of each contender, and what the engine's cache took."""

    plain: Run
    sprint: Run  # the official default arguments
    sprint_published: Run  # the published ones: warm-up 1, keep 0.5
    engine: Run
    engine_invariant: Run  # the same scores bit for bit alone and in any company
    cache_bytes: int  # as allocated
    cache_formula: int  # layers x 2 x kv heads x head_dim x positions x branches x bytes

    def as_dict(self) -> dict[str, object]:
        """Flat, for JSON."""
        runs = {
            name: getattr(self, name) for name in ("plain", "sprint", "sprint_published", "engine", "engine_invariant")
        }
        out: dict[str, object] = {f"{name}_s": round(run.seconds, 3) for name, run in runs.items()}
        out |= {f"{name}_positions": run.positions for name, run in runs.items()}
        for name in ("plain", "sprint", "sprint_published"):
            out[f"engine_vs_{name}"] = round(runs[name].seconds / self.engine.seconds, 2)
            out[f"positions_vs_{name}"] = round(runs[name].positions / self.engine.positions, 2)
        out["invariant_cost"] = round(self.engine_invariant.seconds / self.engine.seconds, 2)
        same = sum(a == b for a, b in zip(self.plain.codes, self.engine.codes, strict=True))
        out |= {"identical": self.plain.codes == self.engine.codes, "same_codes": same, "codes": len(self.plain.codes)}
        return out | {"cache_bytes": self.cache_bytes, "cache_formula": self.cache_formula}


def compare(setup: Setup, rounds: int, said: Said) -> Comparison:
    """All contenders in turn, `rounds` times; of each the fastest run counts.

    The plain loop and both SPRINTs run as the official code does: every look computes the whole window. They are
    given what it does not have: the head runs on the active block only, and the branches share one batch.
    """
    official = replace(setup.policy, reuse_prefix=False)
    policies = {
        "plain": official,
        "sprint": replace(official, sprint=DEFAULTS),
        "sprint_published": replace(official, sprint=PUBLISHED),
    }
    engine, invariant = (Engine(setup.backbone, setup.layout, batch_invariant=tiled) for tiled in (False, True))
    contenders: Mapping[str, Callable[[], Run]] = {
        **{name: partial(_by_loop, setup, policy) for name, policy in policies.items()},
        "engine": partial(_by_engine, setup, engine),
        "engine_invariant": partial(_by_engine, setup, invariant),
    }
    found: dict[str, Run] = {}
    for number in range(rounds):
        for place, (name, run) in enumerate(contenders.items()):
            said(f"bench {name}", number * len(contenders) + place, rounds * len(contenders))
            made = run()
            if name not in found or made.seconds < found[name].seconds:
                found[name] = made
    said("bench", 1, 1)
    return Comparison(**found, cache_bytes=engine.most_cache_bytes, cache_formula=cache_formula(setup))


def cache_formula(setup: Setup) -> int:
    """The size that the keys and values of one request must have, in bytes."""
    backbone, task = setup.config.backbone, setup.task
    positions = len(task.prompts[0]) + task.tokens
    positions = -(-positions // setup.policy.block_size) * setup.policy.block_size
    width = backbone.layers * 2 * backbone.kv_heads * backbone.head_dim
    return width * positions * len(task.guidance.used) * setup.backbone.lm_head.weight.element_size()


def _by_loop(setup: Setup, policy: Policy) -> Run:
    counted, start = Counted(setup.backbone), time.perf_counter()
    codes = unmask(counted, setup.task, policy, setup.layout)[0]
    return Run(codes, time.perf_counter() - start, counted.positions)


def _by_engine(setup: Setup, engine: Engine) -> Run:
    before, start = engine.positions, time.perf_counter()
    codes = engine.submit(Request(setup.task, setup.policy)).tokens()
    return Run(codes, time.perf_counter() - start, engine.positions - before)
