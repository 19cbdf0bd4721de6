"""The official sizes on a GPU, with random weights in bfloat16, beside what the device could do at best.

Never run on one: no GPU was at hand when this was written. A test runs it all on a CPU with other sizes.
"""

import time
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from statistics import median

import torch
from torch.utils.flop_counter import FlopCounterMode

from unveil.bench.compare import Said
from unveil.bench.setup import Setup, set_up
from unveil.config import ModelConfig, load_preset
from unveil.engine import Engine, Request
from unveil.engine.engine import Model
from unveil.errors import RequestError
from unveil.memory.measure import Meter
from unveil.model.backbone import Backbone
from unveil.model.backbone.experts import Experts
from unveil.model.backbone.recorded import Recorded
from unveil.model.hold import hold
from unveil.model.image_decoder import ImageDecoder
from unveil.sampling import Allowed, Policy, Quota, Task

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


def measure_gpu(said: Said) -> list[Measured]:
    """All lines of the table. Raises RequestError without a CUDA device."""
    if not torch.cuda.is_available():
        raise RequestError("bench --gpu: PyTorch sees no CUDA device here; leave --gpu out to measure the CPU")
    return measure(torch.device("cuda"), load_preset("official"), said)


@torch.inference_mode()
def measure(device: torch.device, config: ModelConfig, said: Said) -> list[Measured]:
    """All lines of the table for a model of these sizes."""
    said("bench device", 0, 4)
    source, target = (torch.empty(BYTES, dtype=torch.uint8, device=device) for _ in range(2))
    bandwidth = 2 * source.nbytes / best(lambda: target.copy_(source), device)
    del source, target
    square = torch.randn(PRODUCT, PRODUCT, device=device, dtype=HALF)
    speed = 2 * PRODUCT**3 / best(lambda: square @ square, device)
    said("bench backbone", 1, 4)
    with torch.device("meta"):
        backbone = Backbone(config.backbone, config.vocab)
    hold(backbone, HALF)
    backbone.to_empty(device=device).initialize(torch.Generator(device).manual_seed(0)).eval().requires_grad_(False)
    found = [*pictures(config, backbone, bandwidth), answers(config, backbone)]
    said("bench decoder", 3, 4)
    del backbone
    if device.type == "cuda":
        torch.cuda.empty_cache()
    found += turbo(config, device, speed)
    said("bench", 1, 1)
    return found


def pictures(config: ModelConfig, backbone: Backbone, bandwidth: float) -> list[Measured]:
    """One denoise step alone, then with guidance a whole picture of 1,024 codes."""
    setup = set_up(config, prompt=PROMPT, nothing=40, codes=CODES, steps=8, backbone=backbone)
    alone = Task(setup.task.prompts, CODES, setup.task.allowed)
    floor, found = touched_bytes(backbone, setup.policy.block_size) / bandwidth, list[Measured]()
    for way, model in ways(backbone).items():
        steps, _ = timed_steps(setup, Request(alone, setup.policy), model)
        found.append(Measured(f"one denoise step of 32 positions, batch 1{way}", median(steps), floor))
        guided, peak = timed_steps(setup, Request(setup.task, setup.policy), model)
        told = f"peak {peak / 1e9:.2f} GB"
        found.append(Measured(f"{CODES} codes, 8 steps a block, guidance{way}", sum(guided), None, told))
    return found


def ways(backbone: Backbone) -> dict[str, Model]:
    """The backbone, and with CUDA graphs where this device can have them."""
    try:
        return {"": backbone, ", CUDA graphs": Recorded.on_gpu(backbone)}
    except RequestError as error:
        warnings.warn(str(error), stacklevel=2)
        return {"": backbone}


def answers(config: ModelConfig, backbone: Backbone) -> Measured:
    """An answer of 256 tokens to a picture and a question, 32 steps a block (random weights are never sure)."""
    setup = set_up(config, prompt=READING, nothing=1, codes=WORDS, steps=32, backbone=backbone)
    task = Task(setup.task.prompts, WORDS, Allowed.text(setup.layout))
    seconds = sum(timed_steps(setup, Request(task, Policy(Quota(0.95, 32), setup.policy.block_size)), backbone)[0])
    return Measured(f"an answer of {WORDS} tokens, 32 steps a block", seconds, None, f"{WORDS / seconds:.1f} tokens/s")


def turbo(config: ModelConfig, device: torch.device, speed: float) -> list[Measured]:
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
    floor = EVALUATIONS * decoder_flops(config, SIDE) / speed
    plain = Measured(name, best(picture, device), floor)
    decoder.compile_layers()
    return [plain, Measured(f"{name}, compiled", best(picture, device), floor)]


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


def as_markdown(found: list[Measured], device: str) -> str:
    """A section for docs/benchmarks.md."""
    head = ["## On a GPU", "", f"`unveil bench --gpu`, {device}, official sizes, random weights, bfloat16.", ""]
    return "\n".join([*head, "| | measured | against the bound | |", "|---|---|---|---|", *(m.row() for m in found)])
