"""Pure functions of sampling, and the tokenizer of text."""

from collections.abc import Iterator

import torch

from unveil.parity.golden import Case
from unveil.parity.judge import Check, Skip
from unveil.parity.models import BackboneSide
from unveil.parity.unmasking import sprint_of
from unveil.sampling import Draw
from unveil.sampling.commit import commit_confident, quotas
from unveil.sampling.draw import probabilities
from unveil.sampling.sprint import candidates, importance, kept_count, kept_places, share_of_rest
from unveil.vocab.prompt import Turn


def schedule(models: BackboneSide, case: Case) -> Iterator[Check]:
    """How many places each step of a block fills."""
    for block, steps in case.params["pairs"]:
        yield Check(f"{block}_{steps}", list(quotas(block, steps)))


def filtered(models: BackboneSide, case: Case) -> Iterator[Check]:
    """The distribution after temperature, top-k and top-p."""
    p = case.params
    yield Check("probs", probabilities(case.inputs["logits"], Draw(p["temperature"], p["top_k"] or None, p["top_p"])))


def adaptive(models: BackboneSide, case: Case) -> Iterator[Check]:
    """The quota rule of SPRINT: candidates, and which are accepted."""
    p, masked, current = case.params, case.inputs["masked"].bool(), case.inputs["current"]
    tokens, score, sure = candidates(case.inputs["logits"], masked, p["remasking"])
    at_least = share_of_rest(masked.sum(-1), p["steps_left"], p["minimal_topk"])
    yield Check("candidates", torch.where(masked, tokens, current).flatten())
    yield Check("accepted", commit_confident(sure, masked, torch.inf, at_least, score).flatten())


def pruned(models: BackboneSide, case: Case) -> Iterator[Check]:
    """What SPRINT keeps of a prefix, in each layer."""
    p, confidence, sprint = case.params, case.inputs["confidence"], sprint_of(case.params)
    keys = case.inputs["keys"][..., : p["prefix_len"], :]
    pinned = sprint.pinned(case.inputs["prefix_ids"], models.layout.image_offset)
    real = torch.ones_like(pinned)
    count = kept_count(pinned, real, sprint.keep_ratio)
    ranks = [importance(k, confidence, pinned, real, sprint.alpha, official=True) for k in keys]
    yield Check("kept", torch.stack([kept_places(rank, count)[0][0] for rank in ranks]))


def tokenized(models: BackboneSide, case: Case) -> Iterator[Check | Skip]:
    """Pieces of templates there and back, and conversations."""
    for i, piece in enumerate(case.params.get("pieces", [])):
        yield Check(f"pieces[{i}].ids", models.text.encode_template(piece["text"]), piece["ids"])
        yield Check(f"pieces[{i}].back", models.text.decode(piece["ids"]), piece["back"])
    for i, chat in enumerate(case.params.get("chats", [])):
        turns = [Turn(message["role"], message["content"]) for message in chat["messages"]]
        yield Check(f"chats[{i}].ids", models.prompts.chat(turns), chat["ids"])
    if "chats_official_template" in case.params:
        yield Skip(
            "chats_official_template",
            "a longer template, with tools; the checkpoint's own agrees with it for plain turns",
        )
