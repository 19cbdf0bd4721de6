"""In a batch-invariant pass a line's scores are the same bit for bit, alone and in any company and place."""

import pytest
import torch

from unveil.config import load_preset
from unveil.diffusion.guidance import Guidance
from unveil.engine import Engine, Request
from unveil.model.backbone import Backbone
from unveil.model.backbone.packed import Segment
from unveil.sampling import Allowed, Draw, Policy, Quota, Task

TILE = 32


@pytest.fixture(scope="module")
def wide() -> Backbone:
    """Wide enough for kernels that choose their ways by the number of rows, in float32."""
    config = load_preset("bench")
    sizes = config.backbone.model_copy(update={"layers": 2, "initializer_range": 0.1})
    model = Backbone(sizes, config.vocab).initialize(torch.Generator().manual_seed(1))
    return model.eval().requires_grad_(False)


def scores(model, lines, tile):
    """Scores of every position of lines of ids, in one pass."""
    segments = []
    for ids in lines:
        room = model.allocate(1, len(ids))[0]
        ends = [*range(32, len(ids), 32), len(ids)]
        starts = [0, *ends[:-1]]
        segments += [Segment(room, 0, a, b, torch.arange(b - a)) for a, b in zip(starts, ends, strict=True)]
    positions = torch.cat([torch.arange(len(ids)) for ids in lines])
    found = model.logits(model.packed(torch.cat(lines), positions, segments, tile), tile)
    return found.split([len(ids) for ids in lines])


def company(count, generator, longest=69):
    lengths = torch.randint(1, longest + 1, (count,), generator=generator).tolist()
    return [torch.randint(0, 2000, (n,), generator=generator) for n in lengths]


def mismatches(model, tile, needles=6, counts=(1, 4, 11), longest=69):
    generator, found = torch.Generator().manual_seed(0), 0
    for needle in company(needles, generator):
        (alone,) = scores(model, [needle], tile)
        for count in counts:
            others = company(count, generator, longest)
            for slot in (0, count // 2, count):
                together = scores(model, [*others[:slot], needle, *others[slot:]], tile)
                found += not torch.equal(together[slot], alone)
    return found


@pytest.mark.parametrize(
    ("needles", "counts", "longest"),
    [(6, (1, 4, 11), 69), pytest.param(64, range(1, 34), 12, marks=pytest.mark.slow)],
)
def test_scores_are_bitwise_equal_alone_and_in_any_company(wide, needles, counts, longest):
    assert mismatches(wide, TILE, needles, counts, longest) == 0


def test_without_tiles_they_are_not_so_the_test_above_can_see_it(wide):
    assert mismatches(wide, None) > 0


def picture(number, heard=None):
    prompt = [(7 * number + i) % 2000 for i in range(5 + 9 * number)]
    guidance = Guidance.simple(2.0, 0.7)
    task = Task([prompt], 20 + number, Allowed(2048, 3072), branches=[[prompt[:3]]], guidance=guidance)
    policy = Policy(Quota(0.95, 3), 32, Draw(1.0) if number % 2 else Draw())
    return Request(task, policy, torch.Generator().manual_seed(number), on_step=heard)


def test_every_step_of_every_request_is_the_same_alone_and_among_others(wide):
    layout = type("Layout", (), {"mask": 2035, "pad": 2032, "image_offset": 2048})()
    alone, together = [], []
    for number in range(5):
        Engine(wide, layout, batch_invariant=True).submit(picture(number, alone.append)).tokens()
    engine, heard = Engine(wide, layout, batch_invariant=True), [[] for _ in range(5)]
    handles = []
    for number in (3, 0, 4, 1, 2):  # they join while others are under way
        handles.append(engine.submit(picture(number, heard[number].append)))
        engine.step()
    for handle in handles:
        handle.tokens()
    together = [event for events in heard for event in events]
    assert len(alone) == len(together)
    for a, b in zip(alone, together, strict=True):
        assert torch.equal(a.ids, b.ids) and torch.equal(a.confidence, b.confidence)
