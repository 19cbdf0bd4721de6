"""The official sizes on a GPU, with random weights in bfloat16, beside what the device could do at best.

Never run on one: no GPU was at hand when this was written. A test runs it all on a CPU with other sizes.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from statistics import mean, median

import torch
from torch.utils.flop_counter import FlopCounterMode

from unveil.bench.compare import Said
from unveil.bench.setup import Setup, set_up
from unveil.config import ModelConfig, load_preset
from unveil.engine import Engine, Model, Request
from unveil.errors import RequestError
from unveil.memory.measure import Meter
from unveil.model.backbone import Backbone
from unveil.model.backbone.experts import Experts
from unveil.model.backbone.recorded import Recorded
from unveil.model.backbone.router import Router, Routing
from unveil.model.hold import hold
from unveil.model.image_decoder import ImageDecoder
from unveil.sampling import Allowed, Policy, Quota, Task
from unveil.shapes import Tensor

HALF = torch.bfloat16
BYTES, PRODUCT = 1 << 31, 8192  # a copy and the side of a matrix that keep the device busy
PROMPT, CODES, READING, WORDS = 128, 1024, 1100, 256  # tokens: of a picture, then of an answer
SIDE = 1024  # pixels
EVALUATIONS = 8  # of the turbo decoder


@dataclass(frozen=True)
class Measured:
    """One line of the table: what was measured, and the bound that the device sets, if there is one."""

    what: str
    seconds: float
    bound: float | None = None
    told: str = ""

    def row(self) -> str:
        """As Markdown."""
        times = "" if self.bound is None else f"{self.seconds / self.bound:.2f}x of {self.bound * 1000:.2f} ms"
        return f"| {self.what} | {self.seconds * 1000:.2f} ms | {times} | {self.told} |"


def touched_bytes(backbone: Backbone, visited: float) -> float:
    """Bytes of weights read by a pass that visits so many experts of a layer: all but the embedding and the others."""
    stacks = [part for part in backbone.modules() if isinstance(part, Experts)]
    shared = sum(p.nbytes for p in backbone.parameters()) - backbone.model.word_embeddings.weight.nbytes
    routed = sum(p.nbytes for stack in stacks for p in stack.parameters())
    return shared - routed + routed * visited / backbone.config.experts


def visited_experts(setup: Setup, request: Request) -> float:
    """How many experts of a layer a denoise step of this request visits, on average.

    Not as many as independent tokens would: masked positions look alike.
    """
    counts, block = list[int](), setup.policy.block_size

    def count(router: Router, given: tuple[Tensor], routing: Routing) -> None:
        if len(routing.chosen) == block:
            counts.append(routing.chosen.unique().numel())

    hooks = [part.register_forward_hook(count) for part in setup.backbone.modules() if isinstance(part, Router)]
    Engine(setup.backbone, setup.layout, device=setup.backbone.lm_head.weight.device).submit(request).tokens()
    for hook in hooks:
        hook.remove()
    return mean(counts)


def decoder_inputs(config: ModelConfig, side: int, device: torch.device) -> tuple[torch.Tensor, torch.Tensor, int]:
    """Latents of a square picture, features of its codes, and the side of their grid."""
    codes = side // config.picture_scale
    grid = codes * config.decoder.condition_upsample
    latents = torch.zeros(1, config.vae.latent_channels, *[grid * config.decoder.patch_size] * 2, device=device)
    features = torch.zeros(1, grid * grid, config.decoder.condition_width, device=device)
    return latents.to(HALF), features.to(HALF), grid


def decoder_flops(config: ModelConfig, side: int) -> int:
    """Floating-point operations of one evaluation of the image decoder, counted on the meta device."""
    meta = torch.device("meta")
    with meta:
        decoder = ImageDecoder(config.decoder, config.vae.latent_channels).to(HALF)
    latents, features, grid = decoder_inputs(config, side, meta)
    context = decoder.context(features, (grid, grid), (latents.shape[2], latents.shape[3]))
    with FlopCounterMode(display=False) as counter:
        decoder.velocity(latents, torch.zeros(1, device=meta), context)
    return counter.get_total_flops()


def measure_gpu(said: Said) -> Iterator[Measured]:
    """The lines of the table, one by one. Raises RequestError without a CUDA device."""
    if not torch.cuda.is_available():
        raise RequestError("bench --gpu: PyTorch sees no CUDA device here; leave --gpu out to measure the CPU")
    return measure(torch.device("cuda"), load_preset("official"), said)


@torch.inference_mode()
def measure(device: torch.device, config: ModelConfig, said: Said) -> Iterator[Measured]:
    """The lines of the table for a model of these sizes; what may fail on some devices comes last."""
    said("bench device", 0, 4)
    bandwidth, speed = copied_per_second(device), multiplied_per_second(device)
    said("bench backbone", 1, 4)
    with torch.device("meta"):
        backbone = Backbone(config.backbone, config.vocab)
        decoder = ImageDecoder(config.decoder, config.vae.latent_channels).to(HALF)
    hold(backbone, HALF)
    backbone.to_empty(device=device).initialize(torch.Generator(device).manual_seed(0)).eval().requires_grad_(False)
    setup = set_up(config, prompt=PROMPT, nothing=40, codes=CODES, steps=8, backbone=backbone)
    alone = Request(Task(setup.task.prompts, CODES, setup.task.allowed), setup.policy)
    visited = visited_experts(setup, alone)
    bound = touched_bytes(backbone, visited) / bandwidth, f"{visited:.0f} experts visited a layer"
    yield from pictures(setup, alone, backbone, bound, "")
    yield answers(config, backbone)
    said("bench decoder", 2, 4)
    decoder.to_empty(device=device).initialize(torch.Generator(device).manual_seed(0))
    yield turbo(config, decoder, speed, "")
    said("bench graphs", 3, 4)
    yield from pictures(setup, alone, Recorded.on_gpu(backbone), bound, ", CUDA graphs")
    decoder.compile_layers()
    yield turbo(config, decoder, speed, ", compiled")
    said("bench", 1, 1)


def copied_per_second(device: torch.device) -> float:
    """Bytes read and written in a second by a large copy."""
    source, target = (torch.empty(BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    return 2 * source.nbytes / best(lambda: target.copy_(source), device)


def multiplied_per_second(device: torch.device) -> float:
    """Floating-point operations in a second of a large product."""
    square = torch.randn(PRODUCT, PRODUCT, device=device, dtype=HALF)
    return 2 * PRODUCT**3 / best(lambda: square @ square, device)


def pictures(setup: Setup, alone: Request, model: Model, bound: tuple[float, str], way: str) -> Iterator[Measured]:
    """One denoise step alone, beside its bound and how that was found; then with guidance a whole picture."""
    steps, _ = timed_steps(setup, alone, model)
    yield Measured(f"one denoise step of 32 positions, batch 1{way}", median(steps), *bound)
    guided, peak = timed_steps(setup, Request(setup.task, setup.policy), model)
    told = f"{peak / 1e9:.2f} GB given out" + (", without what graphs keep" if way else "")
    yield Measured(f"{CODES} codes, 8 steps a block, guidance{way}", sum(guided), None, told)


def answers(config: ModelConfig, backbone: Backbone) -> Measured:
    """An answer to a picture and a question, 32 steps a block (random weights are never sure)."""
    setup = set_up(config, prompt=READING, nothing=1, codes=WORDS, steps=32, backbone=backbone)
    task = Task(setup.task.prompts, WORDS, Allowed.text(setup.layout))
    seconds = sum(timed_steps(setup, Request(task, Policy(Quota(0.95, 32), setup.policy.block_size)), backbone)[0])
    return Measured(f"an answer of {WORDS} tokens, 32 steps a block", seconds, None, f"{WORDS / seconds:.1f} tokens/s")


def turbo(config: ModelConfig, decoder: ImageDecoder, speed: float, way: str) -> Measured:
    """The evaluations of the turbo decoder for one picture, against their operations at a large product's speed."""
    device = decoder.x_pad_token.device
    latents, features, grid = decoder_inputs(config, SIDE, device)
    times = torch.zeros(1, device=device)

    def picture() -> None:
        context = decoder.context(features, (grid, grid), (latents.shape[2], latents.shape[3]))
        for _ in range(EVALUATIONS):
            decoder.velocity(latents, times, context)

    name = f"turbo decoder, {SIDE} x {SIDE} pixels, {EVALUATIONS} evaluations{way}"
    return Measured(name, best(picture, device), EVALUATIONS * decoder_flops(config, SIDE) / speed)


