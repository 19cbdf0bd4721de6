"""`unveil inspect`: what a model directory holds, without reading its weights."""

from collections.abc import Iterator
from dataclasses import asdict
from typing import TYPE_CHECKING

from unveil.cli import options
from unveil.cli.output import say, say_json

if TYPE_CHECKING:
    from unveil.weights.inspect import Facts


def inspect(model: options.AnyModel, as_json: options.AsJson = False) -> None:
    """Say which parts a model has, how large they are, and what its vocabulary holds; reads no weights."""
    from unveil.pipeline.place import model_directory
    from unveil.weights.inspect import inspect as look

    facts = look(model_directory(model))
    if as_json:
        say_json(asdict(facts))
    else:
        say("\n".join(_shown(facts)))


def _shown(facts: "Facts") -> Iterator[str]:
    """The facts as lines."""
    yield f"{facts.path} ({facts.layout} layout)"
    if facts.source is not None:
        yield "fetched: {repository} at {commit}, asked for as {revision}".format(**facts.source)
    yield _row("part", "tensors", "parameters", "bytes", "dtypes")
    parts = facts.parts.values()
    for name, part in facts.parts.items():
        yield _row(name, f"{part.tensors:,}", f"{part.parameters:,}", f"{part.bytes:,}", " + ".join(part.dtypes))
    sums = (sum(p.tensors for p in parts), sum(p.parameters for p in parts), sum(p.bytes for p in parts))
    yield _row("all", *(f"{n:,}" for n in sums), "")
    if facts.absent:
        yield f"not there: {', '.join(facts.absent)}"
    yield f"context {facts.context}, vocabulary {facts.vocabulary}, codes from {facts.image_offset}"
    yield "special ids: " + ", ".join(f"{token} {i}" for token, i in facts.special.items())


def _row(*cells: str) -> str:
    return "{:16} {:>8} {:>15} {:>16}  {}".format(*cells).rstrip()
