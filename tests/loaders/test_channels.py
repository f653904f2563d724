"""Several images as the channels of one case: by file names, and by a recipe's rules in a study."""

from __future__ import annotations

import hashlib
import pickle
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK
from numpy.testing import assert_allclose, assert_array_equal

from tests.helpers.dicom_files import Array, lps_affine, put, rotation, sheared, voxels, write_series
from volseg.config import ChannelConfig
from volseg.errors import GeometryError, InputError
from volseg.geometry import ras_from_lps
from volseg.loaders import Candidate, find
from volseg.loaders.channels import compose, from_study
from volseg.text import digest8

SHAPE = (12, 10, 8)


def rules(*names: str, **more: Any) -> tuple[ChannelConfig, ...]:
    """Channels that are found by their names in the description."""
    return tuple(ChannelConfig(name=name, modalities=("MR",), description=name, **more) for name in names)


def only(candidates: list[Candidate]) -> Candidate:
    (candidate,) = candidates
    return candidate


def names(candidates: list[Candidate] | tuple[Candidate, ...]) -> list[str]:
    return [candidate.description for candidate in candidates]


# files


def write_file(path: Path, offset: int = 0, spacing: float = 1.0) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    nib.save(nib.Nifti1Image(voxels() + np.int16(offset), np.diag([spacing, 1, 2, 1])), path)
    return path


def of_files(folder: Path, channels: int) -> list[Candidate]:
    return list(find(folder, channels=rules(*"abcd"[:channels])).candidates)


