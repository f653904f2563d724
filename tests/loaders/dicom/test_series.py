from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    SecondaryCaptureImageStorage,
    SegmentationStorage,
    UltrasoundImageStorage,
    generate_uid,
)

from tests.helpers.dicom_files import Edit, lps_affine, put, put_at, rotation, sheared, shift_at, voxels, write_series
from tests.helpers.dicom_objects import save, segmentation
from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import ras_from_lps
from volseg.loaders import Candidate, find


def only(path: Path) -> Candidate:
    (candidate,) = find(path).candidates
    return candidate


def refused(path: Path) -> tuple[str, str]:
    """Code and reason of the only candidate, which `load` must repeat."""
    candidate = only(path)
    assert not candidate.usable
    assert candidate.code is not None
    assert candidate.reason is not None
    assert "\n" not in candidate.reason
    with pytest.raises(RefusalError) as caught:
        candidate.load()
    assert (caught.value.code, caught.value.reason) == (candidate.code, candidate.reason)
    return candidate.code, candidate.reason


# what comes out


@pytest.mark.parametrize("angles", [(0, 0, 0), (90, 0, 0), (0, 90, 0), (12, -31, 7), (180, 0, 45), (-100, 20, 130)])
def test_voxels_and_places_are_those_written(tmp_path: Path, angles: tuple[float, float, float]) -> None:
    affine = lps_affine(directions=rotation(*angles))
    write_series(tmp_path, affine=affine)
    candidate = only(tmp_path)
    volume = candidate.load()
    assert_array_equal(volume.array, voxels())
    assert volume.array.dtype == np.int16
    assert_allclose(volume.geometry.affine, ras_from_lps(affine), atol=1e-6)
    assert candidate.geometry == volume.geometry or candidate.geometry.same_grid(volume.geometry, 0)  # type: ignore[union-attr]
    assert candidate.notes == ()


def test_simpleitk_reads_an_oblique_series_alike(tmp_path: Path) -> None:
    write_series(tmp_path, affine=lps_affine(directions=rotation(12, -31, 7)))
    assert_as_simpleitk_reads(only(tmp_path))


@pytest.mark.parametrize(
    "folder",
    [
        "ct_512",
        "study1/12-T1post-05670",
        "study1/13_HCropVolume",
        "study1/34909-T1prereg-84610",
        "study1/36459-FLAIRreg-76244",
        "study1/37916-T2reg-88910",
    ],
)
def test_simpleitk_reads_real_series_alike(shared_data: Path, folder: str) -> None:
    assert_as_simpleitk_reads(only(shared_data / "dicom" / folder))


