"""``volseg predict``: exit codes, what is said and where, and input that is bad in every way that the issue lists."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.helpers import dicom_files
from tests.helpers.command import Command
from tests.helpers.tiny import scan, threshold_model, thresholded, write_nifti
from volseg.cli.predict import _outcome
from volseg.models.folder import weight_file
from volseg.results.case import CaseResult, LabelResult

SHAPE = (35, 44, 33)


@pytest.fixture
def volseg_(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    return Command(monkeypatch, capsys)


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "threshold"
    threshold_model(folder, window=[32, 32, 32])
    return folder


@pytest.fixture(scope="module")
def ct_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The thresholds of fat and bone, in few windows."""
    folder = tmp_path_factory.mktemp("models") / "ct"
    threshold_model(folder, window=[256, 256, 20], tile_step=1)
    return folder


def result_of(folder: Path) -> dict[str, Any]:
    return dict(json.loads((folder / "result.json").read_text()))


def files_in(folder: Path) -> list[str]:
    return sorted(path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())


def test_the_sample_study(volseg_: Command, sample_data: Path, tmp_path: Path, model: Path) -> None:
    done = volseg_("predict", sample_data / "study", "-o", tmp_path / "out", "--model", model)
    assert done.code == 0
    lines = done.err.splitlines()
    assert [line.split()[0] for line in lines if not line.startswith("[")] == ["skipped", "done", "engine"]
    assert done.out == f"{tmp_path / 'out'}: 1 done, 1 skipped\n"
    mr, ct = (next((tmp_path / "out").glob(pattern)) for pattern in ("MR-*", "CT-*"))
    assert mr.name.startswith("MR-1-HippoCrop-")
    assert files_in(ct) == ["result.json"]
    assert result_of(ct)["code"] == "modality"
    assert files_in(mr) == ["mask.nii.gz", "mask.seg.dcm", "preview.png", "result.json"]
    source = nibabel.load(sample_data / "hippocampus" / "imagesTr" / "hippocampus_125.nii.gz")
    mask = nibabel.load(mr / "mask.nii.gz")
    assert mask.shape == source.shape
    assert np.abs(mask.affine - source.affine).max() <= 1e-4
    assert np.array_equal(np.asarray(mask.dataobj), thresholded(np.asarray(source.dataobj)))

    again = volseg_("predict", sample_data / "study", "-o", tmp_path / "out", "--model", model)
    assert again.code == 0
    assert "unchanged since an earlier run" in again.err


def test_a_real_series_with_blank_uids(volseg_: Command, shared_data: Path, tmp_path: Path, ct_model: Path) -> None:
    import pydicom

    series = shared_data / "dicom" / "ct_512"
    call = ("predict", "--no-preview", series, "--model", ct_model)
    done = volseg_(*call, "-o", tmp_path / "unnamed")
    assert (done.code, done.out) == (1, f"{tmp_path / 'unnamed'}: 1 skipped\n")
    (case,) = (path.name for path in (tmp_path / "unnamed").iterdir())

    done = volseg_(*call, "-o", tmp_path / "both", "--series", case, "--format", "nifti,seg")
    assert done.code == 1
    assert f"failed   {case}  no-identity: " in done.err
    assert "--repair-uids" in done.err
    result = result_of(tmp_path / "both" / case)
    assert (result["status"], sorted(result["files"])) == ("failed", ["mask.nii.gz"])
    mask = nibabel.load(tmp_path / "both" / case / "mask.nii.gz")
    assert mask.shape == (512, 512, 20)

    done = volseg_(*call, "-o", tmp_path / "repaired", "--series", case, "--repair-uids")
    assert done.code == 0
    folder = tmp_path / "repaired" / case
    seg = pydicom.dcmread(folder / "mask.seg.dcm")
    copy = pydicom.dcmread(folder / "series" / "slice_0001.dcm", stop_before_pixels=True)
    assert seg.ReferencedSeriesSequence[0].SeriesInstanceUID == copy.SeriesInstanceUID != ""
    assert (folder / "mask.nii.gz").read_bytes() == (tmp_path / "both" / case / "mask.nii.gz").read_bytes()


