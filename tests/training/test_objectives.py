"""Each objective overfits a fixed small batch, and its loss counts what it should."""

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
from torch import nn

import unveil
from unveil.config import ModelConfig
from unveil.config.run import BackboneTask, DecoderTask, RetrievalTask, TokenizerTask, VaeTask
from unveil.errors import TrainingError
from unveil.model.backbone import Backbone
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.model.image_tokenizer.retrieval import Retrieval
from unveil.scenes.scene import Scene, Thing
from unveil.training.loop import Objective
from unveil.training.objectives.backbone import (
    BackboneObjective,
)
from unveil.training.objectives.decoder import DecoderObjective
from unveil.training.objectives.image_tokenizer import WORDS, TokenizerObjective, cell_words, window_spread
from unveil.training.objectives.retrieval import RetrievalObjective
from unveil.training.objectives.vae import VaeObjective
from unveil.training.packing import pack
from unveil.vocab.text import Text

Numbers = dict[str, float]


def overfit(objective: Objective, steps: int, lr: float, seed: int | None = None) -> tuple[Numbers, Numbers]:
    """Train on the batch of train step 0, over and over; the numbers at first and at last.

    With a `seed` also the noise is the same every time.
    """
    optimizer = torch.optim.Adam([p for p in objective.module.parameters() if p.requires_grad], lr=lr)
    seen: list[Numbers] = []
    for step in range(steps):
        generator = torch.Generator().manual_seed(step if seed is None else seed)
        optimizer.zero_grad()
        found: Numbers = {"loss": 0.0}
        for loss, logged in objective.losses(0, generator):
            loss.backward()
            found = found | logged | {"loss": found["loss"] + float(loss.detach())}
        optimizer.step()
        objective.after(step, steps, generator)
        seen.append(found)
    return seen[0], seen[-1]


@pytest.fixture(autouse=True)
def one_thread() -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def test_the_vae_overfits_a_batch(small: ModelConfig) -> None:
    objective = VaeObjective(small, VaeTask(objective="vae", batch=2, crop=32), 0)
    first, last = overfit(objective, 60, 1e-2, seed=0)
    assert first["loss"] > 0.5
    assert last["loss"] < 0.3


def test_the_image_tokenizer_overfits_a_batch_and_uses_its_codebook(small: ModelConfig, text: Text) -> None:
    task = TokenizerTask(objective="image_tokenizer", dense=2, captioned=2)
    objective = TokenizerObjective(small, task, text, 0)
    before = objective.module.tokenizer.quantizer.codebook.clone()
    first, last = overfit(objective, 60, 5e-3)
    assert last["loss"] < 0.4 * first["loss"]
    assert last["words"] < 0.25
    assert not torch.equal(objective.module.tokenizer.quantizer.codebook, before)


def test_the_retrieval_heads_overfit_a_batch(small: ModelConfig, text: Text, tokenizer: ImageTokenizer) -> None:
    heads = Retrieval(small)
    heads.initialize(torch.Generator().manual_seed(0))
    objective = RetrievalObjective(small, RetrievalTask(objective="retrieval", batch=4), text, tokenizer, heads)
    first, last = overfit(objective, 80, 2e-3)
    assert first["first"] < 0.7
    assert last["first"] == 1.0
    assert last["contrast"] < 1 < first["contrast"]


def test_the_decoder_overfits_a_batch_with_fixed_noise(small: ModelConfig, tokenizer: ImageTokenizer) -> None:
    generator = torch.Generator().manual_seed(0)
    vae, embedding = build_vae(small.vae), CodeEmbedding(small)
    decoder = ImageDecoder(small.decoder, small.vae.latent_channels)
    embedding.initialize(generator)
    decoder.initialize(generator)
    module = nn.ModuleDict({"decoder": decoder, "code_embedding": embedding})
    objective = DecoderObjective(small, DecoderTask(objective="decoder", batch=2), tokenizer, vae, module)
    first, last = overfit(objective, 60, 5e-3, seed=0)
    assert last["velocity"] < 0.5 * first["velocity"]
    assert all(p.grad is None for p in (*vae.parameters(), *tokenizer.parameters()))


