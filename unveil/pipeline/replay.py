"""A picture made again from its recipe."""

import torch

from unveil.errors import RequestError, WeightsError
from unveil.metadata import Recipe
from unveil.pipeline.images import edit, generate
from unveil.pipeline.pins import Pins
from unveil.pipeline.results import ImageResult
from unveil.pipeline.settings import PictureSettings
from unveil.pipeline.story import told
from unveil.pipeline.watch import Watch
from unveil.weights.read import Parts


def replayed(parts: Parts, recipe: Recipe, watch: Watch) -> ImageResult:
    """The picture that a recipe made. Raises WeightsError for other weights, RequestError for a changed recipe."""
    if recipe.weights != parts.hash:
        theirs = f"the picture was made with weights {recipe.weights}"
        raise WeightsError(f"{theirs}, these are {parts.hash}; give the model it was made with")
    settings = PictureSettings.from_plain(recipe.settings, parts.config, parts.layout)
    pins = [None if recipe.pinned is None else Pins.from_plain(recipe.pinned, settings.grid, parts.layout)]
    if recipe.task == "generate":
        return generate(parts, [recipe.prompt], [recipe.seed], settings, watch, pins)[0]
    if recipe.task == "edit":
        codes = torch.tensor(recipe.source)[None]
        if tuple(codes.shape[1:]) != settings.grid:
            raise RequestError("the picture's recipe was changed: its source has another size")
        return edit(parts, codes, [recipe.prompt], [recipe.seed], settings, watch, pins)[0]
    images = [page.image for page in told(parts, recipe.prompt, recipe.seed, settings, watch).pages]
    made = [image for image in images if image is not None and image.recipe.number == recipe.number]
    if not made:
        raise RequestError(f"the story has no picture number {recipe.number}; its recipe was changed")
    return made[0]
