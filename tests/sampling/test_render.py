"""Codes to pictures at tiny size, with random weights."""

import pytest
import torch

from unveil.config.load import load_preset
from unveil.errors import RequestError
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.sampling.render import conditioned_field, latents_to_picture, render


@pytest.fixture(scope="module")
def config():
    tiny = load_preset("tiny")
    decoder = tiny.decoder.model_copy(update={"width": 64, "layers": 1, "heads": 2})
    vae = tiny.vae.model_copy(update={"block_channels": (8, 8, 8, 8), "scaling_factor": 0.5, "shift_factor": 0.25})
    return tiny.model_copy(update={"decoder": decoder, "vae": vae})


@pytest.fixture(scope="module")
def parts(config):
    torch.manual_seed(0)  # diffusers draws its initial weights from the global generator
    generator = torch.Generator().manual_seed(0)
    decoder, embedding = ImageDecoder(config.decoder, config.vae.latent_channels), CodeEmbedding(config)
    decoder.initialize(generator)
    embedding.initialize(generator)
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.1)
    return decoder.eval(), embedding.eval(), build_vae(config.vae).eval()


@pytest.fixture(scope="module")
def codes(config):
    generator = torch.Generator().manual_seed(3)
    return torch.randint(config.image_tokenizer.codes, (3, 4, 2), generator=generator)


def draw(parts, config, codes, seeds, **changes):
    generators = [torch.Generator().manual_seed(s) for s in seeds]
    settings = {"solver_steps": 4, "guidance": 1.0, "shift": 2.0, **changes}
    return render(codes, *parts, config, generators=generators, **settings)


@pytest.mark.parametrize("turbo", [False, True])
def test_a_batch_of_pictures_gives_what_each_gives_alone(parts, config, codes, turbo):
    together = draw(parts, config, codes, [5, 6, 7], turbo=turbo)
    assert together.shape == (3, 64, 32, 3) and together.dtype == torch.uint8
    for i, seed in enumerate([5, 6, 7]):
        alone = draw(parts, config, codes[i : i + 1], [seed], turbo=turbo)
        difference = (together[i].int() - alone[0].int()).abs()
        assert difference.max() <= 1 and (difference > 0).float().mean() < 0.01


def test_the_picture_changes_with_seed_codes_guidance_and_shift(parts, config, codes):
    one = codes[:1]
    base = draw(parts, config, one, [5])
    assert torch.equal(base, draw(parts, config, one, [5]))
    assert base.float().std() > 1
    for changed in (
        draw(parts, config, one, [6]),
        draw(parts, config, codes[1:2], [5]),
        draw(parts, config, one, [5], guidance=0.0),
        draw(parts, config, one, [5], shift=6.0),
    ):
        assert (changed.int() - base.int()).abs().max() > 1


def test_turbo_ignores_guidance_and_shift(parts, config, codes):
    one = codes[:1]
    base = draw(parts, config, one, [5], turbo=True)
    assert torch.equal(base, draw(parts, config, one, [5], turbo=True, guidance=0.0, shift=6.0))


def test_solver_steps_are_grid_points_and_with_turbo_evaluations(parts, config, codes):
    for turbo, expected in ((False, [0, 1, 2]), (True, [0, 1, 2, 3])):
        seen = []
        draw(parts, config, codes[:1], [5], turbo=turbo, on_step=lambda k, t, x, seen=seen: seen.append((k, t, x)))
        assert [k for k, _, _ in seen] == expected
        assert seen[-1][1] == 1.0
        assert seen[0][2].shape == (1, 8, 8, 4)
    assert torch.equal(latents_to_picture(seen[-1][2].float(), parts[2], config), draw(
        parts, config, codes[:1], [5], turbo=True
    ))  # fmt: skip


@torch.no_grad()
def test_the_unconditional_branch_is_all_zero_features_of_the_same_length(parts, config, codes):
    decoder, embedding, _ = parts
    condition, x, t = embedding(codes), torch.randn(3, 8, 8, 4), torch.full((3,), 0.3)
    positive = decoder(x, t, condition, (4, 2))
    negative = decoder(x, t, torch.zeros_like(condition), (4, 2))
    expected = positive + 0.5 * (positive - negative)
    limit = positive.flatten(1).norm(dim=1) / expected.flatten(1).norm(dim=1)
    expected = expected * limit.clamp(max=1).view(3, 1, 1, 1)
    guided = conditioned_field(decoder, condition, (4, 2), 0.5)(x, t)
    torch.testing.assert_close(guided, expected, rtol=1e-4, atol=1e-5)


def test_what_does_not_depend_on_time_is_computed_once_per_picture(parts, config, codes, monkeypatch):
    contexts, context = [], parts[0].context
    monkeypatch.setattr(parts[0], "context", lambda *given: contexts.append(given) or context(*given))
    draw(parts, config, codes[:1], [5])
    (given,) = contexts  # of three evaluations
    assert given[1:] == ((4, 2), (8, 4)) and not given[0][1].any()  # the second branch is without condition


def test_pixels_are_clamped_times_255_and_truncated(config):
    class Values:
        def decode(self, z):
            values = torch.tensor([-3.0, -1.0, 0.0, 0.999, 1.0, 7.0])
            return type("Out", (), {"sample": values.view(1, 1, 1, 6).expand(1, 3, 1, 6)})

    picture = latents_to_picture(torch.zeros(1, 8, 1, 1), Values(), config)
    assert picture[0, 0, :, 0].tolist() == [0, 0, 127, 254, 255, 255]


def test_impossible_settings_are_refused_in_words(parts, config, codes):
    with pytest.raises(RequestError, match="3 pictures need as many seeds, not 1"):
        draw(parts, config, codes, [5])
    with pytest.raises(RequestError, match="guidance must be 0"):
        draw(parts, config, codes[:1], [5], guidance=-1.0)
    with pytest.raises(RequestError, match="at least 2"):
        draw(parts, config, codes[:1], [5], solver_steps=1)
