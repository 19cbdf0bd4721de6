"""`unveil generate`: words to a picture."""

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_picture_target, check_trace_target, note, open_model, save_trace, say, say_json
from unveil.files import write_atomic

if TYPE_CHECKING:
    from unveil.memory.moments import Task
    from unveil.pipeline import ImageResult, Uni


def generate(
    prompt: Annotated[str, typer.Argument(help='What to draw, e.g. "a red star on white".')],
    output: options.PictureOut,
    seed: options.Seed = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    solver_steps: options.SolverSteps = None,
    temperature: options.Temperature = None,
    sprint: options.Sprint = None,
    text_keep_ratio: options.TextKeepRatio = None,
    image_keep_ratio: options.ImageKeepRatio = None,
    height: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    width: Annotated[int | None, typer.Option(help="Pixels.")] = None,
    codes: options.Codes = None,
    keep: options.Keep = None,
    vary: options.Vary = None,
    at: options.At = None,
    thinking: Annotated[bool, typer.Option("--thinking", help="Write a plan in words first.")] = False,
    preview: options.Preview = None,
    trace: options.TraceFile = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = None,
    decoder: options.Decoder = "normal",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Draw a picture of what PROMPT says."""
    check_picture_target(output)
    if preview is not None:
        check_picture_target(preview)
    traced = check_trace_target(trace)

    def ask(uni: "Uni") -> "ImageResult":
        return uni.generate_image(
            prompt,
            seed=seed,
            thinking=thinking,
            codes=codes,
            keep=keep,
            vary=vary,
            at=at,
            trace=traced,
            num_inference_steps=steps,
            guidance_scale=guidance,
            solver_steps=solver_steps,
            temperature=temperature,
            sprint=sprint,
            text_keep_ratio=text_keep_ratio,
            image_keep_ratio=image_keep_ratio,
            height=height,
            width=width,
        )

    looks = preview is not None or codes is not None or keep is not None or vary is not None
    task: Task = "anything" if thinking or looks else "generate"
    size = max(height or 0, width or 0) or None
    with open_model(model, device, quiet, decoder, memory=memory, dtype=dtype, task=task, size=size) as uni:
        result = drawn(uni, ask, preview)
    save_picture(result, output, trace, as_json)


def drawn(uni: "Uni", ask: Callable[["Uni"], "ImageResult"], preview: Path | None) -> "ImageResult":
    """The result of a request, with a preview file on the way if one is wanted."""
    if preview is None:
        return ask(uni)
    from unveil.pictures import encode
    from unveil.pipeline.results import ImageResult

    for part in uni.stream_image(ask):
        if isinstance(part, ImageResult):
            return part
        write_atomic(preview, encode(part.image, preview.suffix, {}))
    raise AssertionError("a stream ends with its result")


def save_picture(result: "ImageResult", output: Path, trace: Path | None, as_json: bool) -> None:
    """Write a picture and its trace, and say so; drawn and edited ones alike."""
    result.save(output)
    save_trace(result.trace, trace)
    if as_json:
        say_json(describe(result, output))
        return
    if result.thinking is not None:
        note(f"plan: {result.thinking}")
    label = "  approximate" if result.approximate else ""
    say(f"{output}  seed {result.seed}  {result.seconds:.1f} s{label}")


def describe(result: "ImageResult", file: Path) -> dict[str, object]:
    """What `--json` prints of a picture."""
    settings, plan = result.recipe.settings, {} if result.thinking is None else {"thinking": result.thinking}
    return {
        "seed": result.seed,
        "steps": settings["steps"],
        "guidance": settings["guidance"],
        "solver_steps": settings["solver_steps"],
        "approximate": result.approximate,
        "seconds": round(result.seconds, 3),
        "width": result.image.width,
        "height": result.image.height,
        "file": str(file),
        "weights": result.recipe.weights,
        **plan,
    }
