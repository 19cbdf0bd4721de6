"""The scores of `unveil eval scenes`: held-out items of the procedural world, judged by the oracle.

    ceiling        test scenes through tokenizer and decoder, read back exactly
    t2i_one        one thing: kind, color, background (and size, when named) right
    t2i_two        two things in a relation, all right
    vqa            questions, mean over families; vqa_blind: the same about an empty gray picture
    caption_f1     facts of captions
    edit_done      the change that was asked for; edit_kept: everything else is as before
    retrieval_r1   a caption finds its picture among 100

A model plays through `Player` (in `play.py`): five batched calls and the hash of its weights.
"""

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from unveil.errors import RequestError
from unveil.evals import play
from unveil.evals.floors import floors
from unveil.evals.play import Heard, Player
from unveil.evals.score import Outcome, Score, average, by_family, family_mean
from unveil.scenes.example import SPLITS

SCORES = (
    "ceiling", "t2i_one", "t2i_two", "vqa", "vqa_blind", "caption_f1", "edit_done", "edit_kept", "retrieval_r1",
)  # fmt: skip
Plays = Mapping[str, Callable[[Player, int, str, Heard], Iterable[Outcome]]]

_PLAYS: Plays = MappingProxyType(
    {
        "ceiling": play.reconstruct,
        "t2i_one": lambda player, n, split, heard: play.generate(player, "t2i_one", n, split, heard),
        "t2i_two": lambda player, n, split, heard: play.generate(player, "t2i_two", n, split, heard),
        "vqa": play.ask,
        "vqa_blind": lambda player, n, split, heard: play.ask(player, n, split, heard, blind=True),
        "caption_f1": play.describe,
        "edit": play.edit,
        "retrieval_r1": play.retrieve,
    }
)
_ELSEWHERE: Plays = MappingProxyType(
    {
        "t2i": lambda player, n, split, heard: play.generate(player, "generate", n, split, heard),
        **{name: _PLAYS[name] for name in ("ceiling", "vqa", "caption_f1", "edit", "retrieval_r1")},
    }
)


@dataclass(frozen=True)
class Evaluation:
    """All items of one evaluation, played."""

    n: int
    weights: str
    outcomes: Mapping[str, Sequence[Outcome]]  # by score
    splits: Mapping[str, Mapping[str, Sequence[Outcome]]]  # held-out splits: by split, by score
    floors: Mapping[str, float]
    seconds: Mapping[str, float]

    @property
    def scores(self) -> dict[str, Score]:
        """The scores with their intervals, in the order of `SCORES`."""
        return {name: _score(name, self.outcomes[name]) for name in SCORES}

    @property
    def failures(self) -> list[Outcome]:
        """Items with a fault; blind answers are meant to fail and left out."""
        return [o for name, group in self.outcomes.items() if name != "vqa_blind" for o in group if o.value < 1]

    def as_dict(self) -> dict[str, object]:
        """What `unveil eval scenes --json` prints."""
        edits = {name: _values(by_family(self.outcomes[name])) for name in ("edit_done", "edit_kept")}
        result: dict[str, object] = {
            "scores": _values(self.scores),
            "n": self.n,
            "weights": self.weights,
            "intervals": {name: [round(s.low, 4), round(s.high, 4)] for name, s in self.scores.items()},
            "vqa_families": _values(by_family(self.outcomes["vqa"])),
            "vqa_blind_families": _values(by_family(self.outcomes["vqa_blind"])),
            "edit_families": edits,
            "floors": {name: round(value, 4) for name, value in self.floors.items()},
            "seconds": {name: round(value, 1) for name, value in self.seconds.items()},
        }
        if self.splits:
            result["splits"] = {
                split: _values({name: _score(name, group) for name, group in groups.items()})
                for split, groups in self.splits.items()
            }
        return result


def evaluate(uni: Player, n: int = 500, progress: Heard | None = None, splits: Sequence[str] = ()) -> Evaluation:
    """Play n items of every score; `splits` names held-out splits to play as well.

    Raises RequestError for n below 1 and for an unknown split.
    """
    heldout = [name for name in SPLITS if name not in ("train", "test")]
    unknown = [name for name in splits if name not in heldout]
    if n < 1 or unknown:
        problem = f"no split named '{unknown[0]}'; there are {', '.join(heldout)}" if unknown else f"n is {n}, below 1"
        raise RequestError(problem)
    heard = progress or (lambda score, done, total: None)
    outcomes, seconds = _play(uni, _PLAYS, n, "test", heard)
    elsewhere = {}
    for split in splits:
        elsewhere[split], times = _play(uni, _ELSEWHERE, n, split, heard)
        seconds |= {f"{split} {name}": value for name, value in times.items()}
    return Evaluation(n, uni.weights, outcomes, elsewhere, floors(n), seconds)


def _play(
    uni: Player, plays: Plays, n: int, split: str, heard: Heard
) -> tuple[dict[str, list[Outcome]], dict[str, float]]:
    """Outcomes and seconds of each play; an edit gives two scores."""
    outcomes: dict[str, list[Outcome]] = {}
    seconds = {}
    for name, function in plays.items():
        start = time.monotonic()
        for outcome in function(uni, n, split, heard):
            outcomes.setdefault("t2i" if outcome.score == "generate" else outcome.score, []).append(outcome)
        seconds[name] = time.monotonic() - start
    return outcomes, seconds


def _score(name: str, outcomes: Sequence[Outcome]) -> Score:
    return family_mean(outcomes) if name.startswith("vqa") else average(outcomes)


def _values(scores: Mapping[str, Score]) -> dict[str, float]:
    return {name: round(score.value, 4) for name, score in scores.items()}
