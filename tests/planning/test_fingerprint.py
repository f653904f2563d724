"""What is measured, on arrays whose numbers are known; and each kind of bad case."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

from tests.helpers.described_datasets import NAMED, dataset, sided, three
from tests.helpers.dicom_files import write_series
from tests.helpers.dicom_objects import save, segmentation
from tests.helpers.tiny import Array, blob_case, write_nifti
from volseg.errors import RefusalError, UsageError
from volseg.planning.fingerprint import Fingerprint, take_fingerprint


def test_a_case_is_measured_along_r_a_s_however_it_is_stored(tmp_path: Path) -> None:
    image = np.zeros((6, 8, 10), np.int16)
    image[1:4, 2:7, 3:9] = 5
    labels = np.zeros(image.shape, np.uint8)
    labels[1:3, 2, 3], labels[1:3, 2, 4], labels[1:3, 6, 8] = 1, 2, 7
    folder = dataset(tmp_path, {"a": (image, labels)})
    # i grows to the left, j to the top, k to the back.
    affine = np.array([[-0.5, 0, 0, 0], [0, 0, -2.0, 0], [0, 1.5, 0, 0], [0, 0, 0, 1]])
    for part in ("imagesTr", "labelsTr"):
        array = image if part == "imagesTr" else labels
        write_nifti(folder / part / "a.nii.gz", array, affine)
    (case,) = take_fingerprint(folder).cases
    assert (case.shape, case.spacing_mm, case.orientation) == ((6, 10, 8), (0.5, 2.0, 1.5), "LSP")
    assert case.content == (3, 6, 5)
    assert case.content_share == 90 / 480
    assert case.voxels == {1: 2, 2: 2, 7: 2}
    assert case.touching == {(1, 2)}
    # From 1 to 7: none along i, four steps of 1.5 mm up, five of 2 mm back.
    assert np.subtract(case.centres_mm[7], case.centres_mm[1]) == pytest.approx((0, -10, 6))
    assert case.voxel_ml == pytest.approx(0.0015)


def test_intensities_are_those_of_every_labelled_voxel(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    cases: dict[str, tuple[Array, Array]] = {}
    for name, share in {"a": 0.9, "b": 0.2}.items():
        image = rng.normal(40 if name == "a" else 90, 7, (30, 31, 29)).astype(np.float32)
        cases[name] = image, (rng.random(image.shape) < share).astype(np.uint8)
    (found,) = take_fingerprint(dataset(tmp_path, cases)).intensities
    values = np.concatenate([image[labels > 0] for image, labels in cases.values()]).astype(np.float64)
    assert found.mean == pytest.approx(values.mean(), rel=1e-9)
    assert found.std == pytest.approx(values.std(), rel=1e-9)
    # Of 10,000 voxels a case: the percentile lies within the sampling error of the right one.
    for got, share in ((found.low, 0.005), (found.high, 0.995)):
        assert np.mean(values <= got) == pytest.approx(share, abs=0.002)
    assert found.lowest == pytest.approx(np.median([image.min() for image, _ in cases.values()]))


def test_names_of_msd_and_of_nnunet(tmp_path: Path) -> None:
    msd = take_fingerprint(dataset(tmp_path / "msd", three(), **NAMED))
    assert [(r.value, r.name) for r in msd.regions] == [(1, "dark"), (2, "bright")]
    labels = {"background": 0, "all": [1, 2], "bright": 2}
    nnunet = dataset(tmp_path / "nnunet", three(), labels=labels, regions_class_order=[1, 2])
    found = take_fingerprint(nnunet)
    assert [(r.value, r.name, r.members) for r in found.regions] == [(1, "all", (1, 2)), (2, "bright", (2,))]
    assert found.naming.overlapping
    dark, bright = blob_case(0)[1] == 1, blob_case(0)[1] == 2
    assert found.volumes_ml(found.regions[0])[0] == pytest.approx((dark.sum() + bright.sum()) / 1000)


def test_ignored_voxels_have_no_label(tmp_path: Path) -> None:
    labels = {"background": 0, "dark": 1, "ignore": 2}
    found = take_fingerprint(dataset(tmp_path, three(), labels=labels))
    assert ([r.name for r in found.regions], found.naming.ignored, found.problems) == (["dark"], 2, ())
    assert [set(case.voxels) for case in found.cases] == [{1}] * 3
    assert found.intensities[0].high < 200  # label 2 lies about 250


@pytest.mark.parametrize("labels", [{"a": [1, 2], "b": 2}, {"ignore": "x", "a": 1}, {"a": "one"}, [1, 2]])
def test_labels_that_can_t_be_understood(tmp_path: Path, labels: Any) -> None:
    with pytest.raises(UsageError, match=r"dataset\.json: labels or channels"):
        take_fingerprint(dataset(tmp_path, three(), labels=labels))


def refused(fingerprint: Fingerprint) -> RefusalError:
    with pytest.raises(RefusalError) as caught:
        fingerprint.check()
    assert "\n" not in str(caught.value)
    return caught.value


def test_every_case_on_another_grid_is_listed(tmp_path: Path) -> None:
    folder = dataset(tmp_path, three(), **NAMED)
    for name in ("case_0", "case_2"):
        write_nifti(folder / "labelsTr" / f"{name}.nii.gz", blob_case(0)[1], np.diag([1, 1, 1.01, 1]))
    found = take_fingerprint(folder)
    assert [(problem.case, problem.code) for problem in found.problems] == [
        ("case_0", "grid-mismatch"),
        ("case_2", "grid-mismatch"),
    ]
    assert "voxel centres up to 0.15 mm apart" in found.problems[1].reason
    assert [case.name for case in found.cases] == ["case_1"]
    error = refused(found)
    assert (error.code, "2 of 3 cases") == ("grid-mismatch", str(error)[:12])
    assert "case_0 (grid-mismatch), case_2 (grid-mismatch)" in str(error)


def test_channels_on_another_grid_and_a_channel_too_few(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    for name, second in {"x": np.eye(4), "y": np.diag([1, 1, 2.0, 1])}.items():
        write_nifti(tmp_path / "imagesTr" / f"{name}_0000.nii.gz", image)
        write_nifti(tmp_path / "imagesTr" / f"{name}_0001.nii.gz", image, second)
        write_nifti(tmp_path / "labelsTr" / f"{name}.nii.gz", labels)
    content = {"channel_names": {"0": "T1", "1": "T2"}, "labels": {"background": 0, "a": 1, "b": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({**content, "file_ending": ".nii.gz"}))
    found = take_fingerprint(tmp_path)
    assert [(p.case, p.code) for p in found.problems] == [("y", "grid-mismatch")]
    assert len(found.intensities) == 2
    table = tmp_path / "table.csv"
    table.write_text("case,image,label\nx,imagesTr/x_0000.nii.gz,labelsTr/x.nii.gz\n")
    assert take_fingerprint(table).problems == ()
    write_nifti(tmp_path / "imagesTr" / "alone.nii.gz", image)
    (tmp_path / "dataset.json").write_text(
        json.dumps({**content, "training": [{"image": "imagesTr/alone.nii.gz", "label": "labelsTr/x.nii.gz"}]})
    )
    assert [p.code for p in take_fingerprint(tmp_path).problems] == ["channels"]


def spoilt(kind: str) -> tuple[Array, Array]:
    image, labels = blob_case(1)
    if kind == "fraction":
        labels = labels.astype(np.float64)
        labels[0, 0, 0] = 1.1
    elif kind == "unnamed":
        labels[0, 0, 0] = 9
    else:
        image[3, 3, 3] = np.nan
    return image, labels


@pytest.mark.parametrize(
    ("kind", "code", "reason"),
    [
        ("fraction", "unsupported", "the first is 1.1"),
        ("unnamed", "unsupported", "holds the label values [9], which the dataset doesn't name"),
        ("nan", "not-finite", "1 of 5760 voxels are NaN"),
    ],
)
def test_a_bad_case_is_named_with_its_reason(tmp_path: Path, kind: str, code: str, reason: str) -> None:
    found = take_fingerprint(dataset(tmp_path, {**three(), "case_1": spoilt(kind)}, **NAMED))
    ((name, got, text),) = ((p.case, p.code, p.reason) for p in found.problems)
    assert (name, got) == ("case_1", code)
    assert reason in text
    assert refused(found).code == code


def test_what_works_is_told(tmp_path: Path) -> None:
    cases = three()
    labels = cases["case_1"][1]
    labels[labels == 2] = 0
    labels[0, 0, 0] = 2
    cases["case_2"] = blob_case(2)[0][:, :, :4], np.minimum(blob_case(2)[1][:, :, :4], 1)
    found = take_fingerprint(dataset(tmp_path, cases, **{**NAMED, "labels": {"1": "dark", "2": "bright", "5": "none"}}))
    found.check()
    assert found.notes == (
        "no case has a voxel of none: left out of the recipe",
        "bright is absent in 1 of 3 cases (case_2)",
        "bright has 10 voxels or fewer in 1 of 3 cases (case_1)",
        "fewer than 8 slices in 1 of 3 cases (case_2): the network doesn't halve them",
    )


def test_one_case_and_no_label(tmp_path: Path) -> None:
    one = take_fingerprint(dataset(tmp_path / "one", {"a": blob_case(0)}))
    assert any("one case: no fold can be held out" in note for note in one.notes)
    image, labels = blob_case(0)
    empty = take_fingerprint(dataset(tmp_path / "empty", {"a": (image, labels * 0)}))
    assert "no case has a voxel of any label" in str(refused(empty))


@pytest.mark.parametrize(
    ("names", "flips", "expected"),
    [
        (("a", "b", "c"), (False, False, False), [("a", "b", "position")]),
        (("a", "b", "c"), (False, True, False), []),
        (("a", "b", "c"), (False, False), []),
        (("Kidney_Left", "kidney right", "c"), (False, True, False), [("Kidney_Left", "kidney right", "name")]),
        (("leftLung", "rightLung", "left atrium"), (False,), [("leftLung", "rightLung", "name")]),
        (("lung l", "lung r", "c"), (False,), [("lung l", "lung r", "name")]),
        (("bleft", "bright", "c"), (False,), []),
    ],
)
def test_left_and_right(
    tmp_path: Path, names: tuple[str, ...], flips: tuple[bool, ...], expected: list[tuple[str, str, str]]
) -> None:
    cases = {f"case_{number}": sided(flip) for number, flip in enumerate(flips)}
    labels = {name: value for value, name in enumerate(names, start=1)}
    pairs = take_fingerprint(dataset(tmp_path, cases, labels=labels)).pairs
    assert [(*pair.names, pair.found_by) for pair in pairs] == expected


def test_segments_of_dicom_seg_get_numbers_by_their_names(tmp_path: Path) -> None:
    image, labels = blob_case(0)
    rows = ["case,image,label"]
    for case, names in {"p": ("Liver", "Spleen"), "q": ("SPLEEN", "liver")}.items():
        paths = write_series(tmp_path / case / "mr", image.astype(np.int16), seed=case)
        seg = segmentation([pydicom.dcmread(path) for path in paths], [labels == 1, labels == 2], seed=f"{case}-seg")
        for item, name in zip(seg.SegmentSequence, names, strict=True):
            item.SegmentLabel = name
        save(seg, tmp_path / case / "seg.dcm")
        rows.append(f"{case},{case}/mr,{case}/seg.dcm")
    (tmp_path / "table.csv").write_text("\n".join(rows))
    found = take_fingerprint(tmp_path / "table.csv")
    assert [(r.value, r.name) for r in found.regions] == [(1, "Liver"), (2, "Spleen")]
    sizes = [int((labels == value).sum()) for value in (1, 2)]
    assert [case.voxels for case in found.cases] == [dict(zip((1, 2), sizes, strict=True)), {1: sizes[1], 2: sizes[0]}]
    assert {case.modality for case in found.cases} == {"MR"}
    write_nifti(tmp_path / "z.nii.gz", image)
    write_nifti(tmp_path / "z_mask.nii.gz", labels)
    (tmp_path / "table.csv").write_text("\n".join([*rows, "z,z.nii.gz,z_mask.nii.gz"]))
    assert [(p.case, p.code) for p in take_fingerprint(tmp_path / "table.csv").problems] == [("z", "unsupported")]


def test_the_sample_cases_agree_with_nibabel(sample_data: Path) -> None:
    found = take_fingerprint(sample_data / "hippocampus")
    assert len(found.cases) == 12
    for case in found.cases:
        mask = nibabel.load(sample_data / "hippocampus" / "labelsTr" / f"{case.name}.nii.gz")
        array = np.asarray(mask.dataobj)
        assert case.shape == mask.shape
        assert case.voxels == {value: int((array == value).sum()) for value in (1, 2)}
        assert math.isclose(case.voxel_ml, abs(np.linalg.det(mask.affine)) / 1000, rel_tol=1e-6)
    assert found.touching == {(1, 2): 12}
    assert found.pairs == ()
    json.dumps(found.as_dict())
