"""Cases made in memory."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from tests.helpers.tiny import tiny_recipe
from volseg.geometry import AxisMap, Geometry
from volseg.preprocess import Prepared
from volseg.training.dataset import TrainingCase
from volseg.volume import LabelVolume


def as_case(labels_DHW: Tensor, image: Tensor | None = None, *, name: str = "made", ignored: int = -1) -> TrainingCase:
    """A case of 1 mm; its image is ten times its labels unless given, (D, H, W) or (C, D, H, W)."""
    labels = labels_DHW.to(torch.int32)
    shape = (labels.shape[0], labels.shape[1], labels.shape[2])
    geometry = Geometry(shape, np.eye(4))
    reference = LabelVolume(labels.numpy().astype(np.uint8), geometry, tiny_recipe().label_table())
    values = 10 * labels.float() if image is None else image
    prepared = Prepared(values.reshape(-1, *shape), AxisMap.between("RAS", "RAS"), geometry)
    foreground = {int(v): (labels == v).nonzero() for v in labels.unique() if int(v) not in (0, ignored)}
    unjudged: npt.NDArray[np.bool_] = (labels == ignored).numpy()
    judged = (labels != ignored).nonzero() if unjudged.any() else None
    return TrainingCase(
        name, prepared, labels, reference, foreground, ((0.0, 1.0),), (), judged, None if judged is None else unjudged
    )
