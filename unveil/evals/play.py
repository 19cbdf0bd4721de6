"""Each score as a way to play held-out items: what the player is given, and how the oracle judges the answer."""

from collections.abc import Callable, Iterator, Sequence
from typing import Protocol, TypeVar

import numpy as np
from PIL import Image

from unveil.evals.score import Outcome
from unveil.scenes.caption import caption
from unveil.scenes.change import Edit, judge_edit
from unveil.scenes.claims import Captioned, Claims, faults
from unveil.scenes.describe import DESCRIBE, description_f1
from unveil.scenes.example import SPLITS, Example, example
from unveil.scenes.oracle import difference, read_scene
from unveil.scenes.question import Question
from unveil.scenes.render import render
from unveil.scenes.sample import generator, sample_scene
from unveil.scenes.scene import Scene
from unveil.shapes import Float, Tensor

SIDE = 128  # pixels of the pictures shown and judged
CHUNK = 250  # items a call
POOL = 100  # pictures that a text must be found among
BLANK = Scene("gray")  # what a blind player sees

Picture = Image.Image
Heard = Callable[[str, int, int], None]
"""Called with (score, items done, items in all)."""
T = TypeVar("T")


class Player(Protocol):
    """What the evaluation needs of a model: batched calls, one result for each item, in order.

    Pictures are RGB of 128x128. Item i of a call has its own seed, so results do not depend on the batch.
    """

    @property
    def weights(self) -> str:
        """The hash that names the weights."""
        ...

    def reconstruct(self, pictures: Sequence[Picture], seeds: Sequence[int]) -> list[Picture]:
        """Each picture through tokenizer and decoder."""
        ...

    def generate_images(self, prompts: Sequence[str], seeds: Sequence[int]) -> list[Picture]:
        """A picture of each prompt."""
        ...

    def answer(self, pictures: Sequence[Picture], questions: Sequence[str]) -> list[str]:
        """The answer to the question about each picture."""
        ...

    def edit_images(
        self, pictures: Sequence[Picture], instructions: Sequence[str], seeds: Sequence[int]
    ) -> list[Picture]:
        """Each picture changed as its instruction says."""
        ...

    def similarity(self, pictures: Sequence[Picture], texts: Sequence[str]) -> Float[Tensor, "T P"]:
        """How well each text fits each picture; higher is better."""
        ...


def draw(scene: Scene) -> Picture:
    """The picture of a scene."""
    return Image.fromarray(render(scene, SIDE))


def read(picture: Picture) -> Scene:
    """The scene in a picture, by the oracle."""
    return read_scene(np.asarray(picture.convert("RGB")))


def items(task: str, n: int, split: str) -> list[Example]:
    """The first n items of a task."""
    return [example(task, i, split) for i in range(n)]


def reconstruct(player: Player, n: int, split: str, heard: Heard) -> Iterator[Outcome]:
    """The ceiling: truth through tokenizer and decoder, read back whole."""
    scenes = [e.sources[0] for e in items("caption", n, split)]
    results = _in_chunks("ceiling", n, heard, lambda at: player.reconstruct([draw(scenes[i]) for i in at], at))
    for scene, result in zip(scenes, results, strict=True):
        wrong = tuple(difference(scene, read(result)))
        yield Outcome("ceiling", float(not wrong), DESCRIBE, wrong, given=draw(scene), result=result)


def generate(player: Player, task: str, n: int, split: str, heard: Heard) -> Iterator[Outcome]:
    """Prompts of a task, judged by what they claim."""
    given = items(task, n, split)
    results = _in_chunks(task, n, heard, lambda at: player.generate_images([given[i].prompt for i in at], at), given)
    for item, result in zip(given, results, strict=True):
        assert isinstance(item.judge, Claims)
        wrong = tuple(faults(item.judge, read(result)))
        yield Outcome(task, float(not wrong), item.prompt, wrong, result=result)


