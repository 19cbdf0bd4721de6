"""The options that several verbs share, each written once."""

from pathlib import Path
from typing import Annotated, Literal

import typer

Kind = Literal["normal", "turbo"]
Rule = Literal["official", "paper"]
Precision = Literal["float32", "bfloat16", "float16", "int8", "fp8", "int4"]
DtypeName = Literal["auto", "float32", "bfloat16", "float16", "int8", "fp8", "int4"]

Seed = Annotated[int | None, typer.Option("--seed", help="Same seed, same result. Without it a random one, reported.")]
Steps = Annotated[int | None, typer.Option("--steps", help="Denoise steps per block.")]
Guidance = Annotated[float | None, typer.Option("--guidance", help="How strongly the words count; 1 is none.")]
ImageGuidance = Annotated[float | None, typer.Option("--image-guidance", help="How strongly the old picture counts.")]
SolverSteps = Annotated[int | None, typer.Option("--solver-steps", help="Steps from noise to pixels.")]
Temperature = Annotated[float | None, typer.Option("--temperature", help="0 takes the likeliest token.")]
Sprint = Annotated[
    Rule | None,
    typer.Option("--sprint", help="Approximate: prune what later steps see, by this rule."),
]
TextKeepRatio = Annotated[
    float | None, typer.Option("--text-keep-ratio", help="With --sprint: the share of finished text that is left.")
]
ImageKeepRatio = Annotated[
    float | None, typer.Option("--image-keep-ratio", help="With --sprint: the share of finished codes that is left.")
]
Model = Annotated[str, typer.Option("--model", help="A model inside the package, or a directory.")]
AnyModel = Annotated[str, typer.Argument(metavar="MODEL", help="A model inside the package, or a directory.")]
Decoder = Annotated[Kind, typer.Option("--decoder", help="Of a released model: normal, or turbo (8 solver steps).")]
Device = Annotated[str, typer.Option("--device", help="auto, cpu, cuda, cuda:1, mps.")]
Dtype = Annotated[DtypeName, typer.Option("--dtype", help="Of weights; auto: on a GPU as stored, on a CPU float32.")]
Memory = Annotated[str | None, typer.Option("--memory", metavar="24GB", help="Plan for this much, and tell the peak.")]
AsJson = Annotated[bool, typer.Option("--json", help="One JSON object on stdout.")]
Quiet = Annotated[bool, typer.Option("--quiet", "-q", help="No progress.")]
Preview = Annotated[
    Path | None,
    typer.Option("--preview", metavar="FILE", help="Patches of color, written anew after every denoise step."),
]
TraceFile = Annotated[Path | None, typer.Option("--trace", metavar="FILE", help="Show the denoising: .gif or .html.")]
PictureOut = Annotated[Path, typer.Option("--output", "-o", metavar="FILE", help="The picture; a PNG can be replayed.")]
Mask = Annotated[Path | None, typer.Option("--mask", metavar="MASK", help="Change only what is white here.")]
Keep = Annotated[Path | None, typer.Option("--keep", metavar="MASK", help="With --codes: what is white here stays.")]
Vary = Annotated[
    Path | None, typer.Option("--vary", metavar="MASK", help="With --codes: what is white here is drawn anew.")
]
Codes = Annotated[Path | None, typer.Option("--codes", metavar="FILE", help="A PNG of unveil's, of which codes stay.")]
At = Annotated[
    tuple[int, int] | None,
    typer.Option("--at", metavar="ROW COLUMN", help="With --codes: where they begin in a larger picture."),
]
PictureIn = Annotated[Path, typer.Argument(metavar="FILE", help="PNG, JPEG, WebP, GIF or BMP.")]