def test_files_of_one_case_are_its_channels(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0001.nii.gz", 1000)
    write_file(tmp_path / "brain_0000.nii")
    write_file(tmp_path / "other.nii.gz")
    brain, other = of_files(tmp_path, 2)
    assert (other.name, other.parts) == ("other", ())
    assert (brain.name, brain.channels, brain.usable) == ("brain", 2, True)
    assert [path.name for path in brain.files] == ["brain_0000.nii", "brain_0001.nii.gz"]
    volume = brain.load()
    assert_array_equal(volume.array, np.stack([voxels(), voxels() + 1000]))
    assert volume.array.dtype == np.int16
    assert (volume.source.name, volume.source.kind) == ("brain", "nifti")
    assert volume.source.nifti is not None
    digests = [hashlib.sha256(path.read_bytes()).hexdigest() for path in brain.files]
    assert volume.source.sha256 == hashlib.sha256("\n".join(digests).encode()).hexdigest()


def test_files_of_different_formats_are_one_case(tmp_path: Path) -> None:
    """The same grid and voxels, as SimpleITK writes them: LPS in its formats, RAS in NIfTI."""
    image = SimpleITK.GetImageFromArray(voxels().T)
    image.SetSpacing((0.7, 0.9, 2.5))
    image.SetDirection(rotation(12, -31, 7).ravel())
    for number, ending in enumerate(("nii.gz", "nrrd", "MHA")):
        SimpleITK.WriteImage(image + number, tmp_path / f"brain_000{number}.{ending}")
    case = only(of_files(tmp_path, 3))
    assert (case.name, case.kind, case.reason) == ("brain", "nifti", None)
    assert [part.kind for part in case.parts] == ["nifti", "nrrd", "metaimage"]
    assert_array_equal(case.load().array, np.stack([voxels(), voxels() + 1, voxels() + 2]))


def test_cases_of_different_folders_are_different(tmp_path: Path) -> None:
    for folder in ("p1", "p2"):
        write_file(tmp_path / folder / "x_0000.nii")
        write_file(tmp_path / folder / "x_0001.nii")
    assert [case.channels for case in of_files(tmp_path, 2)] == [2, 2]


def test_with_one_channel_they_are_cases_of_their_own(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0000.nii.gz")
    write_file(tmp_path / "brain_0001.nii.gz")
    for channels in (0, 1):
        assert [case.name for case in of_files(tmp_path, channels)] == ["brain_0000", "brain_0001"]


def test_a_long_name_keeps_its_number(tmp_path: Path) -> None:
    stem = "x" * 120
    write_file(tmp_path / f"{stem}_0000.nii")
    write_file(tmp_path / f"{stem}_0001.nii")
    assert only(of_files(tmp_path, 2)).name == "x" * 80


def test_an_absent_channel_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0000.nii.gz")
    write_file(tmp_path / "brain_0002.nii.gz")
    case = only(of_files(tmp_path, 3))
    assert (case.name, case.code, case.usable) == ("brain", "channels", False)
    assert case.reason == (
        "case brain has brain_0000.nii.gz, brain_0002.nii.gz; needed is one file each of 0000, 0001, 0002"
    )
    with pytest.raises(InputError):
        case.load()


def called(folder: Path, *channels: str) -> dict[str, list[str]]:
    """Files of each case that is usable, for a model with these channels."""
    found = find(folder, channels=rules(*channels)).candidates
    return {case.name: [path.name for path in case.files] for case in found if case.usable}


def test_files_called_after_the_channels_are_one_case(tmp_path: Path) -> None:
    """In whatever case of the letters, and with a dash or an underscore."""
    for name in ("p_1_PET.nii", "p_1_ct.nii.gz", "p-2-CT.nii", "p-2_pet.nii", "deep/p_1_CT.nii", "p_1_CTres.nii"):
        write_file(tmp_path / name)
    found = find(tmp_path, channels=rules("CT", "PET")).candidates
    assert [(case.name, case.channels, case.usable) for case in found if case.usable] == [
        ("p-2", 2, True),
        ("p_1_CTres", 1, True),
        ("p_1-" + digest8(["p_1_ct.nii.gz"]), 2, True),
    ]
    assert [path.name for path in found[1].files] == ["p-2-CT.nii", "p-2_pet.nii"]
    absent = found[0]
    assert (absent.path, absent.code) == (tmp_path / "deep" / "p_1_CT.nii", "channels")
    assert absent.reason == "case p_1 has p_1_CT.nii; needed is one file each of ct, pet"


def test_of_two_channels_the_longer_name_counts(tmp_path: Path) -> None:
    for name in ("x_T1.nii", "x_fat_T1.nii"):
        write_file(tmp_path / name)
    assert called(tmp_path, "T1", "fat_T1") == {"x": ["x_T1.nii", "x_fat_T1.nii"]}


@pytest.mark.parametrize("channels", [("MR", "mr"), ("T1", "t1n")])
def test_channels_of_one_name_are_found_by_number_alone(tmp_path: Path, channels: tuple[str, str]) -> None:
    for name in ("x_MR.nii", "x_t1.nii", "x_t1n.nii", "y_0000.nii", "y_0001.nii"):
        write_file(tmp_path / name)
    files = called(tmp_path, *channels)
    assert files.pop("y") == ["y_0000.nii", "y_0001.nii"]
    assert files == {name: [f"{name}.nii"] for name in ("x_MR", "x_t1", "x_t1n")}


def test_a_second_file_of_a_channel_stays_alone(tmp_path: Path) -> None:
    for name in ("x_CT.nii", "x_CT.nii.gz", "x_PET.nii"):
        write_file(tmp_path / name)
    assert called(tmp_path, "CT", "PET") == {"x": ["x_CT.nii", "x_PET.nii"], "x_CT": ["x_CT.nii.gz"]}


NOW, THEN = ("t1n", "t1c", "t2w", "t2f"), ("t1", "t1ce", "t2", "flair")


def write_brats(folder: Path) -> None:
    """A case as BraTS names it since 2023, and one as it did before."""
    for name in (*(f"x/x-{each}.nii.gz" for each in (*NOW, "seg")), *(f"y/y_{each}.nii" for each in (*THEN, "seg"))):
        write_file(folder / name)


@pytest.mark.parametrize("channels", [("T1n", "T1c", "T2w", "T2f"), ("t1", "T1ce", "t2", "FLAIR")])
def test_cases_of_brats(tmp_path: Path, channels: tuple[str, ...]) -> None:
    """A model trained on either names takes both; the labels beside are no scans."""
    write_brats(tmp_path)
    assert called(tmp_path, *channels) == {
        "x": [f"x-{each}.nii.gz" for each in NOW],
        "y": [f"y_{each}.nii" for each in THEN],
    }
    study = find(tmp_path, channels=rules(*channels))
    assert len(study.candidates) == 2
    assert [(item.path.name, item.reason) for item in study.ignored] == [
        ("x-seg.nii.gz", "labels of x-t1n.nii.gz"),
        ("y_seg.nii", "labels of y_t1.nii"),
    ]


@pytest.mark.parametrize(("channels", "of_x"), [(("flair",), ["t2f"]), (("T2f", "T1c"), ["t2f", "t1c"])])
def test_a_model_for_some_of_brats_sequences_takes_no_other(
    tmp_path: Path, channels: tuple[str, ...], of_x: list[str]
) -> None:
    """By itself a T2 would be a scan like any other for a model of one channel: its mask would be nonsense."""
    write_brats(tmp_path)
    study = find(tmp_path, channels=rules(*channels))
    assert len(study.candidates) == 2
    assert [path.name for path in study.candidates[0].files] == [f"x-{each}.nii.gz" for each in of_x]
    assert {item.path.name: item.reason for item in study.ignored}["x-t1n.nii.gz"] == "t1n isn't a channel of the model"
    assert len(study.ignored) == 2 * (5 - len(channels))
    (tmp_path / "x" / "x-t2f.nii.gz").unlink()
    refused = find(tmp_path, channels=rules(*channels)).candidates[0]
    assert (refused.name, refused.code) == ("x", "channels")


def test_the_volume_of_one_sequence_has_no_axis_of_channels(tmp_path: Path) -> None:
    write_file(tmp_path / "x_flair.nii", 7)
    (case,) = find(tmp_path, channels=rules("T2f")).candidates
    volume = case.load()
    assert_array_equal(volume.array, voxels() + 7)
    assert (case.name, case.parts, volume.channels) == ("x_flair", (), 1)


def test_files_on_different_grids_are_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0000.nii.gz")
    write_file(tmp_path / "brain_0001.nii.gz", spacing=1.5)
    case = only(of_files(tmp_path, 2))
    assert (case.code, case.usable) == ("grid-mismatch", False)
    assert case.reason is not None
    assert case.reason.startswith("brain_0001.nii.gz doesn't lie on the grid of brain_0000.nii.gz (voxel centres up to")


def test_a_damaged_channel_refuses_the_case(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0000.nii.gz")
    (tmp_path / "brain_0001.nii.gz").write_bytes(b"junk")
    case = only(of_files(tmp_path, 2))
    assert case.code == "unreadable"
    assert case.reason is not None
    assert case.reason.startswith("brain_0001.nii.gz: ")


def test_a_channel_that_is_damaged_later_is_named(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0000.nii")
    second = write_file(tmp_path / "brain_0001.nii.gz")
    case = only(of_files(tmp_path, 2))
    second.write_bytes(second.read_bytes()[:-20])
    with pytest.raises(InputError, match=r"brain_0000\.nii: brain_0001\.nii\.gz: ") as caught:
        case.load()
    assert caught.value.code == "unreadable"


def test_a_channel_that_holds_channels_is_refused(tmp_path: Path) -> None:
    write_file(tmp_path / "brain_0000.nii")
    nib.save(nib.Nifti1Image(np.zeros((5, 4, 3, 2), np.int16), np.diag([1.0, 1, 2, 1])), tmp_path / "brain_0001.nii")
    case = only(of_files(tmp_path, 2))
    assert (case.code, case.reason) == ("channels", "brain_0001.nii holds 2 channels itself; give one a file")


def test_two_files_of_one_channel(tmp_path: Path) -> None:
    for name in ("brain_0000.nii", "brain_0000.nii.gz", "brain_0001.nii"):
        write_file(tmp_path / name)
    case, single = of_files(tmp_path, 2)
    assert (single.channels, case.channels) == (1, 2)
    assert [path.name for path in case.files] == ["brain_0000.nii", "brain_0001.nii"]


# series


def write(folder: Path, seed: str, array: Array | None = None, affine: Array | None = None, **tags: Any) -> Array:
    """A series whose description is `seed`, in a folder of that name."""
    if array is None:
        array = np.random.default_rng(len(seed)).integers(-50, 300, SHAPE).astype(np.int16)
    write_series(folder / seed, array, affine, seed=seed, edit=put(**tags) if tags else None)
    return array


def of_study(folder: Path, *channels: ChannelConfig) -> list[Candidate]:
    return from_study(find(folder).candidates, channels)


def test_series_that_the_rules_name_are_one_case(tmp_path: Path) -> None:
    t1, flair = write(tmp_path, "T1 post"), write(tmp_path, "FLAIR dark")
    write(tmp_path, "T2")
    left, case = of_study(tmp_path, *rules("t1", "^FLAIR"))
    assert (left.description, left.parts) == ("T2", ())
    assert (case.name, case.description) == (case.parts[0].name, "T1 post")
    assert (case.usable, case.channels, len(case.files)) == (True, 2, 2 * SHAPE[2])
    assert names(case.parts) == ["T1 post", "FLAIR dark"]
    assert case.notes == (f"channels: {case.parts[0].name}, {case.parts[1].name}",)
    volume = case.load()
    assert_array_equal(volume.array, np.stack([t1, flair]))
    assert volume.array.dtype == np.int16
    assert volume.source.dicom is not None
    assert volume.source.dicom.series_uid == case.series_uid == case.parts[0].series_uid
    digests = "\n".join(part.load().source.sha256 for part in case.parts)
    assert volume.source.sha256 == hashlib.sha256(digests.encode()).hexdigest()


def test_the_order_is_that_of_the_channels(tmp_path: Path) -> None:
    t1, flair = write(tmp_path, "T1"), write(tmp_path, "FLAIR")
    case = only(of_study(tmp_path, *rules("FLAIR", "T1")))
    assert case.description == "FLAIR"
    assert_array_equal(case.load().array, np.stack([flair, t1]))


def test_by_sequence_and_by_modality(tmp_path: Path) -> None:
    write(tmp_path, "a", SequenceName="*tfl3d1", ProtocolName="head")
    write(tmp_path, "b", ScanningSequence=["SE", "IR"], SequenceVariant="SK")
    write(tmp_path, "c", Modality="CT")
    found = of_study(
        tmp_path,
        ChannelConfig(name="T1", modalities=("MR",), sequence="head.*TFL"),
        ChannelConfig(name="FLAIR", modalities=("MR",), sequence=r"\bIR\b"),
        ChannelConfig(name="CT", modalities=("CT",)),
    )
    assert names(only(found).parts) == ["a", "b", "c"]


def test_all_rules_of_a_channel_must_fit(tmp_path: Path) -> None:
    write(tmp_path, "T1", SequenceName="se")
    write(tmp_path, "T2", SequenceName="se")
    none = ChannelConfig(name="T1", modalities=("MR",), description="T1", sequence="tfl")
    assert len(of_study(tmp_path, none, *rules("T2"))) == 2
    other = ChannelConfig(name="T1", modalities=("CT",), description="T1")
    assert len(of_study(tmp_path, other, *rules("T2"))) == 2


def test_a_study_that_lacks_a_channel_stays_as_it_is(tmp_path: Path) -> None:
    write(tmp_path, "T1")
    write(tmp_path, "T2")
    before = find(tmp_path).candidates
    assert from_study(before, rules("T1", "FLAIR")) == list(before)
    assert from_study(before, rules("T1")) == list(before)


def test_each_study_is_a_case(tmp_path: Path) -> None:
    for study in ("1.2.3", "1.2.4"):
        for seed in ("T1", "T2"):
            write(tmp_path / study, seed, StudyInstanceUID=study, SeriesInstanceUID=f"{study}.{len(seed)}{seed[1]}")
    cases = of_study(tmp_path, *rules("T1", "T2"))
    assert [{part.study_uid for part in case.parts} for case in cases] == [{"1.2.3"}, {"1.2.4"}]


def test_series_without_a_study_uid_are_not_put_together(tmp_path: Path) -> None:
    """Two patients' anonymised series may lie in one folder and on one grid."""
    write(tmp_path, "T1", StudyInstanceUID="")
    write(tmp_path, "T2", StudyInstanceUID="")
    assert [case.parts for case in of_study(tmp_path, *rules("T1", "T2"))] == [(), ()]


def test_several_series_for_one_channel_are_refused(tmp_path: Path) -> None:
    for seed in ("T1 pre", "T1 post", "T2"):
        write(tmp_path, seed)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code, case.channels) == (False, "channels", 2)
    assert case.reason is not None
    assert "several series fit channel T1: MR-3-T1_" in case.reason
    assert "MR-3-T1_pre-" in case.reason
    assert "MR-3-T1_post-" in case.reason
    assert "MR-3-T2" not in case.reason
    assert case.reason.endswith("name one series for each of T1, T2, in this order, with --series")
    assert sorted(names(case.parts)) == ["T1 post", "T1 pre", "T2"]
    with pytest.raises(InputError, match="several series fit channel T1"):
        case.load()


def test_one_series_for_several_channels_is_refused(tmp_path: Path) -> None:
    write(tmp_path, "T1T2")
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code, case.channels) == (False, "channels", 2)
    assert case.reason is not None
    assert case.reason.startswith("MR-3-T1T2-")


def test_a_series_that_can_t_be_used_refuses_the_case_unless_another_fits(tmp_path: Path) -> None:
    write(tmp_path, "T1")
    write(tmp_path, "T2")
    (tmp_path / "T2" / "IM003.dcm").unlink()
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code) == (False, "missing-slice")
    assert case.reason is not None
    assert case.reason.startswith("MR-3-T2-")
    write(tmp_path, "T2 again")
    left, case = of_study(tmp_path, *rules("T1", "T2"))
    assert (left.code, case.usable) == ("missing-slice", True)
    assert names(case.parts) == ["T1", "T2 again"]


def test_candidates_are_plain_values(tmp_path: Path) -> None:
    write(tmp_path, "T1")
    write(tmp_path, "T2")
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    copy: Candidate = pickle.loads(pickle.dumps(case))
    assert_array_equal(copy.load().array, case.load().array)
    assert case.as_json(tmp_path)["files"] == 2 * SHAPE[2]


# series on other grids

FIRST = lps_affine((1.0, 1.2, 2.0), (-30.0, 12.0, 101.5), rotation(4, -3, 10))


def around(affine: Array, spacing: tuple[float, float, float], angles: tuple[float, float, float]) -> Array:
    """A grid of `SHAPE`, turned, whose centre is that of `affine`'s."""
    middle = (np.array(SHAPE) - 1) / 2
    other = lps_affine(spacing, (0, 0, 0), rotation(*angles))
    other[:3, 3] = (affine @ [*middle, 1])[:3] - other[:3, :3] @ middle
    return other


def itk_image(array: Array, affine: Array) -> SimpleITK.Image:
    image = SimpleITK.GetImageFromArray(array.astype(np.float32).T)
    spacing = np.linalg.norm(affine[:3, :3], axis=0)
    image.SetSpacing(spacing)
    image.SetOrigin(affine[:3, 3])
    image.SetDirection((affine[:3, :3] / spacing).ravel())
    return image


def test_others_are_put_onto_the_first_ones_grid(tmp_path: Path) -> None:
    other = around(FIRST, (0.9, 1.1, 2.5), (-5, 2, -20))
    t1 = write(tmp_path, "T1", affine=FIRST)
    t2 = write(tmp_path, "T2", affine=other)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert case.usable
    volume = case.load()
    assert_allclose(volume.geometry.affine, ras_from_lps(FIRST), atol=1e-6)
    assert volume.array.dtype == np.float32
    assert_array_equal(volume.array[0], t1)
    expected = SimpleITK.Resample(
        itk_image(t2, other), itk_image(t1, FIRST), SimpleITK.Transform(), SimpleITK.sitkLinear, float(t2.min())
    )
    assert_allclose(volume.array[1], SimpleITK.GetArrayFromImage(expected).T, atol=1e-2)
    share = (SimpleITK.GetArrayFromImage(expected) != t2.min()).mean()
    (note,) = (note for note in case.notes if "resampled" in note)
    name, t1_name = case.parts[1].name, case.parts[0].name
    assert note.startswith(f"{name}: resampled onto the grid of {t1_name}, of which it covers ")
    stated = float(note.split("covers ")[1].split("%")[0]) / 100
    assert 0.5 < share < 1
    assert stated == pytest.approx(share, abs=0.03)
    assert note.endswith(", the rest has its lowest value")
    assert volume.source.notes == case.notes


def test_a_channel_that_covers_all_of_the_grid(tmp_path: Path) -> None:
    write(tmp_path, "T1", affine=FIRST)
    write(tmp_path, "T2", affine=around(FIRST, (2.0, 2.0, 3.0), (0, 5, 0)))
    (note,) = (note for note in only(of_study(tmp_path, *rules("T1", "T2"))).notes if "resampled" in note)
    assert note.endswith("of which it covers 100%")


@pytest.mark.parametrize(("mm", "stated"), [(9.0, "44%"), (500.0, "0%")])
def test_a_channel_that_covers_too_little_is_refused(tmp_path: Path, mm: float, stated: str) -> None:
    """Of 16 mm along k, 9 mm off leaves 7."""
    other = FIRST.copy()
    other[:3, 3] += mm * FIRST[:3, 2] / 2.0
    write(tmp_path, "T1", affine=FIRST)
    write(tmp_path, "T2", affine=other)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code) == (False, "grid-mismatch")
    assert case.reason is not None
    assert f"{case.parts[1].name} doesn't lie on the grid of {case.parts[0].name}" in case.reason
    assert f"covers {stated} of it; needed are 50%" in case.reason


