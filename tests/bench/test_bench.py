"""The bench measures what it says, at sizes that take a second."""

import json
from dataclasses import replace

import pytest

from unveil.bench import compare, set_up, throughput
from unveil.bench.compare import DEFAULTS, PUBLISHED
from unveil.cli import main
from unveil.config import load_preset
from unveil.errors import RequestError
from unveil.sampling import unmask

SMALL = ["bench", "--codes", "32", "--prompt", "40", "--nothing", "9", "--steps", "2", "--rounds", "1"]


def silent(what, done, total):
    pass


@pytest.fixture(scope="module")
def setup():
    return set_up(load_preset("bench"), prompt=40, nothing=9, codes=64, steps=4)


@pytest.fixture(scope="module")
def compared(setup):
    return compare(setup, 1, silent)


def test_the_preset_has_the_sizes_of_the_bench():
    config = load_preset("bench")
    b, v = config.backbone, config.vocab
    assert (v.image_offset, v.size - v.image_offset, b.width, b.layers, b.dense_layers) == (2048, 1024, 256, 8, 1)
    assert (b.mlp_width, b.heads, b.head_dim, b.kv_heads, b.rotary_fraction) == (512, 8, 32, 2, 0.5)
    assert (b.experts, b.expert_width, b.chosen_experts, b.groups, b.kept_groups, b.shared_experts) == (
        16,
        128,
        4,
        4,
        2,
        1,
    )
    s = config.sampling
    assert (s.grid, s.steps, s.guidance, s.rescale, s.threshold, b.block_size) == ((32, 32), 8, 2.0, 0.7, 0.95, 32)


def test_all_contenders_do_what_the_official_algorithm_counts(compared):
    windows = [64, 96, 128]  # a prompt of 40 and 64 codes, in blocks of 32
    sizes = [4 if i else 3 for i in range(3)]  # the first block has 24 to fill, 8 a step
    both = 2  # branches
    assert compared.plain.positions == both * sum(w * n for w, n in zip(windows, sizes, strict=True))
    assert compared.sprint.positions == both * sum(2 * w + 32 * 2 for w in windows)  # it spreads 24 over 4 steps too
    assert compared.sprint_published.positions == both * sum(w + 32 * 3 for w in windows)
    first = both * 64 - 31  # the second branch lacks its padding
    assert compared.engine.positions == first + both * 32 * (3 - 1) + both * sum(32 * n + 32 for n in sizes[1:])


def test_the_engine_draws_the_codes_of_the_plain_loop_and_its_cache_has_the_size_of_the_formula(compared):
    found = compared.as_dict()
    assert found["identical"] is True and found["codes"] == found["same_codes"] == 64
    assert found["cache_bytes"] == found["cache_formula"] == 8 * 2 * 2 * 32 * 128 * 2 * 4
    assert found["engine_vs_plain"] == pytest.approx(found["plain_s"] / found["engine_s"], rel=0.05)


@pytest.mark.parametrize("sprint", [DEFAULTS, PUBLISHED])
def test_sprint_over_the_whole_window_gives_the_codes_of_sprint_over_the_cache(setup, sprint):
    policy = replace(setup.policy, sprint=sprint)
    cached, whole = (
        unmask(setup.backbone, setup.task, replace(policy, reuse_prefix=reuse), setup.layout) for reuse in (True, False)
    )
    assert cached == whole


def test_no_code_is_ever_sure_so_the_quota_decides(setup):
    events = []
    unmask(setup.backbone, setup.task, setup.policy, setup.layout, on_step=events.append)
    assert max(float(event.confidence.max()) for event in events) < 0.5
    assert [int(event.committed.sum()) for event in events] == [8] * 11


def test_many_requests_give_the_same_together_and_one_by_one(setup):
    (found,) = throughput(setup, (3,), 1, silent, batch_invariant=True)
    assert found.identical and found.together == 3 and found.gain == found.serial_s / found.batched_s


def test_the_verb_prints_one_object_with_the_promised_keys(capsys):
    with pytest.raises(SystemExit) as left:
        main([*SMALL, "--requests", "2", "--json"])
    assert left.value.code == 0
    found = json.loads(capsys.readouterr().out)
    wanted = {"plain_s", "sprint_s", "engine_s", "engine_vs_plain", "engine_vs_sprint", "identical", "batch2_vs_serial"}
    assert wanted <= set(found)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--rounds", "0"], "--rounds"),
        (["--requests", "1,x"], "--requests"),
        (["--codes", "99999"], "exceed the context"),
        (["--small", "tyny"], "tiny"),
        (["--device", "cpu"], "--device says nothing without --pareto"),
        (["--n", "3"], "--n says nothing without --pareto"),
    ]
    + [(["--preset", "tyny"], "tiny"), (["--steps", "0"], "at least 1")],
)
def test_impossible_benches_say_what_can_be(options, said, capsys):
    with pytest.raises(SystemExit) as left:
        main([*SMALL, *options])
    err = capsys.readouterr().err
    assert left.value.code == 2 and said in err and err.count("\n") == 1  # nothing ran, so there is no progress


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--gpu", "--json"], "--json says nothing with --gpu"),
        (["--gpu", "--memory", "4GB"], "--memory says nothing with --gpu"),
        (["--gpu", "--pareto", "a.png"], "--gpu says nothing with --pareto"),
        (["--pareto", "a.png", "--n", "1", "--json"], "--json says nothing with --pareto"),
    ],
)
def test_what_another_kind_of_bench_would_not_heed_is_refused(options, said, capsys):
    with pytest.raises(SystemExit) as left:
        main(["bench", *options])
    assert left.value.code == 2 and said in capsys.readouterr().err


def test_a_bench_beyond_the_context_is_refused():
    with pytest.raises(RequestError, match="4033 tokens of prompt and 64 codes exceed the context of 4096"):
        set_up(load_preset("bench"), prompt=4033, nothing=9, codes=64, steps=4)
