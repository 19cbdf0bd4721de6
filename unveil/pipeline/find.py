"""How well texts fit pictures, by the retrieval heads."""

from collections.abc import Sequence

import torch

from unveil.errors import WeightsError
from unveil.model.image_tokenizer.retrieval import CONTEXT, Retrieval
from unveil.pictures import PictureInput
from unveil.pipeline.inputs import device_of, tokenize
from unveil.shapes import Float, Tensor
from unveil.weights.read import Parts


@torch.inference_mode()
def similarity(parts: Parts, pictures: Sequence[PictureInput], texts: Sequence[str]) -> Float[Tensor, "T P"]:
    """How well each text fits each picture. Raises WeightsError when the model has no retrieval part."""
    heads, device = parts.retrieval, device_of(parts)
    if not isinstance(heads, Retrieval):
        raise WeightsError("this model has no retrieval.safetensors; train it with recipes/tiny/retrieval.yaml")
    codes = tokenize(parts, pictures).to(device)
    shown = heads.embed_pictures(parts.image_tokenizer.quantizer.lookup(codes))
    ids = [torch.tensor([parts.text.encode(t)[:CONTEXT]], device=device) for t in texts]
    said = torch.cat([heads.embed_texts(row) for row in ids])
    return (said @ shown.T).float().cpu()