def test_seg_of_a_nifti_file(volseg_: Command, tmp_path: Path, model: Path) -> None:
    source = write_nifti(tmp_path / "scan.nii.gz", scan(SHAPE))
    done = volseg_("predict", "--no-preview", source, "-o", tmp_path / "out", "--model", model, "--format", "seg")
    assert done.code == 1
    assert "failed   scan  no-source-series: " in done.err
    assert done.out == f"{tmp_path / 'out'}: 1 refused or failed\n"


def spoil(folder: Path) -> dict[str, str]:
    """Fill a folder with bad input; the code that each file should be refused with."""
    whole = write_nifti(folder / "cut.nii.gz", scan(SHAPE)).read_bytes()
    (folder / "cut.nii.gz").write_bytes(whole[: len(whole) // 2])
    (folder / "noise.nii.gz").write_bytes(b"\x1f\x8b\x08\x00 this was never compressed")
    (folder / "text.nii").write_text("a text file")
    (folder / "empty.nii.gz").write_bytes(b"")
    nibabel.save(nibabel.Nifti1Image(np.ones((40, 30), np.int16), np.eye(4)), folder / "flat.nii.gz")
    for name, affine in (("zero", np.zeros((4, 4))), ("nan", np.full((4, 4), np.nan))):
        image = nibabel.Nifti1Image(scan(SHAPE), None)
        header = image.header
        header["sform_code"], header["qform_code"] = 1, 0
        header["srow_x"], header["srow_y"], header["srow_z"] = affine[:3]
        content = bytearray(header.binaryblock) + bytes(4) + scan(SHAPE).tobytes(order="F")
        (folder / f"{name}.nii").write_bytes(content)
    (folder / "note.dcm").write_text("a text file named as if it were a slice\n" * 20)
    slices = dicom_files.write_series(folder / "half", scan((40, 44, 35)), dicom_files.lps_affine((1, 1, 1)))
    slices[20].write_bytes(slices[20].read_bytes()[:900])
    return {
        "cut.nii.gz": "unreadable",
        "noise.nii.gz": "unreadable",
        "text.nii": "unreadable",
        "empty.nii.gz": "unreadable",
        "flat.nii.gz": "not-3d",
        "zero.nii": "bad-affine",
        "nan.nii": "bad-affine",
        "note.dcm": "unreadable",
    }


def test_bad_input_is_refused_file_by_file_and_the_good_is_done(
    volseg_: Command, tmp_path: Path, model: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source = tmp_path / "in"
    expected = spoil(source)
    write_nifti(source / "good.nii.gz", scan(SHAPE))
    done = volseg_("predict", "--no-preview", source, "-o", tmp_path / "out", "--model", model)
    assert done.code == 1
    results = {r["source"]["path"]: r for r in (result_of(path) for path in (tmp_path / "out").iterdir())}
    assert results["good.nii.gz"]["status"] == "done"
    codes = {path: result["code"] for path, result in results.items() if result["status"] == "refused"}
    assert codes.items() >= expected.items()
    assert {path for path in codes if path.startswith("half")}
    for result in results.values():
        assert "\n" not in (result["reason"] or "")
        assert result["status"] in ("done", "refused")
        line = next(line for line in done.err.splitlines() if line.startswith(result["status"]) and
                    f" {result['case']}  " in line)  # fmt: skip
        assert result["status"] == "done" or f"{source / result['source']['path']}: {result['reason']}" in line
    assert not caplog.records
    assert not list((tmp_path / "out").rglob(".*"))


@pytest.mark.parametrize("name", ["cut.nii.gz", "text.nii", "flat.nii.gz", "zero.nii", "nan.nii", "note.dcm"])
def test_a_bad_file_alone_gives_1_and_one_line(volseg_: Command, tmp_path: Path, model: Path, name: str) -> None:
    code = spoil(tmp_path / "in")[name]
    done = volseg_("predict", "--no-preview", tmp_path / "in" / name, "-o", tmp_path / "out", "--model", model)
    assert done.code == 1
    (line,) = (line for line in done.err.splitlines() if not line.startswith("["))
    assert line.startswith("refused ")
    assert f"  {code}: {tmp_path / 'in' / name}: " in line
    (case,) = (tmp_path / "out").iterdir()
    assert files_in(case) == ["result.json"]


def test_a_folder_without_an_image(volseg_: Command, tmp_path: Path, model: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "notes.txt").write_text("nothing")
    done = volseg_("predict", "--no-preview", tmp_path / "in", "-o", tmp_path / "out", "--model", model)
    assert (done.code, done.out) == (1, "")
    assert done.err.count("\n") == 1
    assert done.err.startswith(f"volseg: {tmp_path / 'in'}: holds no image (notes.txt: ")
    assert not (tmp_path / "out").exists()


def wrong(*arguments: object, problem: str) -> Any:
    return pytest.param(arguments, problem, id=" ".join(map(str, arguments)))


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        wrong("--format", "xyz", problem="no format xyz; formats are nifti, seg"),
        wrong("--folds", "3", problem="no fold 3; it has all"),
        wrong("--series", "none-such", problem="--series none-such: names no series of the input"),
        wrong("--device", "abacus", problem="device 'abacus' isn't there; this machine has cpu"),
        wrong("--model", "none-such", problem="none-such: neither a model folder nor a bundled model"),
    ],
)
def test_a_wrong_call_gives_2_in_one_line_and_writes_nothing(
    volseg_: Command, tmp_path: Path, model: Path, arguments: tuple[object, ...], problem: str
) -> None:
    source = write_nifti(tmp_path / "scan.nii.gz", scan((8, 9, 10)))
    done = volseg_("predict", "--no-preview", source, "-o", tmp_path / "out", "--model", model, *arguments)
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith("volseg: ")
    assert done.err.count("\n") == 1
    assert problem in done.err
    assert not (tmp_path / "out").exists()


def test_an_input_that_isn_t_there_and_an_output_inside(volseg_: Command, tmp_path: Path, model: Path) -> None:
    done = volseg_("predict", "--no-preview", tmp_path / "absent", "-o", tmp_path / "out", "--model", model)
    assert (done.code, done.err) == (2, f"volseg: {tmp_path / 'absent'}: no such file or folder\n")
    write_nifti(tmp_path / "in" / "scan.nii.gz", scan((8, 9, 10)))
    done = volseg_("predict", "--no-preview", tmp_path / "in", "-o", tmp_path / "in" / "out", "--model", model)
    assert done.code == 2
    assert "lies inside the input" in done.err
    assert files_in(tmp_path / "in") == ["scan.nii.gz"]


def test_a_model_with_a_changed_weight_file(volseg_: Command, tmp_path: Path) -> None:
    threshold_model(tmp_path / "m")
    file = weight_file(tmp_path / "m", "all")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    source = write_nifti(tmp_path / "scan.nii.gz", scan((8, 9, 10)))
    done = volseg_("predict", "--no-preview", source, "-o", tmp_path / "out", "--model", tmp_path / "m")
    assert (done.code, done.out) == (2, "")
    assert done.err.startswith(f"volseg: {file}: the weights were changed")
    assert done.err.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_bound_on_memory(volseg_: Command, tmp_path: Path, model: Path) -> None:
    source = write_nifti(tmp_path / "scan.nii.gz", scan(SHAPE))
    call = ("predict", source, "--model", model, "-o", tmp_path / "out", "--memory")
    wrong = volseg_(*call, "lots")
    assert wrong.code == 2
    assert wrong.err == "volseg: 'lots' is not an amount of memory: give one such as 500MB, 4GB or 4GiB\n"
    assert not (tmp_path / "out").exists()

    refused = volseg_(*call, "1MB")
    assert refused.code == 1
    assert f"refused  scan  memory: {source}: --memory allows 1 MB, and this scan needs " in refused.err
    result = result_of(tmp_path / "out" / "scan")
    assert (result["status"], result["code"], result["options"]["memory"]) == ("refused", "memory", 1_000_000)

    done = volseg_(*call, "64GB")
    assert done.code == 0
    assert "[1/1] scan: memory " in done.err
    assert result_of(tmp_path / "out" / "scan")["options"]["memory"] == 64_000_000_000

    # The mask doesn't depend on it: what an earlier run left is still good.
    again = volseg_(*call, "63GB")
    assert "unchanged since an earlier run" in again.err


def test_a_terminal_shows_the_windows(
    volseg_: Command, tmp_path: Path, model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_nifti(tmp_path / "scan.nii.gz", scan(SHAPE))
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    done = volseg_("predict", "--no-preview", source, "--model", model, "-o", tmp_path / "out")
    lines = done.err.split("\r\033[K")
    shown = ["", "[1/1] scan", *(f"[1/1] scan: {done} of 8 windows" for done in range(2))]
    assert lines[: len(shown)] == shown
    assert "[1/1] scan: 8 of 8 windows" in lines
    assert "memory" not in done.err


def test_many_labels_take_one_line_of_a_terminal() -> None:
    volumes = [0.0, *(float(number) for number in range(1, 117))]
    labels = tuple(
        LabelResult(value=value, name=f"c{value}", volume_ml=volume, voxels=round(volume))
        for value, volume in enumerate(volumes, start=1)
    )
    shown = _outcome(CaseResult(case="a", status="done", labels=labels), Path())
    assert shown.startswith("c2 1.00 ml, c3 2.00 ml, ")
    assert shown.endswith("c7 6.00 ml and 110 more labels")
    few = _outcome(CaseResult(case="a", status="empty", labels=labels[:1]), Path())
    assert few == "c1 0.00 ml"


def test_maps_are_written_where_they_are_asked_for(volseg_: Command, tmp_path: Path, model: Path) -> None:
    source = write_nifti(tmp_path / "scan.nii.gz", scan(SHAPE))
    done = volseg_(
        "predict", source, "-o", tmp_path / "out", "--model", model, "--labels", "2", "--probabilities", "--entropy"
    )
    assert done.code == 0, done.err
    found = [name for name in files_in(tmp_path / "out" / "scan") if name.startswith("probabilities/")]
    names = ("0-background", "2-Posterior_hippocampus", "entropy")
    assert found == [f"probabilities/{name}.nii.gz" for name in names]


def test_what_is_doubtful_or_missing_is_said_below_the_case(volseg_: Command, tmp_path: Path, model: Path) -> None:
    mask = np.zeros(SHAPE, np.int16)
    mask[10:20, 10:20, 10:20] = 1
    write_nifti(tmp_path / "in" / "mask.nii.gz", mask)
    shape = (35, 44, 30)
    edit = dicom_files.put(FrameOfReferenceUID=None)
    dicom_files.write_series(tmp_path / "in" / "series", scan(shape), dicom_files.lps_affine((1, 1, 1)), edit=edit)
    write_nifti(tmp_path / "in" / "blank.nii.gz", np.full(SHAPE, 7, np.int16))
    done = volseg_("predict", tmp_path / "in", "-o", tmp_path / "out", "--model", model, "--no-preview")
    assert "! looks-like-a-mask: the scan holds 2 different values alone, 0, 1" in done.err
    assert "! seg: no-identity: the source has blank UIDs" in done.err
    assert "refused  blank  constant: " in done.err
    assert "2 with warnings (flags in result.json)" in done.out
    assert done.code == 1
