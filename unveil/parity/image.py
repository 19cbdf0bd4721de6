"""The image side: sizes and crops, tokenizer, code embedding, velocity, solvers, VAE, whole pictures."""

import hashlib
import re
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image

from unveil.diffusion import solver
from unveil.diffusion.flow import interpolate, velocity_target
from unveil.diffusion.solver import draw_noise, euler_times, turbo_times
from unveil.errors import RequestError
from unveil.model.image_decoder import decode_latents, posterior
from unveil.parity.golden import Case
from unveil.parity.judge import Check
from unveil.parity.models import ImageSide
from unveil.sampling.render import conditioned_field, render
from unveil.shapes import Float, Int, Tensor
from unveil.vocab.grid import crop_sizes, edit_crop, fit, over_white, smart_resize
from unveil.weights.official_config import DecoderKind

_FACTOR, _LEAST, _MOST = 32, 128**2, 800**2  # of one picture to understand
_CROPS = (256, 32)  # squares of a picture to edit, and their side
_TIMES = "absolute 1e-6"
_SHIFT, _GUIDANCE = 6.0, 1.0  # the official defaults of the normal decoder


def sizes(models: ImageSide, case: Case) -> Iterator[Check]:
    """Sizes of pictures to understand."""
    given, expected = zip(*case.params["cases"], strict=True)
    found = [smart_resize(h, w, factor=_FACTOR, min_pixels=_LEAST, max_pixels=most) for h, w, most in given]
    yield Check("cases", found, expected)


def crop_list(models: ImageSide, case: Case) -> Iterator[Check]:
    """Sizes of pictures to edit, in their order."""
    yield Check("value", crop_sizes(*_CROPS), case.params["value"])


def crops(models: ImageSide, case: Case) -> Iterator[Check]:
    """Both ways to fit a picture, to the byte."""
    for i, row in enumerate(case.params["cases"]):
        picture = Image.fromarray(_noise_picture(row))
        fitted = {
            "edit": edit_crop(picture, crop_sizes(*_CROPS)),
            "understand": fit(picture, factor=_FACTOR, min_pixels=_LEAST, max_pixels=_MOST),
        }
        for name, found in fitted.items():
            pixels = np.ascontiguousarray(np.asarray(found))
            yield Check(f"cases[{i}].{name}_shape", list(pixels.shape), row[f"{name}_shape"])
            yield Check(
                f"cases[{i}].{name}_sha256", hashlib.sha256(pixels.tobytes()).hexdigest(), row[f"{name}_sha256"]
            )


def whitened(models: ImageSide, case: Case) -> Iterator[Check]:
    """Transparency laid over white."""
    white = over_white(Image.fromarray(case.inputs[case.params["in"]].numpy()))
    yield Check(case.params["out"], torch.from_numpy(np.array(white)))


@torch.no_grad()
def tokenized(models: ImageSide, case: Case) -> Iterator[Check]:
    """Pictures to pixels, features, latents and codes."""
    network, side = models.tokenizer, models.tokenizer_config.patch_size
    for i, row in enumerate(case.params["cases"]):
        h, w = row["grid"][-2:]
        pixels = network.prepare(torch.from_numpy(_noise_picture(row))[None])
        patches = pixels.reshape(1, 3, h, side, w, side).permute(0, 2, 4, 1, 3, 5).reshape(h * w, -1)
        hidden = network.vision(pixels)
        yield Check(row["pixel_values"], patches)
        yield Check(row["hidden"], hidden.flatten(0, 2))
        yield Check(row["latent"], network.quantizer.project(hidden).permute(0, 3, 1, 2))
        yield Check(f"cases[{i}].codes", network(pixels).codes.flatten(), row["codes"])


@torch.no_grad()
def condition(models: ImageSide, case: Case) -> Iterator[Check]:
    """Features of a grid of codes."""
    yield Check(case.params["features"], models.code_embedding(_codes(case.params))[0])


@torch.no_grad()
def velocity(models: ImageSide, case: Case) -> Iterator[Check]:
    """Velocities of single latents; those of a ragged batch share one tensor of times."""
    for name in case.outputs:
        stem = name.removesuffix(".out")
        batch, _, index = stem.rpartition(".")
        shared = f"{stem}.t" not in case.inputs
        t = case.inputs[f"{batch}.t"][int(index)].reshape(1) if shared else case.inputs[f"{stem}.t"]
        x = case.inputs[f"{stem}.x"].transpose(0, 1)  # the official frame axis becomes the batch
        features = case.inputs[f"{stem}.features"][None]  # as many as they are, whatever the size of the latents
        found = models.decoder("normal")(x, t, features, (1, features.shape[1]))
        yield Check(name, found.transpose(0, 1))


