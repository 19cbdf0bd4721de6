"""`unveil replay`: a picture made again from what its PNG says, and compared."""

from pathlib import Path
from typing import Annotated

import typer

from unveil.cli import options
from unveil.cli.output import check_picture_target, note, open_model, say, say_json


def replay(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A PNG that unveil wrote.")],
    output: Annotated[Path | None, typer.Option("--output", "-o", metavar="FILE", help="Keep the new one.")] = None,
    model: options.Model = "tiny",
    device: options.Device = "auto",
    dtype: Annotated[
        options.DtypeName, typer.Option("--dtype", help="Of weights; auto: as they were when the picture was made.")
    ] = "auto",
    memory: options.Memory = None,
    decoder: options.Decoder = "normal",
    as_json: options.AsJson = False,
    quiet: options.Quiet = False,
) -> None:
    """Make the picture in FILE again; exit code 1 when a pixel differs."""
    from PIL import ImageChops

    from unveil.metadata import read_recipe
    from unveil.pictures import load_picture
    from unveil.version import VERSION

    if output is not None:
        check_picture_target(output)
    recipe, before = read_recipe(file), load_picture(file)
    if recipe.version != VERSION:
        note(f"{file} was made by unveil {recipe.version}, this is {VERSION}; the pixels may differ")
    held = recipe.precision if dtype == "auto" else dtype
    with open_model(model, device, quiet, decoder, memory=memory, dtype=held) as uni:
        result = uni.replay(recipe)
    if output is not None:
        result.save(output)
    same = before.size == result.image.size and ImageChops.difference(before, result.image).getbbox() is None
    if as_json:
        say_json({"identical": same, "seed": recipe.seed, "file": str(file)})
    else:
        say(f"{file}: {'identical' if same else 'different'} (seed {recipe.seed}, weights {recipe.weights})")
    if not same:
        now = result.recipe
        note(
            f"made in {recipe.precision} by {recipe.made_on or 'an earlier unveil'}; now {now.precision}, {now.made_on}"
        )
        raise typer.Exit(1)
