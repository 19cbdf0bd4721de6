"""Scenes as rows for the backbone: one function per task, each from a sample index."""

import random
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from types import MappingProxyType

import torch

from unveil.scenes.change import Edit, free_cells
from unveil.scenes.claims import Claims
from unveil.scenes.describe import DESCRIBE, describe
from unveil.scenes.example import Example, draw_example
from unveil.scenes.facts import FACTS, claimed, facts
from unveil.scenes.phrase import RELATIONS, WAYS, beside, cell_of, like
from unveil.scenes.plan import plan
from unveil.scenes.question import ask
from unveil.scenes.sample import crowded_scene, generator, sample_scene, sample_thing
from unveil.scenes.scene import Scene
from unveil.scenes.story import MAX_FRAMES, story
from unveil.shapes import Int, Tensor
from unveil.training.packing import Branch, Row
from unveil.vocab.prompt import UNCONDITION, Prompts, Turn

KEEP = (
    "change nothing",
    "no change",
    "leave it",
    "leave the picture as it is",
    "keep all things and the background",
    "do not change any of the things in the picture",
    "the picture is right, keep all of it where it is and as it is",
)
"""Instructions of edits that change nothing."""

PLACES = ("anywhere", "beside", "step")
"""Where edits put things that are learned last; a corner is the same place in every picture."""

QUIZ = 10  # questions of a quiz
QUESTIONS = "ask and answer"  # what they are asked for with

Codes = Callable[[Scene], list[int]]
"""The codes of a scene's picture as token ids, row by row."""


@dataclass(frozen=True)
class Source:
    """What rows are made with: the prompt layouts, and how prompts are dropped for guidance."""

    prompts: Prompts
    grid: tuple[int, int]
    block_size: int
    questions: int
    drop_prompt: float
    planned: float  # share of pictures that are asked for by their layout plan
    described: float = 0.4  # share of rows of questions in which a description is asked for, too
    placed: float = 0.0  # share of edits that put a thing into one of `PLACES`

    def heard(self, text: str, rng: random.Random) -> str:
        """The prompt, or now and then the words that stand for its absence."""
        return UNCONDITION if rng.random() < self.drop_prompt else text

    def ended(self, given: int, ids: list[int]) -> list[int]:
        """A text response after `given` ids: then end of sequence, up to the end of its block (padding is EOS)."""
        pad = self.prompts.layout.pad
        return [*ids, pad, *[pad] * (-(given + len(ids) + 1) % self.block_size)]

    @property
    def blank(self) -> Int[Tensor, "h w"]:
        """Codes that hold the place of a picture in a prompt."""
        return torch.zeros(self.grid, dtype=torch.long)

    def around(self, ids: list[int]) -> tuple[list[int], list[int]]:
        """What stands before and after the codes of the one picture in `ids`."""
        first = next(i for i, token in enumerate(ids) if token >= self.prompts.layout.image_offset)
        return ids[:first], ids[first + self.grid[0] * self.grid[1] :]


@dataclass(frozen=True)
class Draft:
    """A row before its pictures are tokenized: scenes stand where their ids will be."""

    prefix: list[int | Scene]
    branches: list[tuple[list[int | Scene], list[int | Scene]]]
    text_ends: (
        bool  # the response ends in words, so EOS closes it and fills its block; a picture ends with its last code
    )
    asked: list[bool] | None = None  # of the one branch: what of its response, and of EOS, may be masked; None: all


def pictures_of(item: Example) -> list[Scene]:
    """The scenes among what is right for an item."""
    return [part for part in item.response if isinstance(part, Scene)]


def generate(source: Source, rng: random.Random) -> Draft:
    """Caption or layout plan -> picture. Most scenes have one or two things: what people ask for first.

    A caption leaves open where a thing lies, so its words say little about any one code: a masked cell is mostly plain
    background whatever they are. A plan tells every cell, and teaches which color goes with which thing much sooner.
    """
    planned = rng.random() < source.planned
    asked = "think" if planned else rng.choice(("t2i_one", "t2i_two", "t2i_two", "generate", "generate"))
    item = draw_example(asked, rng, "train")
    (scene,) = pictures_of(item)
    words = plan(scene, rng) if planned else item.prompt
    return Draft([*source.prompts.generate(source.heard(words, rng), *source.grid)], [([], [scene])], False)


