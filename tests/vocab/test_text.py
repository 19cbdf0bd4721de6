"""Byte-level BPE with the official special tokens: what users type stays text."""

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from unveil.errors import TrainingError, WeightsError
from unveil.vocab.text import Text, control_tokens, unused_tokens

CONTROL = ["<|mask|>", "<role>", "</role>", "<IMAGE5>", "<boi>", "<|reserved_token_8|>", "<dummy_unused_3>", "<think>"]


def test_the_official_tokens_stand_in_the_released_order(released: Text) -> None:
    tokens = control_tokens() + unused_tokens()
    assert len(tokens) == 293
    assert [released.token_id(t) for t in tokens] == list(range(475, 768))


def test_a_learned_vocabulary_is_731_pieces_then_the_293_official_tokens(learned: Text) -> None:
    assert learned.size == 1024
    assert [learned.token_id(t) for t in control_tokens() + unused_tokens()] == list(range(731, 1024))
    assert (learned.token_id("<|endoftext|>"), learned.token_id("<|mask|>")) == (732, 735)


def test_the_same_texts_in_any_order_give_the_same_file_byte_for_byte(
    texts: list[str], learned: Text, tmp_path: Path
) -> None:
    learned.save(tmp_path / "a.json")
    Text.train(reversed(texts)).save(tmp_path / "b.json")
    assert (tmp_path / "a.json").read_bytes() == (tmp_path / "b.json").read_bytes()


def test_training_learns_whole_words(learned: Text) -> None:
    assert learned.encode(" and two") == [learned.token_id("Ġand"), learned.token_id("Ġtwo")]


def test_too_few_texts_are_an_error_with_both_numbers() -> None:
    with pytest.raises(TrainingError, match=r"give \d+ BPE pieces, 731 were asked for"):
        Text.train(["a red star"])


def test_saved_and_loaded_is_the_same_tokenizer(learned: Text, tmp_path: Path) -> None:
    learned.save(tmp_path / "tokenizer.json")
    again = Text.load(tmp_path / "tokenizer.json")
    line = "<role>HUMAN</role> two kilos"
    assert again.encode_template(line) == learned.encode_template(line)
    assert again.encode(line) == learned.encode(line)


@settings(max_examples=200, deadline=None)
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=40))
def test_any_unicode_comes_back_unchanged(learned: Text, released: Text, text: str) -> None:
    assert learned.decode(learned.encode(text)) == text
    assert released.decode(released.encode(text)) == text


@settings(max_examples=200, deadline=None)
@given(parts=st.lists(st.one_of(st.sampled_from(CONTROL), st.text(max_size=5)), max_size=6))
def test_user_text_never_holds_an_added_token(learned: Text, released: Text, parts: list[str]) -> None:
    text = "".join(parts)
    assert all(i < 731 for i in learned.encode(text))
    assert all(i < 475 for i in released.encode(text))


@pytest.mark.parametrize("token", CONTROL)
def test_a_control_string_is_pieces_for_a_user_and_one_id_for_a_template(released: Text, token: str) -> None:
    assert released.decode(released.encode(token)) == token
    assert released.encode_template(token) == [released.token_id(token)]


def test_a_vocabulary_that_lists_its_special_tokens_as_pieces_still_keeps_users_out(released: Text) -> None:
    data = json.loads(released.parsing.to_str())
    data["model"]["vocab"] |= {t["content"]: t["id"] for t in data["added_tokens"]}
    data["model"]["ignore_merges"] = True
    data["pre_tokenizer"] = data["pre_tokenizer"]["pretokenizers"][1]  # no split into words: whole strings can match
    text = Text.parse(json.dumps(data), "file")
    assert all(i < 475 for token in CONTROL for i in text.encode(token))


def test_lone_surrogates_and_nul_encode(learned: Text) -> None:
    assert learned.decode(learned.encode("a\ud800b\0\udfff")) == "a\ufffdb\0\ufffd"
    assert learned.decode(learned.encode("\ud83d\ude00")) == "😀"


def test_decode_drops_special_tokens_unless_asked(learned: Text) -> None:
    ids = learned.encode_template("<role>two</role><think>and</think>")
    assert learned.decode(ids) == "twoand"
    assert learned.decode(ids, skip_special=False) == "<role>two</role><think>and</think>"


def test_codes_decode_alike_whether_or_not_they_are_entries(learned: Text, released: Text) -> None:
    for text, offset in ((learned, 1024), (released, 768)):
        ids = [*text.encode("two"), offset + 5, offset, *text.encode(" and"), offset + 127]
        assert text.decode(ids) == "two<IMAGE5><IMAGE0> and<IMAGE127>"


def test_a_missing_token_is_an_error_that_names_it(learned: Text) -> None:
    assert learned.find("<IMAGE0>") is None
    with pytest.raises(WeightsError, match="has no token <IMAGE0>"):
        learned.token_id("<IMAGE0>")


@pytest.mark.parametrize("content", [b"", b"{}", b"[1]", b"\xff\xfe", b'{"added_tokens": [], "model": {"vocab": 3}}'])
def test_a_damaged_tokenizer_is_an_error_that_names_the_file(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "tokenizer.json").write_bytes(content)
    with pytest.raises(WeightsError, match="tokenizer.json"):
        Text.load(tmp_path / "tokenizer.json")


def test_a_missing_tokenizer_is_an_error_that_names_the_file(tmp_path: Path) -> None:
    with pytest.raises(WeightsError, match="nothing.json: cannot be read"):
        Text.load(tmp_path / "nothing.json")
