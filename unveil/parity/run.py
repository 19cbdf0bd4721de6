"""A golden directory, case by case."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unveil.errors import RequestError
from unveil.files import check_links
from unveil.parity import backbone, calls, functions, image, unmasking
from unveil.parity.golden import Case, Golden
from unveil.parity.judge import Check, Result, Skip, judge
from unveil.parity.models import BackboneSide, ImageSide

Comparison = Callable[[Any, Case], Iterator[Check | Skip]]
_OF_BACKBONE: dict[str, Comparison] = {
    "router": backbone.router,
    "layer": backbone.layer,
    "rope": backbone.rope,
    "forward": backbone.forward,
    "forward_cached": backbone.forward_cached,
    "forward_embeds": backbone.forward_embeds,
    "forward_bf16": backbone.forward_bf16,
    "loss": backbone.loss,
    "text": unmasking.unmasked,
    "image": unmasking.unmasked,
    "high_level": calls.high_level,
    "schedule": functions.schedule,
    "filter": functions.filtered,
    "adaptive": functions.adaptive,
    "prune": functions.pruned,
    "tokenizer": functions.tokenized,
}
_OF_IMAGES: dict[str, Comparison] = {
    "smart_resize": image.sizes,
    "crop_list": image.crop_list,
    "crops": image.crops,
    "tokenizer": image.tokenized,
    "whiten": image.whitened,
    "condition": image.condition,
    "velocity": image.velocity,
    "ode": image.ode,
    "turbo": image.turbo,
    "flow": image.flow,
    "vae": image.vae,
    "picture": image.picture,
}


class Runner:
    """The cases of a directory. Its models are loaded when a case first needs them."""

    def __init__(self, directory: Path) -> None:
        """Raises RequestError when it is no golden directory, WeightsError when its checkpoint leads out of itself."""
        self.golden = Golden.read(directory)
        check_links(self.golden.checkpoint)
        self.known = _OF_IMAGES if self.golden.of_images else _OF_BACKBONE
        side = ImageSide if self.golden.of_images else BackboneSide
        self.models = side(self.golden.checkpoint)

    @property
    def names(self) -> list[str]:
        """All cases, in the manifest's order."""
        return list(self.golden.entries)

    def results(self) -> Iterator[Result]:
        """One verdict a case, and one for each part of a case that is skipped."""
        for name in self.names:
            yield from self.run(name)

    def run(self, name: str) -> list[Result]:
        """The verdict on one case; whatever it raises is one."""
        try:
            case = self.golden.case(name)
            if case.kind not in self.known:
                raise RequestError(f"its kind '{case.kind}' is not known; there are {', '.join(self.known)}")
            return judge(case, self.known[case.kind](self.models, case))
        except KeyError as error:
            return [Result(name, "failed", f"the recording lacks {error}")]
        except Exception as error:  # one broken case must not hide the others
            said = " ".join(str(error).split()) or "no message"
            return [Result(name, "failed", f"{type(error).__name__}: {said}")]
