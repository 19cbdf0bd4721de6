from functools import partial

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from unveil.config import ModelConfig, load_preset
from unveil.errors import RequestError
from unveil.memory.live import peak_bytes
from unveil.memory.moments import Work, cache_bytes, look_at, tile, use_of
from unveil.memory.plan import Machine, Plan, down_from, fitting, needs, parse_bytes, plans
from unveil.model.backbone.experts import Experts, QuantizedExperts
from unveil.model.hold import floats_of, format_of, hold
from unveil.weights.names import PART_FILES
from unveil.weights.read import build

TINY, OFFICIAL = load_preset("tiny"), load_preset("official")
PARAMETERS = {
    "backbone": 16_322_752_256,
    "image_tokenizer": 1_199_457_280,
    "code_embedding": 100_671_488,
    "decoder": 6_160_808_512,
    "vae": 83_819_683,
}


def real(config: ModelConfig, precision="float32"):
    """Every part on the CPU, filled with small numbers, then held in the precision."""
    modules = {name: module.to_empty(device="cpu") for name, module in build(config).items()}
    generator = torch.Generator().manual_seed(0)
    for module in modules.values():
        for tensor in module.state_dict().values():
            tensor.normal_(0, 0.02, generator=generator)
        hold(module.eval().requires_grad_(False), floats_of(precision), format_of(precision))
    return modules


def allocated(run) -> int:
    """The most bytes beyond the start that PyTorch's own allocator had given out at one time."""
    with torch.inference_mode(), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as measured:
        run()
    events = [e for e in measured.profiler.kineto_results.events() if e.name() == "[memory]"]
    now = peak = 0
    for event in sorted(events, key=lambda e: e.start_ns()):
        now += event.nbytes()
        peak = max(peak, now)
    return peak


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16", "int8", "fp8", "int4"])
def test_planned_weights_are_the_bytes_of_real_modules_in_every_precision(precision):
    modules = real(TINY, precision)
    work = Work.of(TINY, "generate")
    for need in needs(TINY, work, precision):
        stored = modules[need.name].state_dict().values()
        assert need.weights == sum(tensor.untyped_storage().nbytes() for tensor in stored)
        assert need.largest == max(tensor.nbytes for tensor in stored)


def test_the_router_bias_stays_in_float32_as_when_it_is_loaded():
    modules = real(TINY, "bfloat16")
    kept = [n for n, t in modules["backbone"].state_dict().items() if t.dtype == torch.float32]
    assert len(kept) == 5 and all(name.endswith("expert_bias") for name in kept)


@pytest.mark.parametrize("task", ["generate", "understand"])
def test_the_cache_formula_gives_the_bytes_of_the_past_of_a_run(task):
    work, backbone = Work.of(TINY, task), real(TINY, "bfloat16")["backbone"]
    run, _ = look_at(backbone, TINY, work, first=False)
    with torch.inference_mode():
        past = run()
    assert sum(t.nbytes for pair in past for t in pair) == cache_bytes(TINY, work.length, work.branches, torch.bfloat16)
    assert work.branches == (2 if task == "generate" else 1)


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("task", ["generate", "understand"])
def test_the_backbone_allocates_on_the_cpu_what_is_traced_within_a_hundredth(task, first):
    work, small, there = Work.of(TINY, task), build(TINY)["backbone"], real(TINY)["backbone"]
    run, held = look_at(small, TINY, work, first=first)
    traced = peak_bytes(run, [*small.state_dict().values(), *held])
    assert traced == pytest.approx(allocated(look_at(there, TINY, work, first=first)[0]), rel=0.01)


@pytest.mark.parametrize("name", ["image_tokenizer", "code_embedding", "decoder", "vae"])
def test_the_other_parts_allocate_on_the_cpu_what_is_traced_within_a_hundredth(name):
    work, small, there = Work.of(TINY, "generate"), build(TINY), real(TINY)
    traced = peak_bytes(use_of(name, small, TINY, work), small[name].state_dict().values())
    assert traced == pytest.approx(allocated(use_of(name, there, TINY, work)), rel=0.01)


