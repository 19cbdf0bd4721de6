"""Recorded passes: the backbone's own numbers, from work that a GPU can do without a word of the host.

The engine over them: `tests/engine/test_engine_exact.py`.
"""

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from unveil.config import load_preset
from unveil.errors import RequestError
from unveil.model.backbone import Backbone, packed
from unveil.model.backbone.experts import apply_experts_sorted
from unveil.model.backbone.packed import Segment
from unveil.model.backbone.recorded import Recorded
from unveil.model.hold import hold


class OnMeta(TorchDispatchMode):
    """Refuses tensors of the host, but for single numbers: a CUDA graph could not hold the copy."""

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        for x in tree_leaves((args, kwargs, made)):
            assert not isinstance(x, torch.Tensor) or x.device.type == "meta" or x.ndim == 0, f"{function} on the host"
        return made


def strictly(function):
    """Stands in for recording. The device without numbers cannot tell the host any, as a GPU cannot meanwhile."""
    with OnMeta():
        return lambda: None, function()


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
    return recorded.packed(torch.arange(64, device="meta"), torch.arange(64, device="meta"), segments)


def test_passes_one_after_another_have_the_states_and_leave_the_keys_of_the_backbone_itself(replayed):
    config = load_preset("tiny")
    generator = torch.Generator().manual_seed(0)
    backbone = Backbone(config.backbone, config.vocab).initialize(generator).double().requires_grad_(False)
    recorded, found = Recorded(backbone, replayed), []
    for model in (backbone, recorded):
        random, cache, states = torch.Generator().manual_seed(1), model.allocate(2, 128), []
        for wanted in ([0, 1, 30], [5]):
            tokens = torch.randint(600, (50,), generator=random)
            segments = [
                Segment(cache[0], 0, 0, 32, torch.tensor(wanted)),
                Segment(cache[1], 3, 3, 21, torch.tensor([1, 2])),
            ]
            states.append(model.packed(tokens, torch.arange(50) * len(wanted), segments))
        found.append((torch.cat(states), cache))
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-9, atol=1e-9)
    assert list(recorded.recordings) == [64] and len(found[0][0]) == 8


def test_what_is_recorded_of_the_official_backbone_asks_nothing_of_the_host():
    recorded = Recorded(imagined("official", layers=3), strictly)
    states = a_pass(recorded)
    assert states.shape == (34, 2048) and states.device.type == "meta" and states.dtype == torch.bfloat16
    assert len(recorded.recordings[64].graphs) == 3


def test_the_other_way_to_visit_experts_would_ask(monkeypatch):
    monkeypatch.setattr(packed, "apply_experts_sampling", apply_experts_sorted)
    with pytest.raises(NotImplementedError, match="bincount"):
        a_pass(Recorded(imagined("official", layers=3), strictly))


@pytest.mark.parametrize("what", [torch.zeros(2), torch.arange(2)])
def test_so_would_what_comes_from_the_host(what):
    with pytest.raises(AssertionError, match="on the host"):
        strictly(lambda: (what.to("meta"),))


def test_graphs_are_refused_where_they_cannot_be(monkeypatch):
    with pytest.raises(RequestError, match="bfloat16 on a CUDA device, not float32 on cpu"):
        Recorded.on_gpu(Backbone(load_preset("tiny").backbone, load_preset("tiny").vocab))
    with pytest.raises(RequestError, match="on a CUDA device, not bfloat16 on meta"):
        Recorded.on_gpu(imagined("tiny"))
