"""What goes wrong with one request stays with it; limits say their numbers; what is let go is freed."""

import random
import threading
import warnings
from contextlib import suppress
from dataclasses import replace

import pytest
import torch

from unveil.diffusion.guidance import Guidance
from unveil.engine import Engine, Request
from unveil.errors import BusyError, CancelledError, GenerationError, PromptError, RequestError
from unveil.sampling import Allowed, Draw, Policy, Quota, Task

POISON = 29  # an id that the faulty models cannot stand


def picture(prompt, tokens=24, steps=4, **more):
    guidance = Guidance.simple(2.0, 0.7)
    task = Task([prompt], tokens, Allowed(32, 48), branches=[[prompt[:2]]], guidance=guidance)
    return Request(task, Policy(Quota(2.0, steps), 8), **more)


def drawn(seed):
    request = picture([1, 2, 3])
    policy = replace(request.policy, draw=Draw(1.0))
    return replace(request, policy=policy, generator=torch.Generator().manual_seed(seed))


class Faulty:
    """A real model that does something else when it meets the poison."""

    def __init__(self, model, fault, most=10**9):
        self.model, self.fault, self.most = model, fault, most

    def allocate(self, branches, length):
        return self.model.allocate(branches, length)

    def packed(self, tokens, positions, segments, tile):
        if self.fault == "memory" and len(tokens) > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory")
        poisoned = bool((tokens == POISON).any())
        if self.fault == "raise" and poisoned:
            raise ValueError("a kernel failed")
        if self.fault == "memory of one" and poisoned:
            raise torch.OutOfMemoryError("CUDA out of memory")
        states = self.model.packed(tokens, positions, segments, tile)
        if self.fault == "spill" and poisoned:  # what must never happen: it reaches the others
            states = states + 1.0
        if self.fault == "nan":  # the rows of the poisoned lines alone
            rows, at = 0, 0
            for segment in segments:
                end = at + segment.end - segment.start
                if (tokens[at:end] == POISON).any() or segment.cache.isnan().any():
                    segment.cache.fill_(torch.nan)
                    states[rows : rows + len(segment.wanted)] = torch.nan
                at, rows = end, rows + len(segment.wanted)
        return states

    def logits(self, states, tile):
        return self.model.logits(states, tile)


def mixed(count, poisoned=()):
    return [picture([POISON if i in poisoned else 1, i, *range(i % 5), 2], tokens=8 + i % 9) for i in range(count)]


def tokens_of(handle):
    try:
        return handle.tokens()
    except Exception as error:
        return error


@pytest.mark.parametrize(
    ("fault", "kind", "chance"),
    [
        ("nan", GenerationError, Draw()),
        ("nan", GenerationError, Draw(1.0)),
        ("nan", GenerationError, Draw(1.0, top_k=3, top_p=0.9)),
        ("raise", ValueError, Draw()),
    ],
)
def test_a_poisoned_request_fails_alone(backbone, layout, fault, kind, chance):
    def asked():
        for request in mixed(9, poisoned=(0, 4)):
            policy = replace(request.policy, draw=chance)
            yield replace(request, policy=policy, generator=torch.Generator().manual_seed(3))

    solo = [Engine(backbone, layout, batch_invariant=True).submit(r).tokens() for r in asked()]
    engine = Engine(Faulty(backbone, fault), layout, batch_invariant=True)
    found = [tokens_of(handle) for handle in [engine.submit(r) for r in asked()]]
    assert [isinstance(f, kind) for f in found] == [i in (0, 4) for i in range(9)]
    assert [f for i, f in enumerate(found) if i not in (0, 4)] == [s for i, s in enumerate(solo) if i not in (0, 4)]
    assert engine.cache_bytes == 0 and not engine.running


