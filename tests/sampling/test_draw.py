import math

import pytest
import torch

from unveil.errors import RequestError
from unveil.sampling.draw import Allowed, Draw, draw, hide, probabilities


def seeded(*seeds: int) -> list[torch.Generator]:
    return [torch.Generator().manual_seed(seed) for seed in seeds]


def logs(*chances: float) -> torch.Tensor:
    return torch.tensor(chances, dtype=torch.float64).log()


def visible_ids(logits: torch.Tensor) -> list[int]:
    return logits.isfinite().nonzero().flatten().tolist()


def test_temperature_zero_takes_the_likeliest_id_and_its_probability():
    tokens, confidence = draw(logs(0.2, 0.5, 0.3)[None, None], Draw(), [])
    assert tokens.tolist() == [[1]]
    assert confidence.item() == pytest.approx(0.5)


def test_of_equally_likely_ids_temperature_zero_takes_the_lowest():
    tokens, _ = draw(torch.tensor([[[0.0, 3.0, 3.0, 1.0, 3.0]]]), Draw(), [])
    assert tokens.tolist() == [[1]]


def test_temperature_divides_the_logits():
    found = probabilities(logs(0.2, 0.8), Draw(temperature=0.5))
    assert found.tolist() == pytest.approx([0.04 / 0.68, 0.64 / 0.68])


def test_top_k_keeps_the_k_likeliest():
    found = probabilities(logs(0.1, 0.4, 0.2, 0.3), Draw(1.0, top_k=2))
    assert found.tolist() == pytest.approx([0, 4 / 7, 0, 3 / 7])


def test_top_k_above_the_vocabulary_keeps_everything():
    assert probabilities(logs(0.1, 0.9), Draw(1.0, top_k=9)).tolist() == pytest.approx([0.1, 0.9])


@pytest.mark.parametrize(("p", "kept"), [(0.3, [1]), (0.45, [1, 3]), (0.75, [1, 2, 3]), (1.0, [0, 1, 2, 3])])
def test_top_p_keeps_the_fewest_ids_whose_sum_exceeds_p(p, kept):
    found = probabilities(logs(0.1, 0.4, 0.2, 0.3), Draw(1.0, top_p=p))
    assert found.nonzero().flatten().tolist() == kept
    assert found.sum().item() == pytest.approx(1)


def test_top_p_counts_what_top_k_left():
    found = probabilities(logs(0.1, 0.4, 0.2, 0.3), Draw(1.0, top_k=2, top_p=0.5))
    assert found.nonzero().flatten().tolist() == [1]  # 0.4 of 0.7 is more than half


def test_drawn_ids_follow_their_probabilities():
    logits = logs(0.15, 0.55, 0.3).expand(1, 20000, 3)
    tokens, confidence = draw(logits, Draw(1.0), seeded(3))
    share = torch.bincount(tokens[0], minlength=3) / 20000
    assert share.tolist() == pytest.approx([0.15, 0.55, 0.3], abs=0.015)
    assert torch.allclose(confidence[0], logits[0, 0].exp()[tokens[0]])


def test_a_row_draws_the_same_alone_and_in_a_batch():
    logits = torch.randn(3, 40, 10, generator=torch.Generator().manual_seed(0))
    together, _ = draw(logits, Draw(1.0), seeded(1, 2, 3))
    alone = [draw(logits[i : i + 1], Draw(1.0), seeded(i + 1))[0][0] for i in range(3)]
    assert together.tolist() == torch.stack(alone).tolist()
    assert together[0].tolist() != draw(logits[:1], Draw(1.0), seeded(2))[0][0].tolist()


def test_text_may_use_everything_below_the_codes_but_mask(layout):
    found = hide(torch.zeros(layout.size), Allowed.text(layout), layout.mask)
    assert visible_ids(found) == [i for i in range(layout.image_offset) if i != layout.mask]


def test_pictures_may_use_the_codes_alone(layout):
    found = hide(torch.zeros(layout.size), Allowed.codes(layout), layout.mask)
    assert visible_ids(found) == list(range(layout.image_offset, layout.size))


def test_official_text_may_use_every_id(layout):
    found = hide(torch.zeros(layout.size), Allowed.text(layout, official=True), layout.mask)
    assert visible_ids(found) == list(range(layout.size))


def test_official_pictures_may_not_use_mask_either(layout):
    found = hide(torch.zeros(layout.size), Allowed.codes(layout, official=True), layout.mask)
    assert visible_ids(found) == list(range(layout.image_offset, layout.size))


@pytest.mark.parametrize(
    "setting",
    [{"temperature": -1.0}, {"temperature": math.nan}, {"temperature": math.inf}, {"top_k": 0}, {"top_p": 0.0},
     {"top_p": 1.5}, {"top_p": math.nan}],
)  # fmt: skip
def test_impossible_draws_are_refused(setting):
    with pytest.raises(RequestError):
        Draw(**setting)
