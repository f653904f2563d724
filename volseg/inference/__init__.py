"""From a volume to its segmentation. This is the face of it: what other parts use is listed here.

`Segmenter` binds a `Model` and `Options`; it plans a scan's memory, prepares its tensor, slides the network's window
along it, blends, restores labels on the scan's own grid, and applies the recipe's rules.
"""

from volseg.inference.content import content_flags
from volseg.inference.fit import Mismatch
from volseg.inference.memory import Plan
from volseg.inference.options import Options
from volseg.inference.predictor import Model, Prediction, Ready, Segmenter, load_model
from volseg.inference.quality import Quality, border_sides, quality_flags
from volseg.inference.restore import on_grid
from volseg.inference.stream import Streamed, stream

__all__ = [
    "Mismatch",
    "Model",
    "Options",
    "Plan",
    "Prediction",
    "Quality",
    "Ready",
    "Segmenter",
    "Streamed",
    "border_sides",
    "content_flags",
    "load_model",
    "on_grid",
    "quality_flags",
    "stream",
]
