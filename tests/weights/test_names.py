"""Per-expert names on disk, stacks in memory, and the counts of the official release."""

import json
from math import prod
from pathlib import Path

import pytest
import torch

from unveil.config import load_preset
from unveil.weights.names import Place, from_official, official_shapes, place, to_official
from unveil.weights.read import Parts, build
from unveil.weights.tensors import shapes

INDEX = Path(__file__).parents[1] / "golden" / "backbone-A" / "checkpoint" / "model.safetensors.index.json"


def test_an_expert_goes_into_its_layers_stack_at_its_number() -> None:
    name = "model.layers.3.mlp.experts.17.up_proj.weight"
    assert place(name) == Place("model.layers.3.mlp.experts.up_proj", 17)


@pytest.mark.parametrize(
    "name", ["lm_head.weight", "model.layers.3.mlp.shared_experts.up_proj.weight", "model.layers.0.mlp.up_proj.weight"]
)
def test_every_other_tensor_keeps_its_name(name: str) -> None:
    assert place(name) == Place(name, None)
    assert list(to_official({name: torch.zeros(2, 2)})) == [name]


def test_to_official_and_back_is_the_same_state(parts: Parts) -> None:
    state = parts.backbone.state_dict()
    again = from_official(to_official(state))
    assert set(again) == set(state)
    assert all(torch.equal(again[name], state[name]) for name in state)


def test_experts_are_stacked_by_number_not_by_order_of_arrival() -> None:
    names = [f"m.experts.{e}.down_proj.weight" for e in (10, 2, 0, 1, *range(3, 10))]
    state = {name: torch.full((1, 2), float(name.split(".")[2])) for name in names}
    assert from_official(state)["m.experts.down_proj"][:, 0, 0].tolist() == list(range(11))


def test_a_small_models_official_names_are_those_of_the_golden_index(parts: Parts) -> None:
    listed = set(json.loads(INDEX.read_text())["weight_map"])
    dense = {n for n in listed if "experts" not in n and ".layers.2." not in n}
    ours = set(official_shapes(shapes(parts.backbone)))
    assert {n for n in ours if "experts" not in n} == dense
    assert "model.layers.1.mlp.experts.7.down_proj.weight" in ours & listed


@pytest.mark.parametrize(
    ("part", "tensors", "parameters"),
    [
        ("backbone", 14_813, 16_322_752_256),
        ("image_tokenizer", 488, 1_199_457_280),
        ("decoder", 521, 6_160_808_512),
        ("code_embedding", 5, 100_671_488),
    ],
)
def test_the_official_preset_has_the_releases_tensors_and_parameters(part: str, tensors: int, parameters: int) -> None:
    counted = official_shapes(shapes(build(load_preset("official"))[part]))
    assert (len(counted), sum(map(prod, counted.values()))) == (tensors, parameters)
