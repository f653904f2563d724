from __future__ import annotations

import hashlib
import json
import os
import shutil
import threading
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_array_equal

from tests.helpers.dicom_files import put, voxels, write_series
from volseg.config import ChannelConfig
from volseg.errors import InputError, RefusalError, UsageError
from volseg.loaders import Candidate, find, load
from volseg.loaders import listing as listing
from volseg.loaders.classify import classify
from volseg.text import safe_name


def write_nifti(path: Path, offset: int = 0, spacing: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels() + np.int16(offset), np.diag([spacing, 1, 2, 1])), path)
    return path


def rules(number: int) -> list[ChannelConfig]:
    return [ChannelConfig(name=f"channel {index}", modalities=("MR",)) for index in range(number)]


def sha8(text: str) -> str:
    return hashlib.sha256(text.encode()).hexdigest()[:8]


def test_a_study_folder(tmp_path: Path) -> None:
    write_series(tmp_path / "dicom", seed="T1")
    write_nifti(tmp_path / "a" / "scan.nii.gz")
    (tmp_path / "a" / "readme.txt").write_text("hello")
    (tmp_path / ".hidden").mkdir()
    write_nifti(tmp_path / ".hidden" / "no.nii.gz")
    write_nifti(tmp_path / ".no.nii.gz")
    study = find(tmp_path)
    assert [candidate.kind for candidate in study.candidates] == ["nifti", "dicom"]
    assert [(item.path.name, item.reason) for item in study.ignored] == [("readme.txt", "no image that volseg reads")]
    assert study.root == tmp_path


@pytest.mark.parametrize(
    ("scan", "label"),
    [
        ("imagesTr/a.nii.gz", "labelsTr/a.nii.gz"),
        ("imagesTs/a_0000.nrrd", "labelsTs/a.nrrd"),
        ("images/a.nii", "labels/b.nii.gz"),
        ("s0000/ct.nii.gz", "s0000/segmentations/liver.nii.gz"),
        ("s0000/mri.nii.gz", "s0000/segmentations/liver.nii.gz"),
        ("a/a-t2f.nii.gz", "a/a-seg.nii.gz"),
        ("a_t1.nii", "a_seg.nii"),
    ],
)
def test_labels_of_a_dataset_are_no_scans(tmp_path: Path, scan: str, label: str) -> None:
    """Segmented as if it were a scan, one gives a mask that means nothing."""
    for name in (scan, label):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        SimpleITK.WriteImage(SimpleITK.Image(4, 5, 6, SimpleITK.sitkInt16), tmp_path / name)
    study = find(tmp_path)
    assert [candidate.path for candidate in study.candidates] == [tmp_path / scan]
    (item,) = study.ignored
    assert (item.path, item.reason) == (
        tmp_path / label,
        f"labels of {Path(scan).parent.name if scan.startswith('images') else Path(scan).name}",
    )
    # By itself it is what was meant, and may be looked at.
    assert load(tmp_path / label).geometry.shape == (4, 5, 6)


def test_a_series_in_a_folder_called_labels_is_a_scan(tmp_path: Path) -> None:
    """Its own files say what it is."""
    write_series(tmp_path / "images", seed="T1")
    write_series(tmp_path / "labels", seed="T2")
    assert len(find(tmp_path).candidates) == 2


def test_what_is_only_called_like_labels_is_a_scan(tmp_path: Path) -> None:
    """Nothing lies beside it that it could be the labels of."""
    names = ["a/labelsTr/x.nii", "a/imagesTs/x.nii", "b/segmentations/x.nii", "c/x-seg.nii", "c/y-t1n.nii"]
    for name in names:
        write_nifti(tmp_path / name)
    assert {candidate.path.relative_to(tmp_path).as_posix() for candidate in find(tmp_path).candidates} == set(names)


