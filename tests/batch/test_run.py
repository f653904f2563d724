"""Cases: each accounted for, reused while nothing changed, done again where something did."""

from __future__ import annotations

import gzip
import hashlib
import json
import logging
import time
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pydicom
import pytest

import volseg.export.preview
from tests.helpers import dicom_files
from tests.helpers.batch import segment
from tests.helpers.tiny import scan, threshold_model, thresholded, write_nifti
from volseg.errors import CODES, InputError, UsageError
from volseg.inference import Model, Options, load_model
from volseg.results.case import Status, exit_code

SHAPE = (35, 44, 33)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Model:
    folder = tmp_path_factory.mktemp("models") / "threshold"
    threshold_model(folder, folds=("0", "1"), window=[32, 32, 32])
    return load_model(folder)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """A NIfTI scan that fits, an MR series that fits, a CT series, and a text file."""
    write_nifti(tmp_path / "in" / "scan.nii.gz", scan(SHAPE))
    affine = dicom_files.lps_affine((1, 1, 1))
    dicom_files.write_series(tmp_path / "in" / "a", scan(SHAPE, seed=1), affine, seed="crop")
    dicom_files.write_series(tmp_path / "in" / "b", scan((9, 8, 7)), modality="CT", seed="body")
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    return tmp_path / "in"


def run(path: Path, model: Model, *series: str, options: Options | None = None, **job: Any) -> dict[str, Any]:
    """Results by case."""
    told: list[dict[str, Any]] = []
    results = segment(path, path.parent / "out", model, series, options=options, after=told.append, **job)
    assert told == results
    for result in results:
        kept = json.loads((path.parent / "out" / result["case"] / "result.json").read_text())
        assert kept == {key: value for key, value in result.items() if key != "reused"}
    return {result["case"]: result for result in results}


def only(results: dict[str, Any]) -> dict[str, Any]:
    (result,) = results.values()
    return dict(result)


def code_of(results: dict[str, Any]) -> int:
    return exit_code(result["status"] for result in results.values())


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_a_study(study: Path, model: Model) -> None:
    results = run(study, model, preview=True)
    out = study.parent / "out"
    by_status = {case.rsplit("-", 1)[0]: result["status"] for case, result in results.items()}
    assert by_status == {"scan": "done", "MR-3-crop": "done", "CT-3-body": "skipped"}
    assert code_of(results) == 0
    assert sorted(path.name for path in out.iterdir()) == sorted(results)
    for case, result in results.items():
        hashes = {
            name: hashlib.sha256((out / case / name).read_bytes()).hexdigest()
            for name in files_in(out / case)
            if name != "result.json"
        }
        assert result["files"] == hashes
        expected = {
            "scan": ["mask.nii.gz", "preview.png"],
            "MR-3-crop": ["mask.nii.gz", "mask.seg.dcm", "preview.png"],
            "CT-3-body": [],
        }
        assert sorted(hashes) == expected[case.rsplit("-", 1)[0] if "-" in case else case]


def test_the_account_of_a_done_case(study: Path, model: Model) -> None:
    result = run(study, model)["scan"]
    expected = thresholded(scan(SHAPE))
    counts = [int((expected == value).sum()) for value in (1, 2)]
    assert (result["code"], result["reason"]) == (None, None)
    touching = "Anterior hippocampus (LRPAIS), Posterior hippocampus (LRPAIS)"
    assert result["flags"] == [f"touches-border: {touching}; may be cut off there"]
    assert result["source"] | {"sha256": ""} == {
        "kind": "nifti",
        "path": "scan.nii.gz",
        "series_uid": None,
        "sha256": "",
    }
    assert len(result["source"]["sha256"]) == 64
    assert result["geometry"] == {
        "shape": list(SHAPE),
        "spacing_mm": [1, 1, 1],
        "affine": np.eye(4).tolist(),
        "orientation": "RAS",
    }
    assert result["model"] == {"name": "threshold", "version": "1.0", "sha256": model.sha256}
    assert result["options"] == {
        "formats": None,
        "tta": False,
        "folds": ["0", "1"],
        "engine": "auto",
        "precision": "auto",
        "device": "cpu",
        "tile_step": None,
        "coarse_to_fine": False,
        "labels": None,
        "probabilities": False,
        "entropy": False,
        "memory": None,
        "repair_uids": False,
        "resample_tilt": False,
        "preview": False,
    }
    assert (result["engine"], result["precision"]) == ("openvino", "fp32")
    assert (result["threads"], result["tile_step"]) == (1, 0.5)
    assert result["windows"] == 2 * 2 * 2
    assert [(label["value"], label["name"], label["voxels"]) for label in result["labels"]] == [
        (1, "Anterior hippocampus", counts[0]),
        (2, "Posterior hippocampus", counts[1]),
    ]
    assert [label["volume_ml"] for label in result["labels"]] == [pytest.approx(count / 1000) for count in counts]
    assert set(result["seconds"]) == {"load", "preprocess", "network", "restore", "postprocess", "write"}
    mask = nibabel.load(study.parent / "out" / "scan" / "mask.nii.gz")
    assert np.array_equal(np.asarray(mask.dataobj), expected)


