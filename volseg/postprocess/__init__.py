"""What is done to a mask after inference: components, holes, and their order as the recipe says."""

from __future__ import annotations

from volseg.postprocess.rules import apply_rules

__all__ = ["apply_rules"]