def test_a_path_that_does_not_exist_is_a_wrong_call(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no such file or folder"):
        find(tmp_path / "absent")


def test_links_in_a_circle_end(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a" / "scan.nii.gz")
    (tmp_path / "a" / "again").symlink_to(tmp_path)
    (tmp_path / "broken").symlink_to(tmp_path / "nowhere")
    elsewhere = tmp_path / "a"
    (tmp_path / "b").symlink_to(elsewhere)
    assert [candidate.name for candidate in find(tmp_path).candidates] == ["scan"]


@pytest.mark.parametrize("waits", [False, True])
def test_several_files_at_once_where_the_drive_is_waited_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waits: bool
) -> None:
    for number in range(30):
        write_nifti(tmp_path / f"{number:02}.nii", offset=number)
    threads = set()

    def slow(path: Path) -> object:
        threads.add(threading.get_ident())
        if waits:
            time.sleep(0.02)
        return classify(path)

    monkeypatch.setattr("volseg.loaders.listing.classify", slow)
    monkeypatch.setattr(listing, "SAMPLE", 5)
    monkeypatch.setattr(listing, "WAITING", 3.0 if waits else 1e9)
    seen: list[int] = []
    study = find(tmp_path, progress=lambda done, _: seen.append(done))
    assert [candidate.name for candidate in study.candidates] == [f"{number:02}" for number in range(30)]
    assert seen == list(range(1, 31))
    assert (len(threads) > 1) == waits


def test_special_files_are_passed_over(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe.dcm")
    write_nifti(tmp_path / "scan.nii.gz")
    assert len(find(tmp_path).candidates) == 1


def test_a_linked_folder_is_searched(tmp_path: Path) -> None:
    write_nifti(tmp_path / "real" / "scan.nii.gz")
    (tmp_path / "study").mkdir()
    (tmp_path / "study" / "link").symlink_to(tmp_path / "real")
    assert len(find(tmp_path / "study").candidates) == 1


def test_the_voxels_of_a_header_are_no_file_of_their_own(tmp_path: Path) -> None:
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels()), tmp_path / "x.mhd")
    nib.Nifti1Pair(voxels(), np.diag([1, 1, 2, 1])).to_filename(tmp_path / "pair.hdr")
    (tmp_path / "other.raw").write_bytes(b"junk")
    study = find(tmp_path)
    assert [(candidate.name, candidate.usable) for candidate in study.candidates] == [("pair", True), ("x", True)]
    assert [(item.path.name, item.reason) for item in study.ignored] == [("other.raw", "no image that volseg reads")]


# names


def test_dicom_names(tmp_path: Path) -> None:
    write_series(tmp_path / "Doe^John", seed="T1 post (Gd)", edit=put(SeriesInstanceUID="1.2.3"))
    assert [candidate.name for candidate in find(tmp_path).candidates] == [f"MR-3-T1_post_Gd-{sha8('1.2.3')}"]


def test_names_where_the_series_uid_is_blank(tmp_path: Path) -> None:
    paths = write_series(tmp_path, edit=put(SeriesInstanceUID="", SeriesNumber=None, SeriesDescription=""))
    (candidate,) = find(tmp_path).candidates
    import pydicom

    uids = sorted(str(pydicom.dcmread(path).SOPInstanceUID) for path in paths)
    assert candidate.name == f"MR-x-x-{sha8(chr(10).join(uids))}"


def test_nifti_names(tmp_path: Path) -> None:
    for name in ("x.y.nii.gz", "Ärger (1).nii", "UPPER.NII.GZ"):
        write_nifti(tmp_path / "tmp.nii.gz" if name.lower().endswith("gz") else tmp_path / "tmp.nii")
        next(tmp_path.glob("tmp*")).rename(tmp_path / name)
    assert sorted(candidate.name for candidate in find(tmp_path).candidates) == ["Arger_1", "UPPER", "x.y"]


def test_equal_stems_all_get_a_hash_of_their_path(tmp_path: Path) -> None:
    for place in ("p1/scan.nii.gz", "p2/scan.nii.gz", "p2/Scan.nii", "p3/other.nii"):
        write_nifti(tmp_path / place)
    assert sorted(candidate.name for candidate in find(tmp_path).candidates) == sorted(
        [
            "other",
            f"scan-{sha8('p1/scan.nii.gz')}",
            f"scan-{sha8('p2/scan.nii.gz')}",
            f"Scan-{sha8('p2/Scan.nii')}",
        ]
    )


@pytest.mark.parametrize(
    ("text", "name"),
    [
        ("a/b\\c:d", "a_b_c_d"),
        ("../..", "x"),
        ("", "x"),
        ("-rf", "rf"),
        ("日本", "x"),
        ("z" * 300, "z" * 80),
        ("a  b", "a_b"),
    ],
)
def test_safe_names(text: str, name: str) -> None:
    assert safe_name(text) == name


# channels