def test_the_account_of_a_skipped_series(study: Path, model: Model) -> None:
    (result,) = (result for result in run(study, model).values() if result["status"] == "skipped")
    assert result["code"] == "modality"
    assert "CT" in result["reason"]
    assert result["source"]["path"] == "b"
    assert result["source"]["series_uid"]
    assert (result["labels"], result["windows"]) == ([], 0)


@pytest.mark.parametrize(
    ("shape", "spacing", "code"),
    [((35, 44, 16), (1.0, 1.0, 2.0), "spacing"), ((90, 44, 33), (1.0, 1.0, 1.0), "field-of-view")],
)
def test_a_series_outside_the_training_range_is_skipped_unless_named(
    tmp_path: Path, model: Model, shape: tuple[int, int, int], spacing: tuple[float, float, float], code: str
) -> None:
    dicom_files.write_series(tmp_path / "in", scan(shape), dicom_files.lps_affine(spacing))
    result = only(run(tmp_path / "in", model))
    assert (result["status"], result["code"]) == ("skipped", code)
    assert exit_code([result["status"]]) == 1
    named = only(run(tmp_path / "in", model, "3"))
    assert named["status"] == "done"
    assert [flag for flag in named["flags"] if flag.startswith("outside-training: ")]


def test_a_file_that_is_given_by_its_path_is_meant(tmp_path: Path, model: Model) -> None:
    source = write_nifti(tmp_path / "in" / "large.nii", scan((90, 20, 20)))
    result = only(run(source, model))
    assert result["status"] == "done"
    assert "outside-training: " in result["flags"][0]


def test_a_mask_without_a_label_is_empty_and_no_failure(tmp_path: Path, model: Model) -> None:
    dark = np.zeros(SHAPE, np.int16)
    dark[0, 0, 0] = 1
    write_nifti(tmp_path / "in" / "dark.nii.gz", dark)
    result = only(run(tmp_path / "in", model))
    assert (result["status"], [label["voxels"] for label in result["labels"]]) == ("empty", [0, 0])
    assert files_in(tmp_path / "out" / "dark") == ["mask.nii.gz", "result.json"]
    assert exit_code([result["status"]]) == 0
    assert only(run(tmp_path / "in", model))["reused"]


class TestReuse:
    """What makes a finished case be done again."""

    @pytest.fixture
    def scan_file(self, tmp_path: Path, model: Model) -> Path:
        path = write_nifti(tmp_path / "in" / "scan.nii.gz", scan(SHAPE))
        assert "reused" not in only(run(path.parent, model))
        return path

    @staticmethod
    def redone(path: Path, model: Model, **more: Any) -> bool:
        """Run again; whether the mask was written again, by its modification time."""
        mask = path.parent.parent / "out" / "scan" / "mask.nii.gz"
        before = mask.stat().st_mtime_ns if mask.exists() else None
        time.sleep(0.02)
        result = only(run(path.parent, model, **more))
        again = mask.stat().st_mtime_ns != before
        assert again == ("reused" not in result)
        return again

    def test_nothing_changed(self, scan_file: Path, model: Model) -> None:
        assert not self.redone(scan_file, model)

    def test_the_input(self, scan_file: Path, model: Model) -> None:
        array = scan(SHAPE)
        array[3, 4, 5] += 1
        write_nifti(scan_file, array)
        assert self.redone(scan_file, model)

    def test_the_place_of_the_input(self, scan_file: Path, model: Model) -> None:
        affine = np.eye(4)
        affine[0, 3] = 2
        write_nifti(scan_file, scan(SHAPE), affine)
        assert self.redone(scan_file, model)
        assert nibabel.load(scan_file.parent.parent / "out" / "scan" / "mask.nii.gz").affine[0, 3] == 2

    def test_the_model(self, scan_file: Path, tmp_path: Path) -> None:
        threshold_model(tmp_path / "other", version="2.0", window=[32, 32, 32])
        assert self.redone(scan_file, load_model(tmp_path / "other"))

    @pytest.mark.parametrize(
        "options",
        [Options(mirroring=True), Options(folds=("1",)), Options(engine="torch"), Options(precision="bf16")],
        ids=str,
    )
    def test_an_option(self, scan_file: Path, model: Model, options: Options) -> None:
        assert self.redone(scan_file, model, options=options)

    def test_the_formats(self, scan_file: Path, model: Model) -> None:
        assert self.redone(scan_file, model, formats=("nifti",))

    @pytest.mark.parametrize("name", ["mask.nii.gz"])
    def test_a_written_file(self, scan_file: Path, model: Model, name: str) -> None:
        written = scan_file.parent.parent / "out" / "scan" / name
        content = written.read_bytes()
        written.write_bytes(content[:-1])
        assert self.redone(scan_file, model)
        assert written.read_bytes() == content

    def test_a_result_that_is_gone(self, scan_file: Path, model: Model) -> None:
        (scan_file.parent.parent / "out" / "scan" / "result.json").unlink()
        assert self.redone(scan_file, model)


