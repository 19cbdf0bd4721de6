"""Rows hold what the tasks say, and end where sampling ends."""

import random
import re
from collections import Counter
from dataclasses import replace

import pytest
import torch

from unveil.config import ModelConfig
from unveil.sampling.canvas import Task, open_canvas
from unveil.sampling.draw import Allowed
from unveil.scenes.describe import DESCRIBE, parse_description
from unveil.scenes.facts import FACTS
from unveil.scenes.phrase import NUMBERS
from unveil.scenes.plan import parse_plan, placed, plan
from unveil.scenes.sample import HELDOUT_PAIRS
from unveil.scenes.scene import BACKGROUNDS, COLORS, KINDS, Scene
from unveil.training.packing import Row, pack
from unveil.training.rows import KEEP, QUESTIONS, QUIZ, TASKS, Source, drafts, finish, scenes_of
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import UNCONDITION, Prompts
from unveil.vocab.text import Text

GRID, SIZE = (8, 8), 32


@pytest.fixture(scope="module")
def source(small: ModelConfig, text: Text) -> Source:
    return Source(Prompts(text, Layout.of(small.vocab, text)), GRID, SIZE, 3, 0.0, 0.0)


@pytest.fixture(scope="module")
def offset(small: ModelConfig) -> int:
    return small.vocab.image_offset


def codes_of(scene: Scene) -> list[int]:
    """Codes that tell scenes apart."""
    rng = random.Random(repr(scene))
    return [1024 + rng.randrange(64) for _ in range(64)]


def rows(source: Source, task: str, count: int = 20) -> list[tuple[Row, list[Scene]]]:
    return [(finish(source, draft, codes_of), scenes_of(draft)) for draft in drafts(source, task, 0, count)]


def test_generate_is_the_prompt_of_sampling_then_the_codes(source: Source) -> None:
    for (row, scenes), draft in zip(rows(source, "generate"), drafts(source, "generate", 0, 20), strict=True):
        (branch,) = row.branches
        assert branch.given == []
        assert branch.response[:64] == codes_of(scenes[0])
        words = source.prompts.text.decode([i for i in draft.prefix if isinstance(i, int)])
        assert scenes[0].background in words
        assert row.prefix[-4:] == source.prompts.header(*GRID)


def test_a_dropped_prompt_is_the_unconditional_branch_of_sampling(source: Source) -> None:
    always = Source(source.prompts, GRID, SIZE, 3, 1.0, 0.0)
    (draft,) = drafts(always, "generate", 3, 1)
    assert draft.prefix == source.prompts.generate_unconditional(*GRID)
    (draft,) = drafts(always, "think", 3, 1)
    assert draft.prefix == source.prompts.think(UNCONDITION)
    (draft,) = drafts(always, "edit", 3, 1)
    row = finish(always, draft, codes_of)
    codes = torch.tensor(codes_of(scenes_of(draft)[0])).view(GRID) - 1024
    assert row.prefix == source.prompts.edit_no_text(codes)


def test_prompts_are_dropped_as_often_as_asked(source: Source) -> None:
    often = Source(source.prompts, GRID, SIZE, 3, 0.3, 0.0)
    nothing = source.prompts.generate_unconditional(*GRID)
    share = sum(d.prefix == nothing for d in drafts(often, "generate", 0, 300)) / 300
    assert 0.22 < share < 0.38


def test_understand_is_the_prompt_of_sampling_split_at_the_end_of_the_picture(source: Source) -> None:
    asked, tail = set(), source.prompts._assistant()
    for row, scenes in rows(source, "understand", 40):
        codes = torch.tensor(codes_of(scenes[0])).view(GRID) - 1024
        assert len(row.branches) == 3
        for branch in row.branches:
            words = source.prompts.text.decode(branch.given[: -len(tail)])
            assert row.prefix + branch.given == source.prompts.understand(codes, words)
            answer, pad = branch.response, source.prompts.layout.pad
            end = answer.index(pad)
            assert end > 0 and set(answer[end:]) == {pad}
            said = source.prompts.text.decode(answer[:end])
            if words == DESCRIBE:
                asked.add(words)
                assert len(parse_description(said).things) == len(scenes[0].things)
    assert asked == {DESCRIBE}


def test_descriptions_are_asked_for_as_often_as_wanted(source: Source) -> None:
    for share in (0.0, 0.5, 1.0):
        some = replace(source, described=share)
        found = 0
        for draft in drafts(some, "understand", 0, 200):
            asked = [
                source.prompts.text.decode([i for i in given if isinstance(i, int)]) for given, _ in draft.branches
            ]
            assert len(asked) == 3 and sum(DESCRIBE in words for words in asked) <= 1
            found += any(DESCRIBE in words for words in asked)
        assert abs(found / 200 - share) < 0.12


