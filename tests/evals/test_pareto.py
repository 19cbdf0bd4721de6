"""The sweep: settings and points are what they say, the work is counted, and the front is what no other beats."""

import csv
import dataclasses
import io

import pytest
from PIL import Image

from unveil.evals.pareto import CACHES, FIRST, Point, Setting, as_csv, best, measure, sweep
from unveil.evals.pareto_plot import plot
from unveil.scenes.example import example


def point(quality: float, passes: float, **changes) -> Point:
    made = Point(8, 1.0, 1.5, "exact", quality, quality - 0.1, quality + 0.1, passes, 100 * passes, passes / 10)
    return dataclasses.replace(made, **changes)


@pytest.fixture(scope="module")
def points(uni):
    settings = [Setting(4, 1.0, 2.0, cache) for cache in CACHES] + [Setting(1, 1.0, 1.0), Setting(4, 1.0, 1.0)]
    return list(measure(uni, settings, 1, lambda *said: None))


def test_a_sweep_has_each_setting_once_and_every_cache(uni):
    settings = sweep(32, 1.0, 1.5)
    assert len(settings) == len(set(settings)) and {s.cache for s in settings} == set(CACHES)
    assert {s.steps for s in settings} == {1, 2, 4, 8, 16, 32} and Setting(32, 1.0, 1.5) in settings
    assert {s.steps for s in sweep(4, 1.0, 1.5)} == {1, 2, 4}


def test_the_exact_cache_saves_positions_and_nothing_else(points):
    exact, none = points[:2]
    assert (exact.quality, exact.passes) == (none.quality, none.passes) and exact.positions < 0.7 * none.positions


def test_sprint_is_told_apart_and_computes_less_than_the_whole_window(points):
    assert [p.cache for p in points[:4]] == list(CACHES)
    whole, *pruned = (p.positions / p.passes for p in points[1:4])
    assert max(pruned) < 0.7 * whole


def test_passes_are_those_of_one_picture_whatever_the_branches(uni, points):
    one, four = points[4], points[5]
    assert 2 <= one.passes <= 4 and 4 * one.passes >= four.passes > 2 * one.passes
    assert four.passes == points[0].passes and points[0].positions > 1.5 * four.positions  # two branches are two rows


def test_nobody_beats_the_front():
    cheap, dear, worse, equal = point(0.5, 10), point(0.9, 40), point(0.4, 20), point(0.5, 12)
    assert best([dear, equal, worse, cheap], "passes") == [cheap, dear]
    assert best([point(0.2, 10), point(0.3, 10)], "seconds") == [point(0.3, 10)]


def test_the_table_holds_every_point(points):
    rows = list(csv.DictReader(io.StringIO(as_csv(points))))
    assert len(rows) == len(points) and rows[0]["cache"] == "exact"
    assert float(rows[1]["positions"]) == pytest.approx(points[1].positions, abs=1e-3)


def test_the_plot_is_a_picture(points):
    with Image.open(io.BytesIO(plot(points, "title"))) as picture:
        assert picture.format == "PNG" and picture.width > 1000


def test_its_prompts_are_not_those_of_the_scores():
    swept = {example(task, FIRST + i, "train").prompt for task in ("t2i_one", "t2i_two") for i in range(20)}
    assert len(swept) == 40 and swept.isdisjoint(example("t2i_two", i, "test").prompt for i in range(50))


def test_the_verb_writes_plot_and_table(model_directory, tmp_path, capsys):
    from unveil.cli import main

    target = tmp_path / "p.png"
    for arguments, code in (
        ([target, "--n", 1, "-q"], 0),
        ([tmp_path / "p.txt"], 2),
        ([target, "--n", 0], 2),
    ):
        with pytest.raises(SystemExit) as left:
            main(["bench", "--pareto", *map(str, arguments), "--model", str(model_directory)])
        assert left.value.code == code
    assert target.read_bytes().startswith(b"\x89PNG") and "passes" in capsys.readouterr().out
    assert len((tmp_path / "p.csv").read_text().splitlines()) == 1 + len(sweep(4, 1.0, 1.5))