def test_files_of_one_case_are_its_channels(tmp_path: Path) -> None:
    write_nifti(tmp_path / "brain_0001.nii.gz", 1000)
    write_nifti(tmp_path / "brain_0000.nii")
    write_nifti(tmp_path / "other.nii.gz")
    study = find(tmp_path, channels=rules(2))
    brain, other = sorted(study.candidates, key=lambda candidate: candidate.name)
    assert (brain.name, brain.channels, [path.name for path in brain.files]) == (
        "brain",
        2,
        ["brain_0000.nii", "brain_0001.nii.gz"],
    )
    assert (other.name, other.channels) == ("other", 1)
    volume = brain.load()
    assert_array_equal(volume.array, np.stack([voxels(), voxels() + 1000]))
    assert volume.source.name == "brain"


def test_with_one_channel_they_are_cases_of_their_own(tmp_path: Path) -> None:
    write_nifti(tmp_path / "brain_0000.nii.gz")
    write_nifti(tmp_path / "brain_0001.nii.gz")
    assert [candidate.name for candidate in find(tmp_path).candidates] == ["brain_0000", "brain_0001"]


def test_an_absent_channel_is_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "brain_0000.nii.gz")
    write_nifti(tmp_path / "brain_0002.nii.gz")
    (candidate,) = find(tmp_path, channels=rules(3)).candidates
    assert (candidate.code, candidate.usable) == ("channels", False)
    assert candidate.reason is not None
    assert candidate.reason.endswith("needed is one file each of 0000, 0001, 0002")
    with pytest.raises(InputError):
        candidate.load()


def test_channels_on_different_grids_are_refused(tmp_path: Path) -> None:
    write_nifti(tmp_path / "brain_0000.nii.gz")
    write_nifti(tmp_path / "brain_0001.nii.gz", spacing=1.5)
    (candidate,) = find(tmp_path, channels=rules(2)).candidates
    assert candidate.code == "grid-mismatch"
    assert candidate.reason is not None
    assert "brain_0001" in candidate.reason


def test_a_damaged_channel_refuses_the_case(tmp_path: Path) -> None:
    write_nifti(tmp_path / "brain_0000.nii.gz")
    (tmp_path / "brain_0001.nii.gz").write_bytes(b"junk")
    (candidate,) = find(tmp_path, channels=rules(2)).candidates
    assert candidate.code == "unreadable"
    assert candidate.reason is not None
    assert "brain_0001" in candidate.reason


# load


def test_load_takes_the_one_usable_volume(tmp_path: Path) -> None:
    write_nifti(tmp_path / "good.nii.gz")
    (tmp_path / "bad.nii.gz").write_bytes(b"junk")
    assert_array_equal(load(str(tmp_path)).array, voxels())


