"""What speed costs: settings of the sampler swept on training scenes, judged by the oracle, against the work they take.

Scenes come from the training split far behind those that are trained on; held-out items are for the scores alone.
Seconds and passes are those of the backbone; rendering is the same for all.
"""

import csv
import io
import time
from collections.abc import Iterator, Sequence
from dataclasses import astuple, dataclass, fields, replace

from PIL import Image

from unveil.diffusion.guidance import Guidance
from unveil.evals.play import Heard, read
from unveil.evals.score import wilson
from unveil.pipeline import Uni
from unveil.pipeline.draw import prompted, render_codes
from unveil.pipeline.inputs import by_length
from unveil.pipeline.settings import PictureSettings, Streams
from unveil.pipeline.watch import Watch
from unveil.sampling import Counted, Loop, Policy, Sprint, generate_codes
from unveil.scenes.claims import Claims, faults
from unveil.scenes.example import Example, example

FIRST = 10_000_000  # training ends long before
TASKS = ("t2i_one", "t2i_two")
CACHES = ("exact", "none", "sprint", "sprint published")


@dataclass(frozen=True)
class Setting:
    """One way to sample."""

    steps: int
    threshold: float
    guidance: float
    cache: str = "exact"  # of `CACHES`; both kinds of SPRINT are approximate

    def policy(self, settings: PictureSettings, block_size: int) -> Policy:
        """The same in the words of the sampling loop."""
        policy = settings.policy(block_size)
        match self.cache:
            case "none":
                return replace(policy, reuse_prefix=False)
            case "sprint":
                return replace(policy, sprint=Sprint())
            case "sprint published":
                return replace(policy, sprint=Sprint(warmup=1, keep_ratio=0.5))
        return policy


@dataclass(frozen=True)
class Point:
    """What a setting gives, with its 95% interval, and what it takes for one picture."""

    steps: int
    threshold: float
    guidance: float
    cache: str
    quality: float
    low: float
    high: float
    passes: float  # forward passes, all guidance branches at once
    positions: float  # tokens that went through the backbone
    seconds: float

    @property
    def name(self) -> str:
        """What is swept, in a few words."""
        return f"{self.steps} steps, threshold {self.threshold:g}, guidance {self.guidance:g}, {self.cache}"


def sweep(steps: int, threshold: float, guidance: float) -> list[Setting]:
    """The settings around a model's defaults: steps with and without guidance, then each of the others alone."""
    base = Setting(steps, threshold, guidance)
    counts = [s for s in (1, 2, 4, 8, 16) if s < steps] + [steps]
    found = [replace(base, steps=s, guidance=g) for s in counts for g in (1.0, guidance)]
    found += [replace(base, threshold=t) for t in (0.5, 0.7, 0.9, 0.95, 1.0)]
    found += [replace(base, guidance=g) for g in (2.5, 4.0)]
    found += [replace(base, steps=s, cache=cache) for s in (min(8, steps), steps) for cache in CACHES]
    return list(dict.fromkeys(found))


def measure(uni: Uni, settings: Sequence[Setting], n: int, heard: Heard) -> Iterator[Point]:
    """One point for each setting: n pictures of one thing and n of two, the same prompts and seeds for all."""
    items = [example(task, FIRST + i, "train") for task in TASKS for i in range(n)]
    for done, setting in enumerate(settings, 1):
        yield _point(uni, setting, items)
        heard("pareto", done, len(settings))


def _point(uni: Uni, setting: Setting, items: Sequence[Example]) -> Point:
    parts = uni.parts
    settings = PictureSettings.of(
        parts.config,
        parts.layout,
        {
            "num_inference_steps": setting.steps,
            "threshold": setting.threshold,
            "guidance_scale": setting.guidance,
        },
    )
    guidance: Guidance = settings.simple_guidance
    drawings = prompted(parts, [item.prompt for item in items], settings)
    counted, right, seconds = Counted(parts.backbone), 0, 0.0
    for at in by_length([d.prefix for d in drawings]):
        streams, start = [Streams.of(i) for i in at], time.perf_counter()
        codes = generate_codes(
            Loop(counted, parts.layout, parts.enter("backbone")),
            [drawings[i].prefix for i in at],
            parts.layout,
            grid=settings.grid,
            policy=setting.policy(settings, parts.config.backbone.block_size),
            branches=list(zip(*(drawings[i].branches for i in at), strict=True)),
            guidance=guidance,
            generators=[s.tokens for s in streams],
        )
        seconds += time.perf_counter() - start
        pictures = render_codes(parts, codes, [s.noise for s in streams], settings, Watch())
        right += sum(_right(items[i], picture) for i, picture in zip(at, pictures, strict=True))
    n, score = len(items), wilson(right / len(items), len(items))
    passes = counted.rows / len(guidance.used) / n
    return Point(
        setting.steps, setting.threshold, setting.guidance, setting.cache, score.value, score.low, score.high,
        passes, counted.positions / n, seconds / n,
    )  # fmt: skip


def best(points: Sequence[Point], cost: str) -> list[Point]:
    """The points that no other beats in quality at the same or a lower cost, cheapest first."""
    out: list[Point] = []
    for point in sorted(points, key=lambda p: (getattr(p, cost), -p.quality)):
        if not out or point.quality > out[-1].quality:
            out.append(point)
    return out


def as_csv(points: Sequence[Point]) -> str:
    """The points as a table, one line each."""
    out = io.StringIO()
    writer = csv.writer(out, lineterminator="\n")
    writer.writerow([field.name for field in fields(Point)])
    writer.writerows([round(v, 4) if isinstance(v, float) else v for v in astuple(point)] for point in points)
    return out.getvalue()


def _right(item: Example, picture: Image.Image) -> bool:
    assert isinstance(item.judge, Claims)
    return not faults(item.judge, read(picture))
