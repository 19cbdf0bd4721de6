"""How two values are compared: what the manifest's tolerances mean, and what never agrees."""

import math

import pytest
import torch

from unveil.errors import RequestError
from unveil.parity.compare import Tolerance, compare


@pytest.mark.parametrize(
    ("words", "meaning"),
    [
        ("exact", Tolerance("exact")),
        ("relative 1e-4 of the tensor's max abs value", Tolerance("relative", 1e-4)),
        ("relative 1e-3 of max abs", Tolerance("relative", 1e-3)),
        ("relative 0.05", Tolerance("relative", 0.05)),
        ("absolute 1e-6", Tolerance("absolute", 1e-6)),
        ("relative L2 0.3 (informative)", Tolerance("L2", 0.3, informative=True)),
    ],
)
def test_the_words_of_a_manifest_have_these_meanings(words: str, meaning: Tolerance) -> None:
    assert Tolerance.read(words) == meaning


@pytest.mark.parametrize("words", ["", "close", "relative", "1e-4"])
def test_other_words_are_refused(words: str) -> None:
    with pytest.raises(RequestError, match="is not known"):
        Tolerance.read(words)


def test_each_measure_gives_its_deviation_and_the_first_place_beyond_it() -> None:
    recorded = torch.tensor([[3.0, 0.0], [0.0, 4.0]])
    ours = recorded + torch.tensor([[0.0, 0.0], [0.5, 0.3]])
    absolute = compare("a", ours, recorded, Tolerance("absolute", 0.2))
    assert absolute.deviation == 0.5 and absolute.where == "a[1, 0] is 0.5, recorded 0"
    relative = compare("r", ours, recorded, Tolerance("relative", 0.1))
    assert relative.deviation == 0.125 and relative.where == "r[1, 0] is 0.5, recorded 0"
    length = compare("l", ours, recorded, Tolerance("L2", 0.1))
    assert length.deviation == pytest.approx(math.sqrt(0.34) / 5) and length.where.startswith("l[1, 0] ")
    assert [compare("x", ours, recorded, Tolerance(m, 0.5)).where for m in ("absolute", "relative", "L2")] == [""] * 3  # type: ignore[arg-type]


def test_only_places_that_count_are_compared_and_there_must_be_one() -> None:
    recorded, ours = torch.tensor([[1.0, 2.0], [3.0, 100.0]]), torch.tensor([[1.0, 2.0], [3.0, 7.0]])
    tolerance = Tolerance("relative", 0.01)
    assert compare("x", ours, recorded, tolerance, torch.tensor([True, False])).where == ""
    ours[0, 1] = 2.03  # 1.5% of 2, and 0.03% of the 100 that does not count
    assert compare("x", ours, recorded, tolerance, torch.tensor([True, False])).where.startswith("x[0, 1] is 2.03")
    assert compare("x", ours, recorded, tolerance, torch.tensor([False, False])).where == "x has no place that counts"


def test_shapes_precisions_and_what_is_no_number_must_agree() -> None:
    x, loose = torch.tensor([1.0, math.nan, math.inf]), Tolerance("relative", 10.0)
    assert compare("x", x, x.clone(), loose).where == ""
    assert compare("x", torch.tensor([1.0, 2.0, math.inf]), x, loose).where == "x[1] is 2, recorded nan"
    assert compare("x", torch.tensor([math.nan, math.nan, math.inf]), x, loose).where == "x[0] is nan, recorded 1"
    assert compare("x", torch.tensor([1.0, math.nan, -math.inf]), x, loose).where == "x[2] is -inf, recorded inf"
    assert compare("x", x[:2], x, loose).where == "x has the shape 2, recorded 3"
    assert compare("x", x.double(), x, loose).where == "x is torch.float64, recorded torch.float32"
    assert compare("x", [1, 2], [1, 3], Tolerance("exact")).where == "x[1] is 2, recorded 3"
    assert compare("x", "a cat", "a cap", Tolerance("exact")).where == "x[4] goes on 't', recorded 'p'"


def test_where_all_that_was_recorded_is_zero_the_bound_is_absolute() -> None:
    zero, tolerance = torch.zeros(2), Tolerance("relative", 1e-4)
    assert compare("x", torch.tensor([0.0, 5e-5]), zero, tolerance).where == ""
    assert compare("x", torch.tensor([0.0, 5e-4]), zero, tolerance).where.startswith("x[1] is 0.0005")
