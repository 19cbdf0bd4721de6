"""The velocity network and the code embedding at tiny size."""

import pytest
import torch
from torch._dynamo.utils import counters

from unveil.config.load import load_preset
from unveil.config.tree import DecoderConfig
from unveil.errors import RequestError
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder
from unveil.model.image_decoder.positions import (
    condition_positions,
    image_positions,
    rotary_angles,
    rotate,
    rotation,
)

CPU = torch.device("cpu")


def small(**changes) -> DecoderConfig:
    values = {
        "width": 32,
        "layers": 2,
        "refiner_layers": 1,
        "heads": 2,
        "condition_width": 12,
        "axes_dims": (4, 6, 6),
        "axes_lens": (128, 16, 16),
        "time_width": 16,
        "time_mlp_width": 24,
    }
    return DecoderConfig(**{**values, **changes})


def awake(config: DecoderConfig) -> ImageDecoder:
    """A decoder whose gates are open, so that everything influences the velocity."""
    generator = torch.Generator().manual_seed(1)
    decoder = ImageDecoder(config, latent_channels=3)
    decoder.initialize(generator)
    with torch.no_grad():
        for p in decoder.parameters():
            p.add_(torch.randn(p.shape, generator=generator), alpha=0.2)
    return decoder.eval()


def inputs(batch: int, grid: tuple[int, int], side: tuple[int, int] = (8, 8)):
    generator = torch.Generator().manual_seed(2)
    latents = torch.randn(batch, 3, *side, generator=generator)
    condition = torch.randn(batch, grid[0] * grid[1], 12, generator=generator)
    return latents, torch.rand(batch, generator=generator), condition, grid


def test_a_fresh_decoder_starts_with_velocity_zero_and_only_its_last_linear_learns_at_first():
    decoder = ImageDecoder(small(), latent_channels=3)
    decoder.initialize(torch.Generator().manual_seed(0))
    velocity = decoder(*inputs(2, (4, 4)))
    assert velocity.abs().max() == 0
    (velocity - 1).square().mean().backward()
    assert decoder.all_final_layer["2-1"].linear.weight.grad.abs().max() > 0
    assert decoder.layers[0].feed_forward.w2.weight.grad.abs().max() == 0


def test_initialization_is_decided_by_the_generator_alone():
    decoders = [ImageDecoder(small(), latent_channels=3) for _ in range(2)]
    for decoder in decoders:
        decoder.initialize(torch.Generator().manual_seed(5))
    for (name, one), two in zip(decoders[0].named_parameters(), decoders[1].parameters(), strict=True):
        assert torch.equal(one, two), name
        assert "pad_token" not in name or one.std().item() == pytest.approx(0.02, rel=0.5)


@pytest.mark.parametrize("layout", ["line", "grid"])
@torch.no_grad()
def test_a_batch_of_three_gives_what_three_batches_of_one_give(layout):
    decoder = awake(small(condition_layout=layout))
    latents, t, condition, grid = inputs(3, (3, 5))
    together = decoder(latents, t, condition, grid)
    for i in range(3):
        alone = decoder(latents[i : i + 1], t[i : i + 1], condition[i : i + 1], grid)
        torch.testing.assert_close(together[i : i + 1], alone, rtol=1e-4, atol=1e-5)


@torch.no_grad()
def test_compiled_layers_give_the_same_and_are_one_program():
    decoder, given = awake(small(layers=3)), inputs(2, (4, 4))
    wanted = decoder(*given)
    torch.compiler.reset()
    counters.clear()
    decoder.compile_layers("eager")
    assert torch.equal(decoder(*given), wanted)
    assert all(layer._compiled_call_impl is not None for layer in decoder.layers)
    assert counters["stats"]["unique_graphs"] == 1 and not counters["graph_break"]


@torch.no_grad()
def test_pad_tokens_are_attended_when_lengths_are_no_multiple_and_absent_otherwise():
    decoder = awake(small(pad_multiple=16))
    for grid, side, token, matters in [
        ((4, 4), (8, 8), "cap_pad_token", False),
        ((3, 5), (8, 8), "cap_pad_token", True),
        ((4, 4), (8, 8), "x_pad_token", False),
        ((4, 4), (6, 10), "x_pad_token", True),
    ]:
        case = inputs(1, grid, side)
        before = decoder(*case)
        getattr(decoder, token).add_(1.0)
        assert ((decoder(*case) - before).abs().max() > 1e-4) == matters, (grid, side, token)


@torch.no_grad()
def test_velocity_depends_on_time_on_the_codes_and_on_where_a_code_is():
    for layout in ("line", "grid"):
        decoder = awake(small(condition_layout=layout))
        latents, t, condition, grid = inputs(1, (4, 4))
        base = decoder(latents, t, condition, grid)
        for changed in (
            decoder(latents, t + 0.1, condition, grid),
            decoder(latents, t, torch.zeros_like(condition), grid),
            decoder(latents, t, condition.flip(1), grid),
        ):
            assert (changed - base).abs().max() > 1e-3


