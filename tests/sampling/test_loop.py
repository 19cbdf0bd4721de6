import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.diffusion.guidance import Guidance
from unveil.errors import GenerationError, PromptError, RequestError
from unveil.sampling.canvas import Task, open_canvas
from unveil.sampling.commit import Quota
from unveil.sampling.draw import Allowed, Draw
from unveil.sampling.loop import finish, unmask
from unveil.sampling.step import Policy
from unveil.sampling.stop import Stop

ORDERS = st.sampled_from(["confidence", "left_to_right"])
IDS = st.integers(0, 29)  # below MASK and the codes of the tiny vocabulary; 30 ends a text


@st.composite
def requests(draw):
    """Any task of up to three rows, with any policy."""
    rows, prefix = draw(st.integers(1, 3)), draw(st.integers(1, 14))
    prompt = st.lists(IDS, min_size=prefix, max_size=prefix)
    branch = st.lists(IDS, min_size=0, max_size=20)
    weights = draw(st.sampled_from([(1.0,), (2.5, -1.5), (0.0, 1.0), (3.0, -1.0, -1.0), (4.0, -3.0, 0.0)]))
    return {
        "prompts": [draw(prompt) for _ in range(rows)],
        "branches": [[draw(branch) for _ in range(rows)] for _ in weights[1:]],
        "guidance": Guidance(weights, rescale=draw(st.sampled_from([0.0, 0.7]))),
        "tokens": draw(st.integers(1, 18)),
        "codes": draw(st.booleans()),
        "stops": draw(st.booleans()),
        "crop": draw(st.booleans()),
        "whole": draw(st.booleans()),
        "block": draw(st.integers(1, 9)),
        "quota": Quota(draw(st.sampled_from([0.0, 0.2, 0.6, 2.0])), draw(st.integers(1, 12)), draw(ORDERS)),
        "temperature": draw(st.sampled_from([0.0, 0.0, 1.0])),
    }


def run(backbone, layout, r, *, reuse_prefix=True, on_step=None, rows=None):
    rows = list(range(len(r["prompts"]))) if rows is None else rows
    task = Task(
        [r["prompts"][i] for i in rows],
        r["tokens"],
        Allowed.codes(layout) if r["codes"] else Allowed.text(layout),
        Stop((layout.pad, 3, 4, 5)) if r["stops"] else Stop(),
        [[branch[i] for i in rows] for branch in r["branches"]],
        r["guidance"],
        whole_blocks=r["whole"],
        crop_branches=r["crop"],
    )
    policy = Policy(r["quota"], r["block"], Draw(r["temperature"]), reuse_prefix)
    generators = [torch.Generator().manual_seed(100 + i) for i in rows]
    return unmask(backbone, task, policy, layout, generators=generators, on_step=on_step)


@settings(max_examples=60, deadline=None)
@given(r=requests())
def test_keeping_the_prefix_gives_the_tokens_of_computing_it_again(backbone, layout, r):
    assert run(backbone, layout, r) == run(backbone, layout, r, reuse_prefix=False)


