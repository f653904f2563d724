"""From a path to volumes: images of every format that volseg reads, each with a verdict whether it can be segmented.

Names are imported when they are first used: a process that reads headers needs a tenth of what stands behind them.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from volseg.loaders.candidate import Candidate, Ignored
    from volseg.loaders.listing import Listing, find, load

_HOMES = {"Candidate": "candidate", "Ignored": "candidate", "Listing": "listing", "find": "listing", "load": "listing"}

__all__ = ["Candidate", "Ignored", "Listing", "find", "load"]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'volseg.loaders' has no attribute {name!r}")
    return getattr(importlib.import_module(f"volseg.loaders.{_HOMES[name]}"), name)
