"""The engine gives the tokens of the plain loop, alone and in company; its scores differ by roundings at most."""

import random
from copy import deepcopy
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.diffusion.blocks import block_of, visible_block_causal
from unveil.diffusion.guidance import Guidance
from unveil.engine import Engine, Request
from unveil.errors import RequestError
from unveil.model.backbone import recorded as module
from unveil.model.backbone.packed import Segment
from unveil.model.backbone.recorded import Recorded
from unveil.sampling import Allowed, Draw, Policy, Quota, Sprint, Stop, Task, unmask

ORDERS = st.sampled_from(["confidence", "left_to_right"])
IDS = st.integers(0, 29)  # below MASK and the codes of the tiny vocabulary; 30 ends a text


@st.composite
def requests(draw):
    """A text (perhaps one of a few), a picture (perhaps with pinned codes), an edit, a plan, the picture of a story."""
    kind = draw(st.sampled_from(["text", "picture", "edit", "think", "story"]))
    prompt, branch = st.lists(IDS, min_size=1, max_size=14), st.lists(IDS, min_size=0, max_size=20)
    weights = {"picture": [(2.5, -1.5), (0.0, 1.0), (1.0,)], "edit": [(3.0, -1.0, -1.0), (4.0, -3.0, 0.0)]}
    weights["story"] = [*weights["picture"], *weights["edit"]]
    guidance = Guidance(draw(st.sampled_from(weights.get(kind, [(1.0,)]))), draw(st.sampled_from([0.0, 0.7])))
    tokens = draw(st.integers(1, 18))
    pinned = st.lists(st.sampled_from([31, 31, 35, 40]), min_size=tokens, max_size=tokens)  # 31 is MASK
    choices = [[*draw(st.lists(IDS, max_size=tokens - 1)), 30] for _ in range(draw(st.sampled_from([0, 0, 1, 3])))]
    choices = choices if kind == "text" else []
    task = Task(
        [draw(prompt)],
        tokens,
        {"text": Allowed(0, 32), "think": Allowed(0, 48)}.get(kind, Allowed(32, 48)),
        Stop((30, 22, 3, 4), draw(st.booleans())) if kind in ("text", "think") else Stop(),
        [[draw(branch) or [7] * (guidance.weights[0] == 0)] for _ in guidance.weights[1:]],  # not MASK alone: all tie
        guidance,
        whole_blocks=draw(st.booleans()),
        crop_branches=kind != "story",
        choices=choices,
        given=[draw(pinned)] if kind == "picture" and draw(st.booleans()) else (),
    )
    quota = Quota(draw(st.sampled_from([0.0, 0.2, 0.6, 2.0])), draw(st.integers(1, 12)), draw(ORDERS))
    chance = Draw() if choices else draw(st.sampled_from([Draw(), Draw(1.0), Draw(0.8, top_k=5, top_p=0.9)]))
    return task, Policy(quota, draw(st.integers(1, 9)), chance), draw(st.integers(0, 2**32))


def asked(drawn, **more):
    task, policy, seed = drawn
    return Request(task, policy, torch.Generator().manual_seed(seed), **more)


def plainly(backbone, layout, drawn):
    """By the plain loop: everything computed again at every step."""
    task, policy, seed = drawn
    random = [torch.Generator().manual_seed(seed)]
    return unmask(backbone, task, replace(policy, reuse_prefix=False), layout, generators=random)[0]


@settings(max_examples=80, deadline=None)
@given(drawn=requests(), tiled=st.booleans())
def test_the_engine_gives_the_tokens_of_the_plain_loop(backbone, layout, drawn, tiled):
    engine = Engine(backbone, layout, batch_invariant=tiled)
    assert engine.submit(asked(drawn)).tokens() == plainly(backbone, layout, drawn)
    assert engine.cache_bytes == 0 and not engine.running


@settings(max_examples=60, deadline=None)
@given(everyone=st.lists(requests(), min_size=1, max_size=4))
def test_recorded_passes_give_the_tokens_of_the_plain_loop(backbone, layout, replayed, everyone):
    recorded = Recorded(backbone, replayed)
    engine = Engine(recorded, layout)
    handles = [engine.submit(asked(drawn)) for drawn in everyone]
    assert [handle.tokens() for handle in handles] == [plainly(backbone, layout, drawn) for drawn in everyone]
    assert bool(recorded.recordings) == bool(engine.positions)  # with all pinned there is no pass


def test_passes_that_are_large_or_batch_invariant_are_not_recorded(backbone, layout, numbered, replayed, monkeypatch):
    tiled, large = Recorded(backbone, replayed), Recorded(backbone, replayed)
    wanted = Engine(backbone, layout).submit(numbered(1)).tokens()
    assert Engine(tiled, layout, batch_invariant=True).submit(numbered(1)).tokens() == wanted
    monkeypatch.setattr(module, "MAX_ROWS", 0)
    assert Engine(large, layout).submit(numbered(1)).tokens() == wanted
    assert not tiled.recordings and not large.recordings


@settings(max_examples=25, deadline=None)
@given(everyone=st.lists(requests(), min_size=2, max_size=6), waits=st.lists(st.integers(0, 3), min_size=6, max_size=6))
def test_requests_of_all_tasks_that_come_and_go_give_what_each_gives_alone(backbone, layout, everyone, waits):
    engine, handles = Engine(backbone, layout, batch=3), []
    for drawn, steps in zip(everyone, waits, strict=False):
        handles.append(engine.submit(asked(drawn)))
        for _ in range(steps):
            engine.step()
    assert [handle.tokens() for handle in handles] == [plainly(backbone, layout, drawn) for drawn in everyone]