def test_two_runs_write_the_same_bytes(tmp_path: Path, model: Model) -> None:
    write_nifti(tmp_path / "in" / "scan.nii.gz", scan(SHAPE))
    masks = []
    for _ in range(2):
        assert "reused" not in only(run(tmp_path / "in", model))
        masks.append((tmp_path / "out" / "scan" / "mask.nii.gz").read_bytes())
        (tmp_path / "out" / "scan" / "result.json").unlink()
    assert masks[0] == masks[1]


def test_a_format_that_the_source_can_t_have(tmp_path: Path, model: Model) -> None:
    write_nifti(tmp_path / "in" / "scan.nii.gz", scan(SHAPE))
    result = only(run(tmp_path / "in", model, formats=("seg",)))
    assert (result["status"], result["code"]) == ("failed", "no-source-series")
    assert files_in(tmp_path / "out" / "scan") == ["result.json"]
    assert exit_code([result["status"]]) == 1
    both = only(run(tmp_path / "in", model, formats=("seg", "nifti")))
    assert (both["status"], both["code"]) == ("failed", "no-source-series")
    assert sorted(both["files"]) == ["mask.nii.gz"]


class TestBlankUids:
    """A series that an anonymiser left without UIDs."""

    @pytest.fixture
    def series(self, tmp_path: Path) -> Path:
        source = tmp_path / "in"
        affine = dicom_files.lps_affine((1, 1, 1))
        array = scan(SHAPE, seed=1)
        for path in dicom_files.write_series(source, array, affine, seed="crop"):
            dataset = pydicom.dcmread(path)
            for keyword in ("SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"):
                setattr(dataset, keyword, "")
            dataset.save_as(path)
        return source

    def test_by_default_the_seg_is_left_out_with_a_flag(self, series: Path, model: Model) -> None:
        result = only(run(series, model))
        assert result["status"] == "done"
        assert sorted(result["files"]) == ["mask.nii.gz"]
        assert [flag for flag in result["flags"] if flag.startswith("seg: no-identity: ")]
        assert [flag for flag in result["flags"] if flag.startswith("note: ") and "UID" in flag]

    def test_where_it_was_asked_for_the_case_is_failed(self, series: Path, model: Model) -> None:
        result = only(run(series, model, formats=("nifti", "seg")))
        assert (result["status"], result["code"]) == ("failed", "no-identity")
        assert sorted(result["files"]) == ["mask.nii.gz"]

    def test_a_repaired_copy_is_what_the_seg_refers_to(self, series: Path, model: Model) -> None:
        result = only(run(series, model, repair_uids=True))
        out = series.parent / "out" / result["case"]
        assert result["status"] == "done"
        copies = [pydicom.dcmread(path) for path in sorted((out / "series").iterdir())]
        assert len(copies) == SHAPE[2]
        seg = pydicom.dcmread(out / "mask.seg.dcm")
        (referred,) = seg.ReferencedSeriesSequence
        assert referred.SeriesInstanceUID == copies[0].SeriesInstanceUID
        assert {item.ReferencedSOPInstanceUID for item in referred.ReferencedInstanceSequence} <= {
            copy.SOPInstanceUID for copy in copies
        }
        assert sum(name.startswith("series/") for name in result["files"]) == SHAPE[2]
        assert only(run(series, model, repair_uids=True))["reused"]
        # Without the copy the next run leaves none of it behind.
        assert sorted(only(run(series, model))["files"]) == ["mask.nii.gz"]
        assert not (out / "series").exists()

    def test_a_series_that_cannot_be_repaired_still_gets_its_nifti(self, series: Path, model: Model) -> None:
        for path in series.iterdir():
            dataset = pydicom.dcmread(path)
            del dataset.file_meta.MediaStorageSOPClassUID
            dataset.save_as(path, enforce_file_format=False)
        result = only(run(series, model, repair_uids=True))
        assert result["status"] == "done"
        assert sorted(result["files"]) == ["mask.nii.gz"]
        assert [flag for flag in result["flags"] if flag.startswith("repair-uids: SOP class UID is blank")]

    def test_uids_that_are_there_but_not_unique_are_not_repaired(self, series: Path, model: Model) -> None:
        for path in series.iterdir():
            dataset = pydicom.dcmread(path)
            dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID
            dataset.SOPInstanceUID = dataset.StudyInstanceUID = dataset.SeriesInstanceUID = "1.2.3"
            dataset.save_as(path)
        result = only(run(series, model, repair_uids=True))
        assert result["status"] == "done"
        assert sorted(result["files"]) == ["mask.nii.gz"]


