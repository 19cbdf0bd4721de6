"""`unveil infill`: words into the blanks of a text."""

from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_trace_target, open_model
from unveil.cli.understand import save_text


def infill(
    text: Annotated[str, typer.Argument(help='What stays, with ___ where words are missing: "The ___ is red."')],
    image: Annotated[
        Path | None,
        typer.Option("--image", metavar="FILE", help="The picture that TEXT describes; the model needs one."),
    ] = None,
    length: Annotated[int, typer.Option("--length", help="Tokens of each blank.")] = 1,
    seed: options.Seed = None,
    steps: options.Steps = None,
    temperature: options.Temperature = None,
    trace: options.TraceFile = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Fill the blanks of TEXT and leave the rest as it is.

    The tiny model has learned to write captions of pictures: without --image it only guesses.
    """
    traced = check_trace_target(trace)
    result = open_model(model, device, quiet).infill(
        text, image=image, length=length, seed=seed, trace=traced, num_inference_steps=steps, temperature=temperature
    )
    save_text(result, trace, as_json)