def understand(source: Source, rng: random.Random) -> Draft:
    """Picture -> several questions, and sometimes the request for a description, each a branch."""
    scene, asked = questions(rng, source.questions)
    if rng.random() < source.described:
        asked[-1] = (DESCRIBE, describe(scene))
    head, (end, *tail) = source.around(source.prompts.understand(source.blank, ""))
    encode = source.prompts.text.encode
    pairs: list[tuple[list[int | Scene], list[int | Scene]]] = [
        ([*encode(words), *tail], [*encode(answer)]) for words, answer in asked
    ]
    return Draft([*head, scene, end], pairs, True)


def questions(rng: random.Random, count: int) -> tuple[Scene, list[tuple[str, str]]]:
    """A scene and questions about it with their answers.

    The first question chooses the scene, every family equally often; the others are of families that suit it. Few
    scenes allow the families that relate two things, so every other question tries these first.
    """
    item = draw_example("question", rng, "train")
    (scene,) = item.sources
    asked = [(item.prompt, str(item.response[0]))]
    while len(asked) < count:
        rare = ask(scene, rng, rng.choice(("relation", "comparison"))) if rng.random() < 0.5 else None
        question = rare or ask(scene, rng)
        assert question is not None, "every scene has some question"
        asked.append((question.text, question.answer))
    return scene, asked


def quiz(source: Source, rng: random.Random) -> Draft:
    """Picture -> questions and answers in one text, of which only the answers are masked.

    Each question of `understand` takes blocks of its own; here a row of the same length asks twice as many.
    """
    scene, asked = questions(rng, QUIZ)
    head, tail = source.around(source.prompts.understand(source.blank, QUESTIONS))
    response, masked, encode = list[int | Scene](), list[bool](), source.prompts.text.encode
    for number, (words, answer) in enumerate(asked):
        for said, right in ((f"\n{words}\n" if number else f"{words}\n", False), (answer, True)):
            ids = encode(said)
            response += ids
            masked += [right] * len(ids)
    return Draft([*head, scene, *tail], [([], response)], True, masked)


def edit(source: Source, rng: random.Random) -> Draft:
    """Picture and instruction -> the edited picture; every family of edits equally often, or every one of `PLACES`."""
    place = rng.choice(PLACES) if source.placed and rng.random() < source.placed else None
    item = draw_example("edit", rng, "train")
    while place and place_of(item) != place:
        item = draw_example("edit", rng, "train")
    head, tail = source.around(source.prompts.edit(source.blank, source.heard(item.prompt, rng)))
    return Draft([*head, *item.sources, *tail], [([], [*pictures_of(item)])], False)


def place_of(item: Example) -> str | None:
    """How an edit that adds or moves a thing says where to: one of `PLACES`, or a corner; None for other edits."""
    edit = item.judge
    assert isinstance(edit, Edit)
    if edit.family not in ("add", "move"):
        return None
    if "one step" in edit.instruction:
        return "step"
    if any(f" {word} " in edit.instruction for word in RELATIONS):
        return "beside"
    return "anywhere" if edit.wanted[0].cells == free_cells(edit.before) else "corner"


def copy(source: Source, rng: random.Random) -> Draft:
    """Crowded picture and the wish to leave it alone -> the same picture.

    An edit must look at the same place of its source. A picture full of things teaches that much faster than a few on
    a plain background; the wishes differ in length, so the place is not always equally far away. No thing is named.
    """
    scene, wish = crowded_scene(rng), rng.choice((UNCONDITION, *KEEP))
    head, tail = source.around(source.prompts.edit(source.blank, wish))
    return Draft([*head, scene, *tail], [([], [scene])], False)


def shift(source: Source, rng: random.Random) -> Draft:
    """Picture and a wish for all its things at once: each one step on, or a new thing beside each.

    For edits that move a thing or add one beside it, a place must look at the place next to it in the source. Here
    every place must, as in `copy` every place looks at itself.
    """
    make = rng.choice((moved_all, added_beside_all))
    scene, wish, after = make(rng)
    while after == scene:  # nothing could move, or there was no room
        scene, wish, after = make(rng)
    head, tail = source.around(source.prompts.edit(source.blank, source.heard(wish, rng)))
    return Draft([*head, scene, *tail], [([], [after])], False)


def moved_all(rng: random.Random) -> tuple[Scene, str, Scene]:
    """A crowded scene, the wish that everything moves one step, and the scene afterwards."""
    drawn, word = crowded_scene(rng, (4, 12)), rng.choice(RELATIONS)
    steps = [(thing, cell) for thing in drawn.things if (cell := beside(word, cell_of(thing)))]
    before = Scene(drawn.background, tuple(thing for thing, _ in steps))
    after = Scene(drawn.background, tuple(replace(thing, row=row, col=col) for thing, (row, col) in steps))
    return before, f"move everything one step {WAYS[word]}", after