def conserves(backbone, layout, r):
    """Assert that a request fills every position once, in time, with ids it may use, and changes nothing else (G11)."""
    events = []
    new = run(backbone, layout, r, on_step=events.append)
    longest = max(len(row) for branch in [r["prompts"], *r["branches"]] for row in branch)
    prefix, length = events[0].prefix, r["tokens"]
    assert prefix == (len(r["prompts"][0]) if r["crop"] else prefix) and prefix <= longest
    steps = min(r["quota"].steps, length)
    end = math.ceil((prefix + length) / r["block"]) * r["block"] if r["whole"] else prefix + length
    line = torch.full((len(new), end), layout.mask)
    filled = torch.zeros_like(line)
    for e in events:
        assert (e.start, e.end) == (e.block * r["block"], min(end, (e.block + 1) * r["block"]))
        assert e.step < steps
        span = slice(e.start, e.end)
        filled[:, span] += e.committed
        line[:, span] = torch.where(e.committed, e.ids, line[:, span])
        own = torch.arange(e.start, e.end) >= prefix
        assert line[:, span][:, own].tolist() == e.ids[:, own].tolist()  # nothing else changed, ever
        assert not (e.committed & (e.ids == layout.mask)).any()
        assert ((e.confidence >= 0) & (e.confidence <= 1)).all()
        assert (e.confidence[(e.ids != layout.mask) & ~e.committed] == 0).all()
    assert int(filled[:, :prefix].sum()) == 0
    low, high = (layout.image_offset, layout.size) if r["codes"] else (0, layout.image_offset)
    for i, row in enumerate(new):
        assert row == line[i, prefix : prefix + len(row)].tolist()
        assert (filled[i, prefix : prefix + len(row)] == 1).all()
        assert all(low <= token < high and token != layout.mask for token in row)
        ended = r["stops"] and row[-1] in (layout.pad, 3, 4, 5)
        assert len(row) == length or ended
        if not r["stops"]:
            assert (filled[i, prefix:] == 1).all()  # the last block is filled in full


@settings(max_examples=60, deadline=None)
@given(r=requests())
def test_every_position_is_filled_once_in_time_and_only_with_allowed_ids(backbone, layout, r):
    conserves(backbone, layout, r)


@pytest.mark.slow
@settings(max_examples=10_000, deadline=None)
@given(r=requests())
def test_so_it_is_in_ten_thousand_cases(backbone, layout, r):
    conserves(backbone, layout, r)


@settings(max_examples=25, deadline=None)
@given(r=requests())
def test_a_row_gives_the_same_alone_and_in_a_batch(backbone, layout, r):
    alone_crop = {**r, "crop": True}  # padding to the longest branch is a matter of the whole batch
    together = run(backbone, layout, alone_crop)
    assert together == [run(backbone, layout, alone_crop, rows=[i])[0] for i in range(len(r["prompts"]))]


def simple(layout, **changes):
    given = {"prompts": [[1, 2, 3, 4, 5]], "tokens": 9, "allowed": Allowed.text(layout), **changes}
    return Task(**given)


def test_a_seed_decides_what_is_drawn(backbone, layout):
    policy = Policy(Quota(0.9, 4), 4, Draw(1.0))
    drawn = [
        unmask(backbone, simple(layout), policy, layout, generators=[torch.Generator().manual_seed(seed)])
        for seed in (1, 1, 2)
    ]
    assert drawn[0] == drawn[1] != drawn[2]


def test_a_listener_changes_nothing(backbone, layout):
    policy = Policy(Quota(0.9, 4), 4)
    events = []
    heard = unmask(backbone, simple(layout), policy, layout, on_step=events.append)
    assert heard == unmask(backbone, simple(layout), policy, layout)
    assert [e.block for e in events] == sorted(e.block for e in events)
    assert [(e.start, e.step) for e in events][0] == (4, 0)


def test_the_prefix_is_computed_once_and_each_block_thereafter(recite, layout):
    reciter, policy = recite([1] * 40), Policy(Quota(2.0, 2), 4)
    unmask(reciter, simple(layout, prompts=[[1] * 10], tokens=8), policy, layout)
    assert [tokens.shape[1] for tokens, *_ in reciter.calls] == [12, 8, 4, 8, 4]
    assert tuple(reciter.calls[1][2].shape) == (1, 8, 16)


def test_without_reuse_the_whole_window_is_computed_every_time(recite, layout):
    reciter, policy = recite([1] * 40), Policy(Quota(2.0, 2), 4, reuse_prefix=False)
    unmask(reciter, simple(layout, prompts=[[1] * 10], tokens=8), policy, layout)
    assert [tokens.shape[1] for tokens, *_ in reciter.calls] == [12, 16, 16, 20, 20]


