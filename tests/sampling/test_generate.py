import pytest
import torch

from unveil.diffusion.guidance import Guidance
from unveil.errors import GenerationError, RequestError
from unveil.sampling.commit import Quota
from unveil.sampling.generate import generate_codes, generate_text, read_plan, think
from unveil.sampling.loop import Loop
from unveil.sampling.step import Policy

POLICY = Policy(Quota(threshold=0.9, steps=4), block_size=4)


def test_codes_come_row_by_row_and_without_their_offset(recite, layout):
    script = [0, 0, 0, *range(layout.image_offset, layout.size)]
    codes = generate_codes(Loop(recite(script), layout), [[1, 2, 3], [3, 2, 1]], layout, grid=(2, 3), policy=POLICY)
    assert codes.tolist() == [[[0, 1, 2], [3, 4, 5]]] * 2


def test_a_picture_is_guided_by_its_branches(backbone, layout):
    def codes(scale, branch):
        return generate_codes(
            Loop(backbone, layout),
            [[1, 2, 3, 4, 5]],
            layout,
            grid=(3, 3),
            policy=POLICY,
            branches=[[branch]],
            guidance=Guidance.simple(scale, 0.7),
        ).tolist()

    assert codes(1, [9]) == codes(1, [8, 7])
    assert codes(4, [9]) != codes(1, [9])
    assert codes(4, [9]) != codes(4, [8, 7])


@pytest.mark.parametrize("grid", [(0, 3), (3, -1)])
def test_an_empty_grid_is_refused(backbone, layout, grid):
    with pytest.raises(RequestError, match="1x1"):
        generate_codes(Loop(backbone, layout), [[1]], layout, grid=grid, policy=POLICY)


def test_official_text_may_hold_codes_and_ours_may_not(recite, layout):
    script = [0, 5, layout.image_offset + 2, layout.pad]
    official = Policy(POLICY.quota, 4, official=True)
    assert generate_text(Loop(recite(script), layout), [[1]], layout, tokens=6, policy=official)[0] == script[1:]
    assert generate_text(Loop(recite(script), layout), [[1]], layout, tokens=6, policy=POLICY)[0] == [5, 0, layout.pad]


def test_a_plan_ends_at_the_first_begin_of_image(recite, layout):
    header = [layout.soi, layout.size_token(2), layout.size_token(2), layout.boi]
    reciter = recite([0, 0, 7, 8, 9, *header, 5, 5, 5, layout.boi])
    plans = think(Loop(reciter, layout), [[1, 2], [4, 4]], layout, header=header, tokens=40, policy=POLICY)
    assert [plan.words for plan in plans] == [[7, 8, 9]] * 2
    assert [plan.prefix for plan in plans] == [[1, 2, 7, 8, 9, *header], [4, 4, 7, 8, 9, *header]]
    assert max(int(positions.max()) for _, positions, _ in reciter.calls) < 12  # no block after the header


def test_the_requested_header_replaces_the_one_the_plan_chose(layout):
    chosen = [layout.soi, layout.size_token(3), layout.size_token(3), layout.boi]
    wanted = [layout.soi, layout.size_token(2), layout.size_token(2), layout.boi]
    plan = read_plan([1, 2], [7, 8, *chosen], wanted, layout)
    assert (plan.words, plan.prefix) == ([7, 8], [1, 2, 7, 8, *wanted])


def test_a_plan_without_its_own_header_still_gets_the_requested_one(layout):
    wanted = [layout.soi, layout.size_token(2), layout.size_token(2), layout.boi]
    plan = read_plan([1, layout.soi], [7, 8, layout.boi], wanted, layout)
    assert (plan.words, plan.prefix) == ([7, 8], [1, layout.soi, 7, 8, *wanted])


def test_officially_a_plan_keeps_the_header_it_chose(layout):
    chosen = [layout.soi, layout.size_token(3), layout.size_token(3), layout.boi]
    assert read_plan([1, 2], [7, *chosen], [0], layout, official=True).prefix == [1, 2, 7, *chosen]


@pytest.mark.parametrize(("ending", "words"), [([], [7, 8, 5, 5]), (["pad"], [7, 8])])
def test_a_plan_that_never_begins_its_picture_is_followed_by_the_header(recite, layout, ending, words):
    script = [0, 0, 7, 8, *(getattr(layout, name) for name in ending), *[5] * 10]
    (plan,) = think(Loop(recite(script), layout), [[1, 2]], layout, header=[3, 4], tokens=4, policy=POLICY)
    assert plan.words == words and plan.prefix == [1, 2, *words, 3, 4]
    with pytest.raises(GenerationError, match="never began"):
        read_plan([1, 2], [7, 8], [3, 4], layout, official=True)


def test_a_plan_without_words_is_an_error(recite, layout):
    with pytest.raises(GenerationError, match="never began"):
        think(Loop(recite([layout.pad] * 10), layout), [[1, 2]], layout, header=[3, 4], tokens=4, policy=POLICY)


def test_results_live_on_the_cpu_as_whole_numbers(backbone, layout):
    codes = generate_codes(Loop(backbone, layout), [[1]], layout, grid=(1, 2), policy=POLICY)
    assert codes.dtype == torch.long and codes.device.type == "cpu"