def added_beside_all(rng: random.Random) -> tuple[Scene, str, Scene]:
    """A scene of several things, the wish for a new thing beside each, and the scene afterwards."""
    before, new, word = crowded_scene(rng, (2, 6)), sample_thing(rng, 0, 0), rng.choice(RELATIONS)
    cells = {cell for thing in before.things if (cell := beside(word, cell_of(thing)))} & free_cells(before)
    added = tuple(replace(new, row=row, col=col) for row, col in sorted(cells))
    after = Scene(before.background, (*before.things, *added))
    return before, f"add {like(new).one} {word} everything", after


def think(source: Source, rng: random.Random) -> Draft:
    """Caption -> plan in words -> picture, all of it the response. Half of the captions are those people ask first."""
    item = draw_example(rng.choice(("t2i_one", "t2i_two", "think", "think")), rng, "train")
    (scene,) = pictures_of(item)
    prompt = source.prompts.think(source.heard(item.prompt, rng))
    words = source.prompts.text.encode(plan(scene))
    return Draft([*prompt], [([], [*words, *source.prompts.header(*source.grid), scene])], False)


def interleave(source: Source, rng: random.Random) -> Draft:
    """Story -> words and pictures in turn, all of it the response.

    In half of the rows only the words are masked, and where the story ends: there are ten codes for each of them.
    """
    told = story(sample_scene(rng, (1, 3)), rng, rng.randint(2, MAX_FRAMES))
    layout, response, words = source.prompts.layout, list[int | Scene](), list[bool]()
    for said, scene in told.frames:
        ids, header = source.prompts.text.encode(said), source.prompts.header(*source.grid)
        response += [*ids, *header, scene, layout.eoi]
        words += [*[True] * (len(ids) + len(header)), *[False] * (source.grid[0] * source.grid[1] + 1)]
    asked = [*words, True] if rng.random() < 0.5 else None
    return Draft([*source.prompts.interleave(told.prompt)], [([], response)], True, asked)


def look(source: Source, rng: random.Random) -> Draft:
    """Picture -> facts about it, in any order: each masked word must be looked up in the picture."""
    scene = sample_scene(rng)
    head, tail = source.around(source.prompts.understand(source.blank, FACTS))
    return Draft([*head, scene, *tail], [([], [*source.prompts.text.encode(facts(scene, rng, 3))])], True)


def read(source: Source, rng: random.Random) -> Draft:
    """Caption or layout plan -> the facts it tells, in any order: which words belong together, without a picture."""
    if rng.random() < 0.5:
        item = draw_example(rng.choice(("generate", "t2i_two")), rng, "train")
        assert isinstance(item.judge, Claims)
        words, response = item.prompt, claimed(item.judge, rng)
    else:
        scene = sample_scene(rng)
        words, response = plan(scene, rng), facts(scene, rng, 3)
    prompt = source.prompts.chat([Turn("user", f"{words}\n{FACTS}")])
    return Draft([*prompt], [([], [*source.prompts.text.encode(response)])], True)


TASKS: Mapping[str, Callable[[Source, random.Random], Draft]] = MappingProxyType(
    {
        "generate": generate,
        "understand": understand,
        "edit": edit,
        "copy": copy,
        "shift": shift,
        "look": look,
        "quiz": quiz,
        "read": read,
        "think": think,
        "interleave": interleave,
    }
)

OF_FACTS = frozenset({"look", "read"})
"""Tasks whose response is a list of facts."""


def drafts(source: Source, task: str, first: int, count: int) -> list[Draft]:
    """Training drafts `first`..`first + count - 1` of a task."""
    return [TASKS[task](source, generator("train", task, index)) for index in range(first, first + count)]


def finish(source: Source, draft: Draft, codes: Codes) -> Row:
    """Put the ids of the pictures in their places."""

    def flat(parts: list[int | Scene]) -> list[int]:
        return [i for part in parts for i in (codes(part) if isinstance(part, Scene) else (part,))]

    prefix, branches = flat(draft.prefix), []
    for given, response in draft.branches:
        before, ids = flat(given), flat(response)
        ids = source.ended(len(prefix) + len(before), ids) if draft.text_ends else ids
        asked = draft.asked and [*draft.asked, *[False] * (len(ids) - len(draft.asked))]
        branches.append(Branch(before, ids, asked))
    return Row(prefix, branches, next((part for part in draft.prefix if isinstance(part, Scene)), None))


def scenes_of(draft: Draft) -> list[Scene]:
    """Every scene in a draft."""
    lists = [draft.prefix, *(part for branch in draft.branches for part in branch)]
    return [part for parts in lists for part in parts if isinstance(part, Scene)]