def assert_as_simpleitk_reads(candidate: Candidate) -> None:
    """The same voxels at the same places as an independent reader finds, given the slices in their order."""
    import SimpleITK

    image = SimpleITK.ReadImage([str(path) for path in candidate.files])
    volume = candidate.load()
    assert_array_equal(volume.array, SimpleITK.GetArrayViewFromImage(image).transpose(2, 1, 0))
    for corner in np.ndindex(2, 2, 2):
        index = [int(end * (size - 1)) for end, size in zip(corner, image.GetSize(), strict=True)]
        theirs = np.array(image.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert_allclose(volume.geometry.voxel_to_world(index), theirs, atol=1e-3)


def test_names_and_order_of_files_change_nothing(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", name=lambda index: f"{(index * 7 + 5) % 11}.IMA")
    write_series(tmp_path / "c", name=lambda index: f"{9 - index}")
    first, *others = (only(tmp_path / folder).load() for folder in "abc")
    for other in others:
        assert_array_equal(other.array, first.array)
        assert other.geometry.same_grid(first.geometry, 0)
        assert other.source.sha256 == first.source.sha256
        assert other.source.name == first.source.name


def test_source_says_what_the_files_say(tmp_path: Path) -> None:
    paths = write_series(tmp_path, seed="T1 post/Gd")
    candidate = only(tmp_path)
    source = candidate.load().source
    assert source.dicom is not None
    assert source.dicom.identity
    assert source.dicom.series_uid == candidate.series_uid == generate_uid(entropy_srcs=["T1 post/Gd"])
    assert source.dicom.study_uid == generate_uid(entropy_srcs=["study"])
    assert source.dicom.frame_of_reference_uid == generate_uid(entropy_srcs=["frame"])
    assert [instance.path for instance in source.dicom.instances] == paths
    assert [instance.sop_instance_uid for instance in source.dicom.instances] == [
        generate_uid(entropy_srcs=["T1 post/Gd", str(index)]) for index in range(3)
    ]
    assert (source.kind, source.modality, source.description) == ("dicom", "MR", "T1 post/Gd")
    assert candidate.name.startswith("MR-3-T1_post_Gd-")
    assert (candidate.path, candidate.files) == (tmp_path, tuple(paths))
    assert "Nobody" not in repr(candidate)


def test_another_content_has_another_hash(tmp_path: Path) -> None:
    write_series(tmp_path / "a")
    write_series(tmp_path / "b", voxels() + np.int16(1))
    assert only(tmp_path / "a").load().source.sha256 != only(tmp_path / "b").load().source.sha256


# values


def test_rescale_of_each_slice_is_its_own(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        dataset.RescaleSlope, dataset.RescaleIntercept = [1.5, 2, 0.25][index], [0, -10, 3][index]

    write_series(tmp_path, edit=edit)
    array = only(tmp_path).load().array
    assert array.dtype == np.float32
    assert_array_equal(array, voxels() * np.array([1.5, 2, 0.25]) + np.array([0, -10, 3]))


@pytest.mark.parametrize(
    ("stored", "intercept", "bits_stored", "expected"),
    [
        (np.int16, 0, 16, np.int16),
        (np.uint16, -1024, 12, np.int16),
        (np.uint16, -1024, 16, np.int32),
        (np.uint8, 0, 8, np.int16),
        (np.int16, -1024, 16, np.int32),
        (np.int16, 0.5, 16, np.float32),
    ],
)
def test_integers_stay_integers(tmp_path: Path, stored: Any, intercept: float, bits_stored: int, expected: Any) -> None:
    edit = put(RescaleSlope=1, RescaleIntercept=intercept, BitsStored=bits_stored, HighBit=bits_stored - 1)
    write_series(tmp_path, voxels(dtype=stored), edit=edit)
    array = only(tmp_path).load().array
    assert array.dtype == expected
    assert_array_equal(array, voxels(dtype=stored).astype(float) + intercept)


def test_extreme_values_don_t_wrap(tmp_path: Path) -> None:
    stored = np.array([0, 65535] * 6, np.uint16).reshape(2, 3, 2)
    write_series(tmp_path, stored, edit=put(RescaleSlope=1, RescaleIntercept=-1024))
    assert_array_equal(only(tmp_path).load().array, stored.astype(int) - 1024)


def test_sign_in_twelve_of_sixteen_bits(tmp_path: Path) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        # Only the lower 12 bits are the value, in two's complement; the upper 4 are an overlay's.
        stored = (voxels()[:, :, index].T.astype(np.uint16) & 0x0FFF) | 0x5000
        dataset.PixelData = stored.tobytes()
        dataset.BitsStored, dataset.HighBit = 12, 11

    write_series(tmp_path, edit=edit)
    assert_array_equal(only(tmp_path).load().array, voxels())


def test_padding_value_stays(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put(PixelPaddingValue=-7))
    assert only(tmp_path).load().array.min() == -7


def test_monochrome1_is_noted_and_kept(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put(PhotometricInterpretation="MONOCHROME1"))
    candidate = only(tmp_path)
    assert "MONOCHROME1" in candidate.notes[0]
    assert_array_equal(candidate.load().array, voxels())


@pytest.mark.parametrize(
    "syntax",
    [
        ExplicitVRLittleEndian,
        ImplicitVRLittleEndian,
        DeflatedExplicitVRLittleEndian,
        RLELossless,
        JPEGLSLossless,
        JPEG2000Lossless,
    ],
    ids=lambda uid: uid.keyword,
)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_lossless_encodings(tmp_path: Path, syntax: Any, dtype: Any) -> None:
    array = voxels((40, 37, 2), dtype)
    write_series(tmp_path, array, syntax=syntax)
    assert_array_equal(only(tmp_path).load().array, array)


def test_jpeg_lossless_as_another_library_writes_it(tmp_path: Path) -> None:
    import SimpleITK

    for path in write_series(tmp_path / "plain", voxels((19, 17, 2))):
        writer = SimpleITK.ImageFileWriter()
        writer.KeepOriginalImageUIDOn()
        writer.SetUseCompression(True)
        writer.SetCompressor("JPEG")
        (tmp_path / "jpeg").mkdir(exist_ok=True)
        writer.SetFileName(str(tmp_path / "jpeg" / path.name))
        writer.Execute(SimpleITK.ReadImage(path))
    candidate = only(tmp_path / "jpeg")
    syntaxes = {pydicom.dcmread(path).file_meta.TransferSyntaxUID.name for path in candidate.files}
    assert all("JPEG Lossless" in syntax for syntax in syntaxes)
    assert_array_equal(candidate.load().array, voxels((19, 17, 2)))


def test_big_endian(tmp_path: Path) -> None:
    from pydicom.uid import ExplicitVRBigEndian

    def edit(dataset: Dataset, index: int) -> None:
        dataset.PixelData = voxels()[:, :, index].T.astype(">i2").tobytes()
        dataset.file_meta.TransferSyntaxUID = ExplicitVRBigEndian

    write_series(tmp_path, edit=edit)
    assert_array_equal(only(tmp_path).load().array, voxels())


def test_files_without_preamble(tmp_path: Path) -> None:
    for path in write_series(tmp_path / "with", syntax=ImplicitVRLittleEndian):
        dataset = pydicom.dcmread(path)
        bare = Dataset()
        bare.update(dataset)
        pydicom.dcmwrite(tmp_path / path.stem, bare, implicit_vr=True, little_endian=True, enforce_file_format=False)
    shutil.rmtree(tmp_path / "with")
    assert (tmp_path / "IM000").read_bytes()[128:132] != b"DICM"
    assert_array_equal(only(tmp_path).load().array, voxels())


def test_absent_type_2_attributes_are_no_obstacle(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put(PatientBirthDate=None, PatientSex=None, SeriesNumber=None, PatientID=None))
    candidate = only(tmp_path)
    assert candidate.usable
    assert candidate.series_number is None
    assert candidate.name.startswith("MR-x-series-")
    assert_array_equal(candidate.load().array, voxels())


def test_values_that_break_dicom_s_rules_are_taken_without_a_warning(tmp_path: Path) -> None:
    for path in write_series(tmp_path, edit=put(StudyID="x" * 16, SeriesInstanceUID="1.2.3")):
        # UIDs and dates of that kind are what some anonymisers write.
        path.write_bytes(path.read_bytes().replace(b"1.2.3\0", b"1.2.x\0"))
    candidate = only(tmp_path)
    assert candidate.series_uid == "1.2.x"
    assert_array_equal(candidate.load().array, voxels())


def test_descriptions_in_other_alphabets(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put(SpecificCharacterSet="ISO_IR 192", SeriesDescription="Schädel ÷ T2"))
    candidate = only(tmp_path)
    assert candidate.description == "Schädel ÷ T2"
    assert candidate.name.startswith("MR-3-Schadel_T2-")


# identity


def test_blank_identity_is_taken_from_the_file_meta_information(shared_data: Path) -> None:
    candidate = only(shared_data / "dicom" / "ct_512")
    assert candidate.usable
    assert candidate.series_uid is None
    assert candidate.name.startswith("CT-x-CT_Body_3.0-")
    assert any("file meta information" in note for note in candidate.notes)
    source = candidate.load().source.dicom
    assert source is not None
    assert not source.identity
    assert (source.study_uid, source.series_uid) == ("", "")
    assert {instance.sop_class_uid for instance in source.instances} == {CTImageStorage}
    assert len({instance.sop_instance_uid for instance in source.instances}) == 20


def test_blank_series_are_told_apart_by_folder_and_description(tmp_path: Path) -> None:
    blank = put(SeriesInstanceUID="")
    write_series(tmp_path / "a", edit=blank, seed="one")
    write_series(tmp_path / "a", edit=blank, seed="two", name=lambda index: f"two{index}")
    write_series(tmp_path / "b", edit=blank, seed="one")
    study = find(tmp_path)
    assert [(candidate.description, len(candidate.files)) for candidate in study.candidates] == [
        ("one", 3),
        ("two", 3),
        ("one", 3),
    ]
    assert len({candidate.name for candidate in study.candidates}) == 3


# series


def test_series_in_one_folder_are_told_apart_and_one_in_two_folders_is_one(tmp_path: Path) -> None:
    write_series(tmp_path / "a", seed="one")
    write_series(tmp_path / "a", seed="two", name=lambda index: f"x{index}")
    for index, path in enumerate(write_series(tmp_path / "three", seed="three")):
        (tmp_path / f"part{index}").mkdir()
        path.rename(tmp_path / f"part{index}" / "image")
    found = {candidate.description: candidate for candidate in find(tmp_path).candidates}
    assert sorted(found) == ["one", "three", "two"]
    assert found["three"].path == tmp_path
    assert all(candidate.usable for candidate in found.values())


def test_copies_are_left_out_with_a_note(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    shutil.copy(paths[1], tmp_path / "IM001_copy.dcm")
    study = find(tmp_path)
    (candidate,) = study.candidates
    assert candidate.usable
    assert candidate.files == tuple(paths)
    assert "copies" in candidate.notes[0] or "copy" in candidate.notes[0]
    assert [(item.path.name, item.reason) for item in study.ignored] == [("IM001_copy.dcm", "a copy of IM001.dcm")]


@pytest.mark.parametrize(
    ("edit", "hint"),
    [
        (put(ImagesInAcquisition=4), "ImagesInAcquisition says 4 and 3 slices"),
        (put_at(0, InstanceNumber=0), "InstanceNumber goes from 0 to 3"),
        (lambda dataset, index: setattr(dataset, "InstanceNumber", index + 2), "InstanceNumber goes from 2 to 4"),
    ],
)
def test_hints_at_an_absent_end_are_noted(tmp_path: Path, edit: Edit, hint: str) -> None:
    write_series(tmp_path, edit=edit)
    candidate = only(tmp_path)
    assert candidate.usable
    assert hint in candidate.notes[0]


def test_tilt_without_the_tilt_attribute_is_refused(tmp_path: Path) -> None:
    write_series(tmp_path, voxels((5, 4, 6)), sheared(lps_affine(), 12))
    code, reason = refused(tmp_path)
    assert code == "tilted"
    assert "12.0 degrees" in reason


@pytest.mark.parametrize(
    ("edit", "code"),
    [
        (put_at(1, ImagePositionPatient=None), "missing-geometry"),
        (put_at(1, ImagePositionPatient=""), "missing-geometry"),
        (put_at(1, ImageOrientationPatient=[1, 0, 0]), "missing-geometry"),
        (put(PixelSpacing=None), "missing-geometry"),
        (put(PixelSpacing=[0, 1]), "missing-geometry"),
        (put(ImageOrientationPatient=[1, 0, 0, 1, 0, 0]), "bad-affine"),
        (put_at(2, FrameOfReferenceUID="1.2.3"), "mixed-frame"),
        (put_at(2, PixelSpacing=[1.5, 1.5]), "mixed-size"),
        (put_at(2, ImageOrientationPatient=[0.8, 0.6, 0, -0.6, 0.8, 0]), "mixed-orientation"),
        (shift_at(1, mm=(0, 0, 2.5)), "duplicate-slice"),
        (shift_at(2, mm=(0, 0, 2.5)), "missing-slice"),
        (shift_at(2, mm=(0, 0, 1.0)), "varying-spacing"),
        (put(NumberOfFrames=2, Rows=2), "unsupported"),
        (put(ModalityLUTSequence=[Dataset()]), "unsupported"),
        (put(ImageType=["ORIGINAL", "PRIMARY", "M", "ND", "MOSAIC"]), "missing-geometry"),
        (put(SOPClassUID=DigitalXRayImageStorageForPresentation, Modality="DX"), "not-3d"),
        (put(SOPClassUID=ComputedRadiographyImageStorage, Modality="CR"), "not-3d"),
        (put(SOPClassUID=UltrasoundImageStorage, Modality="US"), "unsupported"),
        (put_at(1, PhotometricInterpretation="RGB", SamplesPerPixel=3, Columns=1), "not-scalar"),
        (put(PhotometricInterpretation="PALETTE COLOR"), "not-scalar"),
        (put_at(1, Rows=400), "unreadable"),
        (put_at(0, PixelData=None), "unreadable"),
    ],
)
def test_refusals(tmp_path: Path, edit: Edit, code: str) -> None:
    write_series(tmp_path, edit=edit)
    assert refused(tmp_path)[0] == code


def test_a_single_slice_is_no_volume(tmp_path: Path) -> None:
    (path,) = write_series(tmp_path, voxels((5, 4, 1)))
    assert refused(path)[0] == "not-3d"
    assert refused(tmp_path)[0] == "not-3d"
    with pytest.raises(GeometryError):
        only(path).load()


def test_sizes_that_differ_are_named(tmp_path: Path) -> None:
    write_series(tmp_path, voxels((5, 4, 2)))
    write_series(tmp_path / "more", voxels((5, 6, 1)), lps_affine(origin=(-30, 12, 106.5)))
    code, reason = refused(tmp_path)
    assert code == "mixed-size"
    assert "5x4" in reason
    assert "5x6" in reason


def test_a_compression_without_codec_is_unsupported(tmp_path: Path) -> None:
    from pydicom.uid import MPEG2MPML

    def edit(dataset: Dataset, index: int) -> None:
        dataset.file_meta.TransferSyntaxUID = MPEG2MPML

    write_series(tmp_path, syntax=RLELossless, edit=edit)
    code, reason = refused(tmp_path)
    assert code == "unsupported"
    assert "MPEG2" in reason


# damage


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, RLELossless, JPEG2000Lossless])
def test_a_file_cut_short_refuses_its_series(tmp_path: Path, syntax: Any) -> None:
    paths = write_series(tmp_path, voxels((40, 37, 3)), syntax=syntax)
    raw = paths[1].read_bytes()
    paths[1].write_bytes(raw[: len(raw) - 40])
    code, reason = refused(tmp_path)
    assert code == "unreadable"
    assert reason.startswith("IM001.dcm: ")
    assert "cut short" in reason


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, JPEGLSLossless, DeflatedExplicitVRLittleEndian])
def test_cut_anywhere_is_never_usable_and_never_a_crash(tmp_path: Path, syntax: Any) -> None:
    paths = write_series(tmp_path, voxels((9, 7, 2)), syntax=syntax)
    raw = paths[1].read_bytes()
    # A deflated file may end in one byte of padding that nobody misses.
    for length in [*range(0, len(raw) - 8, 37), len(raw) - 2]:
        paths[1].write_bytes(raw[:length])
        study = find(tmp_path)
        assert study.candidates
        assert not any(candidate.usable for candidate in study.candidates), length
        assert "unreadable" in {candidate.code for candidate in study.candidates}, length


