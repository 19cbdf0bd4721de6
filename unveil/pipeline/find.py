"""How well texts fit pictures, by the retrieval heads."""

from collections.abc import Sequence

import torch

from unveil.errors import RequestError, WeightsError
from unveil.model.image_tokenizer.retrieval import CONTEXT, Retrieval
from unveil.pictures import PictureInput
from unveil.pipeline.inputs import checked_text, tokenize
from unveil.shapes import Float, Tensor
from unveil.weights.read import Parts


@torch.inference_mode()
def similarity(parts: Parts, pictures: Sequence[PictureInput], texts: Sequence[str]) -> Float[Tensor, "T P"]:
    """How well each text fits each picture. Raises WeightsError when the model has no retrieval part."""
    heads, device = parts.retrieval, parts.device
    if not isinstance(heads, Retrieval):
        raise WeightsError("this model has no retrieval.safetensors; train it with recipes/tiny/retrieval.yaml")
    said = [checked_text(text, "text") for text in texts]
    if not said:
        raise RequestError("no text was given; give at least one")
    codes = tokenize(parts, pictures).to(device)
    shown = heads.embed_pictures(parts.image_tokenizer.quantizer.lookup(codes))
    ids = [torch.tensor([parts.text.encode(t)[:CONTEXT]], device=device) for t in said]
    meant = torch.cat([heads.embed_texts(row) for row in ids])
    return (meant @ shown.T).float().cpu()