def timed_steps(setup: Setup, request: Request, model: Model) -> tuple[list[float], int]:
    """Seconds of every denoise step of a request, and the peak of memory; once before to warm up."""
    device = setup.backbone.lm_head.weight.device
    for _ in range(2):
        seconds, meter = list[float](), Meter(device)
        engine = Engine(model, setup.layout, device=device)
        handle = engine.submit(request)
        while not handle.done:
            seconds.append(once(engine.step, device))
    handle.tokens()  # raises what it failed with
    return seconds, meter.peak()


def once(work: Callable[[], object], device: torch.device) -> float:
    """Seconds until the device has done it."""
    wait = torch.cuda.synchronize if device.type == "cuda" else tuple
    wait()
    start = time.perf_counter()
    work()
    wait()
    return time.perf_counter() - start


def best(work: Callable[[], object], device: torch.device, times: int = 5) -> float:
    """The fastest of a few, after one to warm up."""
    work()
    return min(once(work, device) for _ in range(times))


def heading(device: str) -> str:
    """What stands before the rows of the table, for docs/benchmarks.md."""
    head = ["## On a GPU", "", f"`unveil bench --gpu`, {device}, official sizes, random weights, bfloat16.", ""]
    return "\n".join([*head, "| | measured | against the bound | |", "|---|---|---|---|"])
