"""Which things of its picture each question of a packed batch is about."""

from pathlib import Path

import pytest
import torch

import unveil
from unveil.scenes.scene import COLORS, SIZES, Scene, Thing
from unveil.training.packing import Branch, Row, pack
from unveil.training.questions import ATTRIBUTES, QuestionProbe, asked_about, question_loss, question_marks
from unveil.training.referents import Words
from unveil.vocab.text import Text

CODE = 1024
STAR, FISH = Thing(0, 3, "star", "red", "large"), Thing(2, 1, "fish", "blue", "small")
MOON = Thing(1, 2, "moon", "pink", "large")
SCENE = Scene("white", (STAR, FISH, Thing(3, 0, "fish", "red", "small"), MOON))
NOTHING = [-1] * 4


@pytest.fixture(scope="module")
def text() -> Text:
    return Text.load(Path(unveil.__file__).parent / "weights/tiny/tokenizer.json")


def attributes(thing: Thing) -> list[int]:
    return [thing.row, thing.col, SIZES.index(thing.size), list(COLORS).index(thing.color)]


def test_a_question_begins_after_a_line_break_or_the_question_before(text: Text) -> None:
    line = text.encode("see\nis it a star?\nno\nis it? is it red?")
    found = [text.decode(line[begin : mark + 1]).strip() for mark, begin in question_marks(line, text)]
    assert found == ["is it a star?", "is it?", "is it red?"]


@pytest.mark.parametrize("copies", [1, 2])
def test_a_question_mark_knows_the_first_and_the_second_thing_of_its_question(text: Text, copies: int) -> None:
    given = "is the star left of the blue fish?"
    response = "what color is the moon?\nred\nis the fish above the moon?\nstar\nwhich is larger, the moon or the star?"
    line, words = [CODE, *text.encode(given + "\n" + response)], Words.of(text)
    first = len(text.encode(given + "\n")) + 1
    rows = [Row([CODE], [Branch(line[1:first], line[first:])], SCENE), Row(line, [Branch([], [7])])]
    packed = pack(rows, 8, copies)
    found = asked_about(rows, packed, text, words)
    wanted = [
        [*attributes(STAR), *attributes(FISH), 0, 2],  # row 0 before row 2, column 3 after column 1
        [*attributes(MOON), *NOTHING, -1, -1],
        [*NOTHING, *attributes(MOON), -1, -1],  # two fish
        [*attributes(MOON), *attributes(STAR), 2, 0],  # the answer before names a star and is no part of the question
    ]
    marks = [index for index, token in enumerate(line) if token == text.encode("?")[0]]
    for mark, values in zip(marks, wanted, strict=True):
        here = (packed.positions[0] == mark) & (packed.branches[0] >= 0)
        assert here.any() and (found[0, here] == torch.tensor(values)).all()
    others = ~torch.isin(packed.positions[0], torch.tensor(marks)) | (packed.branches[0] < 0)
    assert (found[0, others] == -1).all() and (found[1] == -1).all()


def test_the_probe_counts_only_values_that_are_there() -> None:
    probe = QuestionProbe(4)
    probe.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        probe.read.weight.zero_()
        probe.read.bias[2] = probe.read.bias[sum(ATTRIBUTES) + 3] = 9.0  # first: row 2; second: row 3
    states = torch.ones(1, 2, 4)
    asked = torch.tensor([[[2, *[-1] * 9], [2, -1, -1, -1, 0, *[-1] * 5]]])
    loss, exact = question_loss(probe, states, asked)
    assert exact == pytest.approx(2 / 3)
    assert loss.item() == pytest.approx(9 / 2, abs=0.02)  # a mean over things, half of it each
    assert question_loss(probe, states[:, :1], asked[:, :1])[0].item() < 1e-3
    with torch.no_grad():
        probe.order.weight.zero_()
        probe.order.bias[3 + 1] = 9.0  # columns: equal
    orders = torch.tensor([[[*[-1] * 8, -1, 1], [*[-1] * 8, -1, 2]]])
    assert question_loss(probe, states, orders)[1] == 0.5
