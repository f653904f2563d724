from __future__ import annotations

import zipfile
from pathlib import Path

import pydicom
import pytest
from numpy.testing import assert_array_equal
from pydicom.uid import UID, JPEG2000Lossless

from tests.helpers.dicom_files import lps_affine, put, voxels, write_series
from tests.helpers.dicom_objects import save, with_echoes
from volseg.errors import InputError, RefusalError, UsageError
from volseg.export.identity import repair_uids
from volseg.loaders import Candidate, find

BLANK = put(StudyInstanceUID="", SeriesInstanceUID="", FrameOfReferenceUID="")


def only(path: Path) -> Candidate:
    (candidate,) = find(path).candidates
    return candidate


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def test_the_anonymised_ct_gets_an_identity(shared_data: Path, tmp_path: Path) -> None:
    original = only(shared_data / "dicom" / "ct_512")
    copy = repair_uids(original, tmp_path / "series")
    assert copy.name == original.name
    assert copy.path == tmp_path / "series"
    volume, source = copy.load(), original.load()
    assert volume.source.dicom is not None
    assert volume.source.dicom.identity
    assert_array_equal(volume.array, source.array)
    assert volume.geometry.same_grid(source.geometry, 0)
    for before, after in zip(original.files, copy.files, strict=True):
        old, new = pydicom.dcmread(before), pydicom.dcmread(after)
        assert new.SOPClassUID == old.file_meta.MediaStorageSOPClassUID
        assert new.SOPInstanceUID == new.file_meta.MediaStorageSOPInstanceUID
        assert new.SOPInstanceUID.is_valid
        assert new.file_meta.TransferSyntaxUID == JPEG2000Lossless
        assert new.PixelData == old.PixelData
        changed = {element.keyword for element in new if element != old.get(element.tag)}
        assert changed == {"SOPClassUID", "SOPInstanceUID", "StudyInstanceUID", "SeriesInstanceUID"}
    assert (tmp_path / "series").is_dir()
    assert [path.name for path in tmp_path.iterdir()] == ["series"]


def test_twice_gives_the_same_bytes(tmp_path: Path) -> None:
    write_series(tmp_path / "in", edit=BLANK)
    first = repair_uids(only(tmp_path / "in"), tmp_path / "one")
    second = repair_uids(only(tmp_path / "in"), tmp_path / "two")
    again = repair_uids(only(tmp_path / "in"), tmp_path / "one")
    assert contents(tmp_path / "one") == contents(tmp_path / "two")
    assert first.series_uid == second.series_uid == again.series_uid


def test_names_of_the_files_don_t_matter(tmp_path: Path) -> None:
    write_series(tmp_path / "a", edit=BLANK)
    write_series(tmp_path / "b", edit=BLANK, name=lambda index: f"{9 - index}")
    for folder in "ab":
        repair_uids(only(tmp_path / folder), tmp_path / f"{folder}-repaired")
    assert contents(tmp_path / "a-repaired") == contents(tmp_path / "b-repaired")


def test_uids_that_are_there_stay(tmp_path: Path) -> None:
    write_series(tmp_path / "in", edit=put(SeriesInstanceUID=""))
    copy = repair_uids(only(tmp_path / "in"), tmp_path / "out")
    old, new = pydicom.dcmread(tmp_path / "in" / "IM000.dcm"), pydicom.dcmread(copy.files[0])
    assert new.SOPInstanceUID == old.SOPInstanceUID
    assert new.StudyInstanceUID == old.StudyInstanceUID
    assert new.FrameOfReferenceUID == old.FrameOfReferenceUID
    assert new.SeriesInstanceUID.is_valid


def test_two_series_get_different_uids(tmp_path: Path) -> None:
    for seed in ("a", "b"):
        write_series(tmp_path / seed, edit=BLANK, seed=seed)
    uids = {repair_uids(only(tmp_path / seed), tmp_path / f"{seed}2").series_uid for seed in "ab"}
    assert len(uids) == 2


def test_without_any_identity_the_content_gives_it(tmp_path: Path) -> None:
    def edit(dataset: pydicom.Dataset, index: int) -> None:
        BLANK(dataset, index)
        dataset.SOPInstanceUID = ""
        dataset.file_meta.MediaStorageSOPInstanceUID = UID("1.2.3")  # required by the writer; taken out below

    for path in write_series(tmp_path / "in", edit=edit):
        path.write_bytes(path.read_bytes().replace(b"1.2.3\0", bytes(6)))
    original = only(tmp_path / "in")
    assert original.usable
    copy = repair_uids(original, tmp_path / "out")
    assert len({pydicom.dcmread(path).SOPInstanceUID for path in copy.files}) == 3


