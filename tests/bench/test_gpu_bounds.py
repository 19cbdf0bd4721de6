"""The GPU bench: its bounds, whose numbers follow from the sizes; all of it on a CPU; its refusal without a GPU."""

import pytest
import torch

from unveil.bench import gpu, set_up
from unveil.bench.gpu import Measured, as_markdown, decoder_flops, touched_bytes, visited_experts
from unveil.cli import main
from unveil.config import load_preset
from unveil.engine import Request
from unveil.model.backbone import Backbone
from unveil.model.backbone.recorded import Recorded
from unveil.model.image_decoder import ImageDecoder
from unveil.pipeline.watch import silent


def test_how_many_experts_some_tokens_visit():
    assert visited_experts(256, 8, 1) == 8
    assert visited_experts(4, 2, 2) == 3  # of 4 experts each is left out by a token with 1/2, by both with 1/4
    assert visited_experts(256, 8, 32) == pytest.approx(256 - 256 * (31 / 32) ** 32)


def test_a_pass_touches_everything_but_the_embedding_and_unvisited_experts():
    config = load_preset("official")
    with torch.device("meta"):
        backbone = Backbone(config.backbone, config.vocab).bfloat16()
    all_of_it, biases, embedding, routed = 16_322_752_256, 19 * 256, 355_467_264, 19 * 805_306_368  # spec 1.4
    one = 2 * (all_of_it - biases - embedding - routed + routed * 8 / 256)
    assert touched_bytes(backbone, 1) == pytest.approx(one, rel=1e-12)
    assert touched_bytes(backbone, 10**6) == pytest.approx(2 * (all_of_it - biases - embedding), rel=1e-12)


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


def test_the_table_has_the_bound_beside_what_was_measured():
    found = [Measured("a step", 0.003, 0.002), Measured("a picture", 2.0, None, "peak 1.00 GB")]
    lines = as_markdown(found, "a device").splitlines()
    assert lines[0] == "## On a GPU" and "a device" in lines[2]
    assert lines[-2:] == ["| a step | 3.00 ms | 1.50x of 2.00 ms |  |", "| a picture | 2000.00 ms |  | peak 1.00 GB |"]


def test_all_of_it_runs_also_where_the_gpu_is_a_cpu(monkeypatch, replayed):
    small = {"BYTES": 1 << 10, "PRODUCT": 8, "PROMPT": 9, "CODES": 64, "READING": 50, "WORDS": 40, "SIDE": 128}
    for name, value in small.items():
        monkeypatch.setattr(gpu, name, value)
    compiled = []
    monkeypatch.setattr(ImageDecoder, "compile_layers", lambda decoder: compiled.append(decoder))
    device, config = torch.device("cpu"), load_preset("tiny")
    with pytest.warns(UserWarning, match="CUDA graphs need"):
        found = gpu.measure(device, config, silent)
    names = ["one denoise step", "64 codes", "an answer of 40 tokens", "turbo decoder, 128 x 128", "turbo decoder"]
    assert [m.what.startswith(name) for m, name in zip(found, names, strict=True)] == [True] * 5
    assert len(compiled) == 1 and "compiled" in found[-1].what
    assert all(m.seconds > 0 for m in found) and [m.bound is not None for m in found] == [
        True,
        False,
        False,
        True,
        True,
    ]
    monkeypatch.setattr(Recorded, "on_gpu", lambda backbone: Recorded(backbone, replayed))
    assert [", CUDA graphs" in m.what for m in gpu.measure(device, config, silent)] == [False] * 2 + [True] * 2 + [
        False
    ] * 3


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
