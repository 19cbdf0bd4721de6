"""Many requests, one model: a queue, a batch that requests join and leave at every denoise step, and their results."""

from unveil.engine.engine import Engine, Model
from unveil.engine.events import Event
from unveil.engine.request import Handle, Request

__all__ = ["Engine", "Event", "Handle", "Model", "Request"]