def changed_by_company(backbone, layout, numbered, count, **more):
    """Of requests number 0 to `count`, how many get other tokens among others than alone; also how many were cancelled.

    They come in batches of 2 to 16, in any order and slot, while others run; strangers are cancelled half-way.
    """
    chance, waiting, found, cancelled = random.Random(0), list(range(count)), {}, 0
    chance.shuffle(waiting)
    while waiting:
        room = chance.randint(2, 16)
        group, waiting = waiting[:room], waiting[room:]
        engine, handles = Engine(backbone, layout, batch=room), {}
        strangers = [count + chance.randrange(10**6) for _ in range(chance.randint(1, 4))]
        arriving = [*group, *strangers]
        chance.shuffle(arriving)
        for number in arriving:
            handles[number] = engine.submit(numbered(number, priority=chance.randint(0, 3), **more))
            for _ in range(chance.choice([0, 0, 1, 2])):
                engine.step()
        for number in strangers:
            cancelled += any(filling.handle is handles[number] for filling in engine.running)
            handles[number].cancel()
            engine.step()
        found |= {number: handles[number].tokens() for number in group}
    alone = {n: Engine(backbone, layout).submit(numbered(n)).tokens() for n in range(count)}
    return sum(found[number] != alone[number] for number in range(count)), cancelled


def test_two_hundred_requests_give_alone_what_they_give_in_batches_that_come_and_go(backbone, layout, numbered):
    changed, cancelled = changed_by_company(backbone, layout, numbered, 200)
    assert changed == 0 and cancelled > 10


def test_with_one_generator_for_all_they_do_not_so_the_test_above_can_see_it(backbone, layout, numbered):
    generator = torch.Generator().manual_seed(0)
    assert changed_by_company(backbone, layout, numbered, 30, generator=generator)[0] > 5


@settings(max_examples=25, deadline=None)
@given(drawn=requests(), others=st.lists(requests(), min_size=1, max_size=3))
def test_a_shared_prompt_is_computed_once_by_its_owner_and_changes_nothing(backbone, layout, drawn, others):
    task, policy, seed = drawn
    more = [other[0] for other in others]
    alike = [replace(t, prompts=[[*task.prompts[0], *t.prompts[0]]], choices=task.choices and t.choices) for t in more]
    engine = Engine(backbone, layout)
    for row in (task, *alike):
        found = engine.submit(asked((row, policy, seed), owner="ann")).tokens()
        assert found == plainly(backbone, layout, (row, policy, seed))


def picture(prompt, tokens=24, **more):
    guidance = Guidance.simple(2.0, 0.7)
    task = Task([prompt], tokens, Allowed(32, 48), branches=[[prompt[: len(prompt) // 2]]], guidance=guidance)
    return Request(task, Policy(Quota(2.0, 4), 8), **more)


def test_what_one_owner_asked_is_not_found_by_another(backbone, layout):
    engine, prompt = Engine(backbone, layout), list(range(20))
    for owner, hits in (("ann", 0), ("bob", 0), (None, 0), (None, 0), ("ann", 3)):
        engine.submit(picture(prompt, owner=owner)).tokens()
        assert engine.prefixes.hits == hits  # 16 of 20 prompt ids are whole blocks; 10 of the other branch hold one
    assert engine.prefixes.bytes == sum(e.nbytes for e in engine.prefixes._entries.values()) > 0


def test_the_oldest_shared_prompts_make_room(backbone, layout):
    engine = Engine(backbone, layout, shared_limit=5000)
    for first in range(6):
        engine.submit(picture([first, *range(20)], owner="ann")).tokens()
    assert 0 < engine.prefixes.bytes <= 5000
    hits = engine.prefixes.hits
    engine.submit(picture([0, *range(20)], owner="ann")).tokens()
    assert engine.prefixes.hits == hits


def test_finished_blocks_are_never_computed_again(backbone, layout):
    engine = Engine(backbone, layout)
    engine.submit(picture(list(range(20)), tokens=28)).tokens()
    prompts = 20 + 10
    blocks = [(4, 2), (8, 4), (8, 4), (8, 4)]  # to fill, steps
    first = 2 * 24 - 10  # both lines up to the end of the first block, less the padding of the second
    looks = first + 2 * 8 * (2 - 1) + sum(2 * 8 * steps + 2 * 8 for _, steps in blocks[1:])
    assert engine.positions == looks and prompts < first


def test_scores_in_float32_differ_from_the_plain_pass_by_roundings(backbone, layout):
    model = deepcopy(backbone).float()
    ids = torch.randint(0, 48, (2, 40), generator=torch.Generator().manual_seed(0))
    blocks = block_of(torch.arange(40), 8)
    plain = model(ids, torch.arange(40), visible_block_causal(blocks, blocks))
    room = model.allocate(2, 40)
    lines = [(line, at) for line in range(2) for at in range(0, 40, 8)]
    segments = [Segment(room[line], 0, at, at + 8, torch.arange(8)) for line, at in lines]
    packed = model.logits(model.packed(ids.flatten(), torch.arange(40).repeat(2), segments)).view(2, 40, -1)
    assert (packed - plain).abs().max() <= 1e-5 * plain.abs().max()


@pytest.mark.parametrize("change", [{"sprint": Sprint()}, {"official": True}, {"reuse_prefix": False}])
def test_what_is_not_exact_is_refused(backbone, layout, change):
    request = picture([1, 2, 3])
    with pytest.raises(RequestError, match="the engine is exact"):
        Engine(backbone, layout).submit(replace(request, policy=replace(request.policy, **change)))
