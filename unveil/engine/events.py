"""What a listener hears of a request's life."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

Kind = Literal["step", "block", "picture", "done", "failed"]


@dataclass(frozen=True)
class Event:
    """One thing that happened to one request.

    step     some positions were filled        (block, step)
    block    a block is complete               its ids so far are in `tokens`
    picture  all codes of a picture are there  `tokens`
    done     the result is there               `tokens`
    failed   there will be none                `error`
    """

    kind: Kind
    request: int  # the number that the engine gave it
    block: int = 0
    step: int = 0
    tokens: tuple[int, ...] = ()  # new ids, without the prompt
    error: Exception | None = None


Listener = Callable[[Event], None]


def deaf(event: Event) -> None:
    """Hears nothing."""