def test_junk_is_never_a_crash(tmp_path: Path) -> None:
    rng = np.random.default_rng(5)
    (path, *_) = write_series(tmp_path, voxels((9, 7, 2)))
    raw = np.frombuffer(path.read_bytes(), np.uint8)
    for _ in range(60):
        damaged = raw.copy()
        where = rng.integers(132, len(raw) - 126, size=8)
        damaged[where] = rng.integers(0, 256, size=8)
        path.write_bytes(damaged.tobytes())
        for candidate in find(tmp_path).candidates:
            assert candidate.usable or candidate.code


def test_a_text_file_named_dcm_is_unreadable(tmp_path: Path) -> None:
    path = tmp_path / "notes.dcm"
    path.write_text("not an image at all\n" * 20)
    code, reason = refused(path)
    assert code == "unreadable"
    assert "not a DICOM file" in reason


def test_damaged_compressed_pixels_name_file_and_syntax(tmp_path: Path) -> None:
    paths = write_series(tmp_path, voxels((40, 37, 3)), syntax=JPEG2000Lossless)
    raw = bytearray(paths[2].read_bytes())
    start = raw.index(b"\xff\x4f\xff\x51")
    raw[start : start + 40] = bytes(40)
    paths[2].write_bytes(bytes(raw))
    with pytest.raises(InputError, match=r"IM002\.dcm: pixels can't be decoded \(JPEG 2000") as caught:
        only(tmp_path).load()
    assert caught.value.code == "unreadable"
    assert "\n" not in str(caught.value)