def test_of_a_quiz_the_answers_are_asked_and_nothing_else(source: Source) -> None:
    pad, decode = source.prompts.layout.pad, source.prompts.text.decode
    right = {"yes", "no", "large", "small", "left", "right", "above", "below", *NUMBERS}
    nouns = {*COLORS, *BACKGROUNDS, *KINDS, *"123456789"}
    for row, scenes in rows(source, "quiz"):
        codes = torch.tensor(codes_of(scenes[0])).view(GRID) - 1024
        assert row.prefix == source.prompts.understand(codes, QUESTIONS)
        (branch,) = row.branches
        assert branch.asked is not None and len(branch.asked) == len(branch.response)
        end = branch.response.index(pad)
        assert not any(branch.asked[end:])
        lines = decode(branch.response[:end]).split("\n")
        answers = decode([i for i, asked in zip(branch.response, branch.asked, strict=True) if asked])
        assert len(lines) == 2 * QUIZ and answers == "".join(lines[1::2])
        assert all(line.endswith("?") for line in lines[::2])
        assert all(set(line.split()) <= right | nouns for line in lines[1::2])
        if "what color is the background?" in lines:
            assert lines[lines.index("what color is the background?") + 1] == scenes[0].background


def test_edit_is_the_prompt_of_sampling_with_both_pictures_in_place(source: Source) -> None:
    for row, (before, after) in rows(source, "edit"):
        codes = torch.tensor(codes_of(before)).view(GRID) - 1024
        instruction = wish_of(source, row)
        assert row.prefix == source.prompts.edit(codes, instruction)
        assert row.branches[0].response[:64] == codes_of(after)
        assert before != after


def wish_of(source: Source, row: Row) -> str:
    """The instruction of an edit."""
    first = row.prefix.index(source.prompts.layout.eoi) + 1
    last = len(row.prefix) - len(source.prompts.header(*GRID)) - len(source.prompts._assistant())
    return source.prompts.text.decode(row.prefix[first:last])


def test_a_shift_puts_everything_or_a_new_thing_one_cell_further(source: Source) -> None:
    steps = {"left": (0, -1), "right": (0, 1), "up": (-1, 0), "down": (1, 0)}
    steps |= {"left of": (0, -1), "right of": (0, 1), "above": (-1, 0), "below": (1, 0)}
    seen = set()
    for row, (before, after) in rows(source, "shift", 400):
        wish = wish_of(source, row)
        assert row.branches[0].response[:64] == codes_of(after) and before.background == after.background
        assert before.things and before != after
        moved_on = re.fullmatch(r"move everything one step (\w+)", wish)
        added = re.fullmatch(r"add an? (.*) (left of|right of|above|below) everything", wish)
        words, way = added.groups() if added else (None, moved_on[1] if moved_on else wish)
        down, right = steps[way]
        moved = [replace(t, row=t.row + down, col=t.col + right) for t in before.things]
        if words is None:
            assert set(after.things) == set(moved)
        else:
            new = set(after.things) - set(before.things)
            inside = {(t.row, t.col) for t in moved if 0 <= t.row < 4 and 0 <= t.col < 4}
            assert {(t.row, t.col) for t in new} == inside - {(t.row, t.col) for t in before.things}
            assert {f"{t.size} {t.color} {t.noun}" for t in new} <= {words}
            assert not {(t.kind, t.color) for t in new} & HELDOUT_PAIRS
        seen.add((words is None, way))
    assert len(seen) == 8


def test_edits_put_things_beside_others_as_often_as_asked(source: Source) -> None:
    corner = re.compile(r"(top|bottom) (left|right)( corner)?$")
    for share in (0.0, 0.6, 1.0):
        found = Counter[str]()
        for draft in drafts(replace(source, placed=share), "edit", 0, 300):
            wish = wish_of(source, finish(source, draft, codes_of))
            if wish.startswith(("add ", "move ")) and not corner.search(wish):
                beside = re.search("(left of|right of|above|below) the", wish)
                found["step" if "one step" in wish else "beside" if beside else "anywhere"] += 1
        usual = {"anywhere": 0.15, "beside": 0.75, "step": 0.25}  # in eighths; adding 15, 50, 0%, moving 0, 25, 25%
        for place, often in usual.items():
            assert abs(found[place] / 300 - share / 3 - (1 - share) * often / 8) < 0.08


def test_pictures_are_asked_for_by_their_plan_as_often_as_asked(source: Source) -> None:
    half = Source(source.prompts, GRID, SIZE, 3, 0.0, 0.5)
    found = shuffled = 0
    for draft in drafts(half, "generate", 0, 200):
        (scene,) = scenes_of(draft)
        words = source.prompts.text.decode([i for i in draft.prefix if isinstance(i, int)])
        told = re.search(r"HUMAN(.*?)ASSISTANT", words)
        assert told, words
        found += parse_plan(told[1]) == scene
        shuffled += parse_plan(told[1]) == scene and told[1] != plan(scene)
    assert 75 < found < 125
    assert shuffled > 0.3 * found  # in any order; one thing has only one


