import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from unveil.errors import RequestError
from unveil.sampling.commit import Quota, commit_confident, commit_leading, quotas

TRUE, FALSE = True, False


def by_the_book(confidence: list[float], masked: list[bool], threshold: float, quota: int) -> list[bool]:
    """The official either-or rule, spelled out with lists."""
    waiting = [i for i, m in enumerate(masked) if m]
    high = [i for i in waiting if confidence[i] > threshold]
    best = sorted(waiting, key=lambda i: (-confidence[i], i))[:quota]
    chosen = high if len(high) >= quota else best
    return [i in chosen for i in range(len(masked))]


@given(block=st.integers(1, 40), steps=st.integers(1, 60))
def test_quotas_share_out_the_block_evenly_with_the_larger_parts_first(block, steps):
    parts = quotas(block, steps)
    assert len(parts) == steps
    assert sum(parts) == block
    assert list(parts) == sorted(parts, reverse=True)
    assert parts[0] - parts[-1] <= 1


def test_quotas_of_the_specification():
    assert quotas(32, 16) == (2,) * 16
    assert quotas(32, 12) == (3,) * 8 + (2,) * 4
    assert quotas(8, 12) == (1,) * 8 + (0,) * 4


def test_there_are_never_more_steps_than_tokens():
    assert Quota(0.9, 32).schedule(8, tokens=2) == (4, 4)


@given(data=st.data(), size=st.integers(1, 12), threshold=st.sampled_from([0.0, 0.3, 0.5, 0.95, 2.0]))
def test_the_rule_is_the_official_either_or_rule(data, size, threshold):
    few = st.sampled_from([0.0, 0.3, 0.4, 0.5, 0.95, 0.99, 1.0])  # few values, many ties
    confidence = data.draw(st.lists(few, min_size=size, max_size=size))
    masked = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    quota = data.draw(st.integers(0, size))
    found = commit_confident(torch.tensor([confidence], dtype=torch.float64), torch.tensor([masked]), threshold, quota)
    assert found[0].tolist() == by_the_book(confidence, masked, threshold, quota)


def test_of_equally_confident_positions_the_lower_comes_first():
    confidence, masked = torch.full((1, 40), 0.5), torch.ones(1, 40, dtype=torch.bool)
    assert commit_confident(confidence, masked, 0.9, 3)[0].nonzero().flatten().tolist() == [0, 1, 2]


def test_filled_positions_are_never_chosen_however_confident():
    masked = torch.tensor([[FALSE, TRUE, FALSE, TRUE]])
    assert commit_confident(torch.tensor([[1.0, 0.1, 1.0, 0.2]]), masked, 0.9, 4).tolist() == masked.tolist()


def test_each_row_follows_its_own_confidence():
    confidence = torch.tensor([[0.99, 0.98, 0.1], [0.1, 0.2, 0.3]])
    found = commit_confident(confidence, torch.ones(2, 3, dtype=torch.bool), 0.95, 1)
    assert found.tolist() == [[TRUE, TRUE, FALSE], [FALSE, FALSE, TRUE]]


@given(data=st.data(), size=st.integers(1, 12), threshold=st.sampled_from([0.0, 0.3, 0.95, 2.0]))
def test_from_left_to_right_a_position_waits_for_all_before_it(data, size, threshold):
    confidence = data.draw(st.lists(st.sampled_from([0.0, 0.3, 0.5, 0.95, 1.0]), min_size=size, max_size=size))
    masked = data.draw(st.lists(st.booleans(), min_size=size, max_size=size))
    quota = data.draw(st.integers(0, size))
    waiting = [i for i, m in enumerate(masked) if m]
    sure = next((n for n, i in enumerate(waiting) if not confidence[i] > threshold), len(waiting))
    chosen = waiting[: max(sure, quota)]
    found = commit_leading(torch.tensor([confidence], dtype=torch.float64), torch.tensor([masked]), threshold, quota)
    assert found[0].nonzero().flatten().tolist() == chosen


def test_a_quota_follows_its_order():
    confidence, masked = torch.tensor([[0.5, 0.99, 0.1, 0.7]]), torch.tensor([[TRUE, TRUE, TRUE, TRUE]])
    assert Quota(0.9, 4).commits(confidence, masked, 2).tolist() == [[FALSE, TRUE, FALSE, TRUE]]
    assert Quota(0.9, 4).commits(confidence, masked, 1).tolist() == [[FALSE, TRUE, FALSE, FALSE]]
    assert Quota(0.9, 4, "left_to_right").commits(confidence, masked, 1).tolist() == [[TRUE, FALSE, FALSE, FALSE]]
    assert Quota(0.4, 4, "left_to_right").commits(confidence, masked, 1).tolist() == [[TRUE, TRUE, FALSE, FALSE]]


@pytest.mark.parametrize(("threshold", "steps"), [(0.9, 0), (0.9, -1), (-0.1, 4), (float("nan"), 4)])
def test_impossible_quotas_are_refused(threshold, steps):
    with pytest.raises(RequestError):
        Quota(threshold, steps)
