"""Blanks in a text: all but the blanks is pinned on the canvas.

The ___ is red.        pieces  "The" " is red."       the space before a blank belongs to its first token
The _ _ is red. | |    canvas, with blanks of two tokens; `|` is the end of sequence, up to the end of the block
"""

import re
from dataclasses import dataclass
from typing import Self

from unveil.errors import PromptError
from unveil.weights.read import Parts

BLANK = re.compile("_{3,}")


@dataclass(frozen=True)
class Gapped:
    """A text around its blanks: one more piece than there are blanks, and how many tokens each blank has."""

    pieces: tuple[str, ...]
    length: int

    @classmethod
    def of(cls, text: str, length: int, parts: Parts) -> Self:
        """Raises PromptError for a text without a blank."""
        pieces = tuple(BLANK.split(text))
        if len(pieces) == 1:
            raise PromptError("the text has no blank; write ___ where words are missing")
        return cls(pieces, length)

    def ids(self, parts: Parts) -> list[list[int]]:
        """The pinned tokens of each piece."""
        *before, last = self.pieces
        return [parts.text.encode(piece.removesuffix(" ")) for piece in before] + [parts.text.encode(last)]

    def canvas(self, prefix: int, parts: Parts) -> list[int]:
        """What the canvas holds from the start behind that many tokens of prompt: pieces, MASK in blanks, the end."""
        layout = parts.layout
        first, *others = self.ids(parts)
        line = [*first, *(i for piece in others for i in (*[layout.mask] * self.length, *piece)), layout.pad]
        return line + [layout.pad] * (-(prefix + len(line)) % parts.config.backbone.block_size)

    def filled(self, tokens: list[int], parts: Parts) -> str:
        """The text with the words that stand in the blanks now; the pieces are as they were."""
        out, at = self.pieces[0], 0
        for piece, ids in zip(self.pieces[1:], self.ids(parts), strict=False):
            at += len(ids) + self.length
            words = parts.text.decode(tokens[at - self.length : at])
            out += (words.lstrip(" ") if not out or out.endswith(" ") else words) + piece
        return out