def backbone_objective(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer, **changes: object
) -> BackboneObjective:
    values = {"objective": "backbone", "rows": {"generate": 1, "understand": 1}, "questions": 2, "drop_prompt": 0.0}
    backbone = Backbone(small.backbone, small.vocab).initialize(torch.Generator().manual_seed(1))
    return BackboneObjective(small, BackboneTask.model_validate(values | changes), text, tokenizer, backbone)


def test_rows_are_made_with_the_shares_of_the_recipe(small: ModelConfig, text: Text, tokenizer: ImageTokenizer) -> None:
    shares = {"drop_prompt": 0.1, "planned": 0.2, "described": 0.3, "placed": 0.4}
    source = backbone_objective(small, text, tokenizer, **shares, questions=3).source
    assert {name: getattr(source, name) for name in shares} == shares and source.questions == 3


@pytest.mark.parametrize(("rows", "steps", "goal"), [({"generate": 1}, 40, 0.5), ({"understand": 1}, 150, 0.3)])
def test_the_backbone_overfits_a_batch(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer, rows: dict[str, int], steps: int, goal: float
) -> None:
    objective = backbone_objective(small, text, tokenizer, rows=rows, questions=1)
    first, last = overfit(objective, steps, 1e-2, seed=0)
    assert first["loss"] > 6  # ln 1088 = 7
    assert last["loss"] < goal


def test_the_loss_is_the_mean_cross_entropy_of_the_masked_with_padding_counted_less(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer
) -> None:
    objective = backbone_objective(small, text, tokenizer, end_weight=0.25)
    packed = pack(objective.rows("understand", 0, 2), small.backbone.block_size, 1)
    masked, times = packed.maskable & (packed.positions % 2 == 0), torch.full(packed.ids.shape, 0.5)
    loss, exact = objective.score(packed, masked, times)
    logits = objective.backbone(packed.ids.masked_fill(masked, small.vocab.mask), packed.positions, packed.visible)
    truth = packed.ids[masked]
    each = -logits[masked].log_softmax(-1)[torch.arange(len(truth)), truth]
    row, _ = masked.nonzero().T
    branch, ended = packed.branches[masked], truth == small.vocab.pad
    first = [not any(ended[:i] & (row[:i] == row[i]) & (branch[:i] == branch[i])) for i in range(len(truth))]
    filler = ended & ~torch.tensor(first)
    weights = torch.where(filler, 0.25, 1.0)
    assert 0 < filler.sum() < ended.sum() < len(truth)
    assert torch.allclose(loss, (each * weights).sum() / weights.sum(), rtol=1e-5)
    assert torch.isclose(exact, (logits[masked].argmax(-1) == truth).float().mean())


@pytest.mark.parametrize(
    ("rule", "expected"),
    [
        ("mean", lambda times, rows: torch.ones_like(times)),
        ("elbo", lambda times, rows: (1 / (1 - times)).clamp_max(10)),
        ("mtrs", lambda times, rows: torch.bincount(rows)[rows].float().rsqrt()),
    ],
)
def test_each_weighting_is_its_formula(
    small: ModelConfig,
    text: Text,
    tokenizer: ImageTokenizer,
    rule: str,
    expected: Callable[[torch.Tensor, torch.Tensor], torch.Tensor],
) -> None:
    objective = backbone_objective(small, text, tokenizer, weighting=rule)
    rows, times = torch.tensor([0, 0, 0, 1]), torch.tensor([0.5, 0.5, 0.95, 0.0])
    found = objective.weights(torch.tensor([5, 6, 7, 8]), rows, times)
    wanted = expected(times, rows)
    assert torch.allclose(found / found.sum(), wanted / wanted.sum())


def test_an_answer_of_one_word_weighs_as_a_sample_of_its_own(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer
) -> None:
    objective = backbone_objective(small, text, tokenizer, weighting="mtrs", end_weight=0.1)
    pad = small.vocab.pad
    target, samples = torch.tensor([5, 6, 7, 8, 9, pad, pad, pad]), torch.tensor([0, 0, 0, 0, 1, 1, 1, 1])
    found = objective.weights(target, samples, torch.full((8,), 0.5))
    assert torch.allclose(found / found[4], torch.tensor([0.5, 0.5, 0.5, 0.5, 1.0, 1.0, 0.1, 0.1]))  # it ends there


