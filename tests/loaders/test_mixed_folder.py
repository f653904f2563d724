"""A folder with everything mixed together gives what a radiographer would write down, with the folder in hand."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from numpy.testing import assert_array_equal

from tests.helpers import mixed_folder
from tests.helpers.dicom_files import voxels
from volseg.loaders import Candidate, Listing, find


@dataclass(frozen=True)
class Row:
    """One line of the list: what it is, where it lies, and what can be done with it."""

    what: str
    description: str
    path: str
    files: int
    size: tuple[int, int, int] | None
    spacing_mm: tuple[float, float, float] | None
    axes: str | None = "LPS"
    code: str | None = None
    one_of: str = ""


#: Written by hand. The order is that of the paths, and of the names where paths are the same.
EXPECTED = [
    Row("CT", "ΑΞΟΝΙΚΗ", "CD/PT000000/ST000000/SE000000", 3, (4, 5, 3), (0.8, 0.8, 5.0)),
    Row("CT", "Oberbauch nativ ä", "IMAGES", 5, (6, 5, 5), (0.7, 0.9, 2.5)),
    Row("CT", "κενό", "IMAGES", 6, None, None, None, code="missing-slice"),
    Row("MR", "頭部 T1", "IMAGES", 4, (4, 6, 4), (1.0, 1.0, 3.0)),
    Row("MR", "PD T2 頭部", "IMAGES", 3, (5, 4, 3), (0.7, 0.9, 2.5), one_of="te12"),
    Row("MR", "PD T2 頭部", "IMAGES", 3, (5, 4, 3), (0.7, 0.9, 2.5), one_of="te90"),
    Row("MR", "dyn", "IMAGES", 3, (5, 4, 3), (0.7, 0.9, 2.5), one_of="t1"),
    Row("MR", "dyn", "IMAGES", 3, (5, 4, 3), (0.7, 0.9, 2.5), one_of="t2"),
    Row("MR", "dyn", "IMAGES", 3, (5, 4, 3), (0.7, 0.9, 2.5), one_of="t3"),
    Row("DX", "θώρακας", "IMAGES/00000001", 1, None, None, None, code="not-3d"),
    Row("MR", "頭部 3D", "IMAGES/00000007", 1, (5, 4, 6), (1.0, 1.0, 2.0)),
    Row("CT", "Archiv", "archives/älter.zip/study", 3, (5, 4, 3), (0.7, 0.9, 2.5)),
    Row("nifti", "brain.nii.gz", "research/brain.nii.gz", 1, (7, 5, 3), (1.0, 1.5, 2.0), "RAS"),
    Row("nrrd", "liver.nrrd", "research/liver.nrrd", 1, (5, 4, 3), (0.5, 0.6, 0.7)),
    Row("nifti", "old.hdr", "research/old.hdr", 1, None, None, None, code="missing-geometry"),
    Row("metaimage", "spleen.mha", "research/spleen.mha", 1, (5, 4, 3), (0.5, 0.6, 0.7)),
    Row("CT", "Verlauf", "Études/contrôle – 対照", 4, (5, 6, 4), (0.7, 0.9, 2.5)),
]
#: What each other file is, in words that its reason must have; those of the abdomen name it.
IGNORED = {
    "localizer": "localizer",
    "screenshot": "secondary capture (a screenshot)",
    "letter": "Encapsulated PDF",
    "segmentation": "segmentation, no scan; refers to {abdomen}",
    "structures": "RT Structure Set, no image; refers to {abdomen}",
    "report": "Basic Text SR, no image; refers to {abdomen}",
    "presentation": "Grayscale Softcopy Presentation State, no image; refers to {abdomen}",
    "copy beside": "a copy of {original}",
    "copy elsewhere": "a copy of {original}",
    "index": "DICOMDIR",
    "text in archive": "no image that volseg reads",
    "member that leads out": "a name that leads out of the archive",
    "thumbnail in archive": "no image that volseg reads",
    "voxels of Analyze": "the voxels of old.hdr",
    "table": "no image that volseg reads",
    "thumbnail": "no image that volseg reads",
    "document": "no image that volseg reads",
    "text": "no image that volseg reads",
    "empty": "no image that volseg reads",
    "broken link": "a link that leads nowhere",
}


@pytest.fixture(scope="module")
def root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("mixed") / "Export 2024"


@pytest.fixture(scope="module")
def there(root: Path) -> dict[str, Path]:
    return mixed_folder.write(root)


@pytest.fixture(scope="module")
def listing(root: Path, there: dict[str, Path]) -> Listing:
    return find(root)


def row_of(candidate: Candidate, root: Path) -> Row:
    grid = candidate.geometry
    expected = [row.one_of for row in EXPECTED if row.one_of and candidate.name.endswith(f"-{row.one_of}")]
    return Row(
        candidate.modality or candidate.kind,
        candidate.description,
        candidate.path.relative_to(root).as_posix(),
        len(candidate.files),
        grid.shape if grid else None,
        (round(grid.spacing_mm[0], 4), round(grid.spacing_mm[1], 4), round(grid.spacing_mm[2], 4)) if grid else None,
        grid.orientation if grid else None,
        candidate.code,
        expected[0] if expected else "",
    )


def test_every_volume_is_found_with_its_verdict(listing: Listing, root: Path) -> None:
    rows = [row_of(candidate, root) for candidate in listing.candidates]
    assert sorted(rows, key=str) == sorted(EXPECTED, key=str)
    assert [row.path for row in rows] == [row.path for row in EXPECTED]


def test_every_other_file_is_listed_with_the_reason(listing: Listing, there: dict[str, Path]) -> None:
    abdomen = next(candidate for candidate in listing.candidates if candidate.description.startswith("Oberbauch"))
    words = {"abdomen": abdomen.name, "original": there["abdomen"].name}
    reasons = {item.path: item.reason for item in listing.ignored}
    expected = {there[what]: reason.format(**words) for what, reason in IGNORED.items()}
    assert set(reasons) == set(expected)
    assert [path for path, words in expected.items() if words not in reasons[path]] == []


def test_every_file_is_accounted_for(listing: Listing, root: Path, there: dict[str, Path]) -> None:
    listed = {path for candidate in listing.candidates for path in candidate.files}
    listed |= {item.path for item in listing.ignored}
    files = {path for path in root.rglob("*") if not path.is_dir() and path.suffix != ".zip"}
    members = {path for path in listed if ".zip/" in path.as_posix()}
    assert listed - members == files - {there["hidden"]}
    assert len(members) == 3 + 3


def test_the_voxels_are_those_that_were_written(listing: Listing) -> None:
    for candidate in listing.candidates:
        if not candidate.usable:
            continue
        volume = candidate.load()
        i, j, k = volume.geometry.shape
        # SimpleITK was given the array [k, j, i].
        expected = voxels((k, j, i)).T if candidate.kind in ("nrrd", "metaimage") else voxels((i, j, k))
        assert_array_equal(volume.array, expected, err_msg=candidate.name)


def test_the_gap_is_where_the_slice_was_left_out(listing: Listing, root: Path) -> None:
    (gap,) = [candidate for candidate in listing.candidates if candidate.code == "missing-slice"]
    assert "1 absent: 1 between" in (gap.reason or "")


def test_a_series_on_two_discs_is_in_order(listing: Listing) -> None:
    (spread,) = [candidate for candidate in listing.candidates if candidate.description == "Verlauf"]
    assert [path.name for path in spread.files] == ["0.IMA", "1.IMA", "2.IMA", "3.IMA"]
    assert [path.parts[-3] for path in spread.files] == ["Disc 1", "Disc 2", "Disc 1", "Disc 2"]


def test_names_are_safe_different_and_without_patients(listing: Listing) -> None:
    names = [candidate.name for candidate in listing.candidates]
    assert len({name.lower() for name in names}) == len(names)
    assert all(name.isascii() and "/" not in name for name in names)
    assert not any(part in name for name in names for part in ("Yamada", "Jo", "A_1", "B_2", "C-3"))


def test_the_order_of_files_changes_nothing(listing: Listing, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    walk = os.walk

    def backwards(root: Path, **options: Any) -> Iterator[tuple[str, list[str], list[str]]]:
        for folder, folders, files in walk(str(root), **options):
            yield folder, folders, files[::-1]

    monkeypatch.setattr(os, "walk", backwards)
    again = find(root)
    assert [candidate.as_json(root) for candidate in again.candidates] == [
        candidate.as_json(root) for candidate in listing.candidates
    ]
    assert again.ignored == listing.ignored
