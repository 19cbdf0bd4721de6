"""The paper's rule of pruning beside the official one, and the adaptive quota without any pruning."""

from dataclasses import replace

import pytest
import torch

from unveil.diffusion.guidance import Guidance
from unveil.errors import RequestError
from unveil.sampling import Allowed, Policy, Quota, Sprint, Task, unmask
from unveil.sampling.sprint import importance, kept_by_kind

RANK = torch.tensor([[0.9, 0.1, 0.5, 0.3, 0.8, 0.2, 0.7, 0.4]])
CODES = torch.tensor([[False, False, False, False, True, True, True, True]])
EVERYTHING = torch.ones_like(CODES)


@pytest.mark.parametrize(
    ("ratios", "kept"),
    [
        ({"keep_ratio": 0.5}, [0, 2, 4, 6]),  # half of each kind: text 0.9 0.5, codes 0.8 0.7
        ({"keep_ratio": 0.5, "text_keep_ratio": 1.0}, [0, 1, 2, 3, 4, 6]),
        ({"keep_ratio": 0.9, "image_keep_ratio": 0.3}, [0, 2, 3, 4]),  # floor(3.6) of the text, floor(1.2) of the codes
        ({"keep_ratio": 0.5, "text_keep_ratio": 0.0, "image_keep_ratio": 0.75}, [4, 6, 7]),
    ],
)
def test_the_papers_rule_keeps_its_share_of_each_kind(ratios, kept):
    assert kept_by_kind(RANK, CODES, EVERYTHING, Sprint(rule="paper", **ratios))[0].nonzero().flatten().tolist() == kept


def test_pads_are_neither_counted_nor_kept_and_of_equals_the_lower_comes_first():
    real = torch.tensor([[False, False, True, True, True, True, True, True]])
    sprint = Sprint(keep_ratio=0.5, rule="paper")
    assert kept_by_kind(RANK, CODES, real, sprint)[0].nonzero().flatten().tolist() == [2, 4, 6]
    assert kept_by_kind(torch.ones(1, 8), CODES, EVERYTHING, sprint)[0].nonzero().flatten().tolist() == [0, 1, 4, 5]


def test_importance_without_pins_is_the_papers_sum_and_finite():
    keys = torch.tensor([[[[3.0, 4.0], [0.0, 1.0]], [[0.0, 5.0], [0.0, 3.0]]]])  # lengths 5 1 and 5 3; means 5 and 2
    nothing, real = torch.zeros(1, 2, dtype=torch.bool), torch.ones(1, 2, dtype=torch.bool)
    found = importance(keys, torch.tensor([[0.2, 0.6]]), nothing, real, 0.25)
    assert found[0].tolist() == pytest.approx([0.25 * 5 / 3.5 + 0.75 * 0.2, 0.25 * 2 / 3.5 + 0.75 * 0.6])


def drawn(backbone, layout, sprint, *, reuse=True, steps=4):
    guidance = Guidance.simple(2.0, 0.7)
    task = Task([[1, 2, 3, *range(33, 44), 4]], 24, Allowed(32, 48), branches=[[[5, 6]]], guidance=guidance)
    events = []
    policy = replace(Policy(Quota(2.0, steps), 8), sprint=sprint, reuse_prefix=reuse)
    return unmask(backbone, task, policy, layout, on_step=events.append)[0], events


def test_the_papers_rule_prunes_otherwise_than_the_official_one_and_is_the_same_with_and_without_the_cache(
    backbone, layout
):
    paper = Sprint(keep_ratio=0.3, warmup=1, rule="paper")
    tokens, events = drawn(backbone, layout, paper)
    assert tokens == drawn(backbone, layout, paper, reuse=False)[0]
    official = drawn(backbone, layout, replace(paper, rule="official"))[1]
    differs = [not torch.equal(a.confidence, b.confidence) for a, b in zip(events, official, strict=True)]
    assert any(differs) and not differs[0]  # the first block's first step sees everything by either rule


@pytest.mark.parametrize("rule", ["official", "paper"])
def test_when_everything_is_kept_only_the_adaptive_quota_is_left(backbone, layout, rule):
    exact = drawn(backbone, layout, Sprint(warmup=0))
    kept = drawn(backbone, layout, Sprint(keep_ratio=1.0, warmup=1, rule=rule))
    assert kept[0] == exact[0] and len(kept[1]) == len(exact[1])


def test_the_adaptive_quota_spreads_what_is_masked_over_the_steps_that_are_left(backbone, layout):
    counts = [int(e.committed.sum()) for e in drawn(backbone, layout, Sprint(warmup=0), steps=3)[1]]
    assert counts == [1, *[3, 3, 2] * 3]  # one place left beside the prompt; then 8 over 3, 5 over 2, 2 over 1


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"rule": "mine"}, "no rule of pruning named 'mine'; there are official, paper"),
        ({"text_keep_ratio": -0.1}, "0 or more"),
    ],
)
def test_impossible_rules_are_refused(change, said):
    with pytest.raises(RequestError, match=said):
        Sprint(**change)
