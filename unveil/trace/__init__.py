"""How a result came about, denoise step by denoise step, as a GIF or a web page that stands alone."""

from pathlib import Path

from unveil.trace.gif import to_gif
from unveil.trace.page import to_page
from unveil.trace.record import Cell, Stage, Trace, picture_stage, word_stage

__all__ = ["SUFFIXES", "Cell", "Stage", "Trace", "encode", "picture_stage", "to_gif", "to_page", "word_stage"]

SUFFIXES = (".gif", ".html")


def encode(trace: Trace, path: Path) -> bytes:
    """The content of a trace file, GIF or HTML by its suffix."""
    return to_gif(trace) if path.suffix.lower() == ".gif" else to_page(trace).encode("utf-8")
