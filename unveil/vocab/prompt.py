"""Conversation to ids: the official templates (spec backbone 4.3), tokenized piece by piece, so borders never merge.

    generate     <role>SYSTEM</role> ... <role>HUMAN</role> | prompt | <role>ASSISTANT</role> | header
    header       <|image|> height width <boi>             picture   header | codes row by row | <|/image|>

Pieces that a user typed go through `Text.encode` and hold no control token.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from unveil.errors import PromptError
from unveil.shapes import Int, Tensor
from unveil.vocab.layout import Layout
from unveil.vocab.text import Text, size_name

GENERATE = "You are a text-to-image generation assistant."
THINK = "You are a text-to-image generation assistant with a thinking process."
EDIT = "You are an image editing assistant."
UNDERSTAND = "You are a multimodal understanding assistant."
INTERLEAVE = "You are a interleaved generation assistant."  # sic: the model was trained on these very words
CHAT = "detailed thinking off"
UNCONDITION = "<uncondition>"  # no special token: ordinary pieces stand for the absent prompt
ROLES = {"system": "SYSTEM", "user": "HUMAN", "assistant": "ASSISTANT"}


@dataclass(frozen=True)
class Turn:
    """One message of a conversation; its pictures (grids of codes) come before its text."""

    role: Literal["system", "user", "assistant"]
    text: str
    pictures: tuple[Int[Tensor, "h w"], ...] = ()


@dataclass(frozen=True)
class Prompts:
    """All prompt layouts of one vocabulary. Every method gives the ids that come before the canvas.

    With `spell_sizes`, sides that have no size token are spelled in BPE pieces as the official code does (a header
    the model never saw, kept for parity); without, they raise PromptError.
    """

    text: Text
    layout: Layout
    spell_sizes: bool = False

    def header(self, h: int, w: int) -> list[int]:
        """What announces a picture: start, height, width, begin. Height first."""
        return [self.layout.soi, *self._side(h), *self._side(w), self.layout.boi]

    def picture(self, codes: Int[Tensor, "h w"]) -> list[int]:
        """A whole picture: header, codes in reading order, end."""
        lowest, highest = int(codes.min()), int(codes.max())
        if lowest < 0 or highest >= self.layout.codes:
            raise PromptError(f"codes must lie in 0..{self.layout.codes - 1}, found {lowest}..{highest}")
        ids = (codes.flatten() + self.layout.image_offset).tolist()
        return [*self.header(*codes.shape), *ids, self.layout.eoi]

    def generate(self, prompt: str, h: int, w: int) -> list[int]:
        """Text to picture."""
        return [*self._ask(GENERATE, prompt), *self.header(h, w)]

    def generate_unconditional(self, h: int, w: int) -> list[int]:
        """The guidance branch of `generate`: the prompt is absent."""
        return self.generate(UNCONDITION, h, w)

    def think(self, prompt: str) -> list[int]:
        """Text to picture with a plan in words first; the model writes plan and header itself."""
        return self._ask(THINK, prompt)

    def think_unconditional(self, h: int, w: int) -> list[int]:
        """The guidance branch of a picture that follows a plan: no prompt, no plan."""
        return [*self.think(UNCONDITION), *self.header(h, w)]

    def edit(self, codes: Int[Tensor, "h w"], instruction: str) -> list[int]:
        """Picture and instruction to a picture of the same grid."""
        asked = [*self._system(EDIT), *self.picture(codes), *self.text.encode(instruction), *self._assistant()]
        return [*asked, *self.header(*codes.shape)]

    def edit_no_text(self, codes: Int[Tensor, "h w"]) -> list[int]:
        """The guidance branch of `edit` that knows the picture and not the instruction."""
        return self.edit(codes, UNCONDITION)

    def edit_no_image(self, h: int, w: int, instruction: str) -> list[int]:
        """The guidance branch of `edit` that knows the instruction; of the picture only its start token is left."""
        asked = [*self._system(EDIT), self.layout.soi, *self.text.encode(instruction), *self._assistant()]
        return [*asked, *self.header(h, w)]

    def understand(self, codes: Int[Tensor, "h w"], question: str) -> list[int]:
        """A question about a picture, as the model was trained to be asked; an empty question asks for a caption."""
        return [*self._system(UNDERSTAND), *self.picture(codes), *self.text.encode(question), *self._assistant()]

    def understand_bare(self, codes: Int[Tensor, "h w"], question: str) -> list[int]:
        """The released library's form of `understand`: picture and question, no roles."""
        return [*self.picture(codes), *self.text.encode(question)]

    def interleave(self, prompt: str) -> list[int]:
        """A story of words and pictures in turn (spec backbone 5.8)."""
        return self._ask(INTERLEAVE, prompt)

    def interleave_unconditional(self, h: int, w: int) -> list[int]:
        """The guidance branch of a story's first picture."""
        return [*self.interleave(UNCONDITION), *self.header(h, w)]

    def interleave_no_text(self, history: Sequence[int], h: int, w: int) -> list[int]:
        """The branch of a later picture without its words: all ids through the last finished picture.

        Raises PromptError when `history` holds no finished picture: the first picture has `interleave_unconditional`.
        """
        ids = list(history)
        if self.layout.eoi not in ids:
            raise PromptError("a story's first picture has no earlier one to keep; use interleave_unconditional")
        through = len(ids) - ids[::-1].index(self.layout.eoi)
        return [*ids[:through], *self.text.encode(UNCONDITION), *self.header(h, w)]

    def interleave_no_image(self, frame_text: Sequence[int], h: int, w: int) -> list[int]:
        """The branch of a later picture without the earlier ones: only the ids of this frame's own words."""
        return [*self.interleave(UNCONDITION), *frame_text, *self.header(h, w)]

    def chat(self, turns: Sequence[Turn]) -> list[int]:
        """A conversation in the released chat template, up to where the assistant speaks.

        A first system turn is joined to the fixed line `detailed thinking off`; of an assistant's earlier turns
        what came before `</think>` is left out.
        """
        first = turns[0].text + "\n" if turns and turns[0].role == "system" else ""
        ids = self._turn("system", self.text.encode(first + CHAT))
        for turn in turns[1:] if first else turns:
            words = turn.text.split("</think>")[-1].lstrip("\n") if turn.role == "assistant" else turn.text
            pictures = [i for codes in turn.pictures for i in self.picture(codes)]
            ids += self._turn(turn.role, [*pictures, *self.text.encode(words)])
        return [*ids, *self._assistant()]

    def _turn(self, role: str, ids: list[int]) -> list[int]:
        return [*self.text.encode_template(f"<role>{ROLES[role]}</role>"), *ids, self.layout.role_end]

    def _ask(self, system: str, prompt: str) -> list[int]:
        return [*self._system(system), *self.text.encode(prompt), *self._assistant()]

    def _system(self, line: str) -> list[int]:
        return self.text.encode_template(f"<role>SYSTEM</role> {line} <role>HUMAN</role>")

    def _assistant(self) -> list[int]:
        return self.text.encode_template("<role>ASSISTANT</role>")

    def _side(self, n: int) -> list[int]:
        if self.spell_sizes:
            return self.text.encode_template(size_name(n))
        return [self.layout.size_token(n)]
