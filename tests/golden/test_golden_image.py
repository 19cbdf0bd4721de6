"""The image side against what the official code computes on a tiny random checkpoint (spec image, golden image-A)."""

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from unveil.config.load import load_preset
from unveil.config.tree import DecoderConfig, ImageTokenizerConfig, ModelConfig, VaeConfig
from unveil.diffusion.flow import interpolate, velocity_target
from unveil.diffusion.solver import draw_noise, euler, euler_times, turbo, turbo_times
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae, decode_latents, posterior
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.sampling.render import conditioned_field, render
from unveil.vocab.grid import crop_sizes, edit_crop, fit, over_white, smart_resize

HERE = Path(__file__).parent / "image-A"
MANIFEST = json.loads((HERE / "manifest.json").read_text())
NORMAL, TURBO = "decoder", "decoder-turbo"


@pytest.fixture(scope="module")
def golden():
    return load_file(HERE / "goldens.safetensors")


@pytest.fixture(scope="module")
def config() -> ModelConfig:
    official = load_preset("official")
    return official.model_copy(
        update={
            "image_tokenizer": ImageTokenizerConfig(
                width=32, mlp_width=64, layers=3, heads=4, patch_size=16, position_grid=8, codes=97, code_width=24
            ),
            "decoder": DecoderConfig(
                width=48,
                layers=3,
                refiner_layers=2,
                heads=3,
                condition_width=40,
                axes_dims=(4, 6, 6),
                axes_lens=(4096, 64, 64),
            ),
            "vae": VaeConfig(
                block_channels=(8, 8, 16, 16),
                layers_per_block=2,
                latent_channels=4,
                norm_groups=4,
                sample_size=64,
                scaling_factor=0.3611,
                shift_factor=0.1159,
            ),
        }
    )


@pytest.fixture(scope="module")
def decoders(config):
    found = {}
    for name in (NORMAL, TURBO):
        found[name] = ImageDecoder(config.decoder, config.vae.latent_channels)
        found[name].load_state_dict(load_file(HERE / "checkpoint" / name / "model.safetensors"))
    return found


@pytest.fixture(scope="module")
def code_embedding(config):
    module = CodeEmbedding(config)
    module.load_state_dict(torch.load(HERE / "checkpoint/image_tokenizer/sigvq_embedding.pt", weights_only=True))
    return module


@pytest.fixture(scope="module")
def vae(config):
    module = build_vae(config.vae)
    module.load_state_dict(load_file(HERE / "checkpoint/vae/diffusion_pytorch_model.safetensors"))
    return module.eval()


@pytest.fixture(scope="module")
def codes():
    case = MANIFEST["condition"]
    return torch.tensor(case["codes"]).view(1, case["height"], case["width"])


def random_picture(case) -> np.ndarray:
    return np.random.RandomState(case["seed"]).randint(0, 255, (case["height"], case["width"], 3), np.uint8)


def assert_near(actual, expected, rel=1e-4):
    assert actual.shape == expected.shape
    distance = (actual.double() - expected.double()).norm() / expected.double().norm()
    assert distance < rel, f"relative distance {distance:.2e}"


def sha256(picture: Image.Image) -> str:
    return hashlib.sha256(np.ascontiguousarray(np.asarray(picture)).tobytes()).hexdigest()


def test_smart_resize_gives_every_recorded_size():
    for (height, width, most), expected in MANIFEST["smart_resize"]["cases"]:
        found = smart_resize(height, width, factor=32, min_pixels=128**2, max_pixels=most)
        assert list(found) == expected, (height, width, most)


def test_edit_crop_sizes_are_the_official_49_in_order():
    assert [list(size) for size in crop_sizes(256, 32)] == MANIFEST["crop_list"]["value"]


@pytest.mark.parametrize("case", MANIFEST["crops"]["cases"], ids=lambda c: f"{c['width']}x{c['height']}")
def test_crops_are_the_same_bytes(case):
    picture = Image.fromarray(random_picture(case))
    edit = edit_crop(picture, crop_sizes(256, 32))
    assert (edit.height, edit.width, 3) == tuple(case["edit_shape"])
    assert sha256(edit) == case["edit_sha256"]
    understand = fit(picture, factor=32, min_pixels=128**2, max_pixels=800**2)
    assert (understand.height, understand.width, 3) == tuple(case["understand_shape"])
    assert sha256(understand) == case["understand_sha256"]


def test_transparency_is_laid_over_white(golden):
    whitened = over_white(Image.fromarray(golden["rgba.in"].numpy()))
    assert np.array_equal(np.asarray(whitened), golden["rgba.out"].numpy())


