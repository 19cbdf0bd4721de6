"""`unveil chat`: a conversation in the terminal, or line by line from a pipe."""

import shlex
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import typer

from unveil.cli import options
from unveil.cli.output import check_picture_target, note, open_model, say
from unveil.errors import RequestError, UnveilError

if TYPE_CHECKING:
    from PIL import Image

    from unveil.pipeline import ImageResult, Message, Uni
    from unveil.pipeline.settings import TextOptions

HELP = """/image FILE       look at a picture; what you write next is about it
/generate WORDS   draw a picture and look at it
/edit WORDS       change the picture
/save FILE        write the picture
/quit             leave (or Ctrl-D)
anything else     a question about the picture; without a picture, a message"""


def chat(
    seed: options.Seed = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    solver_steps: options.SolverSteps = None,
    temperature: options.Temperature = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = None,
    quiet: options.Quiet = False,
) -> None:
    """Talk about pictures, draw and change them; /help inside lists the commands."""
    failed = False
    with open_model(model, device, quiet, memory=memory, dtype=dtype) as uni:
        talk = Talk(uni, seed, steps, guidance, solver_steps, temperature)
        for line in _lines():
            try:
                if not talk.answer(line):
                    break
            except UnveilError as error:
                failed = True
                note("unveil: " + " ".join(str(error).split()))
    if failed and not sys.stdin.isatty():
        raise typer.Exit(2)


class Talk:
    """A conversation: what was said so far and the picture it is about."""

    def __init__(
        self, uni: "Uni", seed: int | None = None, steps: int | None = None, guidance: float | None = None,
        solver_steps: int | None = None, temperature: float | None = None,
    ) -> None:  # fmt: skip
        self.uni, self.seed, self.steps, self.guidance = uni, seed, steps, guidance
        self.solver_steps, self.temperature = solver_steps, temperature
        self.turns: list[Message] = []
        self.picture: Image.Image | None = None
        self.drawn: ImageResult | None = None

    def answer(self, line: str) -> bool:
        """React to one line; False ends the conversation. Raises UnveilError, after which it can go on."""
        command, _, rest = line.strip().partition(" ")
        rest = rest.strip()
        match command:
            case "":
                return True
            case "/quit" | "/exit":
                return False
            case "/help":
                say(HELP)
            case "/image":
                self._look(rest)
            case "/generate":
                self._show(self.uni.generate_image(
                    rest, seed=self.seed, num_inference_steps=self.steps, guidance_scale=self.guidance,
                    solver_steps=self.solver_steps, temperature=self.temperature,
                ))  # fmt: skip
            case "/edit":
                self._show(self.uni.edit_image(
                    self._there(), rest, seed=self.seed, num_inference_steps=self.steps, guidance_scale=self.guidance,
                    solver_steps=self.solver_steps, temperature=self.temperature,
                ))  # fmt: skip
            case "/save":
                self._save(rest)
            case _ if command.startswith("/"):
                raise RequestError(f"no command {command}; /help lists them")
            case _:
                say(self._reply(line.strip()))
        return True

    def _look(self, name: str) -> None:
        from unveil.pictures import load_picture

        self.picture, self.drawn = load_picture(_file(name)), None
        say(f"{self.picture.width}x{self.picture.height} pixels")

    def _show(self, result: "ImageResult") -> None:
        self.picture, self.drawn = result.image, result
        say(f"a picture of {result.image.width}x{result.image.height}, seed {result.seed}; /save FILE keeps it")

    def _there(self) -> "Image.Image":
        if self.picture is None:
            raise RequestError("there is no picture yet; /image FILE or /generate WORDS gives one")
        return self.picture

    def _save(self, name: str) -> None:
        from unveil.files import write_atomic
        from unveil.pictures import encode

        picture, path = self._there(), _file(name)
        check_picture_target(path)
        if self.drawn is not None:
            self.drawn.save(path)
        else:
            write_atomic(path, encode(picture, path.suffix, {}))
        say(f"wrote {path}")

    def _reply(self, text: str) -> str:
        """Words about the picture if there is one; else the next words of the conversation."""
        from unveil.pipeline import Message

        how: TextOptions = {"num_inference_steps": self.steps, "temperature": self.temperature}
        if self.picture is not None:
            return self.uni.understand_image(self.picture, text, seed=self.seed, **how).text
        turns = [*self.turns, Message("user", text)]
        said = self.uni.chat(turns, seed=self.seed, **how).text
        self.turns = [*turns, Message("assistant", said)] if said else self.turns
        return said


def _file(name: str) -> Path:
    """A file name as typed, with or without quotes."""
    try:
        parts = shlex.split(name)
    except ValueError:
        parts = [name]
    if not name:
        raise RequestError("a file name is missing")
    return Path(parts[0] if len(parts) == 1 else name)


def _lines() -> Iterator[str]:
    """What is typed or piped, line by line until it ends."""
    if sys.stdin.isatty():
        note("/help lists the commands, /quit leaves")
    while True:
        try:
            yield input("> " if sys.stdin.isatty() else "")
        except EOFError:
            return
        except UnicodeDecodeError:
            note("unveil: that line is not UTF-8 text; write it anew")