@pytest.mark.parametrize(("frame", "code"), [("1.2.3", "mixed-frame"), ("", "grid-mismatch")])
def test_another_frame_of_reference_is_refused_on_another_grid_alone(tmp_path: Path, frame: str, code: str) -> None:
    write(tmp_path, "T1", affine=FIRST)
    write(tmp_path, "T2", affine=around(FIRST, (0.9, 1.1, 2.5), (0, 0, 0)), FrameOfReferenceUID=frame)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code) == (False, code)
    assert case.reason is not None
    assert case.parts[0].name in case.reason
    assert case.parts[1].name in case.reason
    with pytest.raises(GeometryError):
        case.load()
    write(tmp_path, "T2", affine=FIRST, FrameOfReferenceUID=frame)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert case.usable
    assert bool([note for note in case.notes if "another frame of reference" in note]) == bool(frame)


def test_tilted_channels_need_the_option(tmp_path: Path) -> None:
    leaning = sheared(FIRST, 10)
    t1, t2 = write(tmp_path, "T1", affine=leaning), write(tmp_path, "T2", affine=leaning)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code) == (False, "tilted")
    with pytest.raises(GeometryError, match="--resample-tilt"):
        case.load()
    volume = case.load(resample_tilt=True)
    assert volume.source.stored is not None
    assert_allclose(volume.source.stored.affine, ras_from_lps(leaning), atol=1e-6)
    alone = [part.load(resample_tilt=True) for part in case.parts]
    assert_array_equal(volume.array, np.stack([single.array for single in alone]))
    assert (t1.min(), t2.min()) == (volume.array[0].min(), volume.array[1].min())


