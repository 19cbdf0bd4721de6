"""What a command says: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from unveil.files import check_target, write_atomic

if TYPE_CHECKING:
    from unveil.memory.moments import Task
    from unveil.pipeline import Uni
    from unveil.trace import Trace
    from unveil.weights.official_config import DecoderKind


def say(text: str) -> None:
    """A result, also where the terminal cannot show every letter."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "replace").decode(encoding))


def note(text: str) -> None:
    """A line for whoever looks on."""
    print(text.encode("utf-8", "replace").decode("utf-8"), file=sys.stderr)


def say_json(value: object) -> None:
    """A result for machines: one object on one line, any text in ASCII escapes."""
    print(json.dumps(value))


@contextmanager
def open_model(
    model: str, device: str, quiet: bool, decoder: "DecoderKind" = "normal", *,
    memory: str | None, dtype: str, task: "Task" = "anything", size: int | None = None,
) -> Iterator["Uni"]:  # fmt: skip
    """The model, which says where it runs once it does, and reports its progress, unless told to be quiet.

    When its memory was planned, the peak is noted beside the plan in the end.
    """
    from unveil.pipeline import Uni

    heard = progress(quiet)
    heard("load", 0, 1)
    uni = Uni.load(model, device, dtype, memory=memory, task=task, size=size, decoder=decoder, heard=heard)
    heard("load", 1, 1)
    placed = uni.placed
    assert placed is not None, "a loaded model was placed"
    uni.heard = heard if quiet else _after(placed.line or f"running on {uni.device}", heard)
    yield uni
    if placed.peak is not None and not quiet:
        note(placed.peak)


def _after(line: str, heard: Callable[[str, int, int], None]) -> Callable[[str, int, int], None]:
    """The same listener, before whose first word the line is noted: a request that is refused stays one line."""
    waiting = [line]

    def show(what: str, done: int, total: int) -> None:
        if waiting:
            note(waiting.pop())
        heard(what, done, total)

    return show


def check_picture_target(path: Path) -> None:
    """Raise RequestError, before any work, unless a picture can be written there."""
    from unveil.pictures import SUFFIXES

    check_target(path, SUFFIXES)


def check_trace_target(path: Path | None) -> bool:
    """Whether a trace is wanted. Raises RequestError, before any work, unless it can be written there."""
    if path is not None:
        check_target(path, (".gif", ".html"))
    return path is not None


def save_trace(trace: "Trace | None", path: Path | None) -> None:
    """Write the trace that was asked for."""
    if trace is not None and path is not None:
        from unveil.trace import encode

        write_atomic(path, encode(trace, path))
        note(f"wrote {path}")


def progress(quiet: bool, *, lines: bool = False) -> Callable[[str, int, int], None]:
    """One line on a terminal's stderr that is written over; nothing when quiet.

    Where stderr is a file: nothing either, or with `lines` a line each, for work of many minutes.
    """

    def show(what: str, done: int, total: int) -> None:
        end = "\r\033[K" if done >= total else ""
        sys.stderr.write(f"\r\033[K{what} {done}/{total}{end}")
        sys.stderr.flush()

    def line(what: str, done: int, total: int) -> None:
        sys.stderr.write(f"{what} {done}/{total}\n")
        sys.stderr.flush()

    def silent(what: str, done: int, total: int) -> None:
        """Says nothing."""

    if quiet:
        return silent
    return show if sys.stderr.isatty() else line if lines else silent