@pytest.mark.parametrize("index", range(3))
def test_tokenizer_gives_the_same_pixels_features_latents_and_codes(config, golden, index):
    case = MANIFEST["tokenizer"]["cases"][index]
    tokenizer = ImageTokenizer(config.image_tokenizer)
    tokenizer.load_state_dict(load_file(HERE / "checkpoint/image_tokenizer/model.safetensors"))
    h, w = case["grid"][1:]
    pixels = tokenizer.prepare(torch.from_numpy(random_picture(case))[None])
    patches = pixels.view(1, 3, h, 16, w, 16).permute(0, 2, 4, 1, 3, 5).reshape(h * w, -1)
    assert_near(patches, golden[case["pixel_values"]], 1e-6)
    hidden = tokenizer.vision(pixels)
    assert_near(hidden.flatten(0, 2), golden[case["hidden"]])
    latent = tokenizer.quantizer.project(hidden)
    assert_near(latent.permute(0, 3, 1, 2), golden[case["latent"]])
    assert tokenizer(pixels).codes.flatten().tolist() == case["codes"]


def test_condition_features_are_those_of_the_codes_doubled_along_each_side(code_embedding, codes, golden):
    assert_near(code_embedding(codes)[0], golden["condition.features"])


@pytest.mark.parametrize("name", ["a", "b", "ragged.0", "ragged.1"])
def test_velocity_is_the_same_with_and_without_pads(decoders, golden, name):
    kind, _, index = name.partition(".")
    t = golden[f"velocity.{kind}.t"]
    t = t[int(index) : int(index) + 1] if index else t
    features = golden[f"velocity.{name}.features"]
    x = golden[f"velocity.{name}.x"].transpose(0, 1)  # the official frame axis becomes the batch
    velocity = decoders[NORMAL](x, t, features[None], (1, len(features)))
    assert_near(velocity, golden[f"velocity.{name}.out"].transpose(0, 1))


@torch.no_grad()
def test_euler_with_guidance_ends_at_the_same_latents(decoders, golden):
    case = MANIFEST["ode"]
    times = euler_times(case["grid_points"], 6.0)
    assert times[:-1].tolist() == pytest.approx(case["times"], abs=1e-7)
    field = conditioned_field(decoders[NORMAL], golden["condition.features"][None], (10, 6), 1.0)
    assert_near(euler(field, golden["ode.z"][:, :, 0], times), golden["ode.out"])


@torch.no_grad()
def test_turbo_ends_at_the_same_latents_in_float64(decoders, golden):
    case, z = MANIFEST["turbo"], golden["turbo.z"][:, :, 0]
    times = turbo_times(8)
    assert times[:-1].tolist() == case["times"]
    generator = [torch.Generator().manual_seed(case["seed"])]
    shape = tuple(z.shape[1:])
    assert torch.equal(draw_noise(shape, generator), z)
    field = conditioned_field(decoders[TURBO], golden["condition.features"][None], (10, 6), 0.0)
    latents = turbo(field, z, times, lambda: draw_noise(shape, generator, torch.float64))
    assert latents.dtype == torch.float64
    assert_near(latents, golden["turbo.out"])


def test_flow_pair_is_exact(golden):
    clean, noise, t = golden["flow.x1"], golden["flow.x0"], golden["flow.t"]
    torch.testing.assert_close(interpolate(clean, noise, t), golden["flow.xt"], rtol=1e-6, atol=1e-7)
    assert torch.equal(velocity_target(clean, noise), golden["flow.ut"])


@torch.no_grad()
def test_vae_decodes_and_encodes_the_same(vae, golden):
    assert_near(decode_latents(vae, golden["vae.lat"]), golden["vae.dec"])
    mean, logvar = posterior(vae, golden["vae.img"])
    assert_near(mean, golden["vae.mean"])
    assert_near(logvar, golden["vae.logvar"])


@pytest.mark.parametrize(("name", "solver_steps"), [("normal", 6), ("decoder-turbo", 4)])
def test_rendered_picture_is_within_one_level(config, decoders, code_embedding, vae, codes, golden, name, solver_steps):
    few = name == TURBO
    picture = render(
        codes,
        decoders[TURBO if few else NORMAL],
        code_embedding,
        vae,
        config,
        solver_steps=solver_steps,
        guidance=1.0,
        shift=6.0,
        generators=[torch.Generator().manual_seed(21)],
        turbo=few,
    )
    expected = golden[f"picture.{name}"].int()
    assert picture.shape == (1, *expected.shape)
    difference = (picture[0].int() - expected).abs()
    assert difference.max() <= 1
    assert (difference > 0).float().mean() < 0.01
