"""`unveil edit`: a picture and an instruction to a changed picture."""

from typing import TYPE_CHECKING, Annotated

import typer

from unveil.cli import options
from unveil.cli.generate import drawn, save_picture
from unveil.cli.output import check_picture_target, check_trace_target, open_model

if TYPE_CHECKING:
    from unveil.pipeline import ImageResult, Uni


def edit(
    file: options.PictureIn,
    instruction: Annotated[str, typer.Argument(help='What to change, e.g. "make the star green".')],
    output: options.PictureOut,
    mask: options.Mask = None,
    seed: options.Seed = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    image_guidance: options.ImageGuidance = None,
    solver_steps: options.SolverSteps = None,
    temperature: options.Temperature = None,
    preview: options.Preview = None,
    trace: options.TraceFile = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    decoder: options.Decoder = "normal",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Change the picture in FILE as INSTRUCTION says."""
    from unveil.pictures import load_picture

    check_picture_target(output)
    if preview is not None:
        check_picture_target(preview)
    traced = check_trace_target(trace)
    picture = load_picture(file)

    def ask(uni: "Uni") -> "ImageResult":
        return uni.edit_image(
            picture,
            instruction,
            seed=seed,
            mask=mask,
            trace=traced,
            num_inference_steps=steps,
            guidance_scale=guidance,
            image_guidance_scale=image_guidance,
            solver_steps=solver_steps,
            temperature=temperature,
        )

    save_picture(drawn(open_model(model, device, quiet, decoder), ask, preview), output, trace, as_json)