def test_a_tilted_channel_beside_a_straight_one(tmp_path: Path) -> None:
    """A ramp in space is that ramp on any grid: 3 x - 2 y + 5 z."""
    places = np.stack(np.meshgrid(*map(np.arange, SHAPE), indexing="ij"), -1)

    def ramp(affine: Array) -> Array:
        return np.asarray((places @ affine[:3, :3].T + affine[:3, 3]) @ np.array([3.0, -2.0, 5.0]))

    leaning = sheared(FIRST, -8)
    write(tmp_path, "T1", affine=FIRST)
    write(tmp_path, "T2", np.round(ramp(leaning)).astype(np.int16), affine=leaning)
    case = only(of_study(tmp_path, *rules("T1", "T2")))
    assert (case.usable, case.code) == (False, "tilted")
    volume = case.load(resample_tilt=True)
    assert volume.source.stored is None
    # Inside both, by more than what the lean moves the outermost slices.
    middle = np.s_[1:-1, 3:-3, 1:-1]
    assert_allclose(volume.array[1][middle], ramp(FIRST)[middle], atol=1)


def test_series_are_composed_by_hand(tmp_path: Path) -> None:
    write(tmp_path, "a")
    write(tmp_path, "b")
    a, b = find(tmp_path).candidates
    assert compose([b, a]).name == b.name
    assert_array_equal(compose([b, a]).load().array, np.stack([b.load().array, a.load().array]))