def test_copy_asks_for_the_same_picture_in_words_that_name_no_thing(source: Source) -> None:
    wishes, words = set(), {w for scene_word in (*KINDS, *COLORS, *BACKGROUNDS) for w in (scene_word, f"{scene_word}s")}
    for row, scenes in rows(source, "copy", 60):
        codes = torch.tensor(codes_of(scenes[0])).view(GRID) - 1024
        wish = wish_of(source, row)
        wishes.add(wish)
        assert row.prefix in (source.prompts.edit(codes, wish), source.prompts.edit_no_text(codes))
        assert row.branches[0].response[:64] == codes_of(scenes[0])
        assert not words & set(wish.split())
        assert 6 <= len(scenes[0].things) <= 16
    assert len(wishes) == len(KEEP) + 1


def test_of_half_of_the_stories_the_words_and_the_end_are_masked_alone(source: Source, offset: int) -> None:
    pad, boi, found = source.prompts.layout.pad, source.prompts.layout.boi, 0
    for row, _ in rows(source, "interleave", 300):
        (branch,) = row.branches
        if branch.asked is not None:
            end, eoi = branch.response.index(pad), source.prompts.layout.eoi
            codes = [token >= offset or token == eoi for token in branch.response[:end]]
            assert branch.asked == [*[not code for code in codes], True, *[False] * (len(branch.response) - end - 1)]
            assert branch.response.count(boi) >= 2
            found += 1
    assert 125 < found < 175


def test_look_is_the_prompt_of_sampling_and_tells_facts_of_the_picture(source: Source) -> None:
    pad = source.prompts.layout.pad
    for row, scenes in rows(source, "look"):
        codes = torch.tensor(codes_of(scenes[0])).view(GRID) - 1024
        assert row.prefix == source.prompts.understand(codes, FACTS)
        response = row.branches[0].response
        lines = source.prompts.text.decode(response[: response.index(pad)]).split("\n")
        assert {scenes[0].background, *map(placed, scenes[0].things)} <= set(lines)


def test_a_row_knows_the_scene_that_its_words_speak_of(source: Source) -> None:
    for task in ("look", "understand", "edit", "copy", "shift"):
        assert all(row.scene == scenes[0] for row, scenes in rows(source, task, 5))
    for task in ("generate", "think", "interleave", "read"):
        assert all(row.scene is None for row, _ in rows(source, task, 5))


def test_read_tells_what_its_words_say_and_shows_no_picture(source: Source) -> None:
    pad, plans = source.prompts.layout.pad, 0
    for row, scenes in rows(source, "read", 60):
        assert not scenes
        words = source.prompts.text.decode(row.prefix)
        response = row.branches[0].response
        lines = source.prompts.text.decode(response[: response.index(pad)]).split("\n")
        laid_out = re.search(rf"HUMAN(\w+\..*\.)\n{FACTS}", words)
        if laid_out:
            plans += 1
            scene = parse_plan(laid_out[1])
            assert scene and {scene.background, *map(placed, scene.things)} <= set(lines)
        else:
            assert all(color in words for line in lines for color in COLORS if color in line.split()), (words, lines)
            assert any(background in lines for background in BACKGROUNDS if background in words)
    assert 20 < plans < 40


def test_think_and_interleave_hold_every_picture_whole_after_its_header(source: Source, offset: int) -> None:
    header = source.prompts.header(*GRID)
    for task in ("think", "interleave"):
        for row, scenes in rows(source, task, 8):
            response, place = row.branches[0].response, 0
            assert not any(i >= offset for i in row.prefix)
            for scene in scenes:
                place = next(i for i in range(place, len(response)) if response[i] >= offset)
                assert response[place - 4 : place] == header
                assert response[place : place + 64] == codes_of(scene)
                place += 64
            assert not any(i >= offset for i in response[place:])


@pytest.mark.parametrize("task", sorted(TASKS))
def test_the_noised_blocks_of_a_row_are_the_canvas_that_sampling_shows(source: Source, task: str) -> None:
    """Words fill whole blocks; a picture's canvas ends with its last code."""
    layout, pictures_end = source.prompts.layout, task in ("generate", "edit", "copy", "shift", "think")
    for row, _ in rows(source, task):
        for branch in row.branches:
            prompt = row.prefix + branch.given
            wanted = Task([prompt], len(branch.response), Allowed.codes(layout), whole_blocks=not pictures_end)
            canvas = open_canvas(wanted, layout, SIZE, torch.device("cpu"))
            packed = pack([Row(row.prefix, [branch])], SIZE, 1)
            noised = packed.positions[packed.groups > 0]
            assert noised.tolist() == list(range(len(prompt) // SIZE * SIZE, canvas.ids.shape[1]))
            assert pictures_end or (len(prompt) + len(branch.response)) % SIZE == 0


def test_a_text_ends_at_least_once_even_at_the_border_of_a_block(source: Source) -> None:
    pad = source.prompts.layout.pad
    assert source.ended(0, [1] * 31) == [*[1] * 31, pad]
    assert source.ended(0, [1] * 32) == [*[1] * 32, *[pad] * 32]


def test_a_draft_depends_on_its_task_and_index_only(source: Source) -> None:
    assert drafts(source, "edit", 5, 1)[0] == drafts(source, "edit", 3, 4)[2]
    assert drafts(source, "edit", 5, 1)[0] != drafts(source, "edit", 6, 1)[0]
