"""Requests for words: answers about pictures, the next words of a conversation, what belongs into blanks."""

import time
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

from unveil.errors import PromptError, RequestError
from unveil.pictures import PictureInput
from unveil.pipeline.draw import Written, write
from unveil.pipeline.infill import Gapped
from unveil.pipeline.inputs import checked_text, one_each, tokenize
from unveil.pipeline.results import TextResult
from unveil.pipeline.settings import Streams, TextSettings, checked_length
from unveil.pipeline.watch import Watch
from unveil.scenes.describe import DESCRIBE
from unveil.shapes import Int, Tensor
from unveil.trace import Trace
from unveil.vocab.prompt import ROLES, Prompts, Turn
from unveil.weights.read import Parts

_MOST = 1000  # choices of one request
FILL = "fill in the blanks:"


@dataclass(frozen=True)
class Message:
    """One message of a chat; its pictures come before its text."""

    role: Literal["system", "user", "assistant"]
    text: str
    images: tuple[PictureInput, ...] = ()

    def __post_init__(self) -> None:
        if self.role not in ROLES:
            raise PromptError(f"no role '{self.role}'; there are {', '.join(ROLES)}")


def answer(
    parts: Parts,
    pictures: Int[Tensor, "B h w"],
    questions: Sequence[str | None],
    seeds: Sequence[int],
    settings: TextSettings,
    watch: Watch,
    choices: Sequence[str] | None = (),
) -> list[TextResult]:
    """The answers to questions about pictures, one each; an empty question, or none, asks for a description."""
    one_each(pictures=pictures, questions=questions)
    start, few = time.perf_counter(), choice_ids(parts, choices or (), settings)
    asked = [DESCRIBE if _is_blank(question) else checked_text(question, "question") for question in questions]
    say = Prompts(parts.text, parts.layout)
    prefixes = [say.understand(codes, text) for codes, text in zip(pictures, asked, strict=True)]
    written = write(parts, prefixes, [Streams.of(s) for s in seeds], settings, watch, "question", choices=few)
    seconds = time.perf_counter() - start
    return [
        TextResult(said(parts, w), seed, seconds, Trace(text, w.stages) if watch.keep else None)
        for w, seed, text in zip(written, seeds, asked, strict=True)
    ]


def _is_blank(question: object) -> bool:
    return question is None or (isinstance(question, str) and not question.strip())


def converse(parts: Parts, turns: Sequence[Message], seed: int, settings: TextSettings, watch: Watch) -> TextResult:
    """The assistant's next words. Raises PromptError when there is no turn or the last one is empty."""
    checked_text(turns[-1].text if turns else "", "message")
    start = time.perf_counter()
    heard = [
        Turn(t.role, checked_text(t.text, "message"), tuple(tokenize(parts, t.images)) if t.images else ())
        for t in turns
    ]
    prefix = Prompts(parts.text, parts.layout).chat(heard)
    written = write(parts, [prefix], [Streams.of(seed)], settings, watch, "conversation")[0]
    shown = Trace(turns[-1].text, written.stages) if watch.keep else None
    return TextResult(said(parts, written), seed, time.perf_counter() - start, shown)


def fill_in(
    parts: Parts, text: str, picture: PictureInput | None, length: int, seed: int, settings: TextSettings, watch: Watch
) -> TextResult:
    """The text with words in its blanks; with a picture it is taken as what describes that."""
    start, say = time.perf_counter(), Prompts(parts.text, parts.layout)
    gapped = Gapped.of(checked_text(text, "text"), checked_length(length), parts)
    if picture is None:
        prefix = say.chat([Turn("user", f"{FILL} {text}")])
    else:
        prefix = say.understand(tokenize(parts, [picture])[0], DESCRIBE)
    given = gapped.canvas(len(prefix), parts)
    settings = replace(settings, tokens=len(given))
    written = write(parts, [prefix], [Streams.of(seed)], settings, watch, "text", given=[given])[0]
    shown = Trace(text, written.stages) if watch.keep else None
    return TextResult(gapped.filled(written.tokens, parts), seed, time.perf_counter() - start, shown)


def choice_ids(parts: Parts, choices: Sequence[str], settings: TextSettings) -> list[list[int]]:
    """Each choice as ids with its end. Raises RequestError for choices that leave nothing to choose."""
    if isinstance(choices, str):
        raise RequestError(f"choices must be a list of texts, not the one text '{choices}'")
    texts = [choice.strip() if isinstance(choice, str) else checked_text(choice, "choice") for choice in choices]
    if any(not text for text in texts):
        raise RequestError("a choice is empty; leave it out, or say in words what it is")
    if texts and not 2 <= len(set(texts)) <= _MOST:
        raise RequestError(f"there must be from 2 to {_MOST} different choices, not {len(set(texts))}")
    ids = [[*parts.text.encode(text), parts.layout.pad] for text in dict.fromkeys(texts)]
    for text, tokens in zip(dict.fromkeys(texts), ids, strict=True):
        if len(tokens) > settings.tokens:
            sizes = f"has {len(tokens)} tokens with its end, {settings.tokens} may be written"
            raise RequestError(f"the choice '{text[:40]}' {sizes}; shorten it or raise max_tokens")
    return ids


def said(parts: Parts, written: Written) -> str:
    """The words of an answer."""
    return parts.text.decode(written.tokens).strip()
