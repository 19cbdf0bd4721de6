"""One training or test item as data: what the model is given, what it should answer, and who judges the answer.

    generate   "a red star on white"                      -> picture                    judged by Claims
    think      "a red star on white"                      -> plan, picture              judged by Claims
    caption    picture, "describe the picture"            -> text                       judged by Scene
    question   picture, "what color is the star?"         -> text                       judged by Question
    edit       picture, "make the star green"             -> picture                    judged by Edit
    story      "a red star on white. it turns blue."      -> text, picture, text, ...   judged by Story
    text       "white. large red star row 1 column 1. what color is the star?" -> text  judged by Question

`t2i_one` and `t2i_two` are `generate` with one thing, and with two things and a relation: the prompts of the scores.
"""

import random
from collections.abc import Callable
from dataclasses import dataclass

from unveil.scenes.caption import caption, heldout_relation
from unveil.scenes.change import Edit
from unveil.scenes.claims import Captioned, Claims
from unveil.scenes.describe import DESCRIBE, describe
from unveil.scenes.edit import FAMILIES as EDIT_FAMILIES
from unveil.scenes.edit import edit
from unveil.scenes.phrase import cell_of, like, relation
from unveil.scenes.plan import plan
from unveil.scenes.question import FAMILIES as QUESTION_FAMILIES
from unveil.scenes.question import Question, ask
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import Scene
from unveil.scenes.story import MAX_FRAMES, Story, story

Judge = Claims | Scene | Question | Edit | Story


@dataclass(frozen=True)
class Example:
    """One item: `sources` are the pictures given, `response` the texts and pictures that are right."""

    task: str
    prompt: str
    sources: tuple[Scene, ...]
    response: tuple[str | Scene, ...]
    judge: Judge


@dataclass(frozen=True)
class Split:
    """Which scenes and phrases a split draws from."""

    counts: tuple[int, int] = (1, 4)
    pairs: str = "seen"
    heldout_phrasing: bool = False


SPLITS = {
    "train": Split(),
    "test": Split(),
    "heldout_pairs": Split(pairs="heldout"),
    "heldout_relations": Split(counts=(2, 4), heldout_phrasing=True),
    "more_objects": Split(counts=(5, 6)),
}
_TWO_OR_MORE = ("relation", "comparison", "swap", "all", "remove")


def example(task: str, index: int, split: str) -> Example:
    """Item `index` of a task (see the module) in a split (see `SPLITS`): the same on every machine."""
    return draw_example(task, generator(split, task, index), split)


def draw_example(task: str, rng: random.Random, split: str) -> Example:
    """An item of a task in a split, whatever comes next from `rng`."""
    return _TASKS[task](task, rng, SPLITS[split])


def _scene(rng: random.Random, split: Split, at_least: int = 1, repeat: float = 0.25) -> Scene:
    low, high = split.counts
    return sample_scene(rng, (max(low, at_least), high), pairs=split.pairs, repeat=repeat)


def _captioned(rng: random.Random, split: Split) -> tuple[Captioned, Scene]:
    scene = _scene(rng, split)
    return caption(scene, rng, split.pairs, heldout_phrasing=split.heldout_phrasing), scene


def _generate(task: str, rng: random.Random, split: Split) -> Example:
    said, scene = _captioned(rng, split)
    return Example(task, said.text, (), (scene,), said.claims)


def _think(task: str, rng: random.Random, split: Split) -> Example:
    said, scene = _captioned(rng, split)
    return Example(task, said.text, (), (plan(scene), scene), said.claims)


def _caption(task: str, rng: random.Random, split: Split) -> Example:
    scene = _scene(rng, split)
    return Example(task, DESCRIBE, (scene,), (describe(scene),), scene)


def _asked(rng: random.Random, split: Split) -> tuple[Question, Scene]:
    """Families equally often; scenes are drawn until one has an unambiguous question of the family."""
    family = rng.choice(QUESTION_FAMILIES)
    while True:
        scene = _scene(rng, split, 2 if family in _TWO_OR_MORE else 1, repeat=0.5 if family == "count" else 0.25)
        question = ask(scene, rng, family, split.pairs)
        if question is not None:
            return question, scene


def _question(task: str, rng: random.Random, split: Split) -> Example:
    question, scene = _asked(rng, split)
    return Example(task, question.text, (scene,), (question.answer,), question)


def _text(task: str, rng: random.Random, split: Split) -> Example:
    question, scene = _asked(rng, split)
    return Example(task, f"{plan(scene)} {question.text}", (), (question.answer,), question)


def _edit(task: str, rng: random.Random, split: Split) -> Example:
    family = rng.choice(EDIT_FAMILIES)
    while True:
        scene = _scene(rng, split, 2 if family in _TWO_OR_MORE else 1, repeat=0.6 if family == "all" else 0.25)
        made = edit(scene, rng, family, split.pairs)
        if made is not None:
            return Example(task, made.instruction, (scene,), (made.after,), made)


def _story(task: str, rng: random.Random, split: Split) -> Example:
    first = sample_scene(rng, (1, 1), pairs=split.pairs)
    told = story(first, rng, rng.randint(2, MAX_FRAMES), split.pairs)
    response = tuple(part for frame in told.frames for part in frame)
    return Example(task, told.prompt, (), response, told)


def _one(task: str, rng: random.Random, split: Split) -> Example:
    """a (small) red star on white"""
    scene = sample_scene(rng, (1, 1), pairs=split.pairs)
    wanted = like(scene.things[0], size=rng.random() < 0.5)
    claims = Claims(scene.background, (wanted,))
    return Example(task, f"{wanted.one} on {scene.background}", (), (scene,), claims)


def _two(task: str, rng: random.Random, split: Split) -> Example:
    """a (large) red star left of a (small) blue fish on white, two different things, apart along that axis"""
    while True:
        scene = sample_scene(rng, (2, 2), pairs=split.pairs, repeat=0.0)
        a, b = rng.sample(scene.things, 2)
        if abs(a.row - b.row) != abs(a.col - b.col) and (a.noun, a.color) != (b.noun, b.color):
            break
    size = rng.random() < 0.5
    first, second = like(a, size=size), like(b, size=size)
    word = relation(cell_of(a), cell_of(b), rng)
    text = heldout_relation(first, word, second, rng) if split.heldout_phrasing else f"{first.one} {word} {second.one}"
    claims = Claims(scene.background, (first, second), ((0, word, 1),))
    return Example(task, f"{text} on {scene.background}", (), (scene,), claims)


_TASKS: dict[str, Callable[[str, random.Random, Split], Example]] = {
    "generate": _generate,
    "think": _think,
    "caption": _caption,
    "question": _question,
    "edit": _edit,
    "story": _story,
    "text": _text,
    "t2i_one": _one,
    "t2i_two": _two,
}
TASKS = tuple(_TASKS)