def test_a_trace_sees_views_once_and_forgets_what_has_gone():
    start = torch.zeros(1000)

    def run():
        for _ in range(3):
            made = start + 1  # 4000 bytes, and the one of the last turn
            made[None].expand(5, -1).transpose(0, 1)
            start.view(10, 100).add_(0)

    assert peak_bytes(run, [start]) == 8000
    assert peak_bytes(run, []) == 12000  # control: a tensor from before that nobody told of is counted


def test_the_official_weights_are_two_bytes_a_parameter():
    for need in needs(OFFICIAL, Work.of(OFFICIAL, "understand"), "bfloat16"):
        biases = 19 * 256 if need.name == "backbone" else 0  # in float32
        assert need.weights == 2 * PARAMETERS[need.name] + 2 * biases
    assert list(PARAMETERS) == [name for name in PART_FILES if name != "retrieval"]


GPU, CPU = Machine(10**12, 10**12), Machine(10**12, None)
GOALS = [
    ("generate", "bfloat16", "resident", 46.64, 47),
    ("generate", "bfloat16", "staged", 32.21, 33),
    ("generate", "int8", "staged", 16.67, 20),
    ("generate", "fp8", "staged", 16.67, 20),
    ("generate", "int4", "staged", 9.29, 13),
    ("understand", "bfloat16", "staged", 32.41, 35),
    ("understand", "int8", "staged", 16.87, 19),
    ("understand", "int4", "staged", 9.49, 11),
]


@pytest.mark.slow
@pytest.mark.parametrize(("task", "precision", "residency", "planned", "goal"), GOALS)
def test_the_planned_peaks_of_the_official_model(task, precision, residency, planned, goal):
    work = Work.of(OFFICIAL, task, 1024 if task == "generate" else None)
    peak = Plan(precision, residency, needs(OFFICIAL, work, precision), GPU).device / 1e9
    assert peak == pytest.approx(planned, abs=0.005) and peak <= goal


def test_staging_holds_one_part_at_a_time_and_all_of_them_on_the_host():
    found = needs(TINY, Work.of(TINY, "generate"), "float32")
    resident, staged = Plan("float32", "resident", found, GPU), Plan("float32", "staged", found, GPU)
    used = [need for need in found if need.name != "image_tokenizer"]
    table = TINY.vocab.size * TINY.backbone.width * 4
    lying = {n.name: n.weights - (table if n.name == "backbone" else 0) for n in used}
    assert staged.device == max(lying[n.name] + n.cache + n.activations for n in used)
    assert resident.device == sum(lying.values()) + max(n.cache + n.activations for n in used)
    assert staged.host == sum(n.weights for n in used)
    assert resident.host == max(n.largest for n in used) + table


def test_where_the_device_is_the_process_the_embedding_counts_and_staged_parts_are_read_again():
    found = needs(TINY, Work.of(TINY, "generate"), "float32")
    there, here = Plan("float32", "staged", found, GPU), Plan("float32", "staged", found, CPU)
    assert here.device - there.device == TINY.vocab.size * TINY.backbone.width * 4
    assert here.host == 0 and here.rereads and not there.rereads
    small = Plan("float32", "staged", found, Machine(10**12, there.host - 1))
    assert small.rereads and small.host < there.host and small.device == there.device
    assert not Plan("float32", "streamed", found, Machine(10**12, there.host - 1)).fits  # its layers wait on the host


def test_a_streamed_backbone_has_two_of_its_layers_on_the_device():
    found = needs(TINY, Work.of(TINY, "generate"), "float32")
    staged, streamed = (Plan("float32", residency, found, GPU) for residency in ("staged", "streamed"))
    sizes = [sum(t.nbytes for t in layer.state_dict().values()) for layer in build(TINY)["backbone"].model.layers]
    backbone = found[0]
    assert staged.lying(backbone) - streamed.lying(backbone) == sum(sizes) - 2 * max(sizes)
    assert all(staged.lying(need) == streamed.lying(need) for need in found[1:])


@pytest.mark.parametrize("precision", ["bfloat16", "int8", "fp8"])
def test_the_activations_of_a_long_backbone_follow_from_those_of_two_short_ones(precision):
    work, backbone = Work.of(TINY, "edit"), build(TINY)["backbone"]
    hold(backbone, floats_of(precision), format_of(precision))
    peaks = []
    for first in (True, False):
        run, there = look_at(backbone, TINY, work, first=first)
        peaks.append(peak_bytes(run, [*backbone.state_dict().values(), *there]) + sum(t.nbytes for t in there))
    need = needs(TINY, work, precision)[0]
    assert need.cache + need.activations == pytest.approx(max(peaks), rel=1e-4)


