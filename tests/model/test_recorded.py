"""Recorded passes: the backbone's own numbers, from work that a GPU can do without a word of the host.

The engine over them: `tests/engine/test_engine_exact.py`.
"""

from types import MappingProxyType

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unveil.config import load_preset
from unveil.errors import RequestError
from unveil.model.backbone import Backbone, packed
from unveil.model.backbone import recorded as recorded_module
from unveil.model.backbone.experts import apply_experts_sorted
from unveil.model.backbone.packed import Segment
from unveil.model.backbone.recorded import Recorded
from unveil.model.hold import hold


class OnMeta(TorchDispatchMode):
    """Refuses what a CUDA graph could not hold: tensors of the host, also single numbers that travel to the device."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        copies = function in (torch.ops.aten._to_copy.default, torch.ops.aten.copy_.default)
        for x in tree_leaves((args, kwargs, made)):
            number = isinstance(x, torch.Tensor) and x.ndim == 0 and not copies
            assert number or not isinstance(x, torch.Tensor) or x.device.type == "meta", f"{function} on the host"
        return made


def strictly(function):
    """Stands in for recording. The device without numbers cannot tell the host any, as a GPU cannot meanwhile."""
    with OnMeta():
        function()
    return function


def imagined(preset, form=None, **more):
    """A backbone in bfloat16 without numbers."""
    config = load_preset(preset)
    with torch.device("meta"):
        backbone = Backbone(config.backbone.model_copy(update=more), config.vocab)
    hold(backbone, torch.bfloat16, form)
    return backbone.eval().requires_grad_(False)


def a_pass(recorded):
    """Two lines of different progress, 64 rows."""
    cache = recorded.allocate(2, 128)
    segments = [Segment(cache[0], 0, 96, 128, torch.arange(32)), Segment(cache[1], 5, 64, 96, torch.tensor([3, 4]))]
    for _ in range(2):  # the first time nothing is recorded
        states = recorded.packed(torch.arange(64, device="meta"), torch.arange(64, device="meta"), segments)
    return states


def test_passes_one_after_another_have_the_states_and_leave_the_keys_of_the_backbone_itself(replayed):
    config = load_preset("tiny")
    generator = torch.Generator().manual_seed(0)
    backbone = Backbone(config.backbone, config.vocab).initialize(generator).double().requires_grad_(False)
    recorded, found = Recorded(backbone, replayed), []
    for model in (backbone, recorded):
        random, cache, states = torch.Generator().manual_seed(1), model.allocate(2, 128), []
        for wanted in ([0, 1, 30], [5], [7, 9]):
            tokens = torch.randint(600, (50,), generator=random)
            segments = [
                Segment(cache[0], 0, 0, 32, torch.tensor(wanted)),
                Segment(cache[1], 3, 3, 21, torch.tensor([1, 2])),
            ]
            states.append(model.packed(tokens, torch.arange(50) * len(wanted), segments))
        found.append((torch.cat(states), cache))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert list(recorded.recordings) == [64] and recorded.recordings[64] and len(found[0][0]) == 3 + 1 + 2 + 3 * 2


def test_what_is_recorded_of_the_official_backbone_asks_nothing_of_the_host():
    recorded = Recorded(imagined("official", layers=3), strictly)
    states = a_pass(recorded)
    assert states.shape == (34, 2048) and states.device.type == "meta" and states.dtype == torch.bfloat16
    assert len(recorded.recordings[64].go_on) == 2


def test_the_other_way_to_visit_experts_would_ask(monkeypatch):
    monkeypatch.setattr(packed, "apply_experts_sampling", apply_experts_sorted)
    with pytest.raises(NotImplementedError, match="bincount"):
        a_pass(Recorded(imagined("official", layers=3), strictly))


@pytest.mark.parametrize("what", [torch.zeros(2), torch.arange(2), torch.tensor(1.0)])
def test_so_would_what_comes_from_the_host(what):
    with pytest.raises(AssertionError, match="on the host"):
        strictly(lambda: what.to("meta"))


def test_a_size_is_recorded_when_it_comes_a_second_time(backbone, replayed):
    recorded, given = Recorded(backbone, replayed), []
    for count in (5, 20, 40, 33, 600, 600):
        cache = recorded.allocate(1, 600)
        segments = [Segment(cache[0], 0, 0, count, torch.arange(1))]
        recorded.packed(torch.arange(count) % 28, torch.arange(count), segments)
        given.append({rows: made is not None for rows, made in recorded.recordings.items()})
    one, both = {32: True, 64: False}, {32: True, 64: True}
    assert given == [{32: False}, {32: True}, one, both, both, both]


def as_if_on_gpu(backbone, dtypes=MappingProxyType({})):
    """Its parameters on a CUDA device that need not be there, those of some layers in another dtype."""
    for name, part in backbone.named_modules():
        layer = int(name.split(".")[2]) if name.startswith("model.layers.") else None
        for key, weight in part.named_parameters(recurse=False):
            with FakeTensorMode():
                made = torch.empty(weight.shape, dtype=dtypes.get(layer, weight.dtype), device="cuda")
            part._parameters[key] = torch.nn.Parameter(made, requires_grad=False)
    return backbone


def test_graphs_are_refused_where_they_cannot_be(monkeypatch):
    tiny = load_preset("tiny")
    with pytest.raises(RequestError, match="a CUDA device, not cpu"):
        Recorded.on_gpu(Backbone(tiny.backbone, tiny.vocab))
    on_gpu = {form: as_if_on_gpu(imagined("tiny", form)) for form in (None, "int8")}
    on_gpu["half"] = as_if_on_gpu(imagined("tiny"), {3: torch.float16})
    for major, minor in ((8, 0), (12, 0)):
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device, at=(major, minor): at)
        with pytest.raises(RequestError, match=f"9 or 10, not {major}.{minor}"):
            Recorded.on_gpu(on_gpu[None])
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(recorded_module, "Graphs", lambda device: strictly)
    assert Recorded.on_gpu(on_gpu[None]).capture is strictly
    for form, layer in (("int8", 1), ("half", 3)):
        with pytest.raises(RequestError, match=f"experts in bfloat16; those of layer {layer} are held otherwise"):
            Recorded.on_gpu(on_gpu[form])
    monkeypatch.setattr(torch.version, "hip", "6.0")
    with pytest.raises(RequestError, match="an NVIDIA GPU"):
        Recorded.on_gpu(on_gpu[None])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_graphs_give_the_states_and_the_keys_of_the_backbone_itself_on_a_gpu():
    tiny = load_preset("tiny")
    backbone = Backbone(tiny.backbone, tiny.vocab).initialize(torch.Generator().manual_seed(0))
    hold(backbone.to("cuda").requires_grad_(False), torch.bfloat16)
    recorded, found = Recorded.on_gpu(backbone), []
    for model in (backbone, recorded):
        cache, states = model.allocate(1, 96), []
        for start, end in ((0, 40), (0, 96), (40, 80), (0, 90), (80, 96), (0, 33)):
            tokens, line = torch.arange(start, end, device="cuda") * 7 % 600, torch.arange(start, end, device="cuda")
            states.append(model.packed(tokens, line, [Segment(cache[0], 0, start, end, torch.arange(end - start))]))
        found.append((torch.cat(states), cache))
    assert sorted(recorded.recordings) == [32, 64, 96] and recorded.recordings[64] and recorded.recordings[96]
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2, atol=2e-2)
