"""A request as it is asked for, and the handle by which its result is waited for."""

import math
import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from unveil.engine.events import Listener, deaf
from unveil.errors import RequestError
from unveil.sampling import OnStep, Policy, Task

if TYPE_CHECKING:
    from unveil.engine.engine import Engine


@dataclass(frozen=True)
class Request:
    """One canvas to fill. The result depends on the weights, `task`, `policy` and `generator`, on nothing else."""

    task: Task  # with one prompt
    policy: Policy
    generator: torch.Generator | None = None  # needed above temperature 0; gives one number
    priority: int = 0  # higher goes first; equal ones in the order of their coming
    deadline: float | None = None  # seconds from submission
    owner: str | None = None  # requests of one owner share what their prompts have in common; None shares nothing
    heard: Listener = deaf
    on_step: OnStep | None = None  # every denoise step with its ids and confidences, for traces

    def __post_init__(self) -> None:
        if len(self.task.prompts) != 1:
            raise RequestError(f"a request has one prompt, not {len(self.task.prompts)}; submit one request for each")
        if self.policy.draws and self.generator is None:
            raise RequestError("temperature above 0 needs a random generator; give the request one")
        if self.deadline is not None and not self.deadline > 0:
            raise RequestError(f"a deadline lies in the future; give seconds above 0, not {self.deadline}")


class Handle:
    """A request on its way."""

    def __init__(self, engine: "Engine", number: int, request: Request) -> None:
        self.number = number
        self.request = request
        self.cancelled = False
        self.expires = math.inf if request.deadline is None else time.monotonic() + request.deadline
        self._engine = engine
        self._finished = threading.Event()
        self._tokens: list[int] = []
        self._error: Exception | None = None

    @property
    def done(self) -> bool:
        """Whether the result, or why there is none, is known."""
        return self._finished.is_set()

    def cancel(self) -> None:
        """Stop before the next denoise step; what it held is freed there. Done requests stay as they are."""
        self.cancelled = True

    def tokens(self) -> list[int]:
        """The new ids; drives the engine until they are there. Raises what the request failed with."""
        self._engine.run_until(lambda: self.done)
        if self._error is not None:
            raise self._error
        return self._tokens

    def finish(self, tokens: list[int], error: Exception | None = None) -> None:
        """Told by the engine, once."""
        self._tokens, self._error = tokens, error
        self._finished.set()
