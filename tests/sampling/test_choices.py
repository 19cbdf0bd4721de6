"""Choices: every row becomes one of them exactly, and the one that would be said anyway stays the one."""

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from unveil.errors import RequestError
from unveil.sampling.canvas import Task
from unveil.sampling.choices import Choices, choose_among
from unveil.sampling.commit import Quota
from unveil.sampling.draw import Allowed, Draw
from unveil.sampling.loop import unmask
from unveil.sampling.sprint import Sprint
from unveil.sampling.step import Policy
from unveil.sampling.stop import Stop

MASK, ENDS = 31, tuple(range(10, 31))  # many ids end a text here, so that random texts are short


def test_what_is_possible_is_what_the_module_draws():
    choices = Choices.over([[1, 9], [1, 2, 3, 9], [4, 2, 9]], 4, torch.device("cpu"))
    line = torch.tensor([[MASK] * 4, [MASK, 2, MASK, MASK], [1, 2, MASK, MASK]])
    assert choices.possible(line, MASK).tolist() == [[True] * 3, [False, True, True], [False, True, False]]


def test_behind_the_end_of_a_choice_anything_may_stand():
    choices = Choices.over([[1, 9], [1, 2, 3, 9]], 4, torch.device("cpu"))
    assert choices.possible(torch.tensor([[MASK, MASK, 7, MASK]]), MASK).tolist() == [[True, False]]


def test_the_surest_position_rules_out_the_choices_that_differ():
    chances = torch.zeros(1, 3, 32)
    chances[0, 0, 1], chances[0, 0, 4] = 0.6, 0.4  # alone, the first position would say 1
    chances[0, 1, 2], chances[0, 1, 5] = 0.1, 0.9
    chances[0, 2, 9] = 1.0
    tokens, confidence = choose_among(
        [[1, 2, 9], [4, 5, 9]], torch.full((1, 3), MASK), MASK, chances.argmax(-1), chances
    )
    assert tokens.tolist() == [[4, 5, 9]] and confidence.tolist() == [[pytest.approx(0.4), pytest.approx(0.9), 1.0]]


@st.composite
def requests(draw):
    """Rows, choices of different lengths that share beginnings and ends, and any policy."""
    rows, few = draw(st.integers(1, 3)), st.integers(0, 3)
    prompt = st.lists(st.integers(0, 29), min_size=5, max_size=5)
    words = st.lists(st.lists(few, min_size=1, max_size=7), min_size=1, max_size=6, unique_by=tuple)
    return {
        "prompts": [draw(prompt) for _ in range(rows)],
        "choices": [[*word, 30] for word in draw(words)],
        "block": draw(st.integers(1, 9)),
        "quota": Quota(draw(st.sampled_from([0.0, 0.2, 2.0])), draw(st.integers(1, 9))),
        "reuse": draw(st.booleans()),
    }


def run(backbone, layout, r, *, choices, on_step=None, rows=None):
    prompts = [r["prompts"][i] for i in (range(len(r["prompts"])) if rows is None else rows)]
    task = Task(prompts, 8, Allowed.text(layout), Stop(ENDS), choices=choices)
    return unmask(backbone, task, Policy(r["quota"], r["block"], reuse_prefix=r["reuse"]), layout, on_step=on_step)


@settings(max_examples=120, deadline=None)
@given(r=requests())
def test_every_row_is_one_of_the_choices_exactly(backbone, layout, r):
    together = run(backbone, layout, r, choices=r["choices"])
    assert all(row in r["choices"] for row in together)
    assert together == [run(backbone, layout, r, choices=r["choices"], rows=[i])[0] for i in range(len(together))]


@settings(max_examples=80, deadline=None)
@given(r=requests())
def test_an_answer_that_is_among_the_choices_is_found_as_without_them(backbone, layout, r):
    free = run(backbone, layout, r, choices=())
    ended = [i for i, row in enumerate(free) if row[-1] in ENDS]
    assume(ended)
    for i in ended:
        assert run(backbone, layout, r, choices=[*r["choices"], free[i]], rows=[i])[0] == free[i]


@settings(max_examples=40, deadline=None)
@given(r=requests())
def test_the_order_of_the_choices_does_not_matter(backbone, layout, r):
    assert run(backbone, layout, r, choices=r["choices"]) == run(backbone, layout, r, choices=r["choices"][::-1])


def test_the_surer_of_two_choices_is_said(recite, layout):
    reciter = recite([0, 0, 5, 6, layout.pad], {2: 9.0, 3: 0.5})
    r = {"prompts": [[1, 2]], "quota": Quota(2.0, 8), "block": 8, "reuse": True}
    assert run(reciter, layout, r, choices=[[5, 7, layout.pad], [8, 6, layout.pad]]) == [[5, 7, layout.pad]]


def test_choices_that_do_not_fit_and_choices_by_chance_are_refused(backbone, layout):
    with pytest.raises(RequestError, match="a choice has 9 tokens, 8 may be written"):
        Task([[1]], 8, Allowed.text(layout), choices=[[1] * 8 + [30]])
    task = Task([[1]], 8, Allowed.text(layout), Stop((30,)), choices=[[1, 30]])
    for policy in (Policy(Quota(2.0, 2), 4, Draw(1.0)), Policy(Quota(2.0, 2), 4, sprint=Sprint())):
        with pytest.raises(RequestError, match="compared, not drawn"):
            unmask(backbone, task, policy, layout, generators=[torch.Generator()])
