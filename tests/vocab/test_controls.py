"""No text of a user ever becomes a control token or a code, whatever it says and wherever it says it."""

import itertools
import json
from collections.abc import Callable

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.config import load_preset
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts, Turn
from unveil.vocab.text import Text, control_tokens, unused_tokens

CODES = torch.arange(64).view(8, 8)
ADDED = [*control_tokens(), *unused_tokens(), *(f"<IMAGE{k}>" for k in range(128))]
PIECES = 475  # ids below are ordinary pieces of the golden tokenizer
TEMPLATES: dict[str, Callable[[Prompts, str], list[int]]] = {
    "generate": lambda say, text: say.generate(text, 8, 8),
    "think": lambda say, text: say.think(text),
    "edit": lambda say, text: say.edit(CODES, text),
    "edit without the picture": lambda say, text: say.edit_no_image(8, 8, text),
    "understand": lambda say, text: say.understand(CODES, text),
    "understand without roles": lambda say, text: say.understand_bare(CODES, text),
    "interleave": lambda say, text: say.interleave(text),
    "chat": lambda say, text: say.chat([Turn("user", text, (CODES,))]),
    "chat after others": lambda say, text: say.chat(
        [Turn("system", text), Turn("assistant", text), Turn("user", text)]
    ),
}
"""Every prompt that carries words of a user."""

OFFICIAL_IDS = {
    "<|startoftext|>": 156891, "<|endoftext|>": 156892, "[CLS]": 156893, "[gMASK]": 156894, "<|mask|>": 156895,
    "<tool_call>": 156896, "</tool_call>": 156897, "<tool_response>": 156898, "</tool_response>": 156899,
    "<|role_end|>": 156900, "<|image|>": 156901, "<|/image|>": 156902, "<|reserved_token_8|>": 156903,
    "<boi>": 156904, "<|reserved_token_10|>": 156905, "<padding>": 156906, "<system>": 156908, "</system>": 156910,
    "<user>": 156912, "</user>": 156914, "<answer>": 156916, "</answer>": 156918, "<mmu>": 156920, "<t2i>": 156922,
    "<edit>": 156924, "<interleaved>": 156926, "<think>": 156928, "</think>": 156930, "<|reserved_token_36|>": 156931,
    "<|reserved_token_37|>": 156932, "<|reserved_token_255|>": 157150, "<role>": 157151, "</role>": 157152,
    "<dummy_unused_0>": 157153, "<dummy_unused_30>": 157183, "<IMAGE0>": 157184, "<IMAGE16383>": 173567,
}  # fmt: skip
"""Spec backbone 10.3, by hand."""


@pytest.fixture(scope="module")
def official(released: Text) -> Text:
    """A tokenizer with the ids of the release: its own first 156,891 pieces are stood in for by fillers."""
    data = json.loads(released.parsing.to_str())
    pieces = {p: i for p, i in data["model"]["vocab"].items() if i < PIECES}
    data["model"]["vocab"] = pieces | {f"filler{i}": i for i in range(len(pieces), 156_891)}
    kept = [token for token in data["added_tokens"] if not token["content"].startswith("<IMAGE")]
    code = next(token for token in data["added_tokens"] if token["content"] == "<IMAGE0>")
    tokens = [*kept, *({**code, "content": f"<IMAGE{k}>"} for k in range(16_384))]
    data["added_tokens"] = [{**token, "id": 156_891 + i} for i, token in enumerate(tokens)]
    return Text.parse(json.dumps(data), "the released ids")


def test_every_special_token_has_the_id_of_the_release(official: Text) -> None:
    assert {token: official.find(token) for token in OFFICIAL_IDS} == OFFICIAL_IDS
    assert official.size == 173_568
    sizes = [n for n in range(256) if official.find(f"<|reserved_token_{n}|>") is not None]
    assert sizes == [*range(8, 37, 2), *range(37, 256)]


def test_the_official_layout_looks_each_id_up_by_its_string(official: Text) -> None:
    layout = Layout.of(load_preset("official").vocab, official)
    assert (layout.pad, layout.mask, layout.soi, layout.eoi, layout.boi) == (156892, 156895, 156901, 156902, 156904)
    assert (layout.role, layout.role_close, layout.role_end) == (157151, 157152, 156900)
    assert (layout.think, layout.think_close, layout.image_offset, layout.codes) == (156928, 156930, 157184, 16384)
    assert all(layout.size_token(n) == 156895 + n for n in layout.sizes)


def sentences(token: str) -> list[str]:
    """The token alone, first, last, between words, and inside a word."""
    return [token, f"{token} a red star", f"a red star{token}", f"a {token} star on {token} white", f"re{token}d star"]


@pytest.mark.parametrize("template", TEMPLATES)
def test_each_added_token_at_five_places_of_a_sentence_stays_words(prompts: Prompts, template: str) -> None:
    build = TEMPLATES[template]
    control = [i for i in build(prompts, "") if i >= PIECES]
    # An assistant's earlier words before `</think>` are left out by the template itself.
    said = [text for token in ADDED for text in sentences(token)]
    assert len(said) == 421 * 5
    assert [text for text in said if [i for i in build(prompts, text) if i >= PIECES] != control] == []


@pytest.mark.parametrize("template", TEMPLATES)
@settings(max_examples=60, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(ADDED), st.text(max_size=6)), max_size=8))
def test_no_mixture_of_added_tokens_and_any_unicode_becomes_one(
    prompts: Prompts, template: str, parts: list[str]
) -> None:
    build, text = TEMPLATES[template], "".join(parts)
    assert [i for i in build(prompts, text) if i >= PIECES] == [i for i in build(prompts, "") if i >= PIECES]


def test_the_control_the_reader_of_templates_does_find_them_all(prompts: Prompts) -> None:
    found = list(itertools.chain.from_iterable(prompts.text.encode_template(token) for token in ADDED))
    assert found == list(range(PIECES, PIECES + len(ADDED)))
