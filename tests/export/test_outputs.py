"""The registry: what is written of which case, and which files belong to what."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import nibabel
import numpy as np
import pytest

from tests.helpers.scans import blobs, scan_from, write_series
from volseg import results
from volseg.errors import UsageError
from volseg.export import outputs
from volseg.export.outputs import OUTPUTS, FinishedCase, MaskFormat, Output, Written, check_formats, chosen, formats
from volseg.loaders import find
from volseg.results.case import ModelIdentity
from volseg.results.settings import Settings
from volseg.volume import Source, Volume


@pytest.fixture
def case(tmp_path: Path) -> FinishedCase:
    (tmp_path / "series").mkdir()
    geometry, source = scan_from(write_series(tmp_path / "series"))
    (candidate,) = find(tmp_path / "series").candidates
    scan = Volume(np.zeros(geometry.shape, np.int16), geometry, source)
    mask = blobs(geometry, source)
    return FinishedCase(candidate=candidate, scan=scan, mask=mask, labels=(), maps=None, model=ModelIdentity())


def named(name: str) -> Output:
    return next(output for output in OUTPUTS if output.name == name)


def test_names_and_files_are_different() -> None:
    assert len({output.name for output in OUTPUTS}) == len({output.files for output in OUTPUTS}) == len(OUTPUTS)
    assert {output.files for output in formats().values() if output.readable} <= set(results.MASKS)


@pytest.mark.parametrize("output", OUTPUTS, ids=lambda output: output.name)
def test_every_output_has_a_module_and_options_that_there_are(output: Output) -> None:
    module = importlib.import_module(f"volseg.export.{output.module}")
    assert callable(getattr(module, "write" if isinstance(output, MaskFormat) else "write_output"))
    assert set(output.option) <= set(Settings.model_fields)


@pytest.mark.parametrize("name", formats())
def test_every_format_writes_its_file(tmp_path: Path, case: FinishedCase, name: str) -> None:
    output = named(name)
    assert output.own(tmp_path) == []
    written = output.write(case, tmp_path)
    # Smoothing wears structures of a few voxels away, and says so.
    assert all("smoothed" in note for note in written.notes)
    assert (bool(written.notes), written.case) == (not formats()[name].readable, None)
    assert output.own(tmp_path) == [output.files]
    assert (tmp_path / output.files).stat().st_size > 100


def test_what_is_written_by_default(case: FinishedCase) -> None:
    dicom, other = case.scan.source, Source()
    assert [output.name for output in chosen(Settings(), dicom)] == ["nifti", "seg", "preview"]
    assert [output.name for output in chosen(Settings(), other)] == ["nifti", "preview"]
    assert [output.name for output in chosen(Settings(preview=False), other)] == ["nifti"]
    assert [output.name for output in chosen(Settings(formats=("seg",)), other)] == ["seg", "preview"]
    every = Settings(repair_uids=True, entropy=True)
    assert [output.name for output in chosen(every, dicom)] == [
        "repair-uids", "nifti", "seg", "probabilities", "preview"
    ]  # fmt: skip


def test_what_was_asked_for_is_required() -> None:
    assert not named("seg").required(Settings())
    assert named("seg").required(Settings(formats=("seg", "nifti")))
    assert named("probabilities").required(Settings(entropy=True))
    assert not named("preview").required(Settings())


def test_a_format_that_there_is_not() -> None:
    check_formats(None)
    check_formats(("nifti", "seg"))
    with pytest.raises(UsageError, match=r"no format obj; formats are nifti, seg"):
        check_formats(("nifti", "obj"))


def test_files_of_others_belong_to_no_output(tmp_path: Path) -> None:
    for name in ("notes.txt", "mask.nii", "a.nii.gz", "probabilities/readme.txt", "deep/mask.nii.gz"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(b"x")
    assert [name for output in OUTPUTS for name in output.own(tmp_path)] == []


def test_a_new_output_is_a_module_and_a_line(
    tmp_path: Path, case: FinishedCase, monkeypatch: pytest.MonkeyPatch
) -> None:
    def write(mask: Any, path: Path) -> tuple[str, ...]:
        np.save(path.with_suffix(""), mask.array)
        path.with_suffix("").with_suffix(".npy").rename(path)
        return ("without colours",)

    module = ModuleType("volseg.export.numbers")
    monkeypatch.setattr(module, "write", write, raising=False)
    monkeypatch.setitem(sys.modules, "volseg.export.numbers", module)
    added = MaskFormat("numbers", "mask.npy.bin", "numbers", endings=(".npy.bin",))
    monkeypatch.setattr(outputs, "OUTPUTS", (*OUTPUTS, added))
    (output,) = chosen(Settings(formats=("numbers",), preview=False), case.scan.source)
    assert output.write(case, tmp_path).notes == ("without colours",)
    np.testing.assert_array_equal(np.load(tmp_path / "mask.npy.bin"), case.mask.array)


def test_a_series_that_lacks_nothing_is_not_copied(tmp_path: Path, case: FinishedCase) -> None:
    assert named("repair-uids").write(case, tmp_path / "out") == Written()
    assert not (tmp_path / "out").exists()


def test_the_copy_with_repaired_uids_is_what_the_others_refer_to(tmp_path: Path) -> None:
    folder = tmp_path / "series"
    folder.mkdir()
    write_series(folder, without=("StudyInstanceUID",))
    (candidate,) = find(folder).candidates
    volume = candidate.load()
    assert volume.source.dicom is not None
    assert not volume.source.dicom.identity
    mask = blobs(volume.geometry, volume.source)
    case = FinishedCase(
        candidate=candidate, scan=volume, mask=mask, labels=(), maps=None, model=ModelIdentity(name="m")
    )
    written = named("repair-uids").write(case, tmp_path / "out")
    assert written.case is not None
    copied = written.case.mask.source.dicom
    assert copied is not None
    assert copied.identity
    assert copied.study_uid
    assert len(named("repair-uids").own(tmp_path / "out")) == 4
    named("nifti").write(written.case, tmp_path / "out")
    read = nibabel.load(tmp_path / "out" / "mask.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(read.dataobj), mask.array)
