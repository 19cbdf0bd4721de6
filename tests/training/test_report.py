"""The curves of a run as a picture."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unveil.errors import TrainingError
from unveil.training.report import is_share, plot_log, read_log


def write(path: Path, lines: list[dict[str, float]]) -> Path:
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


LINES = [
    {"step": s, "lr": 0.1 / s, "loss": 3.0 / s, "generate_exact": 1 - 1 / s, "step_seconds": 0.1} for s in (1, 2, 3)
]


def test_a_log_is_read_as_columns_with_nan_where_a_line_lacks_a_number(tmp_path: Path) -> None:
    steps, columns = read_log(write(tmp_path / "log.jsonl", [*LINES, {"step": 4, "loss": 0.5}]))
    assert steps == [1, 2, 3, 4]
    assert columns["loss"] == [3.0, 1.5, 1.0, 0.5]
    assert columns["lr"][:2] == [0.1, 0.05] and np.isnan(columns["lr"][3])


def test_a_last_line_cut_off_by_a_kill_is_left_out(tmp_path: Path) -> None:
    log = write(tmp_path / "log.jsonl", LINES)
    log.write_text(log.read_text() + '{"step": 4, "lo')
    assert read_log(log)[0] == [1, 2, 3]


def test_the_picture_has_a_panel_each_for_losses_shares_and_rate(tmp_path: Path) -> None:
    both = Image.open(plot_log(write(tmp_path / "log.jsonl", LINES), tmp_path / "deep" / "curves.png"))
    no_shares = [{k: v for k, v in line.items() if k != "generate_exact"} for line in LINES]
    fewer = Image.open(plot_log(write(tmp_path / "log.jsonl", no_shares), tmp_path / "fewer.png"))
    assert (both.format, both.size, fewer.size) == ("PNG", (1500, 400), (1000, 400))
    assert len(np.unique(np.asarray(both.convert("RGB")).reshape(-1, 3), axis=0)) > 10


def test_which_numbers_are_shares() -> None:
    assert [n for n in ("edit_exact", "words_exact", "use", "loss", "norm", "kl") if is_share(n)] == [
        "edit_exact", "words_exact", "use",
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "said"),
    [(None, "cannot be read"), ("", "no line yet"), ("[]\n", "not the log"), ("x\n", "not the log")],
)
def test_a_bad_log_is_one_line_that_names_the_file(tmp_path: Path, content: str | None, said: str) -> None:
    log = tmp_path / "log.jsonl"
    if content is not None:
        log.write_text(content)
    with pytest.raises(TrainingError, match=rf"log\.jsonl: {said}") as error:
        plot_log(log, tmp_path / "out.png")
    assert "\n" not in str(error.value)
    assert not (tmp_path / "out.png").exists()


def test_without_matplotlib_one_line_says_what_to_install(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    with pytest.raises(TrainingError, match="pip install matplotlib"):
        plot_log(write(tmp_path / "log.jsonl", LINES), tmp_path / "out.png")


def test_importing_the_report_imports_neither_matplotlib_nor_torch() -> None:
    code = "import sys, unveil.training.report; print({'matplotlib', 'torch'} & set(sys.modules))"
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert out.stdout.strip() == "set()"