# the real data


def test_the_real_study(shared_data: Path) -> None:
    found = from_study(
        find(shared_data / "dicom" / "study1").candidates, rules("T1post", "T1pre_reg", "flair_REG", "T2_reg")
    )
    crop, case = sorted(found, key=lambda candidate: len(candidate.parts))
    assert crop.description == "HippoCrop"
    assert names(case.parts) == ["T1post", "T1pre_reg", "FLAIR_reg", "T2_reg"]
    assert case.usable
    volume = case.load()
    assert volume.array.shape == (4, 512, 512, 22)
    for channel, part in enumerate(case.parts):
        assert part.geometry is not None
        assert part.geometry.same_grid(volume.geometry)
        assert_array_equal(volume.array[channel], part.load().array)
    assert len({array.tobytes() for array in volume.array}) == 4


def test_the_number_of_the_only_channel_is_no_part_of_a_case_s_name(tmp_path: Path) -> None:
    for name in ("a_0000", "b_0000", "b_0001", "c_0000", "c", "d_0001", "e"):
        write_file(tmp_path / f"{name}.nii.gz")
    # What would be two cases of one name, or may be numbers of cases, stays.
    expected = ["a", "b_0000", "b_0001", "c", "c_0000", "d_0001", "e"]
    assert sorted(each.name for each in of_files(tmp_path, 1)) == expected
    assert {each.name for each in find(tmp_path).candidates} >= {"a_0000", "b_0000"}