def test_an_error_of_a_writer_leaves_nothing_half_written(
    study: Path, model: Model, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def breaks(labels: Any, path: Path) -> tuple[str, ...]:
        raise MemoryError("out of memory\nin a codec")

    monkeypatch.setattr("volseg.export.dicom_seg.write", breaks)
    with caplog.at_level(logging.CRITICAL):
        results = run(study, model)
    case = next(name for name in results if name.startswith("MR-"))
    assert (results[case]["status"], results[case]["code"]) == ("failed", "internal")
    assert results[case]["reason"] == "MemoryError: out of memory in a codec"
    assert results["scan"]["status"] == "done"
    folder = study.parent / "out" / case
    assert files_in(folder) == ["mask.nii.gz", "result.json"]
    assert list(results[case]["files"]) == ["mask.nii.gz"]
    monkeypatch.undo()
    assert run(study, model)[case]["status"] == "done"


def test_the_result_is_the_last_file(tmp_path: Path, model: Model, monkeypatch: pytest.MonkeyPatch) -> None:
    """A kill during the last file leaves a case without a result, which the next run does again."""
    write_nifti(tmp_path / "in" / "scan.nii.gz", scan(SHAPE))

    def killed(*_: Any) -> None:
        assert not (tmp_path / "out" / "scan" / "result.json").exists()
        raise KeyboardInterrupt

    assert only(run(tmp_path / "in", model, preview=True))["status"] == "done"
    (tmp_path / "out" / "scan" / "preview.png").unlink()
    monkeypatch.setattr(volseg.export.preview, "write_preview", killed)
    with pytest.raises(KeyboardInterrupt):
        run(tmp_path / "in", model, preview=True)
    assert "result.json" not in files_in(tmp_path / "out" / "scan")
    monkeypatch.undo()
    assert "reused" not in only(run(tmp_path / "in", model, preview=True))


def test_refused_cases_are_accounted_for_and_tried_again(tmp_path: Path, model: Model) -> None:
    whole = write_nifti(tmp_path / "in" / "scan.nii.gz", scan(SHAPE)).read_bytes()
    write_nifti(tmp_path / "in" / "good.nii.gz", scan(SHAPE, seed=1))
    assert run(tmp_path / "in", model)["scan"]["status"] == "done"
    (tmp_path / "in" / "scan.nii.gz").write_bytes(whole[: len(whole) // 2])
    for _ in range(2):
        results = run(tmp_path / "in", model)
        refused = results["scan"]
        assert (refused["status"], refused["code"], refused["files"]) == ("refused", "unreadable", {})
        assert files_in(tmp_path / "out" / "scan") == ["result.json"]
        assert results["good"]["reused"]
        assert code_of(results) == 1
    (tmp_path / "in" / "scan.nii.gz").write_bytes(whole)
    assert run(tmp_path / "in", model)["scan"]["status"] == "done"


def test_a_series_with_a_gap_is_refused_by_its_code(tmp_path: Path, model: Model) -> None:
    paths = dicom_files.write_series(tmp_path / "in", scan(SHAPE), dicom_files.lps_affine((1, 1, 1)))
    paths[10].unlink()
    result = only(run(tmp_path / "in", model))
    assert (result["status"], result["code"]) == ("refused", "missing-slice")
    assert result["code"] in CODES


@pytest.mark.parametrize("statuses", [["done"], ["empty"], ["done", "skipped"], ["empty", "skipped", "done"]])
def test_exit_code_0(statuses: list[Status]) -> None:
    assert exit_code(statuses) == 0


@pytest.mark.parametrize("statuses", [[], ["skipped"], ["done", "refused"], ["done", "failed"], ["refused"]])
def test_exit_code_1(statuses: list[Status]) -> None:
    assert exit_code(statuses) == 1


class TestWrongCalls:
    """Nothing is written where the call is wrong."""

    @pytest.fixture(autouse=True)
    def nothing_written(self, study: Path) -> Any:
        before = files_in(study.parent)
        yield
        assert files_in(study.parent) == before

    def test_a_series_that_isn_t_there(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match=r"--series 99: names no series of the input: .*scan"):
            run(study, model, "99")

    def test_a_series_number_that_two_bear(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match=r"--series 3: names several series: (MR|CT)-3-"):
            run(study, model, "3")

    def test_a_path_that_isn_t_there(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match="absent: no such file or folder"):
            run(study.parent / "absent", model)

    @pytest.mark.parametrize("out", ["", "out", "a/out"])
    def test_an_output_inside_the_input(self, study: Path, model: Model, out: str) -> None:
        with pytest.raises(UsageError, match="lies inside the input"):
            segment(study, study / out, model)

    def test_an_output_that_is_a_file(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match=r"is a file"):
            segment(study / "a", study / "notes.txt", model)

    def test_an_output_that_can_t_be_made(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match="can't be made: Not a directory"):
            segment(study / "a", study / "notes.txt" / "out", model)

    def test_an_input_where_its_results_would_lie(self, study: Path, model: Model) -> None:
        """The file has the name of a result: it would be taken for one of an earlier run, and be removed."""
        source = write_nifti(study.parent / "mask" / "mask.nii.gz", scan(SHAPE))
        before = source.read_bytes()
        with pytest.raises(UsageError, match="holds the input"):
            segment(source, study.parent, model)
        assert source.read_bytes() == before
        assert files_in(source.parent) == ["mask.nii.gz"]
        source.unlink()

    def test_no_series_bears_a_number_that_is_absent(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match="--series None: names no series"):
            run(study, model, "None")

    def test_a_format_that_isn_t_one(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match="no format xyz; formats are nifti, seg"):
            run(study, model, formats=("nifti", "xyz"))

    def test_a_fold_and_a_device_that_aren_t_there(self, study: Path, model: Model) -> None:
        with pytest.raises(UsageError, match="no fold 7; it has 0, 1"):
            run(study, model, options=Options(folds=("7",)))
        with pytest.raises(UsageError, match="device 'abacus' isn't there"):
            run(study, model, options=Options(device="abacus"))

    def test_no_image(self, study: Path, model: Model) -> None:
        with pytest.raises(InputError, match=r"notes\.txt: holds no image") as caught:
            run(study / "notes.txt", model)
        assert caught.value.code == "no-image"


def test_series_are_named_by_uid_number_or_case(study: Path, model: Model) -> None:
    everything = run(study, model)
    crop = next(result for case, result in everything.items() if case.startswith("MR-"))
    body = next(result for case, result in everything.items() if case.startswith("CT-"))
    assert list(run(study, model, crop["source"]["series_uid"])) == [crop["case"]]
    assert list(run(study, model, crop["case"], "scan", crop["case"])) == [crop["case"], "scan"]
    # A CT is segmented by an MR model only where it is named.
    forced = only(run(study, model, body["case"]))
    assert forced["status"] == "done"
    assert "outside-training: modality CT" in forced["flags"][0]


def test_a_series_of_two_volumes_is_named_as_one_and_its_volumes_by_name(tmp_path: Path, model: Model) -> None:
    for number, folder in enumerate(("first", "second")):

        def edit(dataset: pydicom.Dataset, index: int, number: int = number) -> None:
            dataset.EchoTime = 5 + 90 * number
            dataset.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[f"{number} {index}"])
            dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

        dicom_files.write_series(tmp_path / "study" / folder, edit=edit)
    both = list(run(tmp_path / "study", model, "3"))
    assert [name.rsplit("-", 1)[1] for name in both] == ["te5", "te95"]
    assert list(run(tmp_path / "study", model, both[1])) == [both[1]]


def test_no_patient_is_named(study: Path, model: Model, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.DEBUG):
        run(study, model)
    written = [path.read_text() for path in study.parent.glob("out/*/result.json")]
    names = [path.name for path in (study.parent / "out").rglob("*")]
    for text in (*written, *names, caplog.text):
        assert "Nobody" not in text
        assert "ID-17" not in text
    mask = (next((study.parent / "out").glob("MR-*")) / "mask.nii.gz").read_bytes()
    assert b"Nobody" not in gzip.decompress(mask)