@torch.no_grad()
def ode(models: ImageSide, case: Case) -> Iterator[Check]:
    """From noise to latents, normal decoder."""
    times = euler_times(int(_number(case, "grid_points", r"(\d+) grid points")), _shift(case))
    z = case.inputs["ode.z"][:, :, 0]
    features = case.inputs["condition.features"][None]
    field = conditioned_field(models.decoder("normal"), features, _grid(models, "normal", z), _guidance(case))
    if "times" in case.params:
        yield Check("times", times[:-1].tolist(), case.params["times"], tolerance=_TIMES)
    yield Check("ode.out", solver.euler(field, z, times), case.inputs["ode.out"])


@torch.no_grad()
def turbo(models: ImageSide, case: Case) -> Iterator[Check]:
    """From noise to latents, turbo decoder; its noise comes from the seed alone."""
    z, features = case.inputs["turbo.z"][:, :, 0], case.inputs["condition.features"][None]
    evaluations = len(case.params["times"]) if "times" in case.params else None
    times = turbo_times(int(_number(case, "evaluations", r"(\d+) evaluations", evaluations)))
    generators, shape = [torch.Generator().manual_seed(case.params["seed"])], tuple(z.shape[1:])
    field = conditioned_field(models.decoder("turbo"), features, _grid(models, "turbo", z), 0.0)
    if "times" in case.params:
        yield Check("times", times[:-1].tolist(), case.params["times"], tolerance=_TIMES)
    yield Check("turbo.z", draw_noise(shape, generators), z, tolerance="exact")
    out = solver.turbo(field, z, times, lambda: draw_noise(shape, generators, torch.float64))
    yield Check("turbo.out", out, case.inputs["turbo.out"])


def flow(models: ImageSide, case: Case) -> Iterator[Check]:
    """The training pair."""
    clean, noise, t = (case.inputs[f"flow.{name}"] for name in ("x1", "x0", "t"))
    yield Check("flow.xt", interpolate(clean, noise, t), case.inputs["flow.xt"])
    yield Check("flow.ut", velocity_target(clean, noise), case.inputs["flow.ut"])


@torch.no_grad()
def vae(models: ImageSide, case: Case) -> Iterator[Check]:
    """Latents to pixels, pixels to the distribution of latents."""
    yield Check("vae.dec", decode_latents(models.vae, case.inputs["vae.lat"]), case.inputs["vae.dec"])
    mean, logvar = posterior(models.vae, case.inputs["vae.img"])
    yield Check("vae.mean", mean, case.inputs["vae.mean"])
    yield Check("vae.logvar", logvar, case.inputs["vae.logvar"])


def picture(models: ImageSide, case: Case) -> Iterator[Check]:
    """Codes to pictures, both decoders; how many steps and which seed stands only in the words of the case."""
    codes = _codes(_entry_with_codes(case))
    seed = int(_number(case, "seed", r"manual_seed\((\d+)\)"))
    steps = {
        "normal": _number(case, "grid_points", r"(\d+) grid points"),
        "turbo": _number(case, "evaluations", r"(\d+) evaluations"),
    }
    for name in case.outputs:
        kind: DecoderKind = "turbo" if name.endswith("turbo") else "normal"
        found = render(
            codes,
            models.decoder(kind),
            models.code_embedding,
            models.vae,
            models.config(kind),
            solver_steps=int(steps[kind]),
            guidance=_guidance(case),
            shift=_shift(case),
            generators=[torch.Generator().manual_seed(seed)],
            turbo=kind == "turbo",
        )
        yield Check(name, found[0])


def _noise_picture(row: Mapping[str, Any]) -> "np.ndarray[Any, np.dtype[np.uint8]]":
    """The picture that a seed stands for."""
    return np.random.RandomState(row["seed"]).randint(0, 255, (row["height"], row["width"], 3), np.uint8)


def _entry_with_codes(case: Case) -> Mapping[str, Any]:
    """The manifest's entry that holds a picture's codes: the case's own, or the one it names as `topic.codes`."""
    named = case.params["codes"]
    return case.manifest[named.split(".")[0]] if isinstance(named, str) else case.params


def _codes(entry: Mapping[str, Any]) -> Int[Tensor, "1 h w"]:
    return torch.tensor(entry["codes"]).reshape(1, entry["height"], entry["width"])


def _grid(models: ImageSide, kind: DecoderKind, latents: Float[Tensor, "B C H W"]) -> tuple[int, int]:
    """Rows and columns of the decoder's patches."""
    side = models.config(kind).decoder.patch_size
    return latents.shape[-2] // side, latents.shape[-1] // side


def _shift(case: Case) -> float:
    return _number(case, "shift", r"shift ([\d.]*\d)", _SHIFT)


def _guidance(case: Case) -> float:
    return _number(case, "guidance", r"guidance ([\d.]*\d)", _GUIDANCE)


def _number(case: Case, key: str, words: str, default: float | None = None) -> float:
    """A number that the entry holds under its name, or else only says in words."""
    if key in case.params:
        return float(case.params[key])
    found = re.search(words, case.what)
    if found is None and default is None:
        raise RequestError(f"the manifest does not say its {key} ('{words}' is not found in its description)")
    return float(found[1]) if found else float(default or 0)
