import copy
from functools import partial

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode

from unveil.config import load_preset
from unveil.memory.live import peak_bytes
from unveil.model.backbone import Backbone
from unveil.model.backbone.experts import EXPERTS, Experts, ExpertWeights, QuantizedExperts
from unveil.model.hold import quantize, weight_bytes
from unveil.model.image_decoder import ImageDecoder
from unveil.model.layers import quantized
from unveil.model.layers.quantized import QuantizedLinear, QuantizedWeight, multiply_fp8, pack, pack_fp8


def backbone() -> Backbone:
    tiny = load_preset("tiny")
    config = tiny.backbone.model_copy(update={"layers": 2, "width": 64, "mlp_width": 64, "expert_width": 64})
    return Backbone(config, tiny.vocab).initialize(torch.Generator().manual_seed(0)).requires_grad_(False)


@pytest.mark.parametrize(("form", "steps"), [("int8", 127), ("int4", 8)])
def test_no_weight_moves_by_more_than_one_step(form, steps):
    weight = torch.randn(3, 8, 128, generator=torch.Generator().manual_seed(0))
    weight[0, 0] = 0
    back = QuantizedWeight(weight, form).dequantize()
    largest = weight.unflatten(-1, (-1, 128 if form == "int8" else 64)).abs().amax(-1, keepdim=True)
    allowed = (1.01 * largest / steps).expand(*largest.shape[:-1], 128 // largest.shape[-2]).flatten(-2)
    assert ((back - weight).abs() <= allowed).all()
    assert (back[0, 0] == 0).all()


def test_four_bits_pack_two_weights_in_a_byte_and_return_all_sixteen_values():
    row = torch.arange(-8.0, 8.0).repeat(4)[None]
    packed = QuantizedWeight(row, "int4")
    assert packed.values.nbytes == 32 and packed.scale.nbytes == 2
    assert torch.equal(packed.dequantize(), row)


def test_fp8_moves_no_weight_by_more_than_a_sixteenth_of_itself_or_half_its_smallest_step():
    weight = torch.randn(3, 8, 128, generator=torch.Generator().manual_seed(0))
    small = QuantizedWeight(weight, "fp8")
    assert torch.equal(small.scale, weight.abs().amax(-1, keepdim=True) / 448)
    moved = (small.dequantize() - weight).abs()
    assert (moved <= 1.0001 * torch.maximum(weight.abs() / 16, small.scale / 1024)).all()
    assert moved.max() > weight.abs().max() / 64  # control: such steps are as coarse as said


def test_fp8_rounds_as_its_three_bits_say_and_neither_overflows_nor_divides_by_zero():
    huge, least = 3e38, 1e-43
    rows = torch.tensor([[448, -300, 17, 0.001, 0], [0, 0, 0, 0, 0], [huge, -huge, 1, 0, 0], [least, -least, 0, 0, 0]])
    small = QuantizedWeight(rows, "fp8")
    assert small.values.dtype == torch.float8_e4m3fn and small.scale.dtype == torch.float32
    rounded = [[448, -288, 16, 2**-9, 0], [0] * 5, [448, -448, 0, 0, 0], [0] * 5]
    assert small.values.float().tolist() == rounded
    assert small.scale[0].item() == 1 and torch.equal(small[0], torch.tensor(rounded[0]))
    assert small.dequantize()[2].tolist() == pytest.approx([huge, -huge, 0, 0, 0])
    assert (small.dequantize()[[1, 3]] == 0).all()


@pytest.mark.parametrize("biased", [True, False])
def test_a_layer_in_fp8_multiplies_the_float8_numbers_of_weight_and_activations(biased):
    torch.manual_seed(0)
    linear = torch.nn.Linear(48, 32, bias=biased).requires_grad_(False)
    x = torch.randn(2, 3, 48)
    x[0, 1] = 0
    values, scale = pack_fp8(x)
    expected = values.double() * scale @ QuantizedWeight(linear.weight, "fp8").dequantize().double().T
    expected = expected + linear.bias if biased else expected
    made = QuantizedLinear(linear, "fp8")(x)
    torch.testing.assert_close(made.double(), expected, rtol=1e-5, atol=1e-5)
    assert (made[0, 1] == (linear.bias if biased else 0)).all()
    assert 0.01 < (made - linear(x)).norm() / linear(x).norm() < 0.06


@pytest.mark.parametrize("shape", [(48, 40), (40, 48)])
def test_a_layer_in_fp8_of_other_widths_multiplies_floats(shape):
    linear = torch.nn.Linear(*shape).requires_grad_(False)
    x = torch.randn(3, shape[0], generator=torch.Generator().manual_seed(0))
    small = QuantizedLinear(linear, "fp8")
    assert torch.equal(small(x), torch.nn.functional.linear(x, small.weight.dequantize(), linear.bias))


def test_a_product_in_fp8_is_given_rows_that_lie_in_a_row_as_cuda_wants_them(monkeypatch):
    x, weight = (torch.randn(64, 6, generator=torch.Generator().manual_seed(s)) for s in (0, 1))
    given, product = [], torch._scaled_mm

    def seen(rows, *others, **options):
        given.append(rows)
        return product(rows, *others, **options)

    monkeypatch.setattr(torch, "_scaled_mm", seen)
    made = multiply_fp8(x.t(), *pack_fp8(weight.t()), None)
    assert given[0].is_contiguous() and torch.equal(made, multiply_fp8(x.t().clone(), *pack_fp8(weight.t()), None))


def on_cuda(inner, outer):
    """A product in fp8 without numbers, as if on CUDA: PyTorch knows its rules without a GPU."""
    make = partial(torch.empty, device="cuda", dtype=torch.bfloat16)
    return multiply_fp8(make(2, 3, inner), *pack_fp8(make(outer, inner)), make(outer))


def test_cuda_takes_the_products_in_fp8_of_every_layer_of_the_official_model():
    official = load_preset("official")
    with torch.device("meta"):
        layers = [Backbone(official.backbone, official.vocab).model.layers]
        layers.append(ImageDecoder(official.decoder, official.vae.latent_channels).layers)
    for each in layers:
        quantize(each, "fp8")
    found = [m for each in layers for m in each.modules() if isinstance(m, QuantizedLinear)]
    shapes = {tuple(m.weight.shape) for m in found}
    assert len(shapes) == 10 and all(m.multiplies for m in found)
    with FakeTensorMode():
        for outer, inner in shapes:
            made = on_cuda(inner, outer)
            assert made.shape == (2, 3, outer) and made.dtype == torch.bfloat16 and made.device.type == "cuda"
        with pytest.raises(RuntimeError, match="divisible by 16"):  # control: it knows the rules
            on_cuda(40, 32)


def test_rows_that_are_no_whole_groups_are_filled_up_and_come_back_in_their_width():
    weight = torch.randn(3, 5, 100, generator=torch.Generator().manual_seed(0))
    small = QuantizedWeight(weight, "int4")
    assert small.values.shape == (3, 5, 64) and small.scale.shape == (3, 5, 2)
    assert small.dequantize().shape == small.shape == weight.shape and small[1].shape == (5, 100)
    wide = torch.nn.functional.pad(weight, (0, 28))
    assert torch.equal(small.dequantize(), QuantizedWeight(wide, "int4").dequantize()[..., :100])


def test_a_weight_packed_in_pieces_is_the_weight_packed_at_once(monkeypatch):
    weight = torch.randn(4, 6, 128, generator=torch.Generator().manual_seed(0))
    for form in ("int8", "fp8", "int4"):
        whole = QuantizedWeight(weight, form)
        monkeypatch.setattr(quantized, "_PIECE", 300)  # two rows at a time
        pieces = QuantizedWeight(weight, form)
        assert torch.equal(pieces.values, whole.values) and torch.equal(pieces.scale, whole.scale)
        monkeypatch.undo()


@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_packing_takes_as_much_memory_as_is_said_of_a_piece(monkeypatch, form):
    monkeypatch.setattr(quantized, "_PIECE", 640)
    weight = torch.randn(40, 8, 64, generator=torch.Generator().manual_seed(0)).bfloat16()
    small = QuantizedWeight(weight, form)
    peak = peak_bytes(partial(pack, weight, form, small.values, small.scale), [weight, small.values, small.scale])
    assert 640 < peak <= 20 * 640


@pytest.mark.parametrize(("form", "bits"), [("int8", 8), ("fp8", 8), ("int4", 4.25)])
def test_the_stacked_experts_of_the_official_model_are_quantized_and_shrink(form, bits):
    official = load_preset("official")
    with torch.device("meta"):
        model = Backbone(official.backbone, official.vocab).to(torch.bfloat16)
    before = weight_bytes(model)
    stacks = [m for m in model.modules() if isinstance(m, Experts)]
    weights = sum(p.numel() for m in stacks for p in m.parameters())
    linears = sum(m.weight.numel() for m in model.model.layers.modules() if isinstance(m, torch.nn.Linear))
    assert len(stacks) == 19 and weights == 15_300_820_992
    quantize(model.model.layers, form)
    small = [m for m in model.modules() if isinstance(m, QuantizedExperts)]
    assert len(small) == 19 and not any(isinstance(m, Experts) for m in model.modules())
    scales = sum(w.scale.nbytes for w in model.modules() if isinstance(w, QuantizedWeight)) if bits == 8 else 0
    assert before - weight_bytes(model) == (weights + linears) * (16 - bits) / 8 - scales


def test_router_norms_embedding_and_head_keep_their_tensors():
    model = backbone()
    kept = {n: t for n, t in model.state_dict().items() if "gate.weight" in n or "bias" in n or "norm" in n}
    kept |= {n: t for n, t in model.state_dict().items() if n in ("lm_head.weight", "model.word_embeddings.weight")}
    quantize(model.model.layers, "int4")
    now = model.state_dict()
    assert len(kept) == 13
    assert all(torch.equal(now[n], t) and now[n].dtype == t.dtype for n, t in kept.items())


@pytest.mark.parametrize("entry", sorted(EXPERTS))
@pytest.mark.parametrize("form", ["int8", "fp8", "int4"])
def test_every_entry_gives_with_quantized_experts_what_the_reference_gives_with_their_floats(entry, form):
    draw = torch.Generator().manual_seed(0)
    shapes = ((4, 64, 64), (4, 64, 64), (4, 64, 64))
    small = [QuantizedWeight(torch.randn(s, generator=draw), form) for s in shapes]
    x, weights = torch.randn(9, 64, generator=draw), torch.rand(9, 2, generator=draw)
    chosen = torch.randint(0, 3, (9, 2), generator=draw)  # nobody visits the last expert
    expected = EXPERTS["reference"](x, ExpertWeights(*(w.dequantize() for w in small)), chosen, weights)
    torch.testing.assert_close(
        EXPERTS[entry](x, ExpertWeights(*small), chosen, weights), expected, rtol=1e-5, atol=1e-3
    )


@pytest.mark.parametrize(("form", "error"), [("int8", 0.03), ("fp8", 0.1), ("int4", 0.3)])
def test_a_quantized_model_answers_nearly_as_before(form, error):
    model = backbone()
    small = copy.deepcopy(model)
    quantize(small.model.layers, form)
    ids, places = torch.arange(16)[None], torch.arange(16)
    seen = torch.ones(16, 16, dtype=torch.bool)
    wanted, got = model(ids, places, seen), small(ids, places, seen)
    assert 0 < (got - wanted).norm() / wanted.norm() < error
