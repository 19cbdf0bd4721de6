"""Which things of its picture each noun of a packed batch speaks of."""

from pathlib import Path

import pytest
import torch

import unveil
from unveil.scenes.phrase import Like
from unveil.scenes.scene import Scene, Thing
from unveil.training.packing import Branch, Row, pack
from unveil.training.referents import MOST, ReferentProbe, Words, phrases, referents_of
from unveil.vocab.text import Text

CODE = 1024
SCENE = Scene(
    "white",
    (
        Thing(0, 3, "star", "red", "large"),
        Thing(2, 1, "fish", "blue", "small"),
        Thing(3, 0, "fish", "red", "small"),
        Thing(1, 1, "digit", "pink", "small", "4"),
    ),
)


@pytest.fixture(scope="module")
def text() -> Text:
    """The shipped tokenizer, to which every kind and color is one piece."""
    return Text.load(Path(unveil.__file__).parent / "weights/tiny/tokenizer.json")


@pytest.fixture(scope="module")
def words(text: Text) -> Words:
    return Words.of(text)


def test_nouns_are_known_at_the_start_of_a_line_and_within_one_and_in_the_plural(text: Text, words: Words) -> None:
    assert {text.decode([i]) for i, kind in words.nouns.items() if kind == "star"} == {"star", " star", " stars"}
    assert {text.decode([i]) for i, kind in words.nouns.items() if kind is None} == {"thing", " thing", " things"}
    assert len(set(words.nouns.values())) == 17 + 1 and len(set(words.colors.values())) == 8
    assert not set(words.nouns) & (set(words.colors) | set(words.sizes) | set(words.glyphs))


@pytest.mark.parametrize(
    ("said", "found"),
    [
        ("large red star row 1", [Like("star", "red", "large")]),
        ("are there more small fish than red things?", [Like("fish", None, "small"), Like(None, "red")]),
        (
            "swap the digit 4 and the pink digit 5, digits",
            [Like("digit", glyph="4"), Like("digit", "pink", glyph="5"), Like("digit")],
        ),
        ("the star is red. fish", [Like("star"), Like("fish")]),  # what follows a noun says nothing of the next one
        ("red large star", [Like("star", None, "large")]),  # only in the order that captions have
    ],
)
def test_a_phrase_is_a_noun_with_the_adjectives_before_it(
    text: Text, words: Words, said: str, found: list[Like]
) -> None:
    line = text.encode(said)
    assert [like for _, like in phrases(line, words)] == found
    assert all(line[index] in words.nouns for index, _ in phrases(line, words))


def test_nouns_know_how_many_things_they_name_and_where_the_only_one_lies(text: Text, words: Words) -> None:
    said = text.encode("is there a red star? is the blue fish above it? no cup, three fish, two red things, a digit 5")
    rows = [Row([CODE + 5, *said[:3]], [Branch(said[3:], text.encode("star"))], SCENE), Row(said, [Branch([], [7])])]
    packed = pack(rows, 8, 1)
    nothing = torch.zeros_like(packed.maskable)
    numbers, cells = referents_of(rows, packed, nothing, words)
    line = [CODE + 5, *said, *text.encode("star")]
    wanted = [(1, 3), (1, 9), (0, -1), (2, -1), (2, -1), (0, -1), (1, 3)]
    at = [index for index, _ in phrases(line, words)]
    assert len(at) == len(wanted)
    for index, (number, cell) in zip(at, wanted, strict=True):
        here = (packed.positions[0] == index) & (packed.branches[0] >= 0)  # in the clean and in the noised copy
        assert here.any()
        assert numbers[0, here].unique().tolist() == [number] and cells[0, here].unique().tolist() == [cell]
    others = ~torch.isin(packed.positions[0], torch.tensor(at)) | (packed.branches[0] < 0)
    assert (numbers[0, others] == -1).all() and (cells[0, others] == -1).all()
    assert (numbers[1] == -1).all() and (cells[1] == -1).all()  # a row without a picture


def test_a_masked_noun_counts_only_where_its_place_tells_what_it_is(text: Text, words: Words) -> None:
    response = text.encode("red star, cup, fish")
    row = Row([CODE], [Branch([], response)], SCENE)
    packed = pack([row], 32, 1)
    numbers, cells = referents_of([row], packed, packed.maskable, words)
    kept = numbers[packed.maskable]
    assert kept[kept >= 0].tolist() == [1] and cells.max() == 3


def test_each_number_of_things_weighs_the_same() -> None:
    probe = ReferentProbe(4)
    probe.initialize(torch.Generator().manual_seed(0))
    with torch.no_grad():
        probe.number.weight.zero_()
        probe.number.bias.copy_(torch.tensor([5.0, 0, 0, 0, 0]))
    states, numbers = torch.ones(5, 4), torch.tensor([0, 0, 0, 0, MOST])
    _, counted, exact = probe(states, numbers, torch.full((5,), -1))
    assert counted == 0.5 and exact == 1
    with torch.no_grad():
        probe.cell.row.bias.copy_(torch.tensor([0.0, 0, 9, 0]))
        probe.cell.column.bias.copy_(torch.tensor([0.0, 9, 0, 0]))
    _, _, exact = probe(states, numbers, torch.tensor([9, -1, -1, 8, -1]))
    assert exact == 0.5