def harmed(backbone, layout, numbered, fault, batches):
    """Of the neighbours of one poisoned request, in that many mixed batches, how many differ from what they are alone.

    Also how many there were, and in how many batches the poisoned one failed. What a neighbour gives are its tokens and
    the confidence of every denoise step.
    """
    differ = neighbours = failed = 0
    for number in range(batches):
        chance = random.Random(number)
        count = chance.randint(2, 9)
        bad, alone, together = chance.randrange(count), [[] for _ in range(count)], [[] for _ in range(count)]
        engine = Engine(Faulty(backbone, fault), layout, batch=chance.randint(2, 9), batch_invariant=True)
        handles = []
        for i, heard in enumerate(together):
            poison = POISON if i == bad else None
            handles.append(engine.submit(numbered(100 * number + i, poison=poison, on_step=heard.append)))
            for _ in range(chance.choice([0, 0, 1, 2])):  # some join later
                engine.step()
        found = [tokens_of(handle) for handle in handles]
        failed += isinstance(found[bad], Exception)
        for i, heard in enumerate(alone):
            if i != bad:
                request = numbered(100 * number + i, on_step=heard.append)
                same = Engine(backbone, layout, batch_invariant=True).submit(request).tokens() == found[i]
                steps = [[event.confidence for event in events] for events in (heard, together[i])]
                same = same and len(steps[0]) == len(steps[1]) and all(map(torch.equal, *steps))
                neighbours, differ = neighbours + 1, differ + (not same)
        assert engine.cache_bytes == 0 and not engine.running
    return differ, neighbours, failed


@pytest.mark.parametrize("fault", ["nan", "raise", "memory of one"])
@pytest.mark.parametrize("batches", [5, pytest.param(100, marks=pytest.mark.slow)])
def test_in_mixed_batches_a_poisoned_request_harms_no_neighbour(backbone, layout, numbered, fault, batches):
    differ, neighbours, failed = harmed(backbone, layout, numbered, fault, batches)
    assert (differ, failed) == (0, batches) and neighbours > 3 * batches


def test_a_fault_that_reaches_the_neighbours_is_seen_by_the_test_above(backbone, layout, numbered):
    differ, neighbours, failed = harmed(backbone, layout, numbered, "spill", 10)
    assert differ > neighbours // 2 and failed == 0


def test_a_listener_that_raises_fails_its_own_request(backbone, layout):
    def bad(event):
        raise ZeroDivisionError

    engine = Engine(backbone, layout)
    first, second = engine.submit(picture([1, 2], on_step=bad)), engine.submit(picture([1, 3]))
    assert second.tokens() == Engine(backbone, layout).submit(picture([1, 3])).tokens()
    with pytest.raises(ZeroDivisionError):
        first.tokens()


@pytest.mark.parametrize("wait", [lambda engine, asked: asked.tokens(), lambda engine, asked: engine.step()])
def test_a_listener_cannot_wait_for_its_own_engine_and_harms_nobody_by_trying(backbone, layout, wait):
    engine = Engine(backbone, layout)
    nested, other = picture([1, 5]), engine.submit(picture([1, 3]))
    first = engine.submit(picture([1, 2], heard=lambda event: wait(engine, engine.submit(nested))))
    last = engine.submit(picture([1, 4]))
    for handle, prompt in ((other, [1, 3]), (last, [1, 4])):
        assert handle.tokens() == Engine(backbone, layout).submit(picture(prompt)).tokens()
    with pytest.raises(RequestError, match="a listener cannot wait for what it asks of its own engine"):
        first.tokens()
    while engine.step():
        pass
    assert engine.cache_bytes == 0 and not engine.running


def test_who_is_let_go_by_a_listener_stays_let_go(backbone, layout):
    engine = Engine(backbone, layout)

    def heard(event):
        last.cancel()
        with suppress(RequestError):  # it refuses, and lets go of the cancelled
            engine.unmask(picture([1, 5]).task, picture([1, 5]).policy)

    engine.submit(picture([1, 2], heard=heard))
    last = engine.submit(picture([1, 4], tokens=6, steps=1))  # would be done after this step
    engine.step()
    assert last.done and engine.cache_bytes == sum(filling.cache.nbytes for filling in engine.running)
    with pytest.raises(CancelledError):
        last.tokens()


