"""The id space: every id looked up by string, every disagreement with the configuration told at once."""

import json

import pytest
import torch

from unveil.config import VocabConfig, load_preset
from unveil.errors import PromptError, WeightsError
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text


def test_the_released_layout_has_the_ids_that_the_goldens_list(released: Text, vocab: VocabConfig) -> None:
    layout = Layout.of(vocab, released)
    assert (layout.soi, layout.eoi, layout.boi) == (485, 486, 488)
    assert (layout.role, layout.role_close, layout.role_end) == (735, 736, 484)
    assert (layout.pad, layout.mask, layout.image_offset, layout.codes) == (476, 479, 768, 128)
    assert (layout.think, layout.think_close) == (512, 514)


def test_the_tiny_preset_fits_a_learned_tokenizer(learned: Text) -> None:
    layout = Layout.of(load_preset("tiny").vocab, learned)
    assert (layout.pad, layout.mask, layout.codes, layout.size) == (732, 735, 2048, 3072)


def test_a_side_can_be_even_from_8_to_36_or_anything_from_37_to_255(released: Text, vocab: VocabConfig) -> None:
    assert Layout.of(vocab, released).sizes == (*range(8, 37, 2), *range(37, 256))


def test_size_tokens_lie_at_the_mask_plus_n_as_in_the_release(released: Text, vocab: VocabConfig) -> None:
    layout = Layout.of(vocab, released)
    assert all(layout.size_token(n) == layout.mask + n for n in layout.sizes)
    assert all(layout.side_of(layout.mask + n) == n for n in layout.sizes)
    assert layout.side_of(layout.boi) is None


@pytest.mark.parametrize(("n", "nearest"), [(9, "8 or 10"), (35, "34 or 36"), (4, "8"), (0, "8"), (256, "255")])
def test_an_impossible_side_names_the_nearest_valid_ones(
    released: Text, vocab: VocabConfig, n: int, nearest: str
) -> None:
    with pytest.raises(PromptError, match=f"{n} codes along a side; nearest: {nearest}$"):
        Layout.of(vocab, released).size_token(n)


def test_image_ids_are_those_from_the_offset_to_the_end(released: Text, vocab: VocabConfig) -> None:
    ids = torch.tensor([[0, 767, 768], [895, 896, 479]])
    found = Layout.of(vocab, released).is_image(ids)
    assert found.tolist() == [[False, False, True], [True, False, False]]


def test_one_error_lists_all_that_differs_from_the_configuration(released: Text) -> None:
    with pytest.raises(WeightsError) as caught:
        Layout.of(VocabConfig(size=900, image_offset=770, pad=1, mask=2), released)
    message = str(caught.value)
    assert "<|endoftext|> is 476, vocab.pad says 1" in message
    assert "<|mask|> is 479, vocab.mask says 2" in message
    assert "<IMAGE0> is 768, vocab.image_offset says 770" in message
    assert "the number of ids is 896, vocab.size says 900" in message
    assert "no token <IMAGE129>" in message


def test_codes_without_entries_must_follow_the_tokenizers_last_id(learned: Text) -> None:
    with pytest.raises(WeightsError, match="first id after the tokenizer's is 1024, vocab.image_offset says 1000"):
        Layout.of(VocabConfig(size=3072, image_offset=1000, pad=732, mask=735), learned)


def test_a_tokenizer_without_control_tokens_is_refused_naming_each(released: Text, vocab: VocabConfig) -> None:
    data = json.loads(released.parsing.to_str())
    data["added_tokens"] = []
    with pytest.raises(WeightsError) as caught:
        Layout.of(vocab, Text.parse(json.dumps(data), "file"))
    named = ["<|endoftext|>", "<|mask|>", "<|image|>", "<|/image|>", "<boi>", "<role>", "</role>", "<|role_end|>"]
    assert all(f"no token {token}" in str(caught.value) for token in named)
    assert "no size token" in str(caught.value)