def test_one_echo_of_a_multi_frame_file(tmp_path: Path) -> None:
    dataset = with_echoes(voxels(), lps_affine(), [4.6, 92])
    BLANK(dataset, 0)
    original = save(dataset, tmp_path / "in" / "enhanced")
    found = find(tmp_path / "in").candidates
    assert [[frame for _, frame in candidate.slices] for candidate in found] == [[0, 2, 4], [1, 3, 5]]
    for number, candidate in enumerate(found):
        copy = repair_uids(candidate, tmp_path / f"out{number}")
        assert (copy.name, copy.geometry is not None) == (candidate.name, True)
        [file] = copy.files
        assert copy.slices == tuple((file, frame) for _, frame in candidate.slices)
        old, new = pydicom.dcmread(original), pydicom.dcmread(file)
        changed = {element.keyword for element in new if element != old.get(element.tag)}
        assert changed == {"StudyInstanceUID", "SeriesInstanceUID", "FrameOfReferenceUID"}
        (again,) = (c for c in find(tmp_path / f"out{number}").candidates if c.slices == copy.slices)
        assert again.series_uid == copy.series_uid != ""
    assert contents(tmp_path / "out0") == contents(tmp_path / "out1")


def test_one_of_two_volumes_in_a_series_of_files(tmp_path: Path) -> None:
    for echo in (0, 1):
        # In folders of their own: files of the same name would be one.
        edit = put(SeriesInstanceUID="1.2.3", FrameOfReferenceUID="", StudyInstanceUID="", EchoTime=f"{4 + echo}")
        write_series(tmp_path / "in" / str(echo), voxels() + 100 * echo, edit=edit, seed=f"echo{echo}")
    found = find(tmp_path / "in").candidates
    assert len(found) == 2
    for echo, candidate in enumerate(found):
        copy = repair_uids(candidate, tmp_path / f"out{echo}")
        assert sorted(contents(tmp_path / f"out{echo}")) == [f"slice_{n:04d}.dcm" for n in (1, 2, 3)]
        assert copy.name == candidate.name
        for k, path in enumerate(copy.files):
            dataset = pydicom.dcmread(path)
            assert (dataset.SeriesInstanceUID, dataset.EchoTime) == ("1.2.3", 4 + echo)
            assert dataset.FrameOfReferenceUID.is_valid
            assert dataset.pixel_array[0, 0] == (voxels() + 100 * echo)[0, 0, k]


def test_files_of_an_archive(tmp_path: Path) -> None:
    paths = write_series(tmp_path / "in", edit=BLANK)
    with zipfile.ZipFile(tmp_path / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in paths:
            archive.write(path, f"inside/{path.name}")
    zipped = only(tmp_path / "study.zip")
    assert zipped.files[0] == tmp_path / "study.zip" / "inside" / "IM000.dcm"
    copy = repair_uids(zipped, tmp_path / "from-zip")
    repair_uids(only(tmp_path / "in"), tmp_path / "from-folder")
    assert contents(tmp_path / "from-zip") == contents(tmp_path / "from-folder")
    assert copy.files[0] == tmp_path / "from-zip" / "slice_0001.dcm"


def test_a_file_that_went_away(tmp_path: Path) -> None:
    write_series(tmp_path / "in", edit=BLANK)
    candidate = only(tmp_path / "in")
    candidate.files[1].unlink()
    with pytest.raises(InputError, match=r"IM001.dcm: can't be read") as caught:
        repair_uids(candidate, tmp_path / "out")
    assert caught.value.code == "unreadable"
    assert not (tmp_path / "out").exists()


def test_a_series_with_identity_is_left_alone(tmp_path: Path) -> None:
    write_series(tmp_path / "in")
    candidate = only(tmp_path / "in")
    assert repair_uids(candidate, tmp_path / "out") is candidate
    assert not (tmp_path / "out").exists()


def test_other_files_are_never_overwritten(tmp_path: Path) -> None:
    write_series(tmp_path / "in", edit=BLANK)
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "thesis.txt").write_text("precious")
    with pytest.raises(UsageError, match="holds other files"):
        repair_uids(only(tmp_path / "in"), tmp_path / "out")
    assert contents(tmp_path / "out") == {"thesis.txt": b"precious"}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_what_is_not_usable_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path / "in", edit=put(SeriesInstanceUID="", PixelSpacing=None))
    with pytest.raises(RefusalError):
        repair_uids(only(tmp_path / "in"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
