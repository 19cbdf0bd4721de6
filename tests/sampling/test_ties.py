"""Ties: of equal scores the lower position and the lower id, however the scores lie in memory (G4)."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.sampling.commit import commit_confident, commit_leading
from unveil.sampling.draw import Draw, draw, draw_at

FEW = (-1.0, 0.0, 0.5, 2.0)  # few values, many ties


@st.composite
def scores(draw_from):
    """Logits (B, L, V) of few distinct values, three kinds of positions, and which of them are masked."""
    rows, length, ids = draw_from(st.integers(1, 4)), draw_from(st.integers(1, 40)), draw_from(st.integers(2, 70))
    chance = torch.Generator().manual_seed(draw_from(st.integers(0, 2**32)))
    kinds = torch.tensor(FEW)[torch.randint(len(FEW), (3, ids), generator=chance)]
    values = kinds[torch.randint(3, (rows, length), generator=chance)]
    return values, torch.rand(rows, length, generator=chance) < 0.7


def lying_otherwise(values):
    """The same numbers in other orders of memory: transposed, with gaps, backwards row by row, repeated."""
    yield values.permute(2, 1, 0).contiguous().permute(2, 1, 0)
    yield values.transpose(0, 1).contiguous().transpose(0, 1)
    yield values.repeat_interleave(3, dim=-1)[..., ::3]
    yield torch.cat((values[:1], values))[1:]


def chosen(values, masked, quota, policy, numbers):
    """Tokens and commits of one denoise step."""
    tokens, confidence = draw(values, policy, []) if numbers is None else draw_at(values, policy, numbers)
    sure = [rule(confidence, masked, 0.4, quota) for rule in (commit_confident, commit_leading)]
    return tokens, *sure


def decides(given, quota, drawn):
    """Assert that neither memory nor company changes a choice; at temperature 0 it is the one of the book."""
    values, masked = given
    rows, length, _ = values.shape
    numbers = torch.rand(rows, length, generator=torch.Generator().manual_seed(quota)) if drawn else None
    policy = Draw(0.8, top_k=3, top_p=0.9) if drawn else Draw()
    once = chosen(values, masked, quota, policy, numbers)
    for other in lying_otherwise(values):
        assert other.equal(values) and all(map(torch.equal, once, chosen(other, masked, quota, policy, numbers)))
    for row in range(rows):  # chunk by chunk
        part = slice(row, row + 1)
        alone = chosen(values[part], masked[part], quota, policy, None if numbers is None else numbers[part])
        assert all(torch.equal(whole[part], a) for whole, a in zip(once, alone, strict=True))
    if not drawn:
        by_the_book = [[max(range(len(ids)), key=lambda i: (ids[i], -i)) for ids in row] for row in values.tolist()]
        assert once[0].tolist() == by_the_book
        confidence = draw(values, policy, [])[1].tolist()
        for i, row in enumerate(masked.tolist()):
            waiting = sorted((at for at, m in enumerate(row) if m), key=lambda at: (-confidence[i][at], at))
            expected = {*waiting[:quota], *(at for at in waiting if confidence[i][at] > 0.4)}
            assert {*once[1][i].nonzero().flatten().tolist()} == expected


@settings(max_examples=150, deadline=None)
@given(given=scores(), quota=st.integers(0, 12), drawn=st.booleans())
def test_ties_fall_to_the_lower_position_and_id_whatever_the_memory(given, quota, drawn):
    decides(given, quota, drawn)


@pytest.mark.slow
@settings(max_examples=5_000, deadline=None)
@given(given=scores(), quota=st.integers(0, 12), drawn=st.booleans())
def test_so_they_do_in_five_thousand_cases(given, quota, drawn):
    decides(given, quota, drawn)
