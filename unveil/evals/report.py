"""A table of scores with their intervals, beside what must and what should be reached."""

from types import MappingProxyType

from unveil.evals.scenes import Evaluation

SAYS = MappingProxyType(
    {
        "ceiling": "oracle on reconstructions (ceiling)",
        "t2i_one": "text-to-image, one object",
        "t2i_two": "text-to-image, two objects with relation",
        "vqa": "questions, mean over families",
        "vqa_blind": "the same, blind (no picture)",
        "caption_f1": "caption to scene F1",
        "edit_done": "edit: asked change done",
        "edit_kept": "edit: everything else kept",
        "retrieval_r1": "text-image retrieval R@1 among 100",
    }
)
GOALS = MappingProxyType(  # must, aim
    {
        "ceiling": (0.95, 0.99),
        "t2i_one": (0.90, 0.99),
        "t2i_two": (0.60, 0.92),
        "vqa": (0.88, 0.97),
        "caption_f1": (0.85, 0.97),
        "edit_done": (0.60, 0.92),
        "edit_kept": (0.80, 0.97),
        "retrieval_r1": (0.80, 0.97),
    }
)


def table(found: Evaluation) -> str:
    """Markdown: one line a score with its 95% interval and floor; a score below `must` is marked."""
    lines = [
        f"n = {found.n} held-out items a score, weights `{found.weights}`",
        "",
        "| score | value | 95% interval | floor | must | aim |",
        "|---|---|---|---|---|---|",
    ]
    for name, score in found.scores.items():
        must, aim = GOALS.get(name, (None, None))
        mark = " (below)" if must is not None and score.value < must else ""
        cells = (
            SAYS[name], f"{_said(score.value)}{mark}", f"{_said(score.low)} to {_said(score.high)}",
            _said(found.floors.get(name)), _said(must), _said(aim),
        )  # fmt: skip
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join([*lines, "", *_families(found)])


def _families(found: Evaluation) -> list[str]:
    """The families of questions beside their blind scores, then the families of edits."""
    values = found.as_dict()
    seen, blind, edits = values["vqa_families"], values["vqa_blind_families"], values["edit_families"]
    assert isinstance(seen, dict) and isinstance(blind, dict) and isinstance(edits, dict)
    lines = ["| questions | right | blind |", "|---|---|---|"]
    lines += [f"| {name} | {_said(value)} | {_said(blind[name])} |" for name, value in seen.items()]
    lines += ["", "| edits | done | kept |", "|---|---|---|"]
    kept = edits["edit_kept"]
    return [*lines, *(f"| {name} | {_said(v)} | {_said(kept[name])} |" for name, v in edits["edit_done"].items())]


def _said(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}%"
