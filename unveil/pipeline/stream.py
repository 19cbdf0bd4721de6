"""Results while they are made: a request runs in a thread of its own and hands over what there is after every step."""

import threading
from collections.abc import Callable, Generator, Iterator
from contextlib import closing
from queue import SimpleQueue
from typing import TypeVar

from unveil.errors import RequestError
from unveil.pipeline.results import TextResult
from unveil.pipeline.watch import Moment
from unveil.weights.read import Parts

R = TypeVar("R")


class _Gone(Exception):
    """Nobody listens any more."""


def stream(run: Callable[[Callable[[Moment], None]], R]) -> Generator[Moment | R, None, None]:
    """What `run` shows to the listener it is given, then its result; what it raises is raised here.

    Who stops listening (`close`, `break`) stops the request at its next denoise step.
    """
    said: SimpleQueue[Callable[[], Moment | R] | None] = SimpleQueue()
    gone = threading.Event()

    def seen(moment: Moment) -> None:
        if gone.is_set():
            raise _Gone
        said.put(lambda: moment)

    def work() -> None:
        try:
            result = run(seen)
            said.put(lambda: result)
        except BaseException as error:  # the listener's to handle, wherever it comes from
            failure = error
            said.put(lambda: _fail(failure))
        said.put(None)

    thread = threading.Thread(target=work, name="unveil request")
    thread.start()
    try:
        while (part := said.get()) is not None:
            yield part()
    finally:
        gone.set()
        thread.join()


def words_so_far(moments: Generator[Moment | TextResult, None, None], parts: Parts) -> Iterator[str]:
    """The words that can no longer change: those before the first masked position. Joined they are the result's text.

    A letter that several tokens make, and spaces that may be the last, are held back until what follows is there.
    """
    given = ""
    with closing(moments):
        for part in moments:
            if not isinstance(part, Moment | TextResult):
                raise RequestError("this request gives no words; follow it with `stream`, pictures with `stream_image`")
            now = part.text if isinstance(part, TextResult) else _sure(part, parts)
            if len(now) > len(given):
                yield now[len(given) :]
                given = now


def _sure(moment: Moment, parts: Parts) -> str:
    """The words before the first masked position, or before the end of sequence; blanks come with the result."""
    if moment.what != "write":
        return ""
    stops = [i for i, token in enumerate(moment.tokens) if token in (parts.layout.mask, parts.layout.pad)]
    return parts.text.decode(moment.tokens[: stops[0] if stops else None]).rstrip("\ufffd").strip()


def _fail(error: BaseException) -> Moment:
    raise error
