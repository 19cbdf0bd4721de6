"""From codes to pixels: code embedding, flow-matching transformer, VAE."""

from unveil.model.image_decoder.code_embedding import CodeEmbedding
from unveil.model.image_decoder.decoder import ImageDecoder
from unveil.model.image_decoder.vae import build_vae, decode_latents, encode_latents, posterior, sample_latents

__all__ = [
    "CodeEmbedding",
    "ImageDecoder",
    "build_vae",
    "decode_latents",
    "encode_latents",
    "posterior",
    "sample_latents",
]
