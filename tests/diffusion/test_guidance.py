import math

import pytest
import torch

from unveil.diffusion.guidance import Guidance, guide
from unveil.errors import RequestError


def branches(count: int) -> torch.Tensor:
    return torch.randn(count, 2, 5, 30, generator=torch.Generator().manual_seed(4), dtype=torch.float64)


def test_simple_guidance_goes_away_from_the_unconditional_branch():
    c, u = logits = branches(2)
    assert torch.allclose(guide(logits, Guidance.simple(3.5, 0)), u + 3.5 * (c - u))


def test_edit_guidance_is_the_three_way_formula():
    full, no_text, no_image = logits = branches(3)
    expected = no_text + 2.5 * (full - no_text) + 1.2 * (no_text - no_image)
    assert torch.allclose(guide(logits, Guidance.edit(2.5, 1.2, 0)), expected)


def test_only_branches_with_weight_are_asked_for_and_given():
    full, no_text, _ = logits = branches(3)
    guidance = Guidance.edit(4, 0, 0)
    assert guidance.used == (0, 1)
    assert torch.allclose(guide(logits[:2], guidance), no_text + 4 * (full - no_text))
    assert Guidance.edit(2, 1, 0).used == (0, 2)  # the two halves cancel the branch without text
    assert torch.allclose(guide(logits[[0, 2]], Guidance.edit(2, 1, 0)), 2 * full - logits[2])


def test_scale_zero_leaves_the_unconditional_branch_with_the_spread_of_the_conditional():
    c, u = logits = branches(2)
    assert torch.allclose(guide(logits, Guidance.simple(0, 0)), u)
    rescaled = guide(logits, Guidance.simple(0, 1))
    assert torch.allclose(rescaled.std(-1), c.std(-1), atol=1e-5)


@pytest.mark.parametrize("guidance", [Guidance(), Guidance.simple(1, 0.7), Guidance.edit(0, 0, 0.7)])
def test_no_guidance_is_the_conditional_branch_itself(guidance):
    logits = branches(1)
    assert guidance.used == (0,)
    assert guide(logits, guidance).equal(logits[0])


def test_rescale_one_gives_the_conditional_spread_and_the_share_between_mixes():
    c, u = logits = branches(2)
    raw, full, half = (guide(logits, Guidance.simple(4, r)) for r in (0.0, 1.0, 0.5))
    assert torch.allclose(full.std(-1), c.std(-1), atol=1e-5)
    assert raw.std() > 1.5 * full.std()
    assert torch.allclose(half, (raw + full) / 2)


def test_each_position_is_rescaled_by_its_own_spread():
    logits = branches(2)
    logits[:, 0, 0] *= 100
    both, one = guide(logits, Guidance.simple(4, 0.7)), guide(logits[:, 1:], Guidance.simple(4, 0.7))
    assert torch.allclose(both[1:], one)


@pytest.mark.parametrize(
    "make",
    [lambda: Guidance((2.0, 0.5)), lambda: Guidance((math.nan, 1.0)), lambda: Guidance.simple(math.inf, 0),
     lambda: Guidance.edit(-1, 0, 0), lambda: Guidance.edit(0, -1, 0), lambda: Guidance.simple(2, 1.5)],
)  # fmt: skip
def test_impossible_guidance_is_refused(make):
    with pytest.raises(RequestError):
        make()
