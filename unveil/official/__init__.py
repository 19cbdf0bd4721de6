"""The released repository's names and argument names, so that its scripts run here with other imports.

Every call does the sane thing unless told `behavior="official"`; docs/official-differences.md says where that differs.
"""

from unveil.official.load import AutoModelForCausalLM, AutoTokenizer
from unveil.official.model import Answer, Behavior, Drawn, Model
from unveil.official.pictures import (
    ImageTokenizer,
    decode_vq_tokens,
    generate_crop_size_list,
    smart_resize_images,
    var_center_crop,
)

__all__ = [
    "Answer",
    "AutoModelForCausalLM",
    "AutoTokenizer",
    "Behavior",
    "Drawn",
    "ImageTokenizer",
    "Model",
    "decode_vq_tokens",
    "generate_crop_size_list",
    "smart_resize_images",
    "var_center_crop",
]
