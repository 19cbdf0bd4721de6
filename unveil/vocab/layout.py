"""The id space: text pieces, then special tokens, then image codes from `image_offset` on."""

from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Self

from unveil.config.tree import VocabConfig
from unveil.errors import PromptError, WeightsError
from unveil.shapes import Bool, Int, Tensor
from unveil.vocab.text import Text, size_name

SPECIAL = {
    "pad": "<|endoftext|>",
    "mask": "<|mask|>",
    "soi": "<|image|>",
    "eoi": "<|/image|>",
    "boi": "<boi>",
    "role": "<role>",
    "role_close": "</role>",
    "role_end": "<|role_end|>",
    "think": "<think>",
    "think_close": "</think>",
}
"""Field of `Layout` -> the special token that it looks up."""


@dataclass(frozen=True)
class Layout:
    """Where everything lies in one vocabulary. Made by `Layout.of`; ids are looked up by string, never assumed."""

    size: int  # of the whole vocabulary, codes included
    image_offset: int  # id of code 0
    codes: int
    pad: int  # end of sequence and padding
    mask: int
    soi: int  # start of a picture, before its size tokens
    eoi: int  # end of a picture, after its last code
    boi: int  # ends the header: codes follow
    role: int
    role_close: int
    role_end: int
    think: int
    think_close: int
    size_ids: Mapping[int, int]  # codes along a side -> id of its size token

    @classmethod
    def of(cls, vocab: VocabConfig, text: Text) -> Self:
        """The layout of a tokenizer, checked against the configuration. One WeightsError lists all that differs."""
        ids = {field: text.find(token) for field, token in SPECIAL.items()}
        problems = [f"no token {SPECIAL[field]}" for field, found in ids.items() if found is None]
        problems += _compare("<|endoftext|>", ids["pad"], "vocab.pad", vocab.pad)
        problems += _compare("<|mask|>", ids["mask"], "vocab.mask", vocab.mask)
        problems += _code_problems(vocab, text)
        sizes = {n: found for n in range(1, 256) if (found := text.find(size_name(n))) is not None}
        if not sizes:
            problems.append(f"no size token such as {size_name(8)}")
        if problems:
            raise WeightsError("tokenizer and configuration differ: " + "; ".join(problems))
        known = {field: found for field, found in ids.items() if found is not None}
        return cls(
            size=vocab.size,
            image_offset=vocab.image_offset,
            codes=vocab.size - vocab.image_offset,
            size_ids=MappingProxyType(sizes),
            **known,
        )

    @property
    def sizes(self) -> tuple[int, ...]:
        """Every number of codes a picture's side can have, ascending: even 8..36, then all of 37..255."""
        return tuple(sorted(self.size_ids))

    def size_token(self, n: int) -> int:
        """The id that says n codes along a side. Raises PromptError with the nearest valid numbers."""
        if n not in self.size_ids:
            raise PromptError(f"no picture can be {n} codes along a side; nearest: {' or '.join(self.nearest(n))}")
        return self.size_ids[n]

    def nearest(self, n: int) -> list[str]:
        """The valid side just below n and just above, as text for an error."""
        below = [s for s in self.sizes if s < n][-1:]
        above = [s for s in self.sizes if s > n][:1]
        return [str(s) for s in below + above]

    def side_of(self, token: int) -> int | None:
        """The number of codes that a size token stands for, None for any other id."""
        return next((n for n, i in self.size_ids.items() if i == token), None)

    def is_image(self, ids: Int[Tensor, "*shape"]) -> Bool[Tensor, "*shape"]:
        """Which ids are image codes."""
        return (ids >= self.image_offset) & (ids < self.image_offset + self.codes)


def _compare(token: str, found: int | None, field: str, wanted: int) -> list[str]:
    """A problem when a token that exists has another id than configured."""
    return [f"{token} is {found}, {field} says {wanted}"] if found not in (None, wanted) else []


def _code_problems(vocab: VocabConfig, text: Text) -> list[str]:
    """Codes may be entries of the tokenizer (then their ids must agree) or simply follow its last id."""
    first, codes = text.find("<IMAGE0>"), vocab.size - vocab.image_offset
    if first is None:
        return _compare("the first id after the tokenizer's", text.size, "vocab.image_offset", vocab.image_offset)
    last = f"<IMAGE{codes - 1}>"
    return [
        *_compare("<IMAGE0>", first, "vocab.image_offset", vocab.image_offset),
        *_compare("the number of ids", text.size, "vocab.size", vocab.size),
        *([f"no token {last}"] if text.find(last) is None else _compare(last, text.find(last), last, vocab.size - 1)),
    ]