def test_every_sample_has_an_end_of_its_own(small: ModelConfig, text: Text, tokenizer: ImageTokenizer) -> None:
    objective, pad = backbone_objective(small, text, tokenizer), small.vocab.pad
    target, samples = torch.tensor([pad, 5, pad, 6, pad, pad]), torch.tensor([2, 0, 0, 1, 2, 0])
    assert objective.filler(target, samples).tolist() == [False, False, False, False, True, True]


def test_the_router_bias_follows_the_load_of_all_batches_of_a_step(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer
) -> None:
    objective = backbone_objective(small, text, tokenizer, balance=0.01)
    generator = torch.Generator().manual_seed(0)
    sizes = []
    for loss, _ in objective.losses(0, generator):
        sizes.append(float(loss.detach()))
    (load,) = objective._loads
    size, copies = small.backbone.block_size, objective.task.copies
    rows = [objective.rows(task, 0, 1) for task in ("generate", "understand")]
    tokens = sum(pack(r, size, copies).ids.numel() for r in rows)
    assert len(sizes) == 2 and int(load.sum()) == tokens * small.backbone.chosen_experts
    objective.after(0, 1, generator)
    bias = objective.backbone.model.layers[1].mlp.gate.expert_bias
    assert bias.argmax() == load.argmin() and bias.argmin() == load.argmax()
    off = backbone_objective(small, text, tokenizer, balance=0.0)
    list(off.losses(0, generator))
    off.after(0, 1, generator)
    assert off.backbone.model.layers[1].mlp.gate.expert_bias.abs().sum() == 0


@pytest.mark.parametrize(
    ("probe", "asked"),
    [
        ("place", {"rows": {"generate": 1}, "place_weight": 1.0}),
        ("neighbour", {"rows": {"read": 1}, "neighbour_weight": 1.0, "neighbour_reach": 1}),
    ],
)
def test_with_its_weight_a_probe_learns_where_a_code_stands_or_what_stands_beside_a_word(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer, probe: str, asked: dict[str, object]
) -> None:
    turning = small.model_copy(update={"backbone": small.backbone.model_copy(update={"rotary_fraction": 1.0})})
    objective = backbone_objective(turning, text, tokenizer, **asked, probe_layers=2)
    first, last = overfit(objective, 120, 1e-2, seed=0)
    assert first[f"{probe}_exact"] < 0.1 and last[f"{probe}_exact"] > 0.9
    assert set(objective.module) == {"backbone", f"{probe}s"}
    assert set(objective.parts(objective.module)) == {"backbone"}
    plain = backbone_objective(small, text, tokenizer, rows=asked["rows"])
    assert f"{probe}_exact" not in overfit(plain, 1, 1e-2, seed=0)[0]
    assert set(plain.module) == {"backbone"}  # no weights, no averages and no checkpoint of what learns nothing


def test_with_a_referent_weight_words_learn_where_the_thing_lies_that_they_name(
    small: ModelConfig, tokenizer: ImageTokenizer
) -> None:
    text = Text.load(Path(unveil.__file__).parent / "weights/tiny/tokenizer.json")  # names are single pieces
    asked = {"rows": {"look": 2}, "referent_weight": 1.0, "referent_layers": 2}
    objective = backbone_objective(small, text, tokenizer, **asked)
    first, last = overfit(objective, 120, 1e-2, seed=0)
    assert first["referent_exact"] < 0.3 and last["referent_exact"] > 0.8
    plain = backbone_objective(small, text, tokenizer, rows={"look": 1})
    assert "referent_exact" not in overfit(plain, 1, 1e-2, seed=0)[0]
    read = backbone_objective(small, text, tokenizer, rows={"read": 1}, referent_weight=1.0, referent_layers=2)
    assert "referent_exact" not in overfit(read, 1, 1e-2, seed=0)[0]  # no picture, no cell


def test_with_a_question_weight_question_marks_learn_what_is_asked_about(
    small: ModelConfig, tokenizer: ImageTokenizer
) -> None:
    text = Text.load(Path(unveil.__file__).parent / "weights/tiny/tokenizer.json")  # knows the nouns as one piece
    asked = {"rows": {"quiz": 1}, "question_weight": 1.0, "question_layers": 2}
    first, last = overfit(backbone_objective(small, text, tokenizer, **asked), 120, 1e-2, seed=0)
    assert first["question_exact"] < 0.5 and last["question_exact"] > 0.8
    for rows in ({"quiz": 1}, {"read": 1}):
        weight = 0.0 if "quiz" in rows else 1.0  # not asked for; or no picture, so nothing to be asked about
        other = backbone_objective(small, text, tokenizer, rows=rows, question_weight=weight, question_layers=2)
        assert "question_exact" not in overfit(other, 1, 1e-2, seed=0)[0]


