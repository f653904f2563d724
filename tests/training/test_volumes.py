"""The model knows the volumes of its training cases."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.helpers.tiny import blob_case, tiny_recipe, write_nifti
from volseg.datasets.cases import Case
from volseg.training.dataset import prepare_case
from volseg.training.trained_on import describe_training


def test_volumes_of_the_training_cases(tmp_path: Path) -> None:
    """Voxels of 1 x 2 x 1.5 mm; a label that one case lacks has 0 there."""
    cases, volumes = [], []
    for number in range(3):
        image, labels = blob_case(number)
        if number == 2:
            labels[labels == 2] = 0
        labels[:, : number + 4] = 0
        affine = np.diag([1.0, 2.0, 1.5, 1.0])
        paths = [
            write_nifti(tmp_path / f"{name}{number}.nii.gz", array, affine)
            for name, array in (("x", image), ("y", labels))
        ]
        cases.append(Case(str(number), (paths[0],), paths[1]))
        volumes.append([(labels == value).sum() * 3 / 1000 for value in (1, 2)])
    described = describe_training([prepare_case(case, tiny_recipe()) for case in cases], 1, 1.0)
    assert described.volumes_ml is not None
    assert list(described.volumes_ml) == ["Anterior hippocampus", "Posterior hippocampus"]
    for found, expected in zip(described.volumes_ml.values(), np.transpose(volumes), strict=True):
        assert [*found] == pytest.approx([expected.min(), expected.max()], abs=1e-4)
    assert described.volumes_ml["Posterior hippocampus"][0] == 0