def test_load_lists_what_it_can_t_choose_from(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a.nii.gz")
    write_nifti(tmp_path / "b.nii.gz")
    with pytest.raises(UsageError, match=r"2 volumes \(a, b\)"):
        load(tmp_path)


def test_load_says_why_nothing_is_usable(tmp_path: Path) -> None:
    (tmp_path / "a.nii.gz").write_bytes(b"junk")
    with pytest.raises(RefusalError) as caught:
        load(tmp_path)
    assert caught.value.code == "unreadable"
    assert caught.value.path == tmp_path / "a.nii.gz"
    (tmp_path / "b.dcm").write_bytes(b"junk")
    with pytest.raises(RefusalError, match=r"a\.nii\.gz: .*; b\.dcm: "):
        load(tmp_path)


def test_load_of_a_folder_without_images(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("hello")
    with pytest.raises(InputError) as caught:
        load(tmp_path)
    assert caught.value.code == "no-image"
    assert str(tmp_path) in str(caught.value)


# the real data


def test_the_real_study(shared_data: Path) -> None:
    study = find(shared_data / "dicom" / "study1")
    assert {candidate.description: candidate.series_number for candidate in study.candidates} == {
        "T1post": 12,
        "T1pre_reg": 34909,
        "FLAIR_reg": 36459,
        "T2_reg": 37916,
        "HippoCrop": None,
    }
    assert all(candidate.usable for candidate in study.candidates)
    crop = next(candidate for candidate in study.candidates if candidate.description == "HippoCrop")
    assert crop.geometry is not None
    assert (crop.geometry.shape, crop.geometry.spacing_mm) == ((35, 51, 32), (1, 1, 1))


def test_a_folder_of_studies_read_from_renamed_files_is_the_same(shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "dicom" / "study1" / "13_HCropVolume"
    for index, path in enumerate(sorted(source.iterdir(), reverse=True)):
        shutil.copy(path, tmp_path / f"{index * 37 % 101}")
    (renamed,), (original,) = find(tmp_path).candidates, find(source).candidates
    assert renamed.name == original.name
    assert renamed.load().source.sha256 == original.load().source.sha256
    assert_array_equal(renamed.load().array, original.load().array)


def test_json_entry(tmp_path: Path) -> None:
    write_nifti(tmp_path / "a" / "scan.nii.gz")
    (candidate,) = find(tmp_path).candidates
    assert json.loads(json.dumps(candidate.as_json(tmp_path), allow_nan=False)) == {
        "name": "scan",
        "kind": "nifti",
        "modality": None,
        "description": "scan.nii.gz",
        "path": "a/scan.nii.gz",
        "files": 1,
        "series_uid": None,
        "shape": [5, 4, 3],
        "spacing_mm": [1.0, 1.0, 2.0],
        "affine": [[1.0, 0, 0, 0], [0, 1.0, 0, 0], [0, 0, 2.0, 0], [0, 0, 0, 1.0]],
        "orientation": "RAS",
        "usable": True,
        "reason": None,
        "code": None,
        "notes": [],
    }


def test_candidates_are_plain_values(tmp_path: Path) -> None:
    import pickle

    write_series(tmp_path)
    (candidate,) = find(tmp_path).candidates
    copy: Candidate = pickle.loads(pickle.dumps(candidate))
    assert copy.name == candidate.name
    assert_array_equal(copy.load().array, voxels())


def result(folder: Path, **more: object) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "result.json").write_text(json.dumps({"case": "x", "status": "done", "volseg": "0.1.0", **more}))


@pytest.mark.parametrize("zipped", [False, True])
def test_what_an_earlier_run_wrote_is_no_scan(tmp_path: Path, zipped: bool) -> None:
    study = tmp_path / "study"
    write_nifti(study / "scan.nii.gz")
    write_nifti(study / "out" / "x" / "mask.nii.gz")
    write_nifti(study / "out" / "x" / "probabilities" / "liver.nii.gz")
    write_series(study / "out" / "x" / "series")
    result(study / "out" / "x")
    path = Path(shutil.make_archive(str(tmp_path / "packed"), "zip", study)) if zipped else study
    found = find(path)
    assert [candidate.path.name for candidate in found.candidates] == ["scan.nii.gz"]
    aside = {item.path.name for item in found.ignored if item.reason == "written by an earlier run"}
    assert {"mask.nii.gz", "liver.nii.gz", "result.json"} < aside


def test_the_mask_of_a_result_that_is_named_is_meant(tmp_path: Path) -> None:
    mask = write_nifti(tmp_path / "x" / "mask.nii.gz")
    result(tmp_path / "x")
    assert [candidate.path for candidate in find(mask.parent).candidates] == [mask]
    assert [candidate.path for candidate in find(mask).candidates] == [mask]


@pytest.mark.parametrize("content", ['{"case": "x"}', "[1]", "{", "[" * 100_000, ""])
def test_another_program_s_result_json_hides_nothing(tmp_path: Path, content: str) -> None:
    scan = write_nifti(tmp_path / "a" / "scan.nii.gz")
    (tmp_path / "a" / "result.json").write_text(content)
    assert [candidate.path for candidate in find(tmp_path).candidates] == [scan]


def test_segmentations_of_a_bids_data_set_are_no_scans(tmp_path: Path) -> None:
    scan = write_nifti(tmp_path / "sub-01" / "anat" / "sub-01_T1w.nii.gz")
    for name in ("sub-01_space-orig_dseg", "sub-01_label-GM_probseg", "sub-01_desc-brain_mask"):
        write_nifti(tmp_path / "derivatives" / "seg" / "sub-01" / "anat" / f"{name}.nii.gz")
    # Nothing here is what this would be the mask of.
    alone = write_nifti(tmp_path / "derivatives" / "sub-02_desc-brain_mask.nii.gz")
    found = find(tmp_path)
    assert [candidate.path for candidate in found.candidates] == [alone, scan]
    assert [item.reason for item in found.ignored] == ["labels of sub-01_T1w.nii.gz"] * 3


@pytest.mark.parametrize("name", ["scan.nii.gz", "scan.nii", "slice.dcm", "scan.nrrd", "scan.mha"])
def test_a_git_lfs_pointer_is_called_so(tmp_path: Path, name: str) -> None:
    digest = "4d7a214614ab2935c943f9e0ff69d22eadbb8f32b1258daaa5e2ca24d17e2393"
    (tmp_path / name).write_text(f"version https://git-lfs.github.com/spec/v1\noid sha256:{digest}\nsize 12345\n")
    (candidate,) = find(tmp_path).candidates
    assert candidate.code == "unreadable"
    assert "git lfs pull" in (candidate.reason or "")
