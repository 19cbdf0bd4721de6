"""Tokenizers for the vocabulary tests: one learned from made-up words, and the released one at tiny size."""

import itertools
from pathlib import Path

import pytest

from unveil.config import VocabConfig
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts
from unveil.vocab.text import Text

GOLDEN = Path(__file__).parents[1] / "golden" / "backbone-A"


@pytest.fixture(scope="session")
def texts() -> list[str]:
    """Enough different words for 475 merges."""
    syllables = ["".join(pair) for pair in itertools.product("bdfgklmnprst", "aeiou")]
    return [f"a {a}{b} and two {b}{a}{a}s" for a, b in itertools.product(syllables, syllables)]


@pytest.fixture(scope="session")
def learned(texts: list[str]) -> Text:
    """A tokenizer of our own layout: 731 pieces, 293 added tokens, no entries for codes."""
    return Text.train(texts)


@pytest.fixture(scope="session")
def released() -> Text:
    """The released tokenizer at tiny size: 475 pieces, 293 added tokens, 128 codes."""
    return Text.load(GOLDEN / "checkpoint" / "tokenizer.json")


@pytest.fixture(scope="session")
def vocab() -> VocabConfig:
    """The vocabulary of `released`."""
    return VocabConfig(size=896, image_offset=768, pad=476, mask=479)


@pytest.fixture(scope="session")
def prompts(released: Text, vocab: VocabConfig) -> Prompts:
    """Prompts in the released vocabulary."""
    return Prompts(released, Layout.of(vocab, released))
