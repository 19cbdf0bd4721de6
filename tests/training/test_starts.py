"""What fresh weights of a backbone and a code embedding begin as: what the codebook knows already."""

import pytest
import torch
from torch import nn

from unveil.config import ModelConfig
from unveil.model.backbone import Backbone
from unveil.model.image_decoder import CodeEmbedding
from unveil.model.image_tokenizer import ImageTokenizer
from unveil.training.objectives.backbone import scale_embedding, share_common_part, start_from_codebook
from unveil.training.objectives.decoder import start_embedding


def test_codes_that_look_alike_start_alike(small: ModelConfig, tokenizer: ImageTokenizer) -> None:
    wide = small.model_copy(update={"backbone": small.backbone.model_copy(update={"width": 512})})
    backbone = Backbone(wide.backbone, wide.vocab).initialize(torch.Generator().manual_seed(0))
    text_rows = backbone.model.word_embeddings.weight[:1024].clone()
    start_from_codebook(backbone, tokenizer, wide, 0.25, torch.Generator().manual_seed(0))
    entries = nn.functional.normalize(tokenizer.quantizer.codebook, dim=-1)
    wanted = entries @ entries.T
    scales = (small.backbone.initializer_range, 0.25)
    for weight, scale in zip((backbone.model.word_embeddings.weight, backbone.lm_head.weight), scales, strict=True):
        rows = weight[1024:]
        unit = nn.functional.normalize(rows, dim=-1)
        assert (unit @ unit.T - wanted).abs().mean() < 0.1
        assert abs(float(rows.detach().std()) / scale - 1) < 0.1
    assert torch.equal(backbone.model.word_embeddings.weight[:1024], text_rows)


def test_words_can_get_what_the_codes_have_in_common(small: ModelConfig, tokenizer: ImageTokenizer) -> None:
    backbone = Backbone(small.backbone, small.vocab).initialize(torch.Generator().manual_seed(0))
    start_from_codebook(backbone, tokenizer, small, 0.25, torch.Generator().manual_seed(0))
    before = backbone.model.word_embeddings.weight.detach().clone()
    share_common_part(backbone, small)
    after, common = backbone.model.word_embeddings.weight.detach(), before[1024:].mean(0)
    assert torch.equal(after[1024:], before[1024:]) and common.abs().max() > 0
    assert torch.allclose(after[:1024] - before[:1024], common.expand(1024, -1), atol=1e-6)


def test_embedding_rows_can_start_as_large_as_what_the_layers_add(
    small: ModelConfig, tokenizer: ImageTokenizer
) -> None:
    backbone = Backbone(small.backbone, small.vocab).initialize(torch.Generator().manual_seed(0))
    start_from_codebook(backbone, tokenizer, small, 0.25, torch.Generator().manual_seed(0))
    rows, head = backbone.model.word_embeddings.weight, backbone.lm_head.weight.detach().clone()
    directions = nn.functional.normalize(rows.detach(), dim=-1)
    scale_embedding(backbone, small, 1.0)
    assert float(rows.detach()[:1024].std()) == pytest.approx(1, abs=0.05)
    assert torch.allclose(nn.functional.normalize(rows.detach(), dim=-1), directions, atol=1e-5)
    assert torch.equal(backbone.lm_head.weight, head)


def test_the_code_embedding_starts_where_the_codebook_is(small: ModelConfig, tokenizer: ImageTokenizer) -> None:
    embedding = CodeEmbedding(small)
    start_embedding(embedding, tokenizer, torch.Generator().manual_seed(0))
    rows = embedding.prior_token_embedding.weight
    assert float(rows.detach().norm(dim=-1).mean()) == pytest.approx(1, abs=0.15)
    entries = tokenizer.quantizer.codebook
    alike = nn.functional.normalize(entries, dim=-1) @ nn.functional.normalize(entries, dim=-1).T
    mean, shown = alike.mean(), nn.functional.normalize(rows, dim=-1) @ nn.functional.normalize(rows, dim=-1).T
    assert torch.corrcoef(torch.stack([(alike - mean).flatten(), shown.flatten()]))[0, 1] > 0.75
