"""Wilson's interval, and means over families."""

import pytest

from unveil.evals.score import Outcome, average, by_family, family_mean, wilson


def test_an_interval_holds_its_mean_whatever_the_rounding() -> None:
    ends = [wilson(k / n, n) for n in range(1, 200) for k in (0, 1, n - 1, n)]
    assert [score for score in ends if not score.low <= score.value <= score.high] == []


def test_the_interval_is_wilsons() -> None:
    score = wilson(0.9, 500)  # statsmodels proportion_confint(450, 500, method="wilson")
    assert (score.low, score.high) == pytest.approx((0.870582, 0.923326), abs=2e-5)


def test_the_interval_of_a_perfect_score_does_not_reach_down_to_it_nor_above_one() -> None:
    score = wilson(1.0, 500)
    assert score.high == 1.0
    assert score.low == pytest.approx(1 / (1 + 1.959964**2 / 500), abs=1e-6)
    assert wilson(0.0, 500).low == pytest.approx(0.0, abs=1e-12)


def test_the_interval_covers_the_true_share_as_often_as_it_says() -> None:
    from math import comb

    n, p = 100, 0.93
    inside = [k for k in range(n + 1) if wilson(k / n, n).low <= p <= wilson(k / n, n).high]
    covered = sum(comb(n, k) * p**k * (1 - p) ** (n - k) for k in inside)
    assert 0.93 < covered < 0.98


def test_without_items_everything_is_possible() -> None:
    assert wilson(0.0, 0)[:3] == (0.0, 0.0, 1.0)


def test_a_frequent_family_does_not_count_more() -> None:
    outcomes = [Outcome("vqa", 1.0, "", family="a")] * 9 + [Outcome("vqa", 0.0, "", family="b")]
    assert average(outcomes).value == 0.9
    assert family_mean(outcomes).value == 0.5
    assert {f: s.value for f, s in by_family(outcomes).items()} == {"a": 1.0, "b": 0.0}
