"""Unveil: one model that reads, draws and edits pictures and writes text by unmasking.

    from unveil import Uni
    uni = Uni.load()
    uni.generate_image("a small blue fish on white", seed=7).image

Importing this costs nothing: PyTorch is imported when a name is first used.
"""

from typing import TYPE_CHECKING

from unveil.version import VERSION as __version__

if TYPE_CHECKING:
    from unveil.pipeline import ImageResult, Message, Page, StoryResult, TextResult, Uni

__all__ = ["ImageResult", "Message", "Page", "StoryResult", "TextResult", "Uni", "__version__"]


def __getattr__(name: str) -> object:
    """The public names, imported at their first use."""
    if name not in __all__:
        raise AttributeError(f"module 'unveil' has no attribute '{name}'")
    from unveil import pipeline

    return getattr(pipeline, name)


def __dir__() -> list[str]:
    return sorted(__all__)
