"""The GPU bench: its bounds, whose numbers follow from the sizes; all of it on a CPU; its refusal without a GPU."""

from statistics import mean

import pytest
import torch

from unveil.bench import gpu, set_up
from unveil.bench.gpu import decoder_flops
from unveil.cli import main
from unveil.config import load_preset
from unveil.engine import Request
from unveil.errors import RequestError
from unveil.model.backbone import Backbone, router
from unveil.model.backbone.recorded import Recorded
from unveil.model.image_decoder import ImageDecoder
from unveil.pipeline.watch import silent
from unveil.sampling import Task


def test_a_pass_touches_everything_but_the_embedding_and_unvisited_experts():
    config = load_preset("official")
    with torch.device("meta"):
        backbone = Backbone(config.backbone, config.vocab).bfloat16()
    all_of_it, biases, embedding, routed = 16_322_752_256, 19 * 256, 355_467_264, 19 * 805_306_368  # spec 1.4
    some = 2 * (all_of_it - biases - embedding - routed + routed * 20.5 / 256)
    assert gpu.touched_bytes(backbone, 20.5) == pytest.approx(some, rel=1e-12)
    assert gpu.touched_bytes(backbone, 256) == pytest.approx(2 * (all_of_it - biases - embedding), rel=1e-12)


def test_visited_experts_are_those_of_the_steps_of_one_block(monkeypatch):
    setup = set_up(load_preset("tiny"), prompt=32, nothing=5, codes=64, steps=4)
    alone = Request(Task(setup.task.prompts, 64, setup.task.allowed), setup.policy)
    seen, choose = [], router.choose_experts
    monkeypatch.setattr(router, "choose_experts", lambda *given: [seen.append(choose(*given)), seen[-1]][1])
    found = gpu.visited_experts(setup, alone)
    assert {len(each) for each in seen} > {32, 64}  # the first pass sees the prompt, too; the last layer what is masked
    assert found == mean(len(set(each.flatten().tolist())) for each in seen if len(each) == 32)
    for layer in setup.backbone.model.layers[1:]:
        layer.mlp.gate.weight.zero_()
        layer.mlp.gate.expert_bias.copy_(torch.tensor([9.0, 9, 0, 0, 0, 0, 0, 0]))  # everybody visits the first two
    assert gpu.visited_experts(setup, alone) == 2
    assert not any(part._forward_hooks for part in setup.backbone.modules())


def test_the_operations_of_the_decoder_are_those_of_its_products():
    config = load_preset("tiny")
    d, tokens, own = config.decoder, 128, 64  # 8 x 8 codes at 128 pixels: as many image tokens as codes
    inner = int(d.width / 3 * 8)
    time = d.time_width * d.time_mlp_width + d.time_mlp_width * min(d.width, d.time_width)
    timed = min(d.width, d.time_width) * 4 * d.width

    def block(n):
        return n * (4 * d.width**2 + 3 * d.width * inner) + 2 * n * n * d.width + timed

    patch = config.vae.latent_channels * d.patch_size**2
    ends = own * patch * d.width * 2 + min(d.width, d.time_width) * d.width
    whole = time + ends + d.refiner_layers * block(own) + d.layers * block(tokens)
    assert decoder_flops(config, 128) == 2 * whole


def test_a_row_has_the_bound_beside_what_was_measured():
    assert gpu.Measured("a step", 0.003, 0.002).row() == "| a step | 3.00 ms | 1.50x of 2.00 ms |  |"
    assert gpu.Measured("a picture", 2.0, None, "a note").row() == "| a picture | 2000.00 ms |  | a note |"
    assert "a device" in gpu.heading("a device") and gpu.heading("").splitlines()[-1].count("|") == 5


def test_all_of_it_runs_also_where_the_gpu_is_a_cpu(monkeypatch, replayed):
    small = {"BYTES": 1 << 10, "PRODUCT": 8, "PROMPT": 9, "CODES": 64, "READING": 50, "WORDS": 40, "SIDE": 128}
    for name, value in small.items():
        monkeypatch.setattr(gpu, name, value)
    monkeypatch.setattr(gpu, "best", lambda work, device: [work(), 0.5][1])
    compiled, recorded = [], []
    monkeypatch.setattr(ImageDecoder, "compile_layers", lambda decoder: compiled.append(decoder))
    device, config = torch.device("cpu"), load_preset("tiny")
    rows = gpu.measure(device, config, silent)
    plain = [next(rows) for _ in range(4)]
    with pytest.raises(RequestError, match="CUDA device"):  # what went before is not lost
        next(rows)

    def record(backbone):
        recorded.append(Recorded(backbone, replayed))
        return recorded[0]

    monkeypatch.setattr(Recorded, "on_gpu", record)
    found = list(gpu.measure(device, config, silent))
    assert [m.what for m in found[:4]] == [m.what for m in plain]
    ways = ["one denoise step of 32 positions, batch 1", "64 codes, 8 steps a block, guidance"]
    drawn = "turbo decoder, 128 x 128 pixels, 8 evaluations"
    wanted = [*ways, "an answer of 40 tokens, 32 steps a block", drawn]
    assert [m.what for m in found] == [*wanted, *[f"{way}, CUDA graphs" for way in ways], f"{drawn}, compiled"]
    assert recorded[0].recordings and all(recorded[0].recordings.values())
    assert len(compiled) == 1 and all(m.seconds > 0 for m in found)
    floor = 8 * gpu.decoder_flops(config, 128) / (2 * 8**3 / 0.5)
    assert found[3].bound == found[6].bound == pytest.approx(floor)
    visited = float(found[0].told.split()[0])
    with torch.device("meta"):
        backbone = Backbone(config.backbone, config.vocab).bfloat16()
    low, high = (gpu.touched_bytes(backbone, visited + off) / (2 * 2**10 / 0.5) for off in (-0.5, 0.5))
    assert low <= found[0].bound == found[4].bound <= high


def test_every_denoise_step_is_timed():
    config = load_preset("tiny")
    setup = set_up(config, prompt=32, nothing=5, codes=64, steps=4)
    seconds, peak = gpu.timed_steps(setup, Request(setup.task, setup.policy), setup.backbone)
    assert len(seconds) == 2 * 4 and peak > 0  # two blocks, nothing is ever sure


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_without_a_gpu_the_bench_says_so_in_one_line(capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", "--gpu"])
    told = capsys.readouterr().err.strip().splitlines()
    assert left.value.code == 2 and len(told) == 1 and "no CUDA device" in told[0]