def test_a_probe_behind_the_last_layer_is_refused(small: ModelConfig, text: Text, tokenizer: ImageTokenizer) -> None:
    beyond = small.backbone.layers + 1
    with pytest.raises(TrainingError, match=f"question_layers: {beyond} is more than the {beyond - 1} layers"):
        backbone_objective(small, text, tokenizer, question_weight=1.0, question_layers=beyond)
    backbone_objective(small, text, tokenizer, question_layers=beyond)  # nobody asks there


def test_rows_of_words_alone_have_no_place_to_learn(small: ModelConfig, text: Text, tokenizer: ImageTokenizer) -> None:
    objective = backbone_objective(small, text, tokenizer, rows={"read": 2}, place_weight=1.0, probe_layers=1)
    ((loss, shown),) = objective.losses(0, torch.Generator().manual_seed(0))
    assert torch.isfinite(loss) and "place_exact" not in shown and loss.item() == pytest.approx(shown["read"])


def test_codes_are_masked_by_whole_windows_in_the_asked_share_of_rows(
    small: ModelConfig, text: Text, tokenizer: ImageTokenizer
) -> None:
    assert small.image_tokenizer.window == 2
    places = torch.arange(64).expand(400, 64)
    for share in (0.0, 0.25, 1.0):
        objective = backbone_objective(small, text, tokenizer, rows={"generate": 1}, whole_windows=share)
        leaders = objective.leaders(places, torch.Generator().manual_seed(0))
        found = 0.0 if leaders is None else float((leaders[:, 1] == 0).float().mean())
        assert found == pytest.approx(share, abs=0.06)
    whole = small.model_copy(update={"image_tokenizer": small.image_tokenizer.model_copy(update={"window": None})})
    without = backbone_objective(whole, text, tokenizer, rows={"generate": 1}, whole_windows=1.0)
    assert without.leaders(places, torch.Generator()) is None


def test_facts_are_masked_at_rates_of_their_own(small: ModelConfig, text: Text, tokenizer: ImageTokenizer) -> None:
    shares = {}

    class Watched(BackboneObjective):
        def score(self, packed, masked, times, *rest):  # type: ignore[no-untyped-def]
            shares[task] = float(masked.sum() / packed.maskable.sum())
            return super().score(packed, masked, times, *rest)

    made = backbone_objective(small, text, tokenizer, rows={"look": 1})
    for task, rate in (("look", 1.0), ("read", 1.0), ("generate", 1.0), ("quiz", 0.5)):
        asked = BackboneTask(objective="backbone", rows={task: 4}, rates=(rate, rate), fact_rates=(0.2, 0.2), copies=1)
        watched = Watched(small, asked, text, tokenizer, made.backbone)
        list(watched.losses(0, torch.Generator().manual_seed(0)))
    assert shares["generate"] == shares["quiz"] == 1  # an answer must not be read off another one
    assert 0.1 < shares["look"] < 0.3 and 0.1 < shares["read"] < 0.3


def test_the_words_of_a_cell_are_those_of_the_thing_in_it() -> None:
    scene = Scene("gray", (Thing(0, 3, "digit", "red", "small", "4"),))
    truth = cell_words([scene], 8)
    assert truth.shape == (1, 8, 8, len(WORDS))
    for row in range(8):
        for column in range(8):
            words = {word for word, true in zip(WORDS, truth[0, row, column], strict=True) if true}
            inside = row < 2 and column >= 6
            assert words == ({"digit", "red", "small", "4", "gray"} if inside else {"empty", "gray"})


def test_the_spread_of_a_window_is_the_distance_from_its_mean() -> None:
    direction = torch.zeros(1, 4, 4, 3)
    assert window_spread(direction + 2, 2) == 0
    direction[0, 0, 0, 0] = 4.0  # in one of four windows: mean 1, squares 9 + 1 + 1 + 1
    assert float(window_spread(direction, 2)) == pytest.approx(12 / 16)