def test_without_memory_for_all_smaller_batches_give_the_same(backbone, layout):
    asked = mixed(8)
    solo = [Engine(backbone, layout).submit(r).tokens() for r in asked]
    engine = Engine(Faulty(backbone, "memory", most=100), layout)
    assert [handle.tokens() for handle in [engine.submit(r) for r in asked]] == solo
    assert engine.batch < 8


def test_without_memory_for_one_it_is_refused_with_numbers(backbone, layout):
    engine = Engine(Faulty(backbone, "memory", most=8), layout)
    with pytest.raises(BusyError, match="2 branches of 32 positions do not fit even alone"):
        engine.submit(picture([1, 2, 3])).tokens()
    assert engine.cache_bytes == 0


def test_a_cache_limit_makes_requests_wait_and_refuses_what_never_fits(backbone, layout):
    one = backbone.allocate(2, 32).nbytes
    engine = Engine(backbone, layout, cache_limit=2 * one)
    handles = [engine.submit(drawn(i)) for i in range(5)]
    assert [h.tokens() for h in handles] == [Engine(backbone, layout).submit(drawn(i)).tokens() for i in range(5)]
    assert engine.most_cache_bytes == 2 * one
    with pytest.raises(BusyError, match=r"2 x 72 positions of keys and values do not fit"):
        engine.submit(picture([1, 2, 3], tokens=64)).tokens()


def test_the_cache_has_the_size_of_the_formula(backbone, layout):
    engine = Engine(backbone, layout)
    engine.submit(picture([1, 2, 3, 4, 5, 6, 7, 8], tokens=24)).tokens()
    layers, kv_heads, head, positions, branches, size = 2, 2, 4, 32, 2, 8
    assert engine.most_cache_bytes == layers * 2 * kv_heads * head * positions * branches * size


def test_cancelling_stops_within_one_step_and_frees_the_cache(backbone, layout):
    events, engine = [], Engine(backbone, layout)
    kept, gone = engine.submit(picture([1, 2])), engine.submit(picture([3, 4], heard=events.append))
    engine.step()
    engine.step()
    both, steps = engine.cache_bytes, len(events)
    gone.cancel()
    engine.step()
    assert engine.cache_bytes == both // 2
    assert [event.kind for event in events[steps:]] == ["failed"]
    with pytest.raises(CancelledError):
        gone.tokens()
    assert kept.tokens() == Engine(backbone, layout).submit(picture([1, 2])).tokens()
    waiting = engine.submit(picture([5, 6]))
    waiting.cancel()
    assert engine.step() is False and waiting.done and len(engine.queue) == 0


def test_a_full_queue_says_so_with_numbers(backbone, layout):
    engine = Engine(backbone, layout, queue=2)
    handles = [engine.submit(picture([1, i])) for i in range(2)]
    with pytest.raises(BusyError, match="queue full: 2 of 2 requests are waiting"):
        engine.submit(picture([1, 9]))
    assert all(handle.tokens() for handle in handles)


def test_a_deadline_that_has_passed_fails_the_request_waiting_or_running(backbone, layout):
    engine = Engine(backbone, layout, batch=1)
    running, waiting = (engine.submit(picture([1, i], deadline=60)) for i in range(2))
    engine.step()
    for handle in (running, waiting):
        handle.expires = 0.0
        with pytest.raises(BusyError, match="deadline passed: no result after 60 s"):
            handle.tokens()
    assert engine.cache_bytes == 0 and len(engine.queue) == 0


def test_priority_goes_before_coming_first(backbone, layout):
    finished, engine = [], Engine(backbone, layout, batch=1, heard=lambda e: finished.append((e.kind, e.request)))
    for priority in (0, 5, 0, 5):
        engine.submit(picture([1, 2], tokens=8, priority=priority))
    while engine.step():
        pass
    assert [number for kind, number in finished if kind == "done"] == [1, 3, 0, 2]


