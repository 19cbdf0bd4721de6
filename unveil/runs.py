"""A training run from its file: the parts it reads, the objective it learns, the part it writes."""

from pathlib import Path
from typing import TypeVar

import torch
from torch import nn

from unveil.config import ModelConfig, dump, load_preset, read
from unveil.config.run import DecoderTask, RetrievalTask, RunConfig, TokenizerTask, VaeTask
from unveil.errors import WeightsError
from unveil.files import make_directory, write_atomic
from unveil.model.backbone import Backbone
from unveil.model.image_decoder import CodeEmbedding, ImageDecoder, build_vae
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.model.image_tokenizer.retrieval import Retrieval
from unveil.training.loop import Objective, train
from unveil.training.objectives.backbone import (
    BackboneObjective,
    scale_embedding,
    share_common_part,
    start_from_codebook,
)
from unveil.training.objectives.decoder import DecoderObjective, start_embedding
from unveil.training.objectives.image_tokenizer import TokenizerObjective
from unveil.training.objectives.retrieval import RetrievalObjective
from unveil.training.objectives.vae import VaeObjective
from unveil.training.report import plot_log
from unveil.training.together import Together, together
from unveil.training.vocabulary import corpus
from unveil.vocab.text import Text
from unveil.weights.names import CONFIG_FILE, PART_FILES, TOKENIZER_FILE
from unveil.weights.read import load_part
from unveil.weights.save import save_part, write_files

M = TypeVar("M", bound=nn.Module)


def start(path: Path) -> bool:
    """Run, or go on with, the training run in a YAML file. Returns whether it is complete.

    Raises ConfigError for a bad file and TrainingError when a step goes wrong.
    """
    run = read(RunConfig, path)
    load_preset(run.preset)
    for part in _needed(run):
        _file(run, part)
    make_directory(run.directory)
    make_directory(run.parts)
    _text(run)  # there before other processes look for it
    with together(run.processes, _work, path) as place:
        complete = _work(place, path)
    log = run.directory / "log.jsonl"
    if log.stat().st_size:  # a run stopped before its first line has no curves
        plot_log(log, run.directory / "curves.png")
    return complete


def _work(place: Together, path: Path) -> bool:
    """The share of one process in a run."""
    run = read(RunConfig, path)
    model = load_preset(run.preset)

    def ship(parts: dict[str, nn.Module]) -> None:
        write_atomic(run.parts / CONFIG_FILE, dump(model).encode())
        for name, module in parts.items():
            save_part(module, run.parts / PART_FILES[name])

    return train(run, build_objective(run, model), ship, place)


def build_objective(run: RunConfig, model: ModelConfig) -> Objective:
    """The objective of a run, with the finished parts it needs loaded and its own part fresh or continued."""
    task, text = run.task, _text(run)
    generator = torch.Generator().manual_seed(run.seed)
    if isinstance(task, VaeTask):
        objective = VaeObjective(model, task, run.seed)
        _continued(run, "vae", objective.module)
        return objective
    if isinstance(task, TokenizerTask):
        return TokenizerObjective(model, task, text, run.seed)
    tokenizer = ImageTokenizer(model.image_tokenizer)
    _fetch(run, "image_tokenizer", tokenizer)
    if isinstance(task, RetrievalTask):
        heads = Retrieval(model)
        heads.initialize(generator)
        return RetrievalObjective(model, task, text, tokenizer, _continued(run, "retrieval", heads))
    if isinstance(task, DecoderTask):
        vae, embedding = build_vae(model.vae), CodeEmbedding(model)
        decoder = ImageDecoder(model.decoder, model.vae.latent_channels)
        _fetch(run, "vae", vae)
        embedding.initialize(generator)
        decoder.initialize(generator)
        if task.initialize_codes:
            start_embedding(embedding, tokenizer, generator)
        module = nn.ModuleDict(
            {
                "decoder": _continued(run, "decoder", decoder),
                "code_embedding": _continued(run, "code_embedding", embedding),
            }
        )
        return DecoderObjective(model, task, tokenizer, vae, module)
    backbone = Backbone(model.backbone, model.vocab).initialize(generator)
    if task.initialize_codes:
        start_from_codebook(backbone, tokenizer, model, task.head_scale, generator)
    if task.common_part:
        share_common_part(backbone, model)
    if task.embedding_scale:
        scale_embedding(backbone, model, task.embedding_scale)
    return BackboneObjective(model, task, text, tokenizer, _continued(run, "backbone", backbone))


def _continued(run: RunConfig, part: str, module: M) -> M:
    """The module with the weights in the parts directory, if the run is to start from them."""
    if run.start == "parts":
        _fetch(run, part, module)
    return module


def _fetch(run: RunConfig, part: str, module: nn.Module) -> None:
    """Weights of a finished part."""
    load_part(module, _file(run, part))


def _file(run: RunConfig, part: str) -> Path:
    """The file of a finished part. Raises WeightsError naming it when an earlier stage has not run."""
    file = run.parts / PART_FILES[part]
    if not file.exists():
        raise WeightsError(f"{file}: missing; run the stage that trains it first")
    return file


def _needed(run: RunConfig) -> list[str]:
    """The parts that a run reads, besides those it goes on with: looked for before anything is written."""
    match run.task:
        case VaeTask() | TokenizerTask():
            return []
        case DecoderTask():
            return ["image_tokenizer", "vae"]
    return ["image_tokenizer"]


def _text(run: RunConfig) -> Text:
    """The text tokenizer in the parts directory; trained now if this is the first run there."""
    file = run.parts / TOKENIZER_FILE
    if not file.exists():
        write_files(run.parts, {TOKENIZER_FILE: Text.train(corpus()).save}, needed=0)
    return Text.load(file)
