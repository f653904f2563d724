"""volseg against every row of the damage table: the truth, or a refusal that names the true reason."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from benchmarks.geometry.damages import ROWS
from benchmarks.geometry.readers import Job, read_volseg
from benchmarks.geometry.truth import Image, refuse, right
from benchmarks.geometry.verdict import Found, summary, verdict

VALUES = np.arange(24).reshape(2, 3, 4)
AFFINE = np.array([[0.0, 2, 0, -5], [1, 0, 0, 7], [0, 0, 3, 11], [0, 0, 0, 1]])
IMAGE = Image(values=VALUES, affine=AFFINE)


def test_there_are_at_least_sixty_rows() -> None:
    assert len(ROWS) >= 60


@pytest.mark.parametrize("name", ROWS)
def test_volseg_gives_the_truth_or_refuses_for_the_true_reason(name: str, tmp_path: Path) -> None:
    truth = ROWS[name].make(tmp_path)
    found = read_volseg(Job(tmp_path))
    given = f"{summary(found)}; codes {found.codes}; {found.error}"

    if verdict(truth, found) == "refused":
        assert truth.codes.intersection(found.codes), given
        return
    assert verdict(truth, found) == "right", given
    if not truth.codes:
        assert set(found.codes) == truth.beside, given
    assert not truth.note or any(truth.note in note for note in found.notes), found.notes


def moved(mm: float) -> npt.NDArray[np.float64]:
    affine = AFFINE.copy()
    affine[2, 3] += mm
    return affine


def test_other_storage_of_the_same_voxels_is_right() -> None:
    # (k reversed, j, i): its voxel (0, 0, 0) is the image's (0, 0, 3), at (-5, 7, 11 + 3 * 3).
    turned = np.array([[0.0, 2, 0, -5], [0, 0, 1, 7], [-3, 0, 0, 20], [0, 0, 0, 1]])
    assert verdict(right(IMAGE), Found([(VALUES.transpose(2, 1, 0)[::-1], turned)])) == "right"


@pytest.mark.parametrize(
    ("array", "affine"),
    [(VALUES, moved(0.01)), (VALUES[::-1], AFFINE), (VALUES + (VALUES == 9), AFFINE), (VALUES[:, :2], AFFINE)],
)
def test_another_place_or_another_value_is_wrong(array: npt.NDArray[np.int64], affine: npt.NDArray[np.float64]) -> None:
    assert verdict(right(IMAGE), Found([(array, affine)])) == "SILENTLY WRONG"


def test_verdicts_on_several_volumes() -> None:
    other = Image(values=VALUES + 100, affine=AFFINE)
    both = [(VALUES + 100, AFFINE), (VALUES, AFFINE)]
    assert verdict(right(IMAGE, other), Found(both)) == "right"
    assert verdict(right(IMAGE, other), Found(both[:1])) == "part"
    assert verdict(right(IMAGE), Found([(VALUES[..., :2], AFFINE), (VALUES[..., 2:], moved(6))])) == "part"
    assert verdict(right(IMAGE), Found([(VALUES[..., :2], AFFINE), (VALUES[..., 2:], moved(7))])) == "SILENTLY WRONG"
    assert verdict(right(IMAGE), Found(both)) == "SILENTLY WRONG"
    assert verdict(right(IMAGE), Found([(VALUES, AFFINE), (VALUES[..., :1], moved(50))])) == "right"


def test_verdicts_on_refusals() -> None:
    assert verdict(right(IMAGE), Found(error="no")) == "needless refusal"
    assert verdict(refuse("tilted"), Found(error="no")) == "refused"
    assert verdict(refuse("tilted"), Found([(VALUES, AFFINE)])) == "SILENTLY WRONG"
    assert verdict(refuse("tilted", also=[[IMAGE]]), Found([(VALUES, AFFINE)])) == "right"
    assert verdict(refuse("tilted"), Found(error="crash: exit code -11")) == "crash"