def test_a_listener_hears_steps_blocks_the_picture_and_the_end(backbone, layout):
    events = []
    tokens = Engine(backbone, layout).submit(picture([1, 2], tokens=14, steps=2, heard=events.append)).tokens()
    assert [event.kind for event in events] == ["step", "step", "block"] * 2 + ["picture", "done"]
    assert [(e.block, e.step) for e in events if e.kind == "step"] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert events[2].tokens == tuple(tokens[:6]) and events[5].tokens == events[-1].tokens == tuple(tokens)


def test_prompt_and_canvas_beyond_the_context_are_refused_with_numbers(backbone, layout):
    engine = Engine(backbone, layout, context=30)
    assert len(engine.submit(picture([1] * 6, tokens=24)).tokens()) == 24
    with pytest.raises(PromptError, match=r"7 \+ 24 > 30"):
        engine.submit(picture([1] * 7, tokens=24))


@pytest.mark.parametrize(
    ("change", "said"),
    [({"deadline": 0.0}, "a deadline lies in the future"), ({"deadline": -1.0}, "a deadline lies in the future")],
)
def test_impossible_requests_are_refused(change, said):
    with pytest.raises(RequestError, match=said):
        picture([1, 2], **change)


def test_drawing_needs_a_generator_and_one_prompt_is_one_request():
    one = picture([1, 2])
    with pytest.raises(RequestError, match="needs a random generator"):
        replace(one, policy=replace(one.policy, draw=Draw(1.0)))
    with pytest.raises(RequestError, match="one prompt, not 2"):
        replace(one, task=replace(one.task, prompts=[[1], [2]], branches=[[[1], [2]]]))


def test_two_engines_in_one_process_do_not_disturb_each_other_nor_the_global_generator(backbone, layout):
    torch.manual_seed(5)
    state = torch.get_rng_state()
    alone = [Engine(backbone, layout).submit(drawn(seed)).tokens() for seed in (1, 2)]
    engines = [Engine(backbone, layout), Engine(backbone, layout)]
    handles = [engine.submit(drawn(seed)) for engine, seed in zip(engines, (1, 2), strict=True)]
    for _ in range(40):
        for engine in engines:
            engine.step()
    assert [handle.tokens() for handle in handles] == alone and alone[0] != alone[1]
    assert torch.equal(state, torch.get_rng_state())


def test_many_threads_may_ask_and_wait_at_once(backbone, layout):
    engine, found = Engine(backbone, layout, batch=4), {}
    solo = [Engine(backbone, layout).submit(picture([1, i])).tokens() for i in range(8)]
    threads = [
        threading.Thread(target=lambda i=i: found.update({i: engine.submit(picture([1, i])).tokens()}))
        for i in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [found[i] for i in range(8)] == solo


@pytest.mark.parametrize("kind", ["step", "block", "picture", "failed", "done"])
def test_a_hearer_that_raises_harms_nobody_else(backbone, layout, kind):
    def bad(event):
        if event.kind == kind:
            raise ZeroDivisionError

    engine = Engine(backbone, layout)
    steps = {"steps": 2, "on_step": lambda event: 1 / 0} if kind == "failed" else {"steps": 2}
    first, second = engine.submit(picture([1, 2], heard=bad, **steps)), engine.submit(picture([1, 3]))
    alone = Engine(backbone, layout)
    with warnings.catch_warnings(record=True) as warned:
        warnings.simplefilter("always")
        assert second.tokens() == alone.submit(picture([1, 3])).tokens()
        found = tokens_of(first)
    if kind == "done":  # nothing is left that could fail
        assert found == alone.submit(picture([1, 2], steps=2)).tokens()
    else:
        assert isinstance(found, ZeroDivisionError)
    assert [f"raised at '{kind}'" in str(w.message) for w in warned] == [True] * (kind in ("failed", "done"))
    assert engine.cache_bytes == 0 and not engine.running
