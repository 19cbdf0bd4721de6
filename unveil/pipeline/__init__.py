"""`Uni`, the whole model for one user: pictures from words, words from pictures, edits, stories, chat, retrieval."""

from unveil.pipeline.place import model_directory, shipped_models
from unveil.pipeline.results import ImageResult, Page, StoryResult, TextResult
from unveil.pipeline.uni import Message, Uni

__all__ = [
    "ImageResult", "Message", "Page", "StoryResult", "TextResult", "Uni", "model_directory", "shipped_models",
]  # fmt: skip
