import torch

from unveil.diffusion.guidance import Guidance
from unveil.sampling.canvas import Task, align, open_canvas
from unveil.sampling.draw import Allowed

ROW = torch.arange(1)


def canvas_of(layout, prompt, branch, tokens=4, crop=True):
    guidance = Guidance.simple(2, 0)
    task = Task([prompt], tokens, Allowed.codes(layout), branches=[[branch]], guidance=guidance, crop_branches=crop)
    return open_canvas(task, layout, 4, torch.device("cpu"))


def drawing(visible: torch.Tensor) -> list[str]:
    return ["".join("1" if v else "." for v in row) for row in visible.tolist()]


def test_align_fills_on_the_left_or_cuts_there():
    assert align([1, 2], 4, 9) == [9, 9, 1, 2]
    assert align([1, 2, 3], 2, 9) == [2, 3]
    assert align([], 2, 9) == [9, 9]
    assert align([1, 2], 0, 9) == []


def test_whole_blocks_of_mask_follow_the_prompt(layout):
    m = layout.mask
    assert canvas_of(layout, [1, 2, 3, 4, 5, 6], []).ids.tolist() == [[1, 2, 3, 4, 5, 6, m, m, m, m, m, m]]
    assert canvas_of(layout, [1, 2, 3, 4], [], tokens=4).ids.tolist() == [[1, 2, 3, 4, m, m, m, m]]


def test_branches_share_the_canvas_and_keep_their_own_prefix(layout):
    canvas = canvas_of(layout, [1, 2, 3, 4, 5, 6], [7, 8, 9])
    canvas.ids[0, 6] = 40
    m = layout.mask
    assert canvas.tokens(ROW, 0, 8).tolist() == [[[1, 2, 3, 4, 5, 6, 40, m]], [[m, m, m, 7, 8, 9, 40, m]]]
    assert canvas.tokens(ROW, 4, 8).tolist() == [[[5, 6, 40, m]], [[8, 9, 40, m]]]
    assert canvas.tokens(ROW, 8, 12).tolist() == [[[m] * 4], [[m] * 4]]


def test_a_longer_branch_keeps_its_tail_or_the_prompt_is_padded_to_it(layout):
    cropped = canvas_of(layout, [1, 2, 3], [5, 6, 7, 8, 9])
    assert cropped.prefixes.tolist() == [[[1, 2, 3]], [[7, 8, 9]]]
    padded = canvas_of(layout, [1, 2, 3], [5, 6, 7, 8, 9], crop=False)
    assert padded.prefixes.tolist() == [[[layout.pad, layout.pad, 1, 2, 3]], [[5, 6, 7, 8, 9]]]
    assert padded.pads.tolist() == [[2], [0]]


def test_positions_count_from_the_first_real_token(layout):
    canvas = canvas_of(layout, [1, 2, 3, 4, 5, 6], [7, 8, 9])
    assert canvas.positions(ROW, 0, 8).tolist() == [[[0, 1, 2, 3, 4, 5, 6, 7]], [[0, 0, 0, 0, 1, 2, 3, 4]]]
    assert canvas.positions(ROW, 6, 8).tolist() == [[[6, 7]], [[3, 4]]]


def test_nobody_sees_the_pads_and_blocks_stay_where_they_are(layout):
    canvas = canvas_of(layout, [1, 2, 3, 4, 5, 6], [7, 8, 9])
    assert drawing(canvas.visible(ROW, 0, 8)[0, 0]) == ["1111....", "1111....", "1111....", "1111....", *["1" * 8] * 4]
    assert drawing(canvas.visible(ROW, 0, 8)[1, 0]) == [*["...1...."] * 4, *["...11111"] * 4]
    assert drawing(canvas.visible(ROW, 6, 8)[1, 0]) == ["...11111"] * 2


def test_what_lies_under_the_pads_changes_nothing(layout, backbone):
    """The padded branch equals its real tokens alone, at the positions and in the blocks they have behind the pads."""
    canvas = canvas_of(layout, [1, 2, 3, 4, 5, 6, 7, 8, 9], [7, 8, 9])
    ids, positions = canvas.tokens(ROW, 0, 12)[1], canvas.positions(ROW, 0, 12)[1]
    visible = canvas.visible(ROW, 0, 12)[1]
    padded, _ = backbone.hidden(ids, positions, visible)
    bare, _ = backbone.hidden(ids[:, 6:], positions[:, 6:], visible[:, 6:, 6:])
    assert positions[0, 6:].tolist() == [0, 1, 2, 3, 4, 5]
    assert torch.allclose(padded[:, 6:], bare, atol=1e-12)
    assert padded.isfinite().all()
