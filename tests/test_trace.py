"""A trace shows each cell masked until it is committed, and never changes one after."""

import io
import json
import re

import pytest
import torch
from PIL import Image

from unveil.sampling import StepEvent
from unveil.trace import Stage, Trace, encode, picture_stage, to_gif, to_page, word_stage
from unveil.trace.gif import CAPTION, MARGIN
from unveil.trace.record import runs

MASK = 99


def event(step, ids, fresh, sure, *, prefix=2, start=0, block=0):
    rows = torch.tensor([ids, [MASK] * len(ids)])
    committed = torch.tensor([fresh, [0] * len(ids)]).bool()
    return StepEvent(
        block, step, prefix, start, start + len(ids), rows, committed, torch.tensor([sure, [0.0] * len(ids)])
    )


# a canvas of four cells behind a prefix of two; the first block holds two of each
EVENTS = [
    event(0, [1, 2, 10, MASK], [0, 0, 1, 0], [0, 0, 0.9, 0.3]),
    event(1, [1, 2, 10, 11], [0, 0, 0, 1], [0, 0, 0, 0.6]),
    event(0, [MASK, 13, MASK, MASK], [0, 1, 0, 0], [0.2, 0.8, 0.1, 0.1], start=4, block=1),
    event(1, [12, 13, 50, MASK], [1, 0, 1, 0], [0.5, 0, 0.4, 0.1], start=4, block=1),
]


@pytest.fixture
def picture() -> Image.Image:
    made = Image.new("RGB", (8, 8), (200, 0, 0))
    made.paste((0, 0, 200), (4, 0, 8, 4))
    return made


@pytest.fixture
def stage(picture) -> Stage:
    return picture_stage(EVENTS, 0, MASK, (2, 2), picture)


def test_moments_go_from_all_masked_to_all_committed(stage):
    moments = [[cell.token for cell in moment] for moment in stage.moments()]
    assert moments == [
        [None] * 4, [10, None, None, None], [10, 11, None, None], [10, 11, None, 13], [10, 11, 12, 13]
    ]  # fmt: skip


def test_a_cell_keeps_the_confidence_it_was_committed_with(stage):
    last = list(stage.moments())[-1]
    assert [round(cell.confidence, 3) for cell in last] == [0.9, 0.6, 0.5, 0.8]


def test_masked_cells_show_how_sure_the_candidate_is_and_only_new_ones_are_fresh(stage):
    first, later = list(stage.moments())[1], list(stage.moments())[3]
    assert round(first[1].confidence, 3) == 0.3
    assert [cell.fresh for cell in first] == [True, False, False, False]
    assert [cell.fresh for cell in later] == [False, False, False, True]


def test_colors_are_the_means_of_the_cells_in_reading_order(stage):
    assert stage.colors() == [(200, 0, 0), (0, 0, 200), (200, 0, 0), (200, 0, 0)]


def test_a_row_that_took_no_part_has_no_steps():
    assert word_stage(EVENTS, 1, MASK, 0, str).steps == ()


def test_words_are_shown_as_text_up_to_their_end():
    stage = word_stage(EVENTS, 0, MASK, 3, lambda token: f"w{token}")
    assert stage.labels == ("w10", "w11", "w12") and stage.grid is None
    assert len(list(stage.moments())[-1]) == 3


def test_canvases_one_after_another_are_told_apart():
    later = event(0, [1, 2, 3, MASK], [0, 0, 0, 1], [0, 0, 0, 0.5], prefix=7, start=4, block=1)
    assert [len(run) for run in runs([*EVENTS, later, later])] == [4, 2]


def test_the_gif_shows_masked_then_committed_cells_then_the_picture(stage):
    with Image.open(io.BytesIO(to_gif(Trace("t", (stage,))))) as gif:
        assert gif.n_frames == 6  # five moments and the picture
        frames = []
        for number in range(6):
            gif.seek(number)
            frames.append(gif.convert("RGB"))
        assert gif.info["duration"] > 2000
    middle_of_last_cell = (frames[0].width * 3 // 4, CAPTION + (frames[0].height - CAPTION - MARGIN) * 3 // 4)
    near = [frame.getpixel(middle_of_last_cell) for frame in frames]
    assert near[0][0] < 90 and near[2][0] < 90
    assert all(abs(color[0] - 200) < 12 and color[2] < 12 for color in near[3:])


def test_a_gif_of_words_alone_can_be_made():
    stage = word_stage(EVENTS, 0, MASK, 3, lambda token: f"word {token} \n 家 ")
    with Image.open(io.BytesIO(to_gif(Trace("t", (stage,))))) as gif:
        assert gif.n_frames == 4  # one of the four steps lies behind the end


def test_the_page_holds_every_moment_and_needs_nothing_from_outside(stage):
    page = to_page(Trace("a star", (stage,)))
    data = json.loads(re.search(r"const stages = (.*);\n", page)[1])
    assert [sum(cell[0] for cell in moment) for moment in data[0]["moments"]] == [0, 1, 2, 3, 4]
    assert data[0]["colors"][:2] == ["#c80000", "#0000c8"] and data[0]["columns"] == 2
    assert not re.search(r"https?://|src=|href=", page) and data[0]["picture"].startswith("data:image/png;base64,")


def test_text_cannot_become_markup_in_the_page():
    nasty = "</script><img src=x onerror=alert(1)> @DATA@ @TITLE@"
    page = to_page(Trace(nasty, (word_stage(EVENTS, 0, MASK, 3, lambda token: nasty),)))
    assert "<img" not in page and page.count("</script>") == 1 and page.count("<script>") == 1
    data = json.loads(re.search(r"const stages = (.*);\n", page)[1])
    assert data[0]["labels"] == [nasty] * 3


def test_the_suffix_chooses_the_kind(stage, tmp_path):
    trace = Trace("t", (stage,))
    assert encode(trace, tmp_path / "a.GIF").startswith(b"GIF89a")
    assert encode(trace, tmp_path / "a.html").startswith(b"<!doctype html>")


def test_a_block_beyond_the_written_words_is_left_out():
    made = word_stage(EVENTS, 0, MASK, 1, str)
    assert made.labels == ("10",) and [step.first for step in made.steps] == [0]
    assert [[cell.token for cell in moment] for moment in made.moments()] == [[None], [10]]