def test_a_file_that_changes_after_it_was_found(tmp_path: Path) -> None:
    paths = write_series(tmp_path)
    candidate = only(tmp_path)
    paths[0].write_bytes(paths[0].read_bytes()[:-10])
    with pytest.raises(InputError, match="changed"):
        candidate.load()


@pytest.mark.parametrize(("keyword", "value"), [("RescaleSlope", 0)])
def test_a_rescale_that_is_none(tmp_path: Path, keyword: str, value: float) -> None:
    write_series(tmp_path, edit=put(**{keyword: value}))
    with pytest.raises(InputError, match="RescaleSlope is 0"):
        only(tmp_path).load()


# what is no scan


@pytest.mark.parametrize(
    ("edit", "reason"),
    [
        (put(SOPClassUID=SecondaryCaptureImageStorage), "secondary capture"),
        (put(SOPClassUID=SegmentationStorage), "segmentation"),
        (put(ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"]), "localizer"),
        (put(SOPClassUID="1.2.840.10008.5.1.4.1.1.481.3", PixelData=None), "RT Structure Set"),
        (put(SOPClassUID="1.2.840.10008.5.1.4.1.1.88.22", PixelData=None), "Enhanced SR"),
        (put(SOPClassUID="1.2.840.10008.5.1.4.1.1.104.1", PixelData=None), "Encapsulated PDF"),
        (put(SOPClassUID="1.2.840.10008.5.1.4.1.1.11.1", PixelData=None), "Presentation State"),
    ],
)
def test_what_is_no_scan_is_ignored_with_its_kind(tmp_path: Path, edit: Edit, reason: str) -> None:
    def both(dataset: Dataset, index: int) -> None:
        edit(dataset, index)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID

    write_series(tmp_path, edit=both)
    study = find(tmp_path)
    assert study.candidates == ()
    assert len(study.ignored) == 3
    assert all(reason in item.reason for item in study.ignored)


def test_derived_secondary_in_the_image_type_is_no_reason(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put(ImageType=["DERIVED", "SECONDARY", "AXIAL"]))
    assert only(tmp_path).usable


# one series, several volumes; several series, one UID


def second_echo(folder: Path, **values: object) -> None:
    def edit(dataset: Dataset, index: int) -> None:
        put(**({"EchoTime": 92.0, "InstanceNumber": 10 + index} | values))(dataset, index)
        dataset.SOPInstanceUID = generate_uid(entropy_srcs=["second", str(index)])
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID

    write_series(folder / "second", voxels() + np.int16(500), edit=edit)


def test_echoes_are_candidates_of_their_own(tmp_path: Path) -> None:
    write_series(tmp_path / "first", edit=put(EchoTime="4.60"))
    second_echo(tmp_path)
    short, long = find(tmp_path).candidates
    assert short.name.removesuffix("-te4.6") == long.name.removesuffix("-te92")
    assert short.series_uid == long.series_uid
    assert (len(short.files), len(long.files)) == (3, 3)
    assert "one of 2 volumes in its series, told apart by EchoTime" in short.notes
    assert_array_equal(short.load().array, voxels())
    assert_array_equal(long.load().array, voxels() + 500)


def test_patients_who_were_given_one_uid_are_not_mixed(tmp_path: Path) -> None:
    write_series(tmp_path)
    second_echo(tmp_path, PatientID="ID-18", EchoTime="4.60")
    names = {candidate.name for candidate in find(tmp_path).candidates if candidate.usable}
    assert len(names) == 2
    assert not any("ID" in name for name in names)


def test_a_copy_under_another_file_meta_is_a_copy(tmp_path: Path) -> None:
    first, *_ = write_series(tmp_path)
    again = pydicom.dcmread(first)
    again.file_meta.ImplementationVersionName = "OTHER"
    again.file_meta.SourceApplicationEntityTitle = "ELSEWHERE"
    again.save_as(tmp_path / "again", enforce_file_format=True)
    study = find(tmp_path)
    assert [item.reason for item in study.ignored] == [f"a copy of {min(first.name, 'again')}"]
    assert study.candidates[0].usable


def test_another_image_under_the_same_uid_is_no_copy(tmp_path: Path) -> None:
    first, *_ = write_series(tmp_path)
    again = pydicom.dcmread(first)
    again.PixelData = again.PixelData[::-1]
    again.save_as(tmp_path / "again", enforce_file_format=True)
    assert refused(tmp_path)[0] == "duplicate-slice"


def test_objects_say_which_series_they_refer_to(tmp_path: Path) -> None:
    write_series(tmp_path / "scan")
    images = [pydicom.dcmread(path) for path in sorted((tmp_path / "scan").iterdir())]
    save(segmentation(images, [voxels() > 10]), tmp_path / "seg.dcm")
    study = find(tmp_path)
    (candidate,) = study.candidates
    (item,) = study.ignored
    assert item.reason == f"DICOM segmentation, no scan; refers to {candidate.name}"
    (alone,) = find(tmp_path / "seg.dcm").ignored
    assert alone.reason == "DICOM segmentation, no scan; refers to 1 series that is not here"


def test_cardiac_phases_are_told_apart_by_their_share_of_the_cycle(tmp_path: Path) -> None:
    for phase in range(3):
        write_series(
            tmp_path / str(phase),
            voxels() + np.int16(1000 * phase),
            seed=str(phase),
            edit=put(NominalPercentageOfCardiacPhase=30.0 * phase, SeriesInstanceUID="1.2.3", SeriesDescription="x"),
        )
    found = find(tmp_path).candidates
    assert [candidate.name.rpartition("-")[2] for candidate in found] == ["phase0", "phase30", "phase60"]
    for phase, candidate in enumerate(found):
        assert_array_equal(candidate.load().array, voxels() + np.int16(1000 * phase))


def test_files_of_one_name_are_named_with_their_folders(tmp_path: Path) -> None:
    for folder in ("a/x", "b/x"):
        write_series(tmp_path / folder, edit=put(InstanceNumber=None, SeriesDescription=folder))
    (candidate,) = find(tmp_path).candidates
    assert candidate.code == "duplicate-slice"
    assert str(candidate.reason).startswith(
        "a/x/IM000.dcm and b/x/IM000.dcm are two images at one position, differing in SeriesDescription;"
    )


@pytest.mark.parametrize(
    "keywords",
    [["SeriesInstanceUID"], ["StudyInstanceUID"], ["PatientID"], ["SeriesInstanceUID", "FrameOfReferenceUID"]],
)
def test_slices_that_lost_their_series_are_one_message(tmp_path: Path, keywords: list[str]) -> None:
    """An anonymiser that treats each file by itself gives each another UID, or another patient."""

    def edit(dataset: Dataset, index: int) -> None:
        for keyword in keywords:
            setattr(dataset, keyword, f"1.2.3.{index + 1}")

    write_series(tmp_path, voxels((5, 4, 6)), edit=edit)
    (candidate,) = find(tmp_path).candidates
    assert (candidate.code, len(candidate.files), candidate.path) == ("not-3d", 6, tmp_path)
    assert str(candidate.reason).startswith(
        f"6 images that make one volume, each with {' and '.join(keywords)} of its own"
    )
    with pytest.raises(RefusalError, match="anonymise the series anew"):
        candidate.load()


def test_single_images_that_make_no_volume_stay_apart(tmp_path: Path) -> None:
    """Scouts, and images of several patients at one place."""
    for index in range(5):
        write_series(tmp_path / "all", voxels((5, 4, 1)), seed=str(index), name=f"{index}.dcm".format)
    assert [candidate.reason for candidate in find(tmp_path).candidates] == [
        "a single slice; give the folder that holds the whole series"
    ] * 5
