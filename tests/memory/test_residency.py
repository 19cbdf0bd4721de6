"""A plan obeyed: the same results wherever the parts wait, and no more of them on the device than it says."""

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image

from unveil.errors import RequestError, WeightsError
from unveil.memory.moments import Task, Work
from unveil.memory.plan import Machine, Plan, Residency, needs
from unveil.memory.residency import settle
from unveil.memory.stream import LayerStream
from unveil.model.image_decoder.vae import build_vae
from unveil.pipeline import Uni
from unveil.pipeline.place import unread_model
from unveil.weights.read import Parts

HOST = 10**12
Settle = Callable[..., Parts]


@pytest.fixture
def settled(model_directory: Path, uni: Uni) -> Settle:
    """The small model, placed as a plan says."""
    plans = dict[Task, Plan]()

    def place(residency: Residency, host: int | None = HOST, task: Task = "anything", tiled: bool = False) -> Parts:
        if task not in plans:
            found = needs(uni.parts.config, Work.of(uni.parts.config, task), "float32")
            plans[task] = Plan("float32", "resident", found, Machine(HOST, HOST))
        plan = replace(plans[task], residency=residency, machine=Machine(HOST, host), tiled=tiled)
        return settle(unread_model(model_directory), plan, torch.device("cpu"))

    return place


def inside(parts: Parts) -> set[str]:
    """The parts of which a tensor lies on the device."""
    names = [name for name in parts.modules if name != "retrieval"]
    return {name for name in names if not all(t.is_meta for t in parts.modules[name].state_dict().values())}


@pytest.mark.parametrize(
    ("residency", "host"),
    [("resident", HOST), ("staged", HOST), ("staged", None), ("staged", 1), ("streamed", HOST)],
    ids=["resident", "from the host", "from files", "from files beside a small host", "streamed"],
)
def test_pictures_answers_edits_and_stories_are_the_same_wherever_the_parts_wait(
    uni: Uni, settled: Settle, residency: Residency, host: int | None
) -> None:
    other = Uni(settled(residency, host))
    picture = Image.new("RGB", (64, 64), (200, 30, 30))
    for ask in (
        lambda model: model.generate_image("a star", seed=1).image.tobytes(),
        lambda model: model.understand_image(picture, "what?", seed=1, max_tokens=8).text,
        lambda model: model.edit_image(picture, "blue", seed=1).image.tobytes(),
        lambda model: [i.tobytes() for i in model.generate_images(["a star", "a fish"], [1, 2])],
        lambda model: model.retrieve([picture, picture], "red"),
    ):
        assert ask(other) == ask(uni)


def test_one_staged_part_is_on_the_device_at_a_time(settled: Settle) -> None:
    parts = settled("staged", None)
    assert inside(parts) == set()
    for name in ("backbone", "decoder", "vae", "image_tokenizer", "backbone"):
        assert parts.enter(name) == torch.device("cpu")
        assert inside(parts) == {name}


def test_a_resident_model_is_there_from_the_start(settled: Settle) -> None:
    assert inside(settled("resident")) == {"backbone", "image_tokenizer", "code_embedding", "decoder", "vae"}


def test_at_most_two_streamed_layers_are_on_the_device_in_every_turn() -> None:
    layers = [torch.nn.Linear(4, 4) for _ in range(5)]
    states = [{name: tensor.detach() for name, tensor in layer.state_dict().items()} for layer in layers]
    x, expected = torch.ones(2, 4), torch.ones(2, 4)
    for layer in layers:
        expected = layer(expected)
        layer.to("meta")
    end, seen = torch.nn.Identity(), list[int]()
    stream = LayerStream(layers, states, torch.device("cpu"), doors=layers, end=end)

    def count(*_: object) -> None:
        seen.append(len(stream.coming) + sum(not layer.weight.is_meta for layer in layers))

    for layer in layers:
        layer.register_forward_hook(count, prepend=True)
    for _ in range(2):  # the first layer comes again while the last one works
        y = x
        for layer in layers:
            y = layer(y)
        assert torch.equal(end(y), expected)
    assert seen == [2] * 10 and all(layer.weight.is_meta for layer in layers)


def test_a_streamed_backbone_goes_with_all_that_is_outside_its_layers(settled: Settle) -> None:
    parts = settled("streamed")
    parts.enter("backbone")
    held = {name for name, tensor in parts.backbone.state_dict().items() if not tensor.is_meta}
    assert held == {"lm_head.weight", "model.norm.weight", "model.word_embeddings.weight"}
    parts.enter("vae")
    assert inside(parts) == {"vae"}


def test_parts_that_a_task_does_not_use_are_left_out_and_named_when_they_are_asked_for(settled: Settle) -> None:
    parts = settled("resident", task="understand")
    assert inside(parts) == {"backbone", "image_tokenizer"}
    with pytest.raises(WeightsError, match="decoder: left out, since the plan for this task does not need it"):
        Uni(parts).generate_image("a star", seed=1)


def test_a_plan_with_tiles_decodes_in_tiles(settled: Settle) -> None:
    parts = settled("staged", None, tiled=True)
    plain = build_vae(parts.config.vae)
    assert parts.vae.use_tiling and not plain.use_tiling
    assert parts.vae.tile_latent_min_size * 2 == plain.tile_latent_min_size


def test_loading_into_a_budget_plans_says_what_it_chose_and_measures(model_directory: Path) -> None:
    uni = Uni.load(model_directory, "cpu", memory="20GB", task="generate")
    assert uni.placed is not None and uni.placed.plan is not None and uni.placed.line is not None
    assert uni.placed.line.startswith("float32 on cpu, resident: ") and "planned" in uni.placed.line
    uni.generate_image("a star", seed=1)
    assert uni.placed.peak is not None and uni.placed.meter is not None
    assert 0 < uni.placed.meter.peak() < 20e9
    assert uni.parts.absent.keys() == {"image_tokenizer"}


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"memory": "1MB"}, r"does not fit: the least, int[48] staged, needs 0.00 GB, of 0.00 GB are left 0.00 GB"),
        ({"memory": "1MB", "dtype": "float16"}, "the least, float16 staged, .* allow more or another dtype"),
        ({"memory": "much"}, "'much' is no amount of memory"),
        ({"memory": "1GB", "task": "paint"}, "no task 'paint'; use generate, understand, edit, anything"),
        ({"memory": "1GB", "size": 100}, "cannot be 100 pixels wide"),
        ({"dtype": "int2"}, "dtype 'int2' cannot be used; use auto, float32, bfloat16, float16, int8, fp8, int4"),
    ],
)
def test_what_cannot_be_obeyed_is_refused(model_directory: Path, options: dict[str, object], why: str) -> None:
    with pytest.raises(RequestError, match=why):
        Uni.load(model_directory, "cpu", **options)  # type: ignore[arg-type]
