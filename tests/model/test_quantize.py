import copy

import pytest
import torch

from unveil.config import load_preset
from unveil.model.backbone import Backbone
from unveil.model.backbone.experts import EXPERTS, Experts, ExpertWeights, QuantizedExperts
from unveil.model.hold import quantize, weight_bytes
from unveil.model.layers import quantized
from unveil.model.layers.quantized import QuantizedWeight


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


def test_rows_that_are_no_whole_groups_are_filled_up_and_come_back_in_their_width():
    weight = torch.randn(3, 5, 100, generator=torch.Generator().manual_seed(0))
    small = QuantizedWeight(weight, "int4")
    assert small.values.shape == (3, 5, 64) and small.scale.shape == (3, 5, 2)
    assert small.dequantize().shape == small.shape == weight.shape and small[1].shape == (5, 100)
    wide = torch.nn.functional.pad(weight, (0, 28))
    assert torch.equal(small.dequantize(), QuantizedWeight(wide, "int4").dequantize()[..., :100])


def test_a_weight_packed_in_pieces_is_the_weight_packed_at_once(monkeypatch):
    weight = torch.randn(4, 6, 128, generator=torch.Generator().manual_seed(0))
    for form in ("int8", "int4"):
        whole = QuantizedWeight(weight, form)
        monkeypatch.setattr(quantized, "_PIECE", 300)  # two rows at a time
        pieces = QuantizedWeight(weight, form)
        assert torch.equal(pieces.values, whole.values) and torch.equal(pieces.scale, whole.scale)
        monkeypatch.undo()


@pytest.mark.parametrize(("form", "bits"), [("int8", 8), ("int4", 4.25)])
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
    scales = sum(w.scale.nbytes for w in model.modules() if isinstance(w, QuantizedWeight)) if form == "int8" else 0
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
@pytest.mark.parametrize("form", ["int8", "int4"])
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


@pytest.mark.parametrize(("form", "error"), [("int8", 0.03), ("int4", 0.3)])
def test_a_quantized_model_answers_nearly_as_before(form, error):
    model = backbone()
    small = copy.deepcopy(model)
    quantize(small.model.layers, form)
    ids, places = torch.arange(16)[None], torch.arange(16)
    seen = torch.ones(16, 16, dtype=torch.bool)
    wanted, got = model(ids, places, seen), small(ids, places, seen)
    assert 0 < (got - wanted).norm() / wanted.norm() < error