@torch.no_grad()
def test_patches_are_cut_row_by_row_with_the_channel_fastest():
    decoder = ImageDecoder(small(layers=0, refiner_layers=0), latent_channels=3)
    final = decoder.all_final_layer["2-1"]
    seen = []
    decoder.all_x_embedder["2-1"].register_forward_pre_hook(lambda _, args: seen.append(args[0]))
    final.register_forward_hook(lambda *_: seen[-1])  # the patches as they came in
    latents = torch.arange(3 * 4 * 6.0).view(1, 3, 4, 6)
    out = decoder(latents, torch.zeros(1), torch.zeros(1, 1, 12), (1, 1))
    assert torch.equal(out, latents)
    assert seen[0][0, 1].tolist() == [2, 26, 50, 3, 27, 51, 8, 32, 56, 9, 33, 57]


def test_released_positions_count_the_codes_through_the_pads_and_the_image_follows():
    codes = condition_positions("line", (1, 3), 1, CPU)
    assert codes.tolist() == [[1, 0, 0], [2, 0, 0], [3, 0, 0], [4, 0, 0]]
    image = image_positions(5, (2, 2), 1, CPU)
    assert image.tolist() == [[5, 0, 0], [5, 0, 1], [5, 1, 0], [5, 1, 1], [0, 0, 0]]


def test_in_the_grid_layout_a_code_has_the_row_and_column_of_its_patch():
    codes, image = condition_positions("grid", (2, 3), 2, CPU), image_positions(2, (2, 3), 0, CPU)
    assert torch.equal(codes[:6, 1:], image[:, 1:])
    assert codes[:6, 0].tolist() == [1] * 6 and codes[6:].tolist() == [[0, 0, 0]] * 2


def test_rotation_turns_neighbouring_pairs_as_complex_numbers_by_the_angle_of_their_axis():
    angles = rotary_angles(torch.tensor([[3, 2, 1]]), (4, 2, 2), theta=256.0)
    expected = torch.tensor([[3.0, 3 / 16, 2.0, 1.0]])  # 256^0, 256^(-2/4) on axis 0; 256^0 on the others
    torch.testing.assert_close(angles, expected)
    x = torch.randn(1, 1, 1, 8, generator=torch.Generator().manual_seed(0))
    turned = torch.view_as_complex(x.unflatten(-1, (-1, 2))) * torch.polar(torch.ones(1, 4), expected)
    torch.testing.assert_close(rotate(x, rotation(angles)), torch.view_as_real(turned).flatten(-2))


@pytest.mark.parametrize(("side", "word"), [((34, 8), "row"), ((8, 34), "column")])
def test_a_picture_beyond_the_rotary_tables_is_refused_in_words(side, word):
    decoder = ImageDecoder(small(), latent_channels=3)
    with pytest.raises(RequestError, match=f"17 {word} positions, at most 16"):
        decoder(*inputs(1, (4, 4), side))


def test_a_line_of_codes_beyond_the_rotary_table_is_refused_and_the_longest_is_not():
    decoder = ImageDecoder(small(), latent_channels=3)
    assert decoder(*inputs(1, (12, 8))).shape == (1, 3, 8, 8)  # 96 codes, image at 97, below 128
    with pytest.raises(RequestError, match="130 sequence positions, at most 128"):
        decoder(*inputs(1, (16, 8)))


def test_the_decoder_learns_one_batch_by_heart():
    decoder = ImageDecoder(small(condition_layout="grid"), latent_channels=3)
    decoder.initialize(torch.Generator().manual_seed(0))
    case = inputs(4, (4, 4))
    target = torch.randn(4, 3, 8, 8, generator=torch.Generator().manual_seed(3))
    optimizer = torch.optim.AdamW(decoder.parameters(), lr=3e-3)
    for _ in range(120):
        loss = (decoder(*case) - target).square().mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert loss < 0.1


@torch.no_grad()
def test_each_code_is_repeated_along_both_sides():
    config = load_preset("tiny")
    config = config.model_copy(update={"decoder": config.decoder.model_copy(update={"condition_upsample": 2})})
    embedding = CodeEmbedding(config)
    embedding.initialize(torch.Generator().manual_seed(0))
    codes = torch.tensor([[[3, 7, 2000]]])
    features = embedding(codes).view(2, 6, -1)
    plain = embedding.prior_projector(embedding.prior_token_embedding(codes))[0, 0]
    for row in range(2):
        for column in range(6):
            assert torch.equal(features[row, column], plain[column // 2])
    assert (plain[0] - plain[1]).abs().max() > 0.05
