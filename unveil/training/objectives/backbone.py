"""The backbone: block diffusion on rows of several tasks (spec backbone 6)."""

from collections.abc import Iterator
from typing import Literal

import torch
import torch.nn.functional as F
from torch import nn

from unveil.config import ModelConfig
from unveil.config.run import BackboneTask, RowTask
from unveil.diffusion.masking import inverse_rate_weights, sample_weights
from unveil.errors import TrainingError
from unveil.model.backbone import Backbone
from unveil.model.backbone.router import Router
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.scenes.scene import Scene
from unveil.shapes import Bool, Float, Int, Tensor
from unveil.training.balance import balance_bias
from unveil.training.codebook import projected
from unveil.training.data import numbers, pictures
from unveil.training.neighbours import NeighbourProbe, neighbour_loss, neighbours_of
from unveil.training.packing import Packed, Row, mask_rows, pack
from unveil.training.places import PlaceProbe, place_loss, places_of, window_leaders
from unveil.training.questions import QuestionProbe, asked_about, question_loss
from unveil.training.referents import ReferentProbe, Words, referent_loss, referents_of
from unveil.training.rows import OF_FACTS, Source, drafts, finish, scenes_of
from unveil.vocab.layout import Layout
from unveil.vocab.prompt import Prompts
from unveil.vocab.text import Text


