"""What a dataset without a ``dataset.json`` says of itself."""

from __future__ import annotations

from pathlib import Path

import pytest

from volseg.datasets.cases import Case
from volseg.planning.naming import read_naming


def with_masks(folder: Path, name: str, *structures: str) -> Case:
    labels = folder / name / "segmentations"
    labels.mkdir(parents=True)
    for each in structures:
        (labels / f"{each}.nii.gz").touch()
    return Case(name, (folder / name / "ct.nii.gz",), labels, channels=("CT",))


def test_masks_are_numbered_by_the_alphabet_over_all_cases(tmp_path: Path) -> None:
    """A case may lack a mask, which is refused where it is read: here the others say that it exists."""
    cases = [with_masks(tmp_path, "s0", "spleen", "aorta"), with_masks(tmp_path, "s1", "liver", "spleen")]
    naming = read_naming(tmp_path, cases)
    assert (naming.name, naming.channels) == (tmp_path.name, ("CT",))
    assert [(r.value, r.name, r.members) for r in naming.regions] == [
        (1, "aorta", (1,)),
        (2, "liver", (2,)),
        (3, "spleen", (3,)),
    ]
    assert not naming.overlapping
    (tmp_path / "table.csv").touch()
    assert read_naming(tmp_path / "table.csv", cases).regions == naming.regions
    mixed = [*cases, Case("x", (tmp_path / "x.nii",), tmp_path / "x_mask.nii")]
    assert read_naming(tmp_path / "table.csv", mixed).regions == ()


@pytest.mark.parametrize(
    ("names", "values"),
    [
        (("BraTS2021_00000", "BraTS20_Training_001", "Brats18_2013_2_1"), [1, 2, 4]),
        (("BraTS-GLI-00000-000", "BraTS-MET-00002-000"), [1, 2, 3, 4]),
        (("BraTS-PED-00001-000",), []),
        (("BraTS-GLI-00000-000", "BraTS2021_00000"), []),
    ],
)
def test_the_numbers_of_brats(tmp_path: Path, names: tuple[str, ...], values: list[int]) -> None:
    """Since 2023 the enhancing tumour is 3; both conventions together would have two meanings of a number."""
    cases = [Case(name, (), tmp_path / f"{name}-seg.nii.gz", channels=("t1n", "t1c")) for name in names]
    naming = read_naming(tmp_path, cases)
    assert [region.value for region in naming.regions] == values
    assert not naming.regions or naming.regions[2].name == "Enhancing tumour"
    assert naming.channels == ("t1n", "t1c")
