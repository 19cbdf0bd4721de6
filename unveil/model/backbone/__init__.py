"""The language backbone: a mixture-of-experts transformer over text tokens and image codes."""

from unveil.model.backbone.backbone import Backbone, Past

__all__ = ["Backbone", "Past"]