class BackboneObjective:
    """Learns `backbone` from codes of the frozen image tokenizer."""

    def __init__(
        self, model: ModelConfig, task: BackboneTask, text: Text, tokenizer: ImageTokenizer, backbone: Backbone
    ) -> None:
        self.task, self.model, self.backbone = task, model, backbone
        self.places = PlaceProbe(model.backbone.width, model.sampling.grid)
        self.neighbours = NeighbourProbe(model.backbone.width, model.vocab.image_offset, task.neighbour_reach)
        self.referents, self.words = ReferentProbe(model.backbone.width), Words.of(text)
        self.questions = QuestionProbe(model.backbone.width)
        for probe in (self.places, self.neighbours, self.referents, self.questions):
            probe.initialize(torch.Generator().manual_seed(0))
        weighed = {
            "places": (self.places, task.place_weight),
            "neighbours": (self.neighbours, task.neighbour_weight),
            "referents": (self.referents, task.referent_weight),
            "questions": (self.questions, task.question_weight),
        }
        deepest = max(
            task.probe_layers,
            task.referent_layers * bool(task.referent_weight),
            task.question_layers * bool(task.question_weight),
        )
        if deepest > model.backbone.layers:
            found = f"{deepest} is more than the {model.backbone.layers} layers of {model.name}"
            raise TrainingError(f"probe_layers, referent_layers and question_layers: {found}")
        probes = {name: probe for name, (probe, weight) in weighed.items() if weight}  # the others learn nothing
        self.module = nn.ModuleDict({"backbone": backbone, **probes})
        self.tokenizer = tokenizer.eval().requires_grad_(False)
        self.side = model.sampling.grid[0] * model.image_tokenizer.patch_size
        prompts = Prompts(text, Layout.of(model.vocab, text))
        grid, size = model.sampling.grid, model.backbone.block_size
        shares = (task.drop_prompt, task.planned, task.described, task.placed)
        self.source = Source(prompts, grid, size, task.questions, *shares)
        self._loads: list[Int[Tensor, " E"]] = []

    def losses(self, step: int, generator: torch.Generator) -> Iterator[tuple[torch.Tensor, dict[str, float]]]:
        """One batch per task; each loss is weighted by the task's share of rows."""
        total = sum(self.task.rows.values())
        self._loads = []
        for name, count in self.task.rows.items():
            rows = self.rows(name, step * count, count)
            packed = pack(rows, self.model.backbone.block_size, self.task.copies)
            places = places_of(rows, packed, self.model.vocab.image_offset)
            rates = self.rates(name)
            masked, times = mask_rows(packed, rates, generator, self.leaders(places, generator))
            trail: list[Float[Tensor, "B L D"]] = []
            loss, exact = self.score(packed, masked, times, self.rarity(step), trail)
            shown = {name: loss, f"{name}_exact": exact}
            for term, numbered in self.probed(rows, packed, masked, places, trail):
                loss, shown = loss + term, shown | numbered
            yield loss * (count / total), numbers(**shown)

    def probed(
        self,
        rows: list[Row],
        packed: Packed,
        masked: Bool[Tensor, "B L"],
        places: Int[Tensor, "B L"],
        trail: list[Float[Tensor, "B L D"]],
    ) -> Iterator[tuple[Float[Tensor, ""], dict[str, Float[Tensor, ""]]]]:
        """The weighted losses of the probes, and what to show of them."""
        early = trail[self.task.probe_layers - 1]
        if self.task.place_weight and (places >= 0).any():
            loss, exact = place_loss(self.places, early, places)
            yield self.task.place_weight * loss, {"place_exact": exact}
        if self.task.neighbour_weight:
            beside = neighbours_of(packed, masked, self.neighbours.words, self.neighbours.reach)
            loss, exact = neighbour_loss(self.neighbours, early, beside, most=128)
            yield self.task.neighbour_weight * loss, {"neighbour_exact": exact}
        if self.task.referent_weight:
            named, cells = referents_of(rows, packed, masked, self.words)
            if (named >= 0).any():
                states = trail[self.task.referent_layers - 1]
                loss, counted, exact = referent_loss(self.referents, states, named, cells)
                yield self.task.referent_weight * loss, {"referent_number_exact": counted, "referent_exact": exact}
        if self.task.question_weight:
            asked = asked_about(rows, packed, self.source.prompts.text, self.words)
            if (asked >= 0).any():
                loss, exact = question_loss(self.questions, trail[self.task.question_layers - 1], asked)
                yield self.task.question_weight * loss, {"question_exact": exact}

    def rows(self, task: str, first: int, count: int) -> list[Row]:
        """Training rows of one task, their pictures tokenized."""
        raw = drafts(self.source, task, first, count)
        scenes = list(dict.fromkeys(scene for draft in raw for scene in scenes_of(draft)))
        codes: dict[Scene, list[int]] = {}
        if scenes:
            ids = self.tokenizer.tokenize(pictures(scenes, self.side)).flatten(1) + self.model.vocab.image_offset
            codes = dict(zip(scenes, ids.tolist(), strict=True))
        return [finish(self.source, draft, codes.__getitem__) for draft in raw]

    def rates(self, task: RowTask) -> tuple[float, float]:
        """Lowest and highest share of a block that is masked; of a quiz every answer, since they tell of each other."""
        if task == "quiz":
            return 1.0, 1.0
        return self.task.fact_rates if task in OF_FACTS else self.task.rates

    def leaders(self, places: Int[Tensor, "B L"], generator: torch.Generator) -> Int[Tensor, "B L"] | None:
        """Which codes are masked together: those of a window, in a share of the rows."""
        window = self.model.image_tokenizer.window
        if not self.task.whole_windows or not window:
            return None
        apart = torch.rand(len(places), 1, generator=generator) >= self.task.whole_windows
        own = torch.arange(places.shape[1]).expand_as(places)
        return torch.where(apart, own, window_leaders(places, self.model.sampling.grid, window))

    def score(
        self,
        packed: Packed,
        masked: Bool[Tensor, "B L"],
        times: Float[Tensor, "B L"],
        rarity: float = 0.0,
        trail: list[Float[Tensor, "B L D"]] | None = None,
    ) -> tuple[Float[Tensor, ""], Float[Tensor, ""]]:
        """Weighted cross-entropy at the masked positions, and the share of masked codes or words guessed right.

        `trail`, when given, receives the states after each layer.
        """
        at = masked.nonzero()  # (N, 2)
        ids = packed.ids.masked_fill(masked, self.model.vocab.mask)
        loads: list[Int[Tensor, " E"]] = []
        logits = self.backbone(ids, packed.positions, packed.visible, at=at, loads=loads, trail=trail)  # (N, V)
        self._loads = [a + b for a, b in zip(self._loads, loads, strict=True)] if self._loads else loads
        target = packed.ids[masked]
        loss = F.cross_entropy(logits, target, reduction="none")
        branches = packed.branches[masked] + at[:, 0] * (int(packed.branches.max()) + 1)
        weights = self.weights(target, branches, times[masked], rarity)
        right = (logits.argmax(-1) == target)[target != self.model.vocab.pad]
        return (loss * weights).sum() / weights.sum(), right.float().mean()

    def rarity(self, step: int) -> float:
        """The exponent of `weights` at a train step: from the task's value down to 0."""
        left = 1 - step / self.task.rarity_steps if self.task.rarity_steps else 0.0
        return self.task.rarity * max(0.0, left)

    def weights(
        self, target: Int[Tensor, " N"], samples: Int[Tensor, " N"], times: Float[Tensor, " N"], rarity: float = 0.0
    ) -> Float[Tensor, " N"]:
        """What each masked position counts: by the chosen rule, and padding after the first EOS less than words.

        `samples` numbers the branch that each position belongs to. For "mtrs" the length of a sample is that of its
        words: counted with its padding, an answer of one word would weigh as little as a block of them.
        With `rarity` a token also counts (its count among the targets) ** -rarity: at the start of a run, so that the
        codes of a plain background do not drown those of the things on it. It biases what is learned, so it fades.
        """
        rule: Literal["mean", "elbo", "mtrs"] = self.task.weighting
        if rule == "elbo":
            weights = inverse_rate_weights(times).clamp_max(10.0)
        elif rule == "mtrs":
            weights = sample_weights(samples, target != self.model.vocab.pad)
        else:
            weights = torch.ones_like(times)
        if rarity:
            weights = weights * torch.bincount(target)[target].float() ** -rarity
        return torch.where(self.filler(target, samples), weights * self.task.end_weight, weights)

    def filler(self, target: Int[Tensor, " N"], samples: Int[Tensor, " N"]) -> Bool[Tensor, " N"]:
        """Padding but for the first of each sample: where an answer ends must be learned, what follows is no news."""
        order = torch.arange(len(target))
        ended = target == self.model.vocab.pad
        first = torch.full((int(samples.max()) + 1,), len(target))
        first = first.scatter_reduce(0, samples[ended], order[ended], "amin")
        return ended & (order != first[samples])

    def after(self, step: int, steps: int, generator: torch.Generator) -> None:
        """Router biases follow the load."""
        if not self.task.balance:
            return
        routers = [part for part in self.backbone.modules() if isinstance(part, Router)]
        for router, load in zip(routers, self._loads, strict=True):
            balance_bias(router.expert_bias, load, self.task.balance)

    def parts(self, averaged: nn.Module) -> dict[str, nn.Module]:
        """The backbone; the probes have done their work."""
        assert isinstance(averaged, nn.ModuleDict)
        return {"backbone": averaged["backbone"]}


