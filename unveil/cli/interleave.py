"""`unveil interleave`: a story as words and pictures in turn, in a directory."""

import json
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_trace_target, open_model, save_trace, say, say_json
from unveil.files import check_directory, make_directory, write_atomic

if TYPE_CHECKING:
    from unveil.pipeline import StoryResult


def interleave(
    prompt: Annotated[str, typer.Argument(help='A story, e.g. "a red car on white. it turns blue."')],
    output: Annotated[Path, typer.Option("--output", "-o", metavar="DIR", help="Gets 01.png.., story.md, story.json.")],
    seed: options.Seed = None,
    steps: options.Steps = None,
    guidance: options.Guidance = None,
    image_guidance: options.ImageGuidance = None,
    solver_steps: options.SolverSteps = None,
    temperature: options.Temperature = None,
    trace: options.TraceFile = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: options.Dtype = "auto",
    memory: options.Memory = None,
    decoder: options.Decoder = "normal",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Tell the story of PROMPT in words and pictures."""
    check_directory(output)
    traced = check_trace_target(trace)
    with open_model(model, device, quiet, decoder, memory=memory, dtype=dtype) as uni:
        story = uni.generate_interleaved(
            prompt,
            seed=seed,
            trace=traced,
            num_inference_steps=steps,
            guidance_scale=guidance,
            image_guidance_scale=image_guidance,
            solver_steps=solver_steps,
            temperature=temperature,
        )
    make_directory(output)
    summary = save_story(story, prompt, output)
    save_trace(story.trace, trace)
    if as_json:
        say_json(summary)
    else:
        say(f"{output}  {len(story.pages)} pages  seed {story.seed}  {story.seconds:.1f} s")


def save_story(story: "StoryResult", prompt: str, directory: Path) -> dict[str, object]:
    """Write a story's files; what story.json holds."""
    pages, lines = list[dict[str, object]](), list[str]()
    for page in story.pages:
        name = None if page.image is None else f"{sum(p['file'] is not None for p in pages) + 1:02}.png"
        pages.append({"text": page.text, "file": name})
        lines += [page.text] if page.text else []
        if page.image is not None and name is not None:
            page.image.save(directory / name)
            lines.append(f"![]({name})")
    summary = {"prompt": prompt, "seed": story.seed, "seconds": round(story.seconds, 3), "pages": pages}
    _forget(directory, {p["file"] for p in pages})
    write_atomic(directory / "story.md", ("\n\n".join(lines) + "\n").encode("utf-8", "replace"))
    write_atomic(directory / "story.json", (json.dumps(summary, indent=1) + "\n").encode())
    return summary


def _forget(directory: Path, kept: set[object]) -> None:
    """Remove the pictures of an earlier story in the same place, as its story.json names them."""
    try:
        names = {page["file"] for page in json.loads((directory / "story.json").read_bytes())["pages"]}
    except (OSError, ValueError, KeyError, TypeError):
        return
    for name in names - kept:
        if re.fullmatch(r"\d{2,}\.png", str(name)):
            (directory / name).unlink(missing_ok=True)
