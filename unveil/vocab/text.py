"""Text to ids and back: byte-level BPE plus the official special tokens, which only templates may write.

Two readers share one vocabulary. Templates are parsed with special tokens, what a user typed without: a prompt
that says `<|mask|>`, `<role>` or `<IMAGE5>` becomes ordinary pieces, never a control token or a code.
"""

import itertools
import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, trainers

from unveil.errors import TrainingError, WeightsError

# The released tokenizer's own word pattern: contractions, words with their leading sign or space, single digits.
_WORDS = r"'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+"
_FIRST = (
    "<|startoftext|>", "<|endoftext|>", "[CLS]", "[gMASK]", "<|mask|>", "<tool_call>", "</tool_call>",
    "<tool_response>", "</tool_response>", "<|role_end|>", "<|image|>", "<|/image|>",
)  # fmt: skip
_RENAMED = (
    "<boi>", "<padding>", "<system>", "</system>", "<user>", "</user>", "<answer>", "</answer>",
    "<mmu>", "<t2i>", "<edit>", "<interleaved>", "<think>", "</think>",
)  # fmt: skip
_SIZES = range(8, 256)
_UNUSED = 31


def control_tokens() -> list[str]:
    """The 262 official special tokens in id order (spec backbone 10.3); `decode` drops them.

    `<|reserved_token_n|>` says a picture is n codes high or wide; the odd n from 9 to 35 were renamed.
    """
    renamed = dict(zip(range(9, 36, 2), _RENAMED, strict=True))
    sizes = [renamed.get(n, size_name(n)) for n in _SIZES]
    return [*_FIRST, *sizes, "<role>", "</role>"]


def unused_tokens() -> list[str]:
    """The 31 official placeholders that follow the special tokens; they are not special."""
    return [f"<dummy_unused_{i}>" for i in range(_UNUSED)]


def size_name(n: int) -> str:
    """How the vocabulary spells the token for a side of n codes; not every n has one."""
    return f"<|reserved_token_{n}|>"


@dataclass(frozen=True)
class Text:
    """A tokenizer read in two ways: `parsing` finds added tokens, `plain` has the same pieces and no added token."""

    parsing: Tokenizer
    plain: Tokenizer

    @classmethod
    def train(cls, texts: Iterable[str], bpe_size: int = 731) -> Self:
        """A tokenizer learned from `texts`: 256 bytes and merges up to `bpe_size`, then the official tokens.

        The same texts in any order give the same file, byte for byte. Any unicode encodes, since every byte is a piece.
        Raises TrainingError when the texts are too few for that many merges.
        """
        tokenizer = Tokenizer(models.BPE())
        words = pre_tokenizers.Split(Regex(_WORDS), "isolated")
        bytes_ = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence([words, bytes_])
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
        trainer = trainers.BpeTrainer(vocab_size=bpe_size, initial_alphabet=alphabet, show_progress=False)
        tokenizer.train_from_iterator(texts, trainer)
        if tokenizer.get_vocab_size() != bpe_size:
            found = tokenizer.get_vocab_size()
            raise TrainingError(f"the texts give {found} BPE pieces, {bpe_size} were asked for; give more varied texts")
        tokenizer.add_special_tokens([AddedToken(t, normalized=False, special=True) for t in control_tokens()])
        tokenizer.add_tokens([AddedToken(t, normalized=True, special=False) for t in unused_tokens()])
        return cls.parse(tokenizer.to_str(), "the trained tokenizer")

    @classmethod
    def load(cls, path: Path) -> Self:
        """The tokenizer in a `tokenizer.json`: ours or the released one, any offsets."""
        try:
            return cls.parse(Path(path).read_text(encoding="utf-8"), str(path))
        except OSError as error:
            raise WeightsError(f"{path}: cannot be read ({error.strerror}); copy the model directory again") from None
        except UnicodeDecodeError:
            raise WeightsError(f"{path}: is not text in UTF-8; copy the model directory again") from None

    @classmethod
    def parse(cls, text: str, source: str) -> Self:
        """A tokenizer from the text of its file; `source` names it in errors."""
        try:
            return cls(Tokenizer.from_str(text), Tokenizer.from_str(_without_added(text)))
        except Exception as error:  # `tokenizers` raises bare Exception
            raise WeightsError(f"{source}: is not a usable tokenizer.json ({error})") from None

    def save(self, path: Path) -> None:
        """Write `tokenizer.json`; equal tokenizers give equal bytes."""
        Path(path).write_text(self.parsing.to_str(pretty=True), encoding="utf-8")

    def encode(self, text: str) -> list[int]:
        """Ids of what a user typed: ordinary pieces only. Lone surrogates become U+FFFD, all else round-trips."""
        return self.plain.encode(_well_formed(text), add_special_tokens=False).ids

    def encode_template(self, text: str) -> list[int]:
        """Ids of a template we wrote: special tokens are parsed. Never hand it a user's words."""
        return self.parsing.encode(text, add_special_tokens=False).ids

    def decode(self, ids: Sequence[int], *, skip_special: bool = True) -> str:
        """The text of the ids. Codes show as `<IMAGEk>`, as in the release, also where they are no entries."""
        known = self.parsing.get_vocab_size()
        parts: list[str] = []
        for inside, run in itertools.groupby(ids, key=lambda i: i < known):
            if inside:
                parts.append(self.parsing.decode(list(run), skip_special_tokens=skip_special))
            else:
                parts.extend(f"<IMAGE{i - known}>" for i in run)
        return "".join(parts)

    def find(self, token: str) -> int | None:
        """The id of one token by its exact string, None when the vocabulary lacks it."""
        return self.parsing.token_to_id(token)

    def token_id(self, token: str) -> int:
        """The id of a token that must exist. Raises WeightsError."""
        found = self.find(token)
        if found is None:
            raise WeightsError(f"the tokenizer has no token {token}; its tokenizer.json belongs to another model")
        return found

    @property
    def pieces(self) -> int:
        """The id below which all are ordinary pieces: special tokens come after them."""
        return min(i for token in control_tokens() if (i := self.find(token)) is not None)

    @property
    def size(self) -> int:
        """How many ids the tokenizer itself knows (pieces and added tokens)."""
        return self.parsing.get_vocab_size()


def _well_formed(text: str) -> str:
    """Surrogate pairs joined, lone surrogates replaced: a string that has a UTF-8 form."""
    return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")


def _without_added(text: str) -> str:
    """The same tokenizer file without added tokens, neither as entries nor as pieces of the BPE vocabulary."""
    data = json.loads(text)
    added = {token["content"] for token in data["added_tokens"]}
    data["added_tokens"] = []
    data["model"]["vocab"] = {piece: i for piece, i in data["model"]["vocab"].items() if piece not in added}
    return json.dumps(data)
