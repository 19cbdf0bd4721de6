"""Planned and measured peaks side by side: each way of placing a model draws one picture, in a process of its own.

    python benchmarks/make_official_size.py DIR --width-divisor 8
    python benchmarks/measure_memory.py DIR --size 256 --steps 1 --solver-steps 2 --write
    python benchmarks/measure_memory.py DIR --write               # on a GPU: 1024 pixels, all steps

On a CPU the peak is by how much the resident size of the process grew; on a CUDA device, used when there is one, what
PyTorch gave out. `--write` puts the table into docs/benchmarks.md.
"""

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

import torch
from document import machine, put
from PIL import Image

from unveil.memory.measure import Meter, free_memory, is_process
from unveil.memory.moments import Work
from unveil.memory.plan import Machine, Plan, Residency, needs
from unveil.memory.residency import settle
from unveil.model.hold import Precision
from unveil.pipeline import Uni
from unveil.pipeline.place import choose_device, unread_model

PROMPT = "a red star left of a small blue fish " * 3
TIMES = " read s | run s |"  # a CPU tells little by them
ON_GPU = [(p, r) for p in ("bfloat16", "int8", "fp8", "int4") for r in ("resident", "staged", "streamed")]
ON_CPU = [(p, r) for p in ("float32", "bfloat16", "int8", "fp8", "int4") for r in ("resident", "staged")]


def measure(given: argparse.Namespace, precision: Precision, residency: Residency) -> dict[str, float]:
    """Bytes planned and measured, and seconds to read the model and to answer one request."""
    unread, device = unread_model(given.model), choose_device("auto")
    config = unread.parts.config
    host = None if is_process(device) else free_memory(torch.device("cpu"))
    work = Work.of(config, given.task, None if given.task == "understand" else given.size)
    plan = Plan(precision, residency, needs(config, work, precision), Machine(free_memory(device), host))
    meter, times = Meter(device), [time.perf_counter()]
    uni = Uni(settle(unread, plan, device))
    times.append(time.perf_counter())
    if given.task == "understand":
        rows, columns = work.grid
        patch = config.image_tokenizer.patch_size
        picture = Image.new("RGB", (columns * patch, rows * patch), (200, 30, 30))
        uni.understand_image(picture, PROMPT, seed=1, num_inference_steps=given.steps)
    else:
        sizes = {"height": given.size, "width": given.size}
        steps = {"num_inference_steps": given.steps, "solver_steps": given.solver_steps}
        uni.generate_image(PROMPT, seed=1, **sizes, **steps)
    times.append(time.perf_counter())
    seconds = {"read": times[1] - times[0], "run": times[2] - times[1]}
    return {"planned": plan.device, "peak": meter.peak() - meter.base, **seconds}


def table(given: argparse.Namespace, options: list[str]) -> str:
    """The rows, each measured in a process of its own, under what was measured where."""
    config = unread_model(given.model).parts.config
    size = sum(file.stat().st_size for file in given.model.rglob("*.safetensors"))
    backbone, decoder, gpu = config.backbone, config.decoder, torch.cuda.is_available()
    rows = [
        f"`python benchmarks/measure_memory.py {' '.join(['DIR', *options])}` on {machine()}.",
        f"Backbone {backbone.width} wide, {backbone.layers} layers of {backbone.experts} experts; decoder",
        f"{decoder.width} wide, {decoder.layers} layers; {size / 1e9:.2f} GB of files.",
        "",
        "| weights | residency | planned GB | measured GB | measured / planned |" + TIMES * gpu,
        "|---|---|---|---|---|" + "---|---|" * gpu,
    ]
    for precision, residency in given.modes:
        line = [sys.executable, __file__, str(given.model), *options, "--one", precision, residency]
        done = subprocess.run(line, stdout=subprocess.PIPE, text=True, check=True)
        found = json.loads(done.stdout)
        sizes = f"{found['planned'] / 1e9:.3f} | {found['peak'] / 1e9:.3f} | {found['peak'] / found['planned']:.3f}"
        times = f" {found['read']:.0f} | {found['run']:.0f} |" * gpu
        rows.append(f"| {precision} | {residency} | {sizes} |{times}")
        print(rows[-1], file=sys.stderr, flush=True)
    return "\n".join(rows)


def main() -> None:
    """The command line."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path, metavar="DIR")
    parser.add_argument("--task", choices=("generate", "understand"), default="generate")
    parser.add_argument("--size", type=int, default=1024, help="side of the picture to make")
    parser.add_argument("--steps", type=int, default=16, help="denoise steps a block")
    parser.add_argument("--solver-steps", type=int, default=50)
    parser.add_argument("--one", nargs=2, metavar=("PRECISION", "RESIDENCY"), help="only this, here, as JSON")
    parser.add_argument("--write", action="store_true", help="put the table into docs/benchmarks.md")
    given = parser.parse_args()
    gpu = torch.cuda.is_available()
    given.modes = ON_GPU if gpu else ON_CPU
    if given.one is not None:
        if tuple(given.one) not in given.modes:
            parser.error(f"--one takes one of {', '.join(' '.join(mode) for mode in given.modes)}")
        print(json.dumps(measure(given, *given.one)))
        return
    drawing = [f"--size={given.size}", f"--solver-steps={given.solver_steps}"] if given.task == "generate" else []
    found = table(given, [f"--task={given.task}", f"--steps={given.steps}", *drawing])
    print(found)
    if given.write:
        put(f"{given.task} on a {'GPU' if gpu else 'CPU'}", found)


if __name__ == "__main__":
    main()
