"""How well texts fit pictures, by the retrieval heads."""

from collections.abc import Sequence

import torch

from unveil.errors import PromptError, RequestError, WeightsError
from unveil.model.image_tokenizer.retrieval import CONTEXT, Retrieval
from unveil.pictures import PictureInput
from unveil.pipeline.inputs import checked_text, tokenize
from unveil.shapes import Float, Tensor
from unveil.weights.read import Parts


@torch.inference_mode()
def similarity(parts: Parts, pictures: Sequence[PictureInput], texts: Sequence[str]) -> Float[Tensor, "T P"]:
    """How well each text fits each picture; of a long text the first `CONTEXT` tokens count.

    Raises WeightsError when the model has no retrieval part.
    """
    heads, device = parts.retrieval, parts.device
    if not isinstance(heads, Retrieval):
        raise WeightsError("this model has no retrieval.safetensors; train it with recipes/tiny/retrieval.yaml")
    said = [checked_text(text, "text") for text in texts]
    if not said:
        raise RequestError("no text was given; give at least one")
    codes = tokenize(parts, pictures).to(device)
    shown = heads.embed_pictures(parts.image_tokenizer.quantizer.lookup(codes))
    ids = [torch.tensor([parts.text.encode(text)[:CONTEXT]], device=device) for text in said]
    meant = torch.cat([heads.embed_texts(row) for row in ids])
    return (meant @ shown.T).float().cpu()


def checked_query(parts: Parts, text: str) -> str:
    """The words to find pictures by. Raises PromptError when there are none, or too many for the heads."""
    said = checked_text(text, "text")
    tokens = len(parts.text.encode(said))
    if tokens > CONTEXT:
        raise PromptError(f"the text has {tokens} tokens; pictures are found by {CONTEXT} at most: shorten it")
    return said
