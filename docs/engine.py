"""Draw the life of a few requests in one engine: `python docs/engine.py` writes docs/pictures/engine.png.

A real run on random weights: what is shown is what the engine's events said.
"""

from dataclasses import replace
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot

from unveil.bench import Setup, set_up
from unveil.config import load_preset
from unveil.diffusion.guidance import Guidance
from unveil.engine import Engine, Event, Request
from unveil.sampling import Allowed, Quota, Stop

OUT = Path(__file__).parent / "pictures" / "engine.png"
BATCH = 3
COME_AT = (0, 0, 3, 6, 7)  # the engine step at which each request is submitted
CANCEL_AT = 16  # the last one


def requests(setup: Setup) -> list[tuple[str, Request]]:
    """A picture, a text, an edit with three branches, a short picture with priority, and one that is cancelled."""
    task, policy = setup.task, replace(setup.policy, quota=Quota(0.95, 4))
    prompt, nothing = task.prompts[0], task.branches[0][0]
    plain = replace(task, branches=[], guidance=Guidance())
    text = replace(plain, tokens=64, allowed=Allowed(0, setup.layout.image_offset), stop=Stop((setup.layout.pad,)))
    edit = replace(task, branches=[[nothing], [prompt[:9]]], guidance=Guidance.edit(3.0, 1.0, 0.7), tokens=64)
    short = replace(task, tokens=32)
    return [
        ("picture, guided", Request(replace(task, tokens=96), policy)),
        ("text", Request(text, policy)),
        ("edit, three branches", Request(edit, policy)),
        ("short picture, priority", Request(short, policy, priority=1)),
        ("cancelled", Request(task, policy)),
    ]


def main() -> None:
    """Run and draw."""
    setup = set_up(load_preset("tiny"), prompt=40, nothing=20, codes=64, steps=4)
    asked, heard = requests(setup), list[tuple[int, Event]]()
    step, passes, handles = 0, list[int](), []
    engine = Engine(setup.backbone, setup.layout, batch=BATCH, heard=lambda event: heard.append((step, event)))
    while len(handles) < len(asked) or not all(handle.done for handle in handles):
        handles += [engine.submit(r) for (_, r), at in zip(asked, COME_AT, strict=True) if at == step]
        if step == CANCEL_AT:
            handles[-1].cancel()
        before = engine.positions
        engine.step()
        passes.append(engine.positions - before)
        step += 1
    figure, (above, below) = pyplot.subplots(2, 1, figsize=(11, 4.6), sharex=True, height_ratios=(1, 3))
    above.bar(range(step), passes, color="#8899aa")
    above.set_ylabel("positions\nin the pass")
    for row, ((_, _), came) in enumerate(zip(asked, COME_AT, strict=True)):
        mine = [(at, event) for at, event in heard if event.request == row]
        steps = [(at, event) for at, event in mine if event.kind == "step"]
        first = steps[0][0] if steps else mine[-1][0]
        below.barh(row, first - came, left=came - 0.5, color="#dddddd", height=0.7)
        for at, event in steps:
            below.barh(row, 1, left=at - 0.5, color=pyplot.get_cmap("viridis")(event.block / 5), height=0.7)
            below.text(at, row, f"{event.block}.{event.step}", ha="center", va="center", fontsize=6, color="white")
        at, last = mine[-1]
        below.text(at + 0.7, row, last.kind if last.error is None else str(last.error), va="center", fontsize=8)
    below.set_yticks(range(len(asked)), [name for name, _ in asked])
    below.invert_yaxis()
    below.set_xticks(range(step))
    below.set_xlabel(f"engine step (batch of {BATCH}); in a cell: block.step of the request; gray: waiting")
    figure.tight_layout()
    figure.savefig(OUT, dpi=90)
    print(f"{step} engine steps, {sum(passes)} positions, most keys and values {engine.most_cache_bytes} bytes")


if __name__ == "__main__":
    main()
