"""The grid of failures and the table of scores."""

from pathlib import Path

import numpy as np
from PIL import Image

from unveil.evals.failures import write_failures
from unveil.evals.play import Player
from unveil.evals.report import GOALS, table
from unveil.evals.scenes import SCORES, Evaluation, evaluate
from unveil.evals.score import Outcome


def picture(color: str) -> Image.Image:
    return Image.new("RGB", (128, 128), color)


def test_each_failed_item_is_a_cell_with_both_pictures_and_words(tmp_path: Path) -> None:
    pair = {"given": picture("red"), "result": picture("blue")}
    failed = [Outcome("edit_done", 0.0, "make it red", ("cell (0,0): expected a star",), **pair)]
    right = [Outcome("edit_done", 1.0, "", given=picture("lime"), result=picture("lime"))]
    assert write_failures([*failed, *right], tmp_path / "deep" / "failed.png") == 1
    pixels = np.asarray(Image.open(tmp_path / "deep" / "failed.png"))
    assert pixels.shape == (128 + 16 + 9 * 12, 2 * 128 + 24, 3)
    assert pixels[70, 70].tolist() == [255, 0, 0] and pixels[70, 210].tolist() == [0, 0, 255]
    assert (pixels[150:].min(-1) < 100).any()  # words


def test_of_each_score_only_the_first_few_are_shown(tmp_path: Path) -> None:
    failed = [Outcome(score, 0.0, "p", result="words only \u2603") for score in ("vqa", "edit_kept") for _ in range(5)]
    assert write_failures(failed, tmp_path / "f.png", most=3, columns=2) == 6
    assert Image.open(tmp_path / "f.png").size == (2 * 280, 3 * 252)


def test_without_failures_no_file_is_written(tmp_path: Path) -> None:
    assert write_failures([Outcome("vqa", 1.0, "")], tmp_path / "f.png") == 0
    assert not (tmp_path / "f.png").exists()


def test_the_table_shows_every_score_with_interval_floor_and_goals(guesser: Player) -> None:
    found: Evaluation = evaluate(guesser, 4)
    lines = table(found).splitlines()
    rows = [line for line in lines if line.startswith("|") and "objects with relation" in line]
    low, high = found.scores["t2i_two"].low, found.scores["t2i_two"].high
    assert rows == [
        f"| text-to-image, two objects with relation | 0.0% (below) | {100 * low:.1f}% to {100 * high:.1f}% "
        f"| {100 * found.floors['t2i_two']:.1f}% | 60.0% | 92.0% |"
    ]
    assert "`guess`" in lines[0]
    assert set(GOALS) == set(SCORES) - {"vqa_blind"}
    assert sum("(below)" in line for line in lines) == len(GOALS) - 1  # nothing is changed, so all else is kept
