"""The scores are right about players whose worth is known."""

import json

import pytest

from unveil.errors import RequestError
from unveil.evals.floors import floors
from unveil.evals.play import Player, captioned, draw, normal, read
from unveil.evals.scenes import SCORES, Evaluation, evaluate
from unveil.scenes.claims import Claims
from unveil.scenes.example import example


@pytest.fixture(scope="module")
def perfect(truth: Player) -> Evaluation:
    return evaluate(truth, 40)


def test_one_who_knows_the_truth_scores_one_everywhere_but_blind(perfect: Evaluation) -> None:
    values = {name: score.value for name, score in perfect.scores.items()}
    blind = values.pop("vqa_blind")
    assert set(values.values()) == {1.0}
    assert blind < 0.1  # it says "no idea"
    assert [o.faults for o in perfect.failures] == []


def test_the_blind_player_is_shown_an_empty_gray_picture_and_the_same_questions(perfect: Evaluation) -> None:
    seen, blind = perfect.outcomes["vqa"], perfect.outcomes["vqa_blind"]
    assert [o.prompt for o in seen] == [o.prompt for o in blind]
    assert {(read(o.given).background, read(o.given).things) for o in blind if o.given} == {("gray", ())}
    assert read(seen[3].given) == example("question", 3, "test").sources[0]


def test_one_who_guesses_scores_near_the_floors(guesser: Player) -> None:
    found = evaluate(guesser, 100)
    values = {name: score.value for name, score in found.scores.items()}
    near = floors(100)
    for name in ("ceiling", "t2i_one", "t2i_two", "retrieval_r1"):
        assert values[name] <= 0.05 and near[name] <= 0.05
    assert values["vqa"] <= near["vqa"] + 0.05
    assert values["vqa"] == values["vqa_blind"]
    assert values["caption_f1"] < 0.25 and near["caption_f1"] < 0.25
    assert values["edit_done"] < 0.1 and near["edit_done"] < 0.25  # an empty cell is easily hit
    assert values["edit_kept"] > 0.9  # nothing is changed, so all else is kept
    assert near["edit_kept"] < 0.05
    assert {o.score for o in found.failures} == {
        "ceiling", "t2i_one", "t2i_two", "vqa", "caption_f1", "edit_done", "retrieval_r1",
    }  # fmt: skip
    assert all(o.faults for o in found.failures)


def test_the_result_has_the_agreed_form(perfect: Evaluation, truth: Player) -> None:
    result = json.loads(json.dumps(evaluate(truth, 3).as_dict()))
    assert tuple(result["scores"]) == SCORES
    assert (result["n"], result["weights"]) == (3, "truth")
    assert result["intervals"]["ceiling"] == pytest.approx([3 / (3 + 1.96**2), 1.0], abs=1e-3)
    assert "splits" not in result
    families = perfect.as_dict()["vqa_families"]
    assert isinstance(families, dict) and set(families) == {
        "exist", "count", "color", "kind", "size", "background", "relation", "comparison",
    }  # fmt: skip


def test_held_out_splits_are_played_when_asked_for(truth: Player) -> None:
    found = evaluate(truth, 4, splits=("heldout_pairs", "more_objects"))
    result = found.as_dict()["splits"]
    assert isinstance(result, dict) and list(result) == ["heldout_pairs", "more_objects"]
    names = {"t2i", "ceiling", "vqa", "caption_f1", "edit_done", "edit_kept", "retrieval_r1"}
    assert all(scores == dict.fromkeys(scores, 1.0) and set(scores) == names for scores in result.values())
    crowded = found.splits["more_objects"]["caption_f1"]
    assert all(len(read(o.given).things) >= 5 for o in crowded if o.given)


def test_wrong_requests_are_one_line(truth: Player) -> None:
    with pytest.raises(RequestError, match="below 1"):
        evaluate(truth, 0)
    with pytest.raises(RequestError, match="no split named 'train'; there are heldout_pairs"):
        evaluate(truth, 1, splits=("train",))


def test_progress_is_told_score_by_score(truth: Player) -> None:
    told: list[tuple[str, int, int]] = []
    evaluate(truth, 2, lambda *event: told.append(event))
    assert [e[0] for e in told] == [
        "ceiling", "t2i_one", "t2i_two", "vqa", "vqa_blind", "caption_f1", "edit", "retrieval_r1",
    ]  # fmt: skip
    assert {e[1:] for e in told} == {(2, 2)}


def test_every_item_comes_back_to_its_own_place_though_prompts_are_sorted(perfect: Evaluation) -> None:
    assert [o.prompt for o in perfect.outcomes["t2i_two"]] == [example("t2i_two", i, "test").prompt for i in range(40)]


def test_no_caption_of_a_pool_is_true_of_another_picture_and_pools_differ() -> None:
    scenes, texts = captioned(0, 40, "test")
    assert len(set(texts)) == len(set(scenes)) == 40
    assert captioned(0, 20, "test")[1] == texts[:20]
    assert not set(captioned(100, 40, "test")[1]) & set(texts)


def test_an_answer_is_compared_without_case_and_full_stop() -> None:
    assert normal(" Yes.\n") == "yes"
    assert normal("digit 3") == "digit 3"


def test_an_extra_thing_in_the_picture_is_a_fault(truth: Player) -> None:
    item = example("t2i_one", 0, "test")
    other = example("t2i_two", 0, "test").response[0]
    assert isinstance(item.judge, Claims)
    truth_calls = type("Liar", (type(truth),), {"generate_images": lambda self, p, s: [draw(other) for _ in p]})
    found = evaluate(truth_calls(2, ("test",)), 2)
    assert found.scores["t2i_one"].value == 0.0
    assert any("not asked for" in fault for o in found.outcomes["t2i_one"] for fault in o.faults)