def test_plans_come_in_order_of_loss_of_quality_and_streaming_last():
    def names(machine):
        found = plans(TINY, Work.of(TINY, "generate"), machine, down_from("float32"))
        return [(p.precision, p.residency, p.tiled) for p in found]

    precisions = ("float32", "bfloat16", "int8", "int4")
    lossless = [(precision, residency, False) for precision in precisions for residency in ("resident", "staged")]
    assert [name for name in names(CPU) if not name[2]] == lossless
    assert [name for name in names(GPU) if not name[2]] == lossless + [(p, "streamed", False) for p in precisions]
    assert down_from("float16")[0] == "float16" and "float16" not in down_from("float32")
    assert down_from("fp8") == ("fp8", "int4")


def test_the_plan_that_fits_is_the_first_of_all_however_much_there_is():
    work, precisions = Work.of(TINY, "generate"), ("int8", "int4")
    sizes = sorted(plan.device for plan in plans(TINY, work, GPU, precisions))
    staged = min(plan.device for plan in plans(TINY, work, CPU, precisions))
    rooms = [(sizes[0] - 1, 10**12), (sizes[0], 10**12), (sizes[-1] - 1, 10**12), (sizes[-1], 10**12), (staged, None)]
    for machine in (Machine(*room) for room in rooms):
        first = next((plan for plan in plans(TINY, work, machine, precisions) if plan.fits), None)
        assert fitting(TINY, work, machine, precisions) == first


def test_tiles_are_tried_where_the_vae_needs_most():
    large = TINY.model_copy(update={"sampling": TINY.sampling.model_copy(update={"grid": (16, 16)})})
    found = list(plans(large, Work.of(large, "generate"), CPU, ["int4"]))
    assert [(p.residency, p.tiled) for p in found] == [("resident", False), ("staged", False), ("staged", True)]
    assert found[2].device < found[1].device


def test_a_vae_in_tiles_needs_what_was_planned_for_tiles():
    small, there = build(TINY), real(TINY)
    work = Work.of(TINY, "generate")
    tile(small["vae"]), tile(there["vae"])
    traced = peak_bytes(use_of("vae", small, TINY, work), small["vae"].state_dict().values())
    assert traced == pytest.approx(allocated(use_of("vae", there, TINY, work)), rel=0.01)
    assert traced == needs(TINY, work, "float32")[4].tiled < needs(TINY, work, "float32")[4].activations


@pytest.mark.parametrize(
    ("text", "size"), [("24GB", 24 * 10**9), ("24GiB", 24 * 2**30), ("1.5 tb", 1_500_000_000_000), ("10KB", 10_000)]
)
def test_amounts_of_memory_are_read(text, size):
    assert parse_bytes(text) == size


@pytest.mark.parametrize("text", ["24XB", "24", "GB", "-1GB", "0GB", "", "1e3GB", "nanGB"])
def test_other_amounts_are_refused(text):
    with pytest.raises(RequestError, match="write it as 24GB"):
        parse_bytes(text)


@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_quantized_experts_without_numbers_are_traced_like_real_ones(form):
    chosen = torch.arange(24).remainder(6).view(12, 2)  # each of 6 experts 4 times, as a trace spreads them
    peaks = []
    for device in ("cpu", "meta"):
        with torch.device(device):
            layer = QuantizedExperts(Experts(6, 128, 64), form)
            x, weights = torch.zeros(12, 128), torch.ones(12, 2)
        given = [x, weights, chosen.to(device), *layer.state_dict().values()]
        peaks.append(peak_bytes(partial(layer, x, given[2], weights), given))
    assert peaks[0] == peaks[1] > 12 * 128 * 4


def test_a_trace_works_an_operation_out_again_for_other_shapes_strides_and_sizes():
    def run(x):
        return [x + 1, x + 1.5, x.t() + 1, x[:1] + 1, x.to(torch.float64) + 1, x.sum(0), x.sum(1), x > 0]

    there, meta = torch.zeros(30, 20), torch.zeros(30, 20, device="meta")
    assert peak_bytes(lambda: run(there), [there]) == peak_bytes(lambda: run(meta), [meta])