def ask(player: Player, n: int, split: str, heard: Heard, *, blind: bool = False) -> Iterator[Outcome]:
    """Questions of all families; a blind player sees an empty gray picture."""
    given, score = items("question", n, split), "vqa_blind" if blind else "vqa"
    shown = [draw(BLANK if blind else e.sources[0]) for e in given]

    def play(at: list[int]) -> list[str]:
        return player.answer([shown[i] for i in at], [given[i].prompt for i in at])

    for item, picture, said in zip(given, shown, _in_chunks(score, n, heard, play, given), strict=True):
        assert isinstance(item.judge, Question)
        right = normal(said) == item.judge.answer
        wrong = () if right else (f"expected '{item.judge.answer}', said '{said}'",)
        yield Outcome(score, float(right), item.prompt, wrong, item.judge.family, picture, said)


def describe(player: Player, n: int, split: str, heard: Heard) -> Iterator[Outcome]:
    """F1 of the facts in captions."""
    given = items("caption", n, split)
    shown = [draw(e.sources[0]) for e in given]
    results = _in_chunks("caption_f1", n, heard, lambda at: player.answer([shown[i] for i in at], [DESCRIBE] * len(at)))
    for item, picture, said in zip(given, shown, results, strict=True):
        value = description_f1(normal(said), item.sources[0])
        truth = item.response[0]
        wrong = () if value == 1 else (f"expected '{truth}'", f"said '{said}'")
        yield Outcome("caption_f1", value, DESCRIBE, wrong, given=picture, result=said)


def edit(player: Player, n: int, split: str, heard: Heard) -> Iterator[Outcome]:
    """Edits, each judged twice: is what was asked done, and is everything else as before?"""
    given = items("edit", n, split)
    shown = [draw(e.sources[0]) for e in given]

    def play(at: list[int]) -> list[Picture]:
        return player.edit_images([shown[i] for i in at], [given[i].prompt for i in at], at)

    for item, picture, result in zip(given, shown, _in_chunks("edit", n, heard, play, given), strict=True):
        assert isinstance(item.judge, Edit)
        found = read(result)
        wrong = tuple(difference(item.judge.after, found))
        for score, right in zip(("edit_done", "edit_kept"), judge_edit(item.judge, found), strict=True):
            yield Outcome(score, float(right), item.prompt, () if right else wrong, item.judge.family, picture, result)


def retrieve(player: Player, n: int, split: str, heard: Heard) -> Iterator[Outcome]:
    """Each of n captions must find its picture among 100: pools of 100 captioned pictures, all texts against all.

    No caption of a pool is true of another of its pictures. The last pool is filled up with pictures whose captions do
    not count.
    """
    for first in range(0, n, POOL):
        scenes, texts = captioned(first, POOL, split)
        nearest = player.similarity([draw(s) for s in scenes], texts).argmax(-1).tolist()
        count = min(POOL, n - first)
        heard("retrieval_r1", first + count, n)
        for i in range(count):
            wrong = () if nearest[i] == i else (f"found instead: {texts[nearest[i]]}",)
            found = draw(scenes[nearest[i]])
            yield Outcome("retrieval_r1", float(not wrong), texts[i], wrong, given=draw(scenes[i]), result=found)


def captioned(first: int, count: int, split: str) -> tuple[list[Scene], list[str]]:
    """Scenes of a split with a caption each that is true of no other; drawn anew until that holds."""
    about = SPLITS[split]
    scenes, said = list[Scene](), list[Captioned]()
    for index in range(first, first + count):
        rng = generator(split, "retrieval", index)
        while True:
            scene = sample_scene(rng, about.counts, pairs=about.pairs)
            words = caption(scene, rng, about.pairs, heldout_phrasing=about.heldout_phrasing)
            if all(faults(words.claims, s) for s in scenes) and all(faults(c.claims, scene) for c in said):
                break
        scenes.append(scene)
        said.append(words)
    return scenes, [c.text for c in said]


def normal(answer: str) -> str:
    """An answer as it is compared: lower case, no full stop."""
    return answer.strip().lower().rstrip(".")


def _in_chunks(
    score: str, n: int, heard: Heard, play: Callable[[list[int]], list[T]], given: Sequence[Example] = ()
) -> list[T]:
    """Play items 0..n-1 a chunk at a time, prompts of like length together (one batch needs one length)."""
    order = sorted(range(n), key=lambda i: len(given[i].prompt) if given else 0)
    results: dict[int, T] = {}
    for first in range(0, n, CHUNK):
        at = order[first : first + CHUNK]
        results |= zip(at, play(at), strict=True)
        heard(score, len(results), n)
    return [results[i] for i in range(n)]
