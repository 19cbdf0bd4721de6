"""What a command says: results on stdout, everything else on stderr."""

import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from unveil.files import check_target, write_atomic

if TYPE_CHECKING:
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


def open_model(model: str, device: str, quiet: bool, decoder: "DecoderKind" = "normal") -> "Uni":
    """The model, which says where it runs once it does, and reports its progress, unless told to be quiet."""
    from unveil.pipeline import Uni

    heard = progress(quiet)
    heard("load", 0, 1)
    uni = Uni.load(model, device, decoder=decoder, heard=heard)
    heard("load", 1, 1)
    uni.heard = heard if quiet else _after(f"running on {uni.device}", heard)
    return uni


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


def progress(quiet: bool) -> Callable[[str, int, int], None]:
    """One line on a terminal's stderr that is written over; nothing when quiet or when stderr is a file."""

    def show(what: str, done: int, total: int) -> None:
        end = "\r\033[K" if done >= total else ""
        sys.stderr.write(f"\r\033[K{what} {done}/{total}{end}")
        sys.stderr.flush()

    def silent(what: str, done: int, total: int) -> None:
        """Says nothing."""

    return silent if quiet or not sys.stderr.isatty() else show
