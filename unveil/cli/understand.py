"""`unveil understand`: a picture and a question to words."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_trace_target, open_model, save_trace, say, say_json

if TYPE_CHECKING:
    from unveil.pipeline import TextResult


def understand(
    file: options.PictureIn,
    question: Annotated[str, typer.Argument(help="What to ask; without it the picture is described.")] = "",
    choices: Annotated[
        str | None, typer.Option("--choices", metavar="A,B,...", help="The answer is one of these, whatever else.")
    ] = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    temperature: options.Temperature = None,
    trace: options.TraceFile = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Answer QUESTION about the picture in FILE, or describe it."""
    from unveil.pictures import load_picture

    traced = check_trace_target(trace)
    picture = load_picture(file)
    result = open_model(model, device, quiet).understand_image(
        picture,
        question,
        choices=() if choices is None else choices.split(","),
        seed=seed,
        trace=traced,
        num_inference_steps=steps,
        temperature=temperature,
    )
    save_text(result, trace, as_json)


def save_text(result: "TextResult", trace: Path | None, as_json: bool) -> None:
    """Say what was written, and write its trace."""
    save_trace(result.trace, trace)
    if as_json:
        say_json({"text": result.text, "seed": result.seed, "seconds": round(result.seconds, 3)})
    else:
        say(result.text)
