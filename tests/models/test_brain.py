"""The bundled model `brain`: what it is, and what it makes of a real head, however that is stored."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest

import volseg
from volseg.geometry import Geometry
from volseg.inference.fit import range_mismatch
from volseg.models import model_path
from volseg.models.folder import read_model

Floats = npt.NDArray[np.float32]
Matrix = npt.NDArray[np.float64]

#: FreeSurfer's numbers of what has two sides, left and right, and of what has none.
SIDES = {2: 41, 3: 42, 4: 43, 5: 44, 7: 46, 8: 47, 10: 49, 11: 50, 12: 51, 13: 52, 17: 53, 18: 54, 26: 58, 28: 60}
MIDDLE = (14, 15, 16)


def test_it_has_freesurfers_numbers_and_says_the_side_twice() -> None:
    labels = {label.value: label for label in read_model(model_path("brain")).manifest.recipe.label_table()}
    assert set(labels) == {*SIDES, *SIDES.values(), *MIDDLE}
    for left, right in SIDES.items():
        assert labels[left].name.removeprefix("Left ") == labels[right].name.removeprefix("Right ")
        assert labels[left].colour == labels[right].colour
        assert labels[left].code == labels[right].code
        modifiers = labels[left].modifier, labels[right].modifier
        assert [(code.value, code.meaning) for code in modifiers if code] == [
            ("7771000", "Left"),
            ("24028007", "Right"),
        ]
    assert all(labels[value].modifier is None for value in MIDDLE)


def test_it_is_small_and_says_what_it_is() -> None:
    folder = read_model(model_path("brain"))
    for fold in folder.manifest.weights:
        folder.weights(fold)
    assert sum(path.stat().st_size for path in (folder.path / "weights").iterdir()) <= 12_000_000
    card = (folder.path / "CARD.md").read_text(encoding="utf-8")
    words = ("Apache-2.0", "SynthSeg", "synthetic", "Children", "resections", "CT", "algorithm's")
    assert [word for word in words if word not in card] == []
    assert not set(folder.manifest.recipe.training.held_out) & set(folder.manifest.trained_on.cases)


@pytest.mark.parametrize(
    ("spacing_mm", "size", "code"),
    [
        ((1.0, 1.0, 1.0), (181, 217, 181), None),
        ((0.5, 0.5, 5.0), (440, 440, 34), None),
        ((1.0, 1.0, 1.0), (256, 256, 256), None),
        ((0.9, 0.9, 12.0), (256, 256, 14), "spacing"),
        ((0.8, 0.8, 2.0), (512, 512, 250), "field-of-view"),
        ((1.0, 1.0, 1.0), (35, 51, 35), "field-of-view"),
    ],
)
def test_whole_heads_fit_and_bodies_and_crops_do_not(
    spacing_mm: tuple[float, ...], size: tuple[int, int, int], code: str | None
) -> None:
    manifest = read_model(model_path("brain")).manifest
    geometry = Geometry(size, np.diag([*spacing_mm, 1.0]))
    found = range_mismatch(geometry, manifest.recipe, manifest.trained_on)
    assert (found.code if found else None) == code


def reduced(shared_data: Path) -> tuple[Floats, Matrix]:
    """Colin27 at 2 mm, by nibabel and numpy alone: values, and the affine."""
    image = nibabel.load(shared_data / "brain" / "colin27.nii.gz")
    values = np.asarray(image.dataobj)[:180, :216, :180].astype(np.float32)
    mean = values.reshape(90, 2, 108, 2, 90, 2).mean((1, 3, 5))
    affine = image.affine @ np.diag([2.0, 2.0, 2.0, 1.0])
    affine[:3, 3] += image.affine[:3, :3].sum(1) / 2
    return mean, affine


@pytest.mark.slow
def test_left_is_left_in_a_real_head_however_it_is_stored(shared_data: Path) -> None:
    """Colin27 in his own axes (RAS) and in LIA: one mask, left structures left of the right ones, plausible sizes."""
    values, affine = reduced(shared_data)
    model = volseg.load_model("brain")
    mask = model.predict(volseg.Volume(values, Geometry((90, 108, 90), affine))).array
    # LIA: first axis to the left, second down, third forward.
    turned = np.ascontiguousarray(values[::-1].transpose(0, 2, 1)[:, ::-1])
    columns = affine[:3, :3].T
    lia = np.eye(4)
    lia[:3, 0], lia[:3, 1], lia[:3, 2] = -columns[0], -columns[2], columns[1]
    lia[:3, 3] = affine[:3, 3] + 89 * columns[0] + 89 * columns[2]
    other = model.predict(volseg.Volume(turned, Geometry((90, 90, 108), lia))).array
    np.testing.assert_array_equal(other, mask[::-1].transpose(0, 2, 1)[:, ::-1])
    ml = {value: np.count_nonzero(mask == value) * 8e-3 for value in (*SIDES, *SIDES.values(), *MIDDLE)}
    for left in (2, 3, 8, 10):
        right = SIDES[left]
        middles = [affine[0, 0] * np.argwhere(mask == value)[:, 0].mean() + affine[0, 3] for value in (left, right)]
        assert middles[0] < -5 < 5 < middles[1], left
        assert 0.6 < ml[left] / ml[right] < 1.7, left
    assert 600 < sum(ml[value] for value in (2, 3, 41, 42)) < 1500
    assert 5 < ml[10] < 20
