"""Every number that makes one model or run differ from another, as frozen values read from YAML."""

from unveil.config.load import dump, load_config, load_preset, parse, preset_names, read, validate
from unveil.config.tree import (
    BackboneConfig,
    Config,
    DecoderConfig,
    ImageTokenizerConfig,
    ModelConfig,
    SamplingConfig,
    VaeConfig,
    VocabConfig,
)

__all__ = [
    "BackboneConfig", "Config", "DecoderConfig", "ImageTokenizerConfig", "ModelConfig", "SamplingConfig", "VaeConfig",
    "VocabConfig", "dump", "load_config", "load_preset", "parse", "preset_names", "read", "validate",
]  # fmt: skip
