"""What each score is worth without a model: what guessing gives."""

from collections import Counter

from unveil.evals.play import POOL, items
from unveil.scenes.change import Edit, judge_edit
from unveil.scenes.claims import Claims, faults
from unveil.scenes.describe import describe, description_f1
from unveil.scenes.question import Question
from unveil.scenes.scene import Scene

_SEEN = 2000  # training questions from which the most frequent answers are known


def floors(n: int, split: str = "test") -> dict[str, float]:
    """For every score, the value of the best player that has seen no item.

    Pictures and captions: the right ones, of the next item. Questions: the family's most frequent answer in training.
    Edits: done by chance when the next item's picture is shown; kept by it. Retrieval: one of the pool.
    """
    scenes = [e.sources[0] for e in items("caption", n, split)]
    beside = [*scenes[1:], scenes[0]]
    pairs = list(zip(scenes, beside, strict=True))
    return {
        "ceiling": sum(a == b for a, b in pairs) / n,
        "t2i_one": _claimed("t2i_one", n, split),
        "t2i_two": _claimed("t2i_two", n, split),
        "vqa": majority(n, split),
        "caption_f1": sum(description_f1(describe(b), a) for a, b in pairs) / n,
        "edit_done": _edited(n, split)[0],
        "edit_kept": _edited(n, split)[1],
        "retrieval_r1": 1 / POOL,
    }


def majority(n: int, split: str = "test") -> float:
    """Accuracy of the most frequent training answer of each family, mean over families."""
    seen: dict[str, Counter[str]] = {}
    for item in items("question", _SEEN, "train"):
        assert isinstance(item.judge, Question)
        seen.setdefault(item.judge.family, Counter())[item.judge.answer] += 1
    guess = {family: answers.most_common(1)[0][0] for family, answers in seen.items()}
    hits: dict[str, list[bool]] = {}
    for item in items("question", n, split):
        assert isinstance(item.judge, Question)
        hits.setdefault(item.judge.family, []).append(item.judge.answer == guess.get(item.judge.family))
    return sum(sum(h) / len(h) for h in hits.values()) / len(hits)


def _claimed(task: str, n: int, split: str) -> float:
    """Share of prompts that the next item's picture fulfils."""
    given = items(task, n, split)
    right = 0
    for item, other in zip(given, [*given[1:], given[0]], strict=True):
        scene = other.response[0]
        assert isinstance(item.judge, Claims) and isinstance(scene, Scene)
        right += not faults(item.judge, scene)
    return right / n


def _edited(n: int, split: str) -> tuple[float, float]:
    """Done and kept, when the next item's result is shown."""
    given = items("edit", n, split)
    verdicts = []
    for item, other in zip(given, [*given[1:], given[0]], strict=True):
        assert isinstance(item.judge, Edit) and isinstance(other.judge, Edit)
        verdicts.append(judge_edit(item.judge, other.judge.after))
    return sum(v.done for v in verdicts) / n, sum(v.kept for v in verdicts) / n
