"""The procedural picture world and the oracle that reads it back.

Functions named like their module are imported from it: `from unveil.scenes.render import render`.
"""

from unveil.scenes.change import Edit, Verdict, judge_edit
from unveil.scenes.claims import Captioned, Claims, faults
from unveil.scenes.describe import DESCRIBE, description_f1, parse_description
from unveil.scenes.example import SPLITS, TASKS, Example, Split
from unveil.scenes.oracle import UNKNOWN, difference, read_scene
from unveil.scenes.plan import parse_plan
from unveil.scenes.question import Question, ask
from unveil.scenes.sample import HELDOUT_PAIRS, generator, sample_scene
from unveil.scenes.scene import BACKGROUNDS, COLORS, DIGITS, KINDS, LATTICE, SIZES, Scene, Thing
from unveil.scenes.story import Story

__all__ = [
    "BACKGROUNDS",
    "COLORS",
    "DESCRIBE",
    "DIGITS",
    "HELDOUT_PAIRS",
    "KINDS",
    "LATTICE",
    "SIZES",
    "SPLITS",
    "TASKS",
    "UNKNOWN",
    "Captioned",
    "Claims",
    "Edit",
    "Example",
    "Question",
    "Scene",
    "Split",
    "Story",
    "Thing",
    "Verdict",
    "ask",
    "description_f1",
    "difference",
    "faults",
    "generator",
    "judge_edit",
    "parse_description",
    "parse_plan",
    "read_scene",
    "sample_scene",
]