def test_the_head_runs_on_the_active_block_alone(recite, layout):
    reciter, policy = recite([1] * 40), Policy(Quota(2.0, 2), 4)
    unmask(reciter, simple(layout, prompts=[[1] * 10], tokens=8), policy, layout)
    assert {tuple(shape) for shape in reciter.heads} == {(1, 4)}


class Counting:
    """A denoiser that counts the rows it is given."""

    def __init__(self, denoiser):
        self.denoiser, self.rows = denoiser, []

    def hidden(self, tokens, positions, visible, past=None):
        self.rows.append(len(tokens))
        return self.denoiser.hidden(tokens, positions, visible, past)

    def logits(self, states):
        return self.denoiser.logits(states)


def test_only_rows_that_still_wait_for_tokens_are_computed(backbone, layout):
    counting, events = Counting(backbone), []
    prompts = [[i, 2, 3, 4, 5] for i in range(6)]
    task = simple(layout, prompts=prompts, tokens=12, stop=Stop(tuple(range(8))))
    unmask(counting, task, Policy(Quota(0.5, 6), 6), layout, on_step=events.append)
    waiting = [((e.ids == layout.mask) | e.committed).any(-1) & (e.confidence > 0).any(-1) for e in events]
    assert counting.rows == [int(w.sum()) for w in waiting]
    assert len(set(counting.rows)) > 2


def test_a_branch_of_weight_zero_is_not_computed(recite, layout):
    reciter, policy = recite([1] * 40), Policy(Quota(2.0, 2), 4)
    branches = [[[1, 2]], [[3, 4]]]
    unmask(reciter, simple(layout, branches=branches, guidance=Guidance.edit(4, 0, 0.7)), policy, layout)
    assert {len(tokens) for tokens, *_ in reciter.calls} == {2}
    unmask(reciter, simple(layout, branches=branches, guidance=Guidance.simple(1, 0.7)), policy, layout)
    assert len(reciter.calls[-1][0]) == 1


def test_guidance_needs_its_branches(layout):
    with pytest.raises(RequestError, match="needs 2 branches, got 1"):
        simple(layout, branches=[[[1]]], guidance=Guidance.edit(2, 1, 0.7))
    with pytest.raises(RequestError, match="one prefix for each prompt"):
        simple(layout, branches=[[[1], [2]]], guidance=Guidance.simple(2, 0.7))


def test_prompts_of_different_lengths_are_refused(layout):
    with pytest.raises(RequestError, match="same number"):
        simple(layout, prompts=[[1], [1, 2]])


def test_an_empty_batch_and_an_empty_budget_are_refused(layout):
    with pytest.raises(RequestError, match="no prompt"):
        simple(layout, prompts=[])
    with pytest.raises(RequestError, match="at least 1"):
        simple(layout, tokens=0)


def test_mask_in_a_prompt_is_refused(backbone, layout):
    with pytest.raises(PromptError, match="MASK"):
        unmask(backbone, simple(layout, prompts=[[1, layout.mask]]), Policy(Quota(0.9, 4), 4), layout)


def test_temperature_needs_a_generator_for_each_prompt(backbone, layout):
    with pytest.raises(RequestError, match="generator"):
        unmask(backbone, simple(layout), Policy(Quota(0.9, 4), 4, Draw(1.0)), layout)


def test_a_mask_that_would_leave_is_an_error(layout):
    canvas = open_canvas(simple(layout), layout, 4, torch.device("cpu"))
    with pytest.raises(GenerationError, match="masked"):
        finish(canvas, simple(layout))


def test_a_predicted_mask_stays_only_officially(recite, layout):
    text = [0, 0, 5, layout.mask, 7, 8]
    task = simple(layout, prompts=[[1, 2]], tokens=2, allowed=Allowed.text(layout, official=True))
    assert unmask(recite(text), task, Policy(Quota(0.5, 2), 4), layout) == [[5, layout.mask]]
    sane = unmask(recite(text), simple(layout, prompts=[[1, 2]], tokens=2), Policy(Quota(0.5, 2), 4), layout)
    assert sane == [[5, 0]]  # all others are equally unlikely; the lowest id wins
