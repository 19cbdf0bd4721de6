"""The ratios in the README are those that were kept, each beside its bar."""

import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def script(monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.syspath_prepend(ROOT / "benchmarks")
    import table

    return table


def test_the_readme_shows_what_was_kept(script: ModuleType) -> None:
    kept = ROOT / "benchmarks/results/x86_64-2-cores"
    bench, part1 = (json.loads(Path(f"{kept}{end}.json").read_text()) for end in ("", "-part1"))
    readme = (ROOT / "README.md").read_text()
    shown = readme.split("<!-- bench -->\n")[1].split("\n<!-- end of bench -->")[0]
    assert shown == script.table(bench, part1, shown.split("\n")[0])
    assert bench["identical"] is True and bench["cache_bytes"] == bench["cache_formula"]


def test_a_ratio_under_its_bar_says_so(script: ModuleType) -> None:
    bench = {
        "same_codes": 1020, "codes": 1024, "engine_vs_plain": 6.0, "engine_vs_sprint": 2.49, "cache_bytes": 5,
        "engine_vs_sprint_published": 1.0, "batch16_vs_serial": 1.804, "invariant_cost": 1.5, "cache_formula": 6,
    }  # fmt: skip
    lines = script.table(bench, {"now_vs_part1": 1.4, "same_steps_vs_part1": 1.1}, "here").split("\n")
    assert lines[0] == "here" and "1020 of 1024 codes" in lines[4]
    assert [line.split(" | ", 1)[1] for line in lines[4:9]] == [
        "6.00 | 6 |",
        "2.49 (below) | 2.5 |",
        "1.00 | - |",
        "1.80 | 1.8 |",
        "1.40 (below) | 1.5 |",
    ]
    assert lines[-1].endswith("5 bytes, 6 by formula.")
