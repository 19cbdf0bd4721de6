import torch

from unveil.sampling.canvas import Task
from unveil.sampling.commit import Quota
from unveil.sampling.draw import Allowed, Draw
from unveil.sampling.generate import generate_text
from unveil.sampling.loop import Loop, unmask
from unveil.sampling.step import Policy
from unveil.sampling.stop import Stop, first

ONE_BY_ONE = Policy(Quota(threshold=2.0, steps=4), block_size=4)


def rows(*flags: str) -> torch.Tensor:
    return torch.tensor([[c == "1" for c in row] for row in flags])


def test_first_is_the_index_of_the_first_true_or_the_length():
    assert first(rows("0110", "0000", "1000", "0001")).tolist() == [1, 4, 0, 3]


def test_a_row_ends_at_a_stop_id_that_no_mask_precedes():
    mask, eos, other = 9, 7, 8
    tokens = torch.tensor([[1, eos, mask], [mask, eos, 1], [1, 1, 1], [1, other, eos], [mask, mask, mask]])
    assert Stop((eos,)).reached(tokens, mask).tolist() == [True, False, False, True, False]
    assert Stop((other,)).reached(tokens, mask).tolist() == [False, False, False, True, False]
    assert Stop((eos, other)).places(tokens)[3].tolist() == [False, True, True]
    assert not Stop().reached(tokens, mask).any()


def text_of(recite, layout, text, sure=None, prompt=(2, 3), tokens=8, stop=None):
    events = []
    new = generate_text(Loop(recite(text, sure), layout), [prompt], layout, tokens=tokens, policy=ONE_BY_ONE,
                        stop=stop, on_step=events.append)  # fmt: skip
    return new[0], len(events)


def test_text_ends_with_its_end_token_and_the_rest_of_the_block_is_not_waited_for(recite, layout):
    text = [0, 0, 5, 6, layout.pad, 8, 9, 10]
    falling = {p: 20.0 - p for p in range(8)}  # surest first, so filled from left to right
    assert text_of(recite, layout, text, falling) == ([5, 6, layout.pad], 3)


def test_an_end_token_waits_for_the_masks_before_it(recite, layout):
    text = [0, 0, 0, 0, 5, 6, layout.pad, 8]
    eos_first = {6: 20.0, 4: 12.0, 5: 11.0, 7: 10.0}
    new, steps = text_of(recite, layout, text, eos_first, prompt=(2, 3, 4, 4))
    assert (new, steps) == ([5, 6, layout.pad], 3)


def test_without_at_once_the_block_is_filled_first_and_the_same_ids_leave(recite, layout):
    text = [0, 0, 0, 0, 5, layout.pad, 6, 8]
    falling = {p: 20.0 - p for p in range(8)}
    patient = Stop((layout.pad,), at_once=False)
    assert text_of(recite, layout, text, falling, (2, 3, 4, 4)) == ([5, layout.pad], 2)
    assert text_of(recite, layout, text, falling, (2, 3, 4, 4), stop=patient) == ([5, layout.pad], 4)


def test_an_end_token_in_the_prompt_ends_nothing(recite, layout):
    text = [0, 0, 5, 6, 7, 8, 9, layout.pad, 11, 12]
    new, _ = text_of(recite, layout, text, prompt=(layout.pad, 3))
    assert new == [5, 6, 7, 8, 9, layout.pad]


def test_without_an_end_token_the_budget_ends_the_text(recite, layout):
    new, _ = text_of(recite, layout, list(range(1, 20)), tokens=7)
    assert new == [3, 4, 5, 6, 7, 8, 9]


def test_an_end_token_beyond_the_budget_is_cut_off(recite, layout):
    text = [0, 0, 5, 6, 7, 8, layout.pad]
    assert text_of(recite, layout, text, tokens=4)[0] == [5, 6, 7, 8]


def test_any_of_several_stop_ids_ends_the_text(recite, layout):
    text = [0, 0, 5, layout.role_end, 7, layout.pad]
    stop = Stop((layout.pad, layout.role_end))
    assert text_of(recite, layout, text, stop=stop)[0] == [5, layout.role_end]


def test_a_picture_is_not_ended_by_any_id(recite, layout):
    code = layout.image_offset
    task = Task([[2, 3]], 6, Allowed.codes(layout))
    assert unmask(recite([code + i for i in range(10)]), task, ONE_BY_ONE, layout) == [[code + i for i in range(2, 8)]]


def test_one_row_ends_while_another_goes_on(layout, backbone):
    """Rows of a batch stop where they stop alone, though another row still runs."""
    policy = Policy(Quota(0.5, 4), 4, Draw(1.5))
    prompts = [[1, 2, 3], [4, 5, 6], [7, 8, 9], [9, 2, 2], [1, 1, 5], [2, 8, 1]]
    stop = Stop(tuple(range(12)))

    def run(indices):
        generators = [torch.Generator().manual_seed(i) for i in indices]
        return generate_text(Loop(backbone, layout), [prompts[i] for i in indices], layout, tokens=14, policy=policy,
                             stop=stop, generators=generators)  # fmt: skip

    together = run(range(6))
    assert together == [run([i])[0] for i in range(6)]
    assert len({len(row) for row in together}) > 2
