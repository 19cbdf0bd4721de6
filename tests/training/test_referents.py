"""Which cell each word of a packed batch speaks of."""

from pathlib import Path

import pytest
import torch

import unveil
from unveil.scenes.scene import Scene, Thing
from unveil.training.packing import Branch, Row, pack
from unveil.training.referents import naming_ids, referents_of
from unveil.vocab.text import Text

CODE = 1024
SCENE = Scene(
    "white",
    (Thing(0, 3, "star", "red", "large"), Thing(2, 1, "fish", "blue", "small"), Thing(3, 0, "fish", "red", "small")),
)


@pytest.fixture(scope="module")
def text() -> Text:
    """The shipped tokenizer, to which every kind and color is one piece."""
    return Text.load(Path(unveil.__file__).parent / "weights/tiny/tokenizer.json")


def test_every_kind_and_color_is_named_at_the_start_of_a_line_and_within_one(text: Text) -> None:
    naming = naming_ids(text)
    assert [text.decode([i]) for i in naming["star"]] == ["star", " star"]
    assert len(naming) == 17 + 8 and all(naming.values())
    ids = [i for each in naming.values() for i in each]
    assert len(ids) == len(set(ids))


def test_words_that_fit_one_thing_know_its_cell_and_others_do_not(text: Text) -> None:
    words = text.encode("is there a red star? is the blue fish above it? no cup")
    rows = [Row([CODE + 5, *words[:5]], [Branch(words[5:], text.encode("star"))], SCENE), Row(words, [Branch([], [7])])]
    packed = pack(rows, 8, 1)
    found = referents_of([row.scene for row in rows], packed, naming_ids(text), CODE)
    named = {}
    for at in (found[0] >= 0).nonzero()[:, 0].tolist():
        named.setdefault(text.decode([int(packed.ids[0, at])]).strip(), set()).add(int(found[0, at]))
    assert named == {"star": {3}, "blue": {9}}  # two things are red, two are fish, none is a cup; 5 is a code
    present = packed.branches[0] >= 0
    stars = torch.isin(packed.ids[0], torch.tensor([text.encode("star")[0], text.encode(" star")[0]])) & present
    assert int(stars.sum()) >= 2 and (found[0, stars] == 3).all()  # wherever it stands, in the noised copy, too
    assert (found[1] == -1).all()  # a row without a picture
