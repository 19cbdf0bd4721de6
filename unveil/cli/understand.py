"""`unveil understand`: a picture and a question to words."""

from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_trace_target, open_model, save_trace, say, say_json


def understand(
    file: options.PictureIn,
    question: Annotated[str, typer.Argument(help="What to ask; without it the picture is described.")] = "",
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
        picture, question, seed=seed, trace=traced, num_inference_steps=steps, temperature=temperature
    )
    save_trace(result.trace, trace)
    if as_json:
        say_json({"text": result.text, "seed": result.seed, "seconds": round(result.seconds, 3)})
    else:
        say(result.text)
