"""The official sizes on a GPU, with random weights in bfloat16, beside what the device could do at best.

Not run yet: no GPU was at hand when this was written. The bounds are tested on the meta device.
"""

import time
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from unveil.bench.compare import Said
from unveil.bench.setup import Setup, set_up
from unveil.config import ModelConfig, load_preset
from unveil.engine import Engine, Request
from unveil.errors import RequestError
from unveil.model.backbone import Backbone
from unveil.model.backbone.experts import Experts
from unveil.model.hold import hold
from unveil.model.image_decoder import ImageDecoder
from unveil.sampling import Allowed, Policy, Quota, Task

HALF = torch.bfloat16
SIDE = 1024  # pixels
EVALUATIONS = 8  # of the turbo decoder


@dataclass(frozen=True)
class Measured:
    """One line of the table: what was measured, and the bound that the device sets, if there is one."""

    what: str
    seconds: float
    bound: float | None = None
    per_second: str = ""

    def row(self) -> str:
        """As Markdown."""
        times = "" if self.bound is None else f"{self.seconds / self.bound:.2f}x of {self.bound * 1000:.2f} ms"
        return f"| {self.what} | {self.seconds * 1000:.2f} ms | {times} | {self.per_second} |"


def visited_experts(experts: int, chosen: int, tokens: int) -> float:
    """How many experts of a layer at least one of the tokens visits, if all are equally likely."""
    return experts * (1 - (1 - chosen / experts) ** tokens)


def touched_bytes(backbone: Backbone, tokens: int) -> float:
    """Bytes of weights that a pass of so many tokens reads: all but the embedding and unvisited experts."""
    config = backbone.config
    stacks = [part for part in backbone.modules() if isinstance(part, Experts)]
    shared = sum(p.nbytes for p in backbone.parameters()) - backbone.model.word_embeddings.weight.nbytes
    routed = sum(p.nbytes for stack in stacks for p in stack.parameters())
    share = visited_experts(config.experts, config.chosen_experts, tokens) / config.experts
    return shared - routed + routed * share


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


@torch.inference_mode()
def measure_gpu(said: Said) -> list[Measured]:
    """All lines of the table. Raises RequestError without a CUDA device."""
    if not torch.cuda.is_available():
        raise RequestError("bench --gpu: PyTorch sees no CUDA device here; leave --gpu out to measure the CPU")
    device, config = torch.device("cuda"), load_preset("official")
    said("bench device", 0, 4)
    source, target = (torch.empty(1 << 31, dtype=torch.uint8, device=device) for _ in range(2))
    bandwidth = 2 * source.nbytes / best(lambda: target.copy_(source))
    del source, target
    square = torch.randn(8192, 8192, device=device, dtype=HALF)
    speed = 2 * 8192**3 / best(lambda: square @ square)
    said("bench backbone", 1, 4)
    with torch.device("meta"):
        backbone = Backbone(config.backbone, config.vocab)
    hold(backbone, HALF)
    backbone.to_empty(device=device).initialize(torch.Generator(device).manual_seed(0)).eval().requires_grad_(False)
    found = [*pictures(config, backbone, bandwidth), answers(config, backbone)]
    said("bench decoder", 3, 4)
    del backbone
    torch.cuda.empty_cache()
    found.append(turbo(config, device, speed))
    said("bench", 1, 1)
    return found


def pictures(config: ModelConfig, backbone: Backbone, bandwidth: float) -> list[Measured]:
    """One denoise step alone, then with guidance a whole picture of 1,024 codes."""
    setup = set_up(config, prompt=128, nothing=40, codes=1024, steps=8, backbone=backbone)
    alone = Task(setup.task.prompts, 1024, setup.task.allowed)
    steps, _ = timed_steps(setup, Request(alone, setup.policy))
    floor = touched_bytes(backbone, setup.policy.block_size) / bandwidth
    guided, peak = timed_steps(setup, Request(setup.task, setup.policy))
    return [
        Measured("one denoise step of 32 positions, batch 1", median(steps), floor),
        Measured("1,024 codes, 8 steps a block, guidance", sum(guided), None, f"peak {peak / 1e9:.2f} GB"),
    ]


def answers(config: ModelConfig, backbone: Backbone) -> Measured:
    """An answer of 256 tokens to a picture of 1,024 codes, 32 steps a block (random weights are never sure)."""
    setup = set_up(config, prompt=1100, nothing=1, codes=256, steps=32, backbone=backbone)
    task = Task(setup.task.prompts, 256, Allowed.text(setup.layout))
    seconds = sum(timed_steps(setup, Request(task, Policy(Quota(0.95, 32), setup.policy.block_size)))[0])
    return Measured("an answer of 256 tokens, 32 steps a block", seconds, None, f"{256 / seconds:.1f} tokens/s")


def turbo(config: ModelConfig, device: torch.device, speed: float) -> Measured:
    """The evaluations of the turbo decoder for one picture, against their operations at a large product's speed."""
    with torch.device("meta"):
        decoder = ImageDecoder(config.decoder, config.vae.latent_channels).to(HALF)
    decoder.to_empty(device=device).initialize(torch.Generator(device).manual_seed(0))
    latents, features, grid = decoder_inputs(config, SIDE, device)
    times = torch.zeros(1, device=device)

    def picture() -> None:
        context = decoder.context(features, (grid, grid), (latents.shape[2], latents.shape[3]))
        for _ in range(EVALUATIONS):
            decoder.velocity(latents, times, context)

    name = f"turbo decoder, {SIDE} x {SIDE} pixels, {EVALUATIONS} evaluations"
    return Measured(name, best(picture), EVALUATIONS * decoder_flops(config, SIDE) / speed)


def timed_steps(setup: Setup, request: Request) -> tuple[list[float], int]:
    """Seconds of every denoise step of a request, and the peak of memory; once before to warm up."""
    device = setup.backbone.lm_head.weight.device
    seconds: list[float] = []
    for _ in range(2):
        seconds.clear()
        torch.cuda.reset_peak_memory_stats(device)
        engine = Engine(setup.backbone, setup.layout, device=device)
        handle = engine.submit(request)
        while not handle.done:
            seconds.append(once(engine.step))
    handle.tokens()  # raises what it failed with
    return seconds[:-1], torch.cuda.max_memory_allocated(device)  # the last one only says that all is done


def once(work: Callable[[], object]) -> float:
    """Seconds until the device has done it."""
    torch.cuda.synchronize()
    start = time.perf_counter()
    work()
    torch.cuda.synchronize()
    return time.perf_counter() - start


def best(work: Callable[[], object], times: int = 5) -> float:
    """The fastest of a few, after one to warm up."""
    work()
    return min(once(work) for _ in range(times))


def as_markdown(found: list[Measured], device: str) -> str:
    """A section for docs/benchmarks.md."""
    head = ["## On a GPU", "", f"`unveil bench --gpu`, {device}, official sizes, random weights, bfloat16.", ""]
    return "\n".join([*head, "| | measured | against the bound | |", "|---|---|---|---|", *(m.row() for m in found)])
