"""What an edit does to a scene, and the judge of an edited picture."""

from dataclasses import dataclass
from typing import NamedTuple

from unveil.scenes.phrase import CELLS, Cell, Like, cell_of, holds, like
from unveil.scenes.scene import Scene, Thing


@dataclass(frozen=True)
class Wanted:
    """One thing that must be in one of these cells after the edit."""

    like: Like
    cells: frozenset[Cell]


@dataclass(frozen=True)
class Edit:
    """An instruction, the scene before and one right scene after it.

    `touched` are the cells where the instruction allows a change; `wanted` is all that must be in them afterwards, so
    an edit with several right results ("add a fish left of the tree") is judged fairly.
    """

    instruction: str
    before: Scene
    after: Scene
    family: str
    touched: frozenset[Cell]
    wanted: tuple[Wanted, ...]


class Verdict(NamedTuple):
    """Whether what was asked is done, and whether everything else is as before."""

    done: bool
    kept: bool


def judge_edit(edit: Edit, result: Scene) -> Verdict:
    """Judges a result scene, as the oracle reads it, cell by cell."""
    recolored = edit.before.background != edit.after.background
    found = tuple(t for t in result.things if cell_of(t) in edit.touched)
    done = _fulfilled(edit.wanted, found) and (not recolored or result.background == edit.after.background)
    kept = all(result.at(*cell) == edit.before.at(*cell) for cell in CELLS if cell not in edit.touched)
    return Verdict(done, kept and (recolored or result.background == edit.before.background))


def _fulfilled(wanted: tuple[Wanted, ...], things: tuple[Thing, ...]) -> bool:
    """Whether the things can be given to the wishes one to one."""
    if not wanted or not things:
        return len(wanted) == len(things)
    first = wanted[0]
    return any(
        first.like.matches(t) and cell_of(t) in first.cells and _fulfilled(wanted[1:], things[:i] + things[i + 1 :])
        for i, t in enumerate(things)
    )


def exactly(family: str, instruction: str, before: Scene, after: Scene) -> Edit:
    """An edit with one right result: the touched cells are those that differ."""
    touched = frozenset(cell for cell in CELLS if before.at(*cell) != after.at(*cell))
    wanted = tuple(Wanted(like(t), frozenset({cell_of(t)})) for t in after.things if cell_of(t) in touched)
    return Edit(instruction, before, after, family, touched, wanted)


def within(family: str, instruction: str, before: Scene, after: Scene, wanted: Wanted) -> Edit:
    """An edit that is right wherever in `wanted.cells` the thing comes to be; cells that empty are touched too."""
    emptied = {cell_of(t) for t in before.things if after.at(*cell_of(t)) is None}
    return Edit(instruction, before, after, family, wanted.cells | emptied, (wanted,))


def replaced(scene: Scene, new: dict[Thing, Thing]) -> Scene:
    """The scene with some things changed."""
    return Scene(scene.background, tuple(new.get(t, t) for t in scene.things))


def free_cells(scene: Scene, word: str | None = None, anchor: Cell | None = None) -> frozenset[Cell]:
    """The empty cells, only those that are `word` (left of, ...) the anchor when given."""
    return frozenset(
        cell
        for cell in CELLS
        if scene.at(*cell) is None and (word is None or anchor is None or holds(word, cell, anchor))
    )
