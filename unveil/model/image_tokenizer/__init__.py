"""SigLIP-VQ: pictures as codes (spec image 1-3)."""

from unveil.model.image_tokenizer.quantizer import Quantized, Quantizer, quantizer_loss, usage
from unveil.model.image_tokenizer.tokenizer import ImageTokenizer

__all__ = ["ImageTokenizer", "Quantized", "Quantizer", "quantizer_loss", "usage"]
