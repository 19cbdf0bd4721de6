"""Many requests at once against the same requests one after the other."""

import time
from dataclasses import dataclass, replace

from unveil.bench.compare import Said
from unveil.bench.setup import Setup
from unveil.engine import Engine, Request


@dataclass(frozen=True)
class Throughput:
    """Requests of one kind, served `together` at a time and one by one."""

    together: int
    serial_s: float
    batched_s: float
    identical: bool

    @property
    def gain(self) -> float:
        """How many times as fast together."""
        return self.serial_s / self.batched_s


def throughput(
    setup: Setup, sizes: tuple[int, ...], rounds: int, said: Said, *, batch_invariant: bool
) -> list[Throughput]:
    """For each size, that many requests with prompts of their own; both ways in turn, the faster of `rounds` runs."""
    found = []
    for place, size in enumerate(sizes):
        said(f"bench {size} requests", place, len(sizes))
        requests = [_variant(setup, number) for number in range(size)]
        serial, batched, same = float("inf"), float("inf"), True
        for _ in range(rounds):
            seconds, alone = _run(setup, requests, 1, batch_invariant)
            serial = min(serial, seconds)
            seconds, together = _run(setup, requests, size, batch_invariant)
            batched, same = min(batched, seconds), same and alone == together
        found.append(Throughput(size, serial, batched, same))
    said("bench", 1, 1)
    return found


def _variant(setup: Setup, number: int) -> Request:
    """A request like the one of the setup with another prompt: its ids turned by some places."""
    prompt = list(setup.task.prompts[0])
    turn = number % len(prompt)
    return Request(replace(setup.task, prompts=[prompt[turn:] + prompt[:turn]]), setup.policy)


def _run(setup: Setup, requests: list[Request], batch: int, batch_invariant: bool) -> tuple[float, list[list[int]]]:
    engine = Engine(setup.backbone, setup.layout, batch=batch, batch_invariant=batch_invariant)
    start = time.perf_counter()
    handles = [engine.submit(request) for request in requests]
    tokens = [handle.tokens() for handle in handles]
    return time.perf_counter() - start, tokens
