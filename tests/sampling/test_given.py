"""Pinned tokens: positions that hold a token from the start are never written, and cost no denoise step."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.diffusion.guidance import Guidance
from unveil.errors import RequestError
from unveil.sampling.canvas import Task
from unveil.sampling.commit import Quota
from unveil.sampling.draw import Allowed, Draw
from unveil.sampling.generate import generate_codes
from unveil.sampling.loop import Loop, unmask
from unveil.sampling.sprint import Sprint
from unveil.sampling.step import Policy


@st.composite
def requests(draw):
    """Up to three rows, each with pins of its own; None is open."""
    rows, tokens = draw(st.integers(1, 3)), draw(st.integers(1, 18))
    cell = st.one_of(st.none(), st.integers(0, 29))
    row = st.one_of(st.lists(cell, min_size=tokens, max_size=tokens), st.just([7] * tokens), st.just([None] * tokens))
    return {
        "prompts": [draw(st.lists(st.integers(0, 29), min_size=5, max_size=5)) for _ in range(rows)],
        "given": [draw(row) for _ in range(rows)],
        "guided": draw(st.booleans()),
        "whole": draw(st.booleans()),
        "block": draw(st.integers(1, 7)),
        "quota": Quota(draw(st.sampled_from([0.2, 2.0])), draw(st.integers(1, 6))),
        "temperature": draw(st.sampled_from([0.0, 1.0])),
    }


def run(backbone, layout, r, *, rows=None, reuse_prefix=True, on_step=None, sprint=None):
    rows = list(range(len(r["prompts"]))) if rows is None else rows
    task = Task(
        [r["prompts"][i] for i in rows],
        len(r["given"][0]),
        Allowed.text(layout),
        branches=[[[9, 8]] * len(rows)] if r["guided"] else (),
        guidance=Guidance((2.0, -1.0)) if r["guided"] else Guidance(),
        whole_blocks=r["whole"],
        given=[[layout.mask if token is None else token for token in r["given"][i]] for i in rows],
    )
    policy = Policy(r["quota"], r["block"], Draw(r["temperature"]), reuse_prefix, sprint=sprint)
    generators = [torch.Generator().manual_seed(100 + i) for i in rows]
    return unmask(backbone, task, policy, layout, generators=generators, on_step=on_step)


@settings(max_examples=60, deadline=None)
@given(r=requests())
def test_what_is_pinned_comes_out_and_was_never_written(backbone, layout, r):
    events = []
    rows = run(backbone, layout, r, on_step=events.append)
    for i, (row, pinned) in enumerate(zip(rows, r["given"], strict=True)):
        assert [out for out, token in zip(row, pinned, strict=True) if token is not None] == [
            token for token in pinned if token is not None
        ]
        written = {e.start + at - e.prefix for e in events for at in e.committed[i].nonzero().flatten().tolist()}
        budget = range(len(pinned))
        assert [at for at in budget if at in written] == [at for at in budget if pinned[at] is None]
        assert layout.mask not in row


@settings(max_examples=60, deadline=None)
@given(r=requests())
def test_pins_of_one_row_change_nothing_for_another_and_the_cache_changes_nothing_at_all(backbone, layout, r):
    together = run(backbone, layout, r)
    assert together == [run(backbone, layout, r, rows=[i])[0] for i in range(len(r["prompts"]))]
    assert together == run(backbone, layout, r, reuse_prefix=False)


def test_a_row_that_sat_out_a_block_finds_its_prefix_again_also_with_sprint(backbone, layout):
    rows = {"prompts": [[1] * 5, [2] * 5], "given": [[None] * 12, [*[7] * 7, *[None] * 5]]}
    rest = {"guided": True, "whole": False, "block": 4, "quota": Quota(2.0, 3), "temperature": 0.0}
    sprint = Sprint(keep_ratio=0.5)
    together = run(backbone, layout, rows | rest, sprint=sprint)
    assert together == [run(backbone, layout, rows | rest, rows=[i], sprint=sprint)[0] for i in (0, 1)]


def test_a_pinned_token_is_seen_by_its_neighbours(backbone, layout):
    rest = {"prompts": [[1] * 5], "guided": False, "whole": False, "block": 9, "quota": Quota(2.0, 4)}
    drawn = [
        run(backbone, layout, rest | {"given": [[token, *[None] * 7]], "temperature": 0.0})[0][1:] for token in (3, 12)
    ]
    assert drawn[0] != drawn[1]


def test_a_block_that_is_wholly_pinned_costs_the_prefix_pass_alone(recite, layout):
    reciter, policy = recite([1] * 40), Policy(Quota(2.0, 2), 4)
    given = [[5] * 8 + [layout.mask] * 4]
    task = Task([[1] * 8], 12, Allowed.text(layout), given=given)
    assert unmask(reciter, task, policy, layout) == [[*[5] * 8, 1, 1, 1, 1]]
    assert [tokens.shape[1] for tokens, *_ in reciter.calls] == [20, 4]


def test_a_canvas_without_a_gap_is_not_looked_at(recite, layout):
    reciter = recite([1] * 40)
    task = Task([[1] * 8], 4, Allowed.text(layout), given=[[5] * 4])
    assert unmask(reciter, task, Policy(Quota(2.0, 2), 4), layout) == [[5] * 4] and reciter.calls == []


def test_given_codes_keep_their_places_in_the_grid(recite, layout):
    script, offset = [0, 0, *range(layout.image_offset, layout.size)], layout.image_offset
    given = [[layout.mask, offset + 9, layout.mask, layout.mask, offset + 8, layout.mask]]
    policy = Policy(Quota(0.9, 4), 4)
    codes = generate_codes(Loop(recite(script), layout), [[1, 2]], layout, grid=(2, 3), policy=policy, given=given)
    assert codes.tolist() == [[[0, 9, 2], [3, 8, 5]]]


@pytest.mark.parametrize("given", [[[1] * 3], [[1] * 4, [1] * 4]])
def test_given_tokens_of_another_shape_are_refused(layout, given):
    with pytest.raises(RequestError, match="4 tokens for each of the 1 prompts"):
        Task([[1]], 4, Allowed.text(layout), given=given)