@torch.no_grad()
def start_from_codebook(
    backbone: Backbone, tokenizer: ImageTokenizer, model: ModelConfig, head_scale: float, generator: torch.Generator
) -> None:
    """Embedding and head rows of the codes begin as a random projection of the tokenizer's codebook.

    Codes that look alike then start alike, so what is learned of one helps its neighbours, provided that these rows
    learn slowly (`optim.slow`): Adam gives rare codes' rows steps of full size from mere noise, which would undo it
    within a hundred train steps. The head's rows are long enough for a sure choice from the start.
    """
    offset, codebook = model.vocab.image_offset, tokenizer.quantizer.codebook
    embedding, head = backbone.model.word_embeddings.weight, backbone.lm_head.weight
    for weight, scale in ((embedding, model.backbone.initializer_range), (head, head_scale)):
        weight[offset:] = projected(codebook, weight.shape[1], generator) * scale
    head[:offset] *= head_scale / 3 / model.backbone.initializer_range


@torch.no_grad()
def share_common_part(backbone: Backbone, model: ModelConfig) -> None:
    """Add to the embedding rows of the words what those of the codes have in common, their mean.

    A head that looks at the token before must make a query and a key that are the same for every token but for the
    place. It can only make them of something that all rows have, and random rows have nothing in common.
    """
    offset, rows = model.vocab.image_offset, backbone.model.word_embeddings.weight
    rows[:offset] += rows[offset:].mean(0)


@torch.no_grad()
def scale_embedding(backbone: Backbone, model: ModelConfig, deviation: float) -> None:
    """Bring the embedding rows to another deviation than the preset's `initializer_range`.

    The layers add states of size 1 and more to a row before long. Next to them a row of 0.02 is lost after the first
    layer, and every later one must be told again which word or code stands where.
    """
    backbone.model.word_embeddings.weight *= deviation / model.backbone.initializer_range
