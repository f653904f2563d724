from __future__ import annotations

import gzip
import hashlib
import zipfile
from contextlib import suppress
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import volseg
from volseg.errors import InputError, RefusalError
from volseg.geometry import ORIENTATIONS
from volseg.loaders import Candidate, find, load, packing
from volseg.loaders.formats import NIFTI, nifti
from volseg.volume import LabelVolume

AFFINE = np.array([[-0.5, 0, 0, 11], [0, 0.75, 0, -7], [0, 0, 3, 5], [0, 0, 0, 1.0]])


def voxels(shape: tuple[int, ...] = (5, 4, 3), dtype: Any = np.int16) -> Any:
    return np.arange(np.prod(shape)).reshape(shape).astype(dtype)


def image(array: Any = None, affine: Any = AFFINE, kind: Any = nib.Nifti1Image, **codes: int) -> Any:
    array = voxels() if array is None else array
    made = kind(array, affine, dtype=array.dtype)
    made.set_sform(affine, codes.get("sform", 2))
    made.set_qform(affine, codes.get("qform", 1))
    made.header.set_xyzt_units("mm", "sec")
    return made


def patched(path: Path, offset: int, content: bytes) -> None:
    """Overwrite bytes of the header."""
    raw = bytearray(path.read_bytes())
    raw[offset : offset + len(content)] = content
    path.write_bytes(bytes(raw))


def only(path: Path) -> Candidate:
    (candidate,) = find(path).candidates
    return candidate


def refused(path: Path) -> tuple[str, str]:
    candidate = only(path)
    assert not candidate.usable
    with pytest.raises(RefusalError) as caught:
        candidate.load()
    assert (caught.value.code, caught.value.reason) == (candidate.code, candidate.reason)
    assert "\n" not in str(caught.value)
    assert str(caught.value).startswith(str(path))
    return str(candidate.code), str(candidate.reason)


# what comes out


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_every_orientation(tmp_path: Path, orientation: str) -> None:
    turn = nib.orientations.axcodes2ornt(orientation)
    base = nib.Nifti1Image(voxels(), AFFINE)
    ornt = nib.orientations.ornt_transform(nib.io_orientation(AFFINE), turn)
    turned = base.as_reoriented(ornt)
    nib.save(image(np.asarray(turned.dataobj), turned.affine), tmp_path / "x.nii.gz")
    volume = load(tmp_path / "x.nii.gz")
    assert volume.geometry.orientation == orientation
    assert_allclose(volume.geometry.affine, turned.affine, atol=1e-5)
    assert_array_equal(volume.array, np.asarray(turned.dataobj))
    assert only(tmp_path).notes == ()


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_both_versions_compressed_or_not(tmp_path: Path, kind: Any, suffix: str) -> None:
    path = tmp_path / f"scan{suffix}"
    nib.save(image(kind=kind), path)
    volume = load(path)
    assert_array_equal(volume.array, voxels())
    assert_allclose(volume.geometry.affine, AFFINE)
    assert volume.source.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_wrong_suffix_changes_nothing(tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "a.nii.gz")
    (tmp_path / "a.nii.gz").rename(tmp_path / "a.nii")
    assert_array_equal(load(tmp_path / "a.nii").array, voxels())


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.int32, np.int64, np.float32])
def test_types_stay_without_scaling(tmp_path: Path, dtype: Any) -> None:
    nib.save(image(voxels(dtype=dtype)), tmp_path / "x.nii")
    array = load(tmp_path / "x.nii").array
    assert array.dtype == dtype
    assert array.flags.writeable
    assert_array_equal(array, voxels())


def test_doubles_become_floats(tmp_path: Path) -> None:
    nib.save(image(voxels(dtype=np.float64) + 0.1), tmp_path / "x.nii")
    assert load(tmp_path / "x.nii").array.dtype == np.float32


def test_big_endian(tmp_path: Path) -> None:
    made = image()
    swapped = nib.Nifti1Image(voxels().astype(">i2"), AFFINE, made.header.as_byteswapped(">"))
    nib.save(swapped, tmp_path / "x.nii.gz")
    array = load(tmp_path / "x.nii.gz").array
    assert array.dtype == np.int16
    assert array.dtype.isnative
    assert_array_equal(array, voxels())


@pytest.mark.parametrize("dtype", [np.int16, np.int32])
def test_scaling_is_applied(tmp_path: Path, dtype: Any) -> None:
    made = image(voxels(dtype=dtype))
    path = tmp_path / "x.nii"
    nib.save(made, path)
    patched(path, 112, np.array([0.5, -3], "<f4").tobytes())
    array: Any = load(path).array
    assert array.dtype == np.float32
    assert_allclose(array, voxels() * 0.5 - 3)
    assert_allclose(array, nib.load(path).get_fdata())


def test_an_identity_scaling_leaves_integers(tmp_path: Path) -> None:
    nib.save(image(), tmp_path / "x.nii")
    patched(tmp_path / "x.nii", 112, np.array([1, 0], "<f4").tobytes())
    assert load(tmp_path / "x.nii").array.dtype == np.int16


def test_four_axes_are_channels_and_one_frame_is_none(tmp_path: Path) -> None:
    nib.save(image(voxels((5, 4, 3, 2))), tmp_path / "four.nii.gz")
    volume = load(tmp_path / "four.nii.gz")
    assert volume.array.shape == (2, 5, 4, 3)
    assert_array_equal(volume.array[1], voxels((5, 4, 3, 2))[..., 1])
    assert only(tmp_path).channels == 2
    for name, shape in (("one", (5, 4, 3, 1)), ("more", (5, 4, 3, 1, 1))):
        nib.save(image(voxels(shape)), tmp_path / f"{name}.nii.gz")
        assert_array_equal(load(tmp_path / f"{name}.nii.gz").array, voxels())
    nib.save(image(voxels((5, 4, 3, 1, 2))), tmp_path / "vector.nii.gz")  # as ITK writes several components
    assert_array_equal(load(tmp_path / "vector.nii.gz").array, volume.array)


# which transform wins


def test_sform_wins_and_a_conflict_is_noted(tmp_path: Path) -> None:
    made = image()
    other = AFFINE.copy()
    other[0, 3] += 2
    made.set_qform(other, 1)
    nib.save(made, tmp_path / "x.nii.gz")
    candidate = only(tmp_path)
    assert_allclose(candidate.load().geometry.affine, AFFINE)
    assert "sform (code 2) and qform (code 1) differ" in candidate.notes[0]
    assert "2 mm apart" in candidate.notes[0]
    nifti = candidate.load().source.nifti
    assert nifti is not None
    assert (nifti.sform_code, nifti.qform_code, nifti.units) == (2, 1, ("mm", "sec"))
    assert_allclose(np.array(nifti.qform), other, atol=1e-4)


def test_qform_is_used_where_the_sform_s_code_is_0(tmp_path: Path) -> None:
    made = image(sform=0)
    made.header["srow_x"] = [9, 9, 9, 9]
    nib.save(made, tmp_path / "x.nii.gz")
    patched_affine = load(tmp_path / "x.nii.gz").geometry.affine
    assert_allclose(patched_affine, AFFINE, atol=1e-5)


def test_neither_code_is_usable_with_a_note(tmp_path: Path) -> None:
    made = image(affine=np.diag([2.0, 3, 4, 1]))
    made.header["sform_code"] = made.header["qform_code"] = 0
    nib.save(made, tmp_path / "x.nii")
    patched(tmp_path / "x.nii", 252, bytes(4))  # nibabel writes codes of its own
    candidate = only(tmp_path)
    assert candidate.usable
    assert candidate.geometry is not None
    assert candidate.geometry.spacing_mm == (2, 3, 4)
    assert_allclose(candidate.geometry.affine, nib.load(tmp_path / "x.nii").affine)
    assert "orientation isn't stated" in candidate.notes[0]


def test_an_oblique_float32_qform_is_no_conflict(tmp_path: Path) -> None:
    from tests.helpers.dicom_files import rotation

    affine = np.eye(4)
    affine[:3, :3] = rotation(178.9, 1.3, 90.2) * [0.5, 0.5, 0.6]
    affine[:3, 3] = [-120, 90, 33]
    nib.save(image(voxels((60, 50, 40)), affine), tmp_path / "x.nii")
    assert only(tmp_path).notes == ()


def test_a_sheared_affine_is_usable_with_a_note(tmp_path: Path) -> None:
    affine = AFFINE.copy()
    affine[0, 2] = 0.4
    nib.save(image(affine=affine, qform=0), tmp_path / "x.nii")
    assert "sheared" in only(tmp_path).notes[0]
    assert_allclose(load(tmp_path / "x.nii").geometry.affine, affine)


# refusals


@pytest.mark.parametrize(
    ("affine", "word"),
    [(np.zeros((4, 4)), "sform"), (np.full((4, 4), np.nan), "sform"), (np.diag([1.0, 1, 0, 1]), "sform")],
)
def test_an_affine_that_is_none_is_refused_by_name(tmp_path: Path, affine: Any, word: str) -> None:
    path = tmp_path / "x.nii"
    nib.save(image(), path)
    patched(path, 280, affine[:3].astype("<f4").tobytes())
    code, reason = refused(path)
    assert code == "bad-affine"
    assert reason.startswith(word)


def test_a_qform_that_is_none_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    nib.save(image(sform=0), path)
    patched(path, 254, bytes(2))
    patched(path, 80, np.array([0, 0, 0], "<f4").tobytes())
    assert refused(path)[0] == "bad-affine"
    patched(path, 80, np.array([np.nan, 1, 1], "<f4").tobytes())
    assert refused(path)[0] == "bad-affine"
    patched(path, 80, np.array([1, 1, 1], "<f4").tobytes())
    patched(path, 256, np.array([3, 3, 3], "<f4").tobytes())  # no quaternion
    assert refused(path)[0] == "bad-affine"


def test_a_damaged_qform_doesn_t_matter_beside_a_sform(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    nib.save(image(), path)
    patched(path, 256, np.array([3, 3, 3], "<f4").tobytes())
    assert_allclose(load(path).geometry.affine, AFFINE)


def test_other_units_are_refused(tmp_path: Path) -> None:
    made = image()
    made.header.set_xyzt_units("micron")
    nib.save(made, tmp_path / "x.nii")
    code, reason = refused(tmp_path / "x.nii")
    assert code == "bad-affine"
    assert "micron" in reason


@pytest.mark.parametrize("shape", [(5, 4), (5, 4, 1), (1, 4, 3), (5, 4, 3, 2, 2)])
def test_what_has_no_three_axes_is_refused(tmp_path: Path, shape: tuple[int, ...]) -> None:
    nib.save(image(voxels(shape)), tmp_path / "x.nii.gz")
    assert refused(tmp_path / "x.nii.gz")[0] == "not-3d"


def test_colour_and_complex_are_refused(tmp_path: Path) -> None:
    rgb = np.zeros((5, 4, 3), [("R", "u1"), ("G", "u1"), ("B", "u1")])
    nib.save(image(rgb), tmp_path / "rgb.nii")
    code, reason = refused(tmp_path / "rgb.nii")
    assert code == "not-scalar"
    assert "colour" in reason
    nib.save(image(voxels(dtype=np.complex64)), tmp_path / "complex.nii")
    code, reason = refused(tmp_path / "complex.nii")
    assert code == "not-scalar"
    assert "complex" in reason


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_voxels_that_are_no_number_are_counted(tmp_path: Path, bad: float) -> None:
    array = voxels(dtype=np.float32)
    array[1, 2, :2] = bad
    nib.save(image(array), tmp_path / "x.nii")
    with pytest.raises(InputError, match=r"2 of 60 voxels") as caught:
        load(tmp_path / "x.nii")
    assert caught.value.code == "not-finite"


def test_too_large_for_a_float_is_not_finite(tmp_path: Path) -> None:
    array = voxels(dtype=np.float64)
    array[0, 0, 0] = 1e300
    nib.save(image(array), tmp_path / "x.nii")
    with pytest.raises(InputError, match=r"1 of 60 voxels"):
        load(tmp_path / "x.nii")


def test_a_scale_beyond_every_float_is_not_finite(tmp_path: Path) -> None:
    nib.save(image(kind=nib.Nifti2Image), tmp_path / "x.nii")
    patched(tmp_path / "x.nii", 176, np.array([1e300, 0], "<f8").tobytes())
    with pytest.raises(InputError, match=r"60 of 60 voxels"):  # NaN for 0, infinite for the others
        load(tmp_path / "x.nii")


# damage


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_cut_anywhere_is_unreadable(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x{suffix}"
    nib.save(image(np.random.default_rng(1).integers(0, 999, (9, 8, 7)).astype(np.int16)), path)
    raw = path.read_bytes()
    for length in [*range(0, len(raw), 97), len(raw) - 1]:
        path.write_bytes(raw[:length])
        assert refused(path)[0] == "unreadable", length


def test_a_damaged_gzip_is_noticed_by_its_checksum(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    array = np.random.default_rng(1).integers(0, 999, (9, 8, 7)).astype(np.int16)
    path.write_bytes(gzip.compress(image(array).to_bytes(), 0))  # stored: a changed byte still unzips
    raw = bytearray(path.read_bytes())
    raw[-20] ^= 0xFF
    path.write_bytes(bytes(raw))
    with pytest.raises(InputError, match="compressed data are damaged") as caught:
        load(path)
    assert caught.value.code == "unreadable"
    assert "x.nii.gz" in str(caught.value)


def test_a_gzip_that_never_was_one(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(b"\x1f\x8b" + bytes(range(200)))
    assert refused(path)[0] == "unreadable"
    path.write_text("not a scan")
    assert refused(path)[0] == "unreadable"
    path.write_bytes(b"")
    assert refused(path)[0] == "unreadable"


def test_a_gzip_in_several_members_is_read(tmp_path: Path) -> None:
    raw = image().to_bytes()
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(raw[:400]) + bytes(7) + gzip.compress(raw[400:]) + bytes(1 << 20))
    assert_array_equal(load(path).array, voxels())
    path.write_bytes(gzip.compress(raw) + b"junk")
    assert "compressed data are damaged" in refused(path)[1]


def test_compressed_twice(tmp_path: Path) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(gzip.compress(image().to_bytes())))
    assert refused(path) == ("unreadable", "no NIfTI header: compressed twice; unzip it once")


@pytest.mark.parametrize("raw", [True, False])
def test_a_promise_that_no_file_keeps(tmp_path: Path, raw: bool) -> None:
    path = tmp_path / "x.nii.gz"
    content = bytearray(image(kind=nib.Nifti2Image).to_bytes())
    content[24:48] = np.array([65535] * 3, "<i8").tobytes()
    content[12:14] = np.array(64, "<i2").tobytes()  # doubles
    needed = 544 + 65535**3 * 8
    zipped = bytearray(gzip.compress(bytes(content)))
    zipped[-4:] = (needed % 2**32).to_bytes(4, "little")  # the gzip promises it too
    path.write_bytes(bytes(content if raw else zipped))
    code, reason = refused(path)
    assert code == "unreadable"
    assert str(needed) in reason


def test_a_gzip_that_grows_is_unzipped_only_as_far_as_the_header_says(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.nii.gz"
    path.write_bytes(gzip.compress(image().to_bytes() + bytes(50 << 20)))  # its length isn't the header's
    counted = []

    class Counting(packing._Inflated):
        def read(self, size: int, /) -> bytes:
            counted.append(len(data := super().read(size)))
            return data

    monkeypatch.setattr(packing, "_Inflated", Counting)
    assert only(path).usable
    assert 0 < sum(counted) < 2 << 20


@pytest.mark.parametrize("offset", [0, 100, -8, np.nan, np.inf])
def test_voxels_inside_the_header_are_refused(tmp_path: Path, offset: float) -> None:
    path = tmp_path / "x.nii"
    nib.save(image(), path)
    patched(path, 108, np.array(offset, "<f4").tobytes())
    assert refused(path)[0] == "unreadable"


def test_an_analyze_header_in_a_nifti_name_is_refused_for_its_orientation(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    path.write_bytes(nib.AnalyzeImage(voxels(), AFFINE).header.binaryblock + bytes(500))
    code, reason = refused(path)
    assert code == "missing-geometry"
    assert "Analyze doesn't state the orientation" in reason


# pairs of files


@pytest.mark.parametrize("kind", [nib.AnalyzeImage, nib.Spm99AnalyzeImage, nib.Spm2AnalyzeImage])
def test_analyze_pairs_are_refused_for_their_orientation(tmp_path: Path, kind: Any) -> None:
    nib.save(kind(voxels(), np.diag([2.0, 3, 4, 1])), tmp_path / "x.hdr")
    assert nifti.is_pair(tmp_path / "x.hdr")
    assert nifti.is_pair(tmp_path / "x.img")
    assert nifti.pair_header(tmp_path / "x.img") == tmp_path / "x.hdr"
    candidate = NIFTI.describe(tmp_path / "x.hdr")
    assert (candidate.name, candidate.code) == ("x", "missing-geometry")
    assert "Analyze doesn't state the orientation" in str(candidate.reason)
    study = find(tmp_path)
    assert [each.path for each in study.candidates] == [tmp_path / "x.hdr"]
    assert (tmp_path / "x.img", "the voxels of x.hdr") in [(each.path, each.reason) for each in study.ignored]


@pytest.mark.parametrize("kind", [nib.Nifti1Pair, nib.Nifti2Pair])
@pytest.mark.parametrize("suffix", ["", ".gz"])
def test_nifti_pairs_are_one_image(tmp_path: Path, kind: Any, suffix: str) -> None:
    nib.save(kind(voxels(), AFFINE), tmp_path / f"x.img{suffix}")
    assert nifti.is_pair(tmp_path / f"x.img{suffix}")
    study = find(tmp_path)
    (candidate,) = study.candidates
    assert (candidate.name, candidate.code, candidate.path.name) == ("x", None, f"x.hdr{suffix}")
    assert study.ignored == ()
    volume = candidate.load()
    assert_array_equal(volume.array, voxels())
    assert_allclose(volume.geometry.affine, AFFINE, atol=1e-5)


def test_a_pair_without_its_voxels(tmp_path: Path) -> None:
    nib.save(nib.Nifti1Pair(voxels(), AFFINE), tmp_path / "x.img")
    (tmp_path / "x.img").write_bytes((tmp_path / "x.img").read_bytes()[:-2])
    assert refused(tmp_path / "x.hdr")[0] == "unreadable"
    (tmp_path / "x.img").unlink()
    code, reason = refused(tmp_path / "x.hdr")
    assert code == "unreadable"
    assert "x.img), which isn't there" in reason


def test_a_whole_nifti_named_hdr_is_read(tmp_path: Path) -> None:
    (tmp_path / "x.hdr").write_bytes(image().to_bytes())
    assert nifti.is_pair(tmp_path / "x.hdr")
    assert_array_equal(NIFTI.read(NIFTI.describe(tmp_path / "x.hdr")).array, voxels())


def test_other_hdr_and_img_files_are_no_pairs(tmp_path: Path) -> None:
    (tmp_path / "envi.hdr").write_text("ENVI\nsamples = 5\n" * 40)
    (tmp_path / "envi.img").write_bytes(bytes(1000))
    (tmp_path / "cut.hdr").write_bytes(image().to_bytes()[:200])
    (tmp_path / "broken.hdr.gz").write_bytes(b"\x1f\x8bjunk")
    (tmp_path / "alone.img").write_bytes(image().to_bytes())
    for name in ("envi.hdr", "envi.img", "cut.hdr", "broken.hdr.gz", "alone.img", "absent.hdr", "x.nii"):
        assert not nifti.is_pair(tmp_path / name), name
    (tmp_path / "UPPER.HDR").write_bytes(nib.AnalyzeHeader().binaryblock)
    assert nifti.is_pair(tmp_path / "UPPER.IMG")


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED])
def test_in_a_zip(tmp_path: Path, method: int) -> None:
    import SimpleITK

    written = SimpleITK.GetImageFromArray(voxels().transpose(2, 1, 0))
    nib.save(image(), tmp_path / "a.nii.gz")
    SimpleITK.WriteImage(written, tmp_path / "b.nrrd", True)
    SimpleITK.WriteImage(written, tmp_path / "c.mhd")
    SimpleITK.WriteImage(written, tmp_path / "d.nhdr")
    nib.save(nib.Nifti1Pair(voxels(), AFFINE), tmp_path / "e.img")
    files = sorted(tmp_path.iterdir())
    (tmp_path / "in").mkdir()
    with zipfile.ZipFile(tmp_path / "in" / "s.zip", "w", method) as archive:
        for file in files:
            archive.write(file, f"sub/{file.name}")
    candidates = find(tmp_path / "in").candidates
    assert [(each.name, each.code) for each in candidates] == [(c, None) for c in "abcde"]
    for candidate in candidates:
        assert_array_equal(candidate.load().array, voxels())


def test_names() -> None:
    named = ["x.nii", "x.nii.gz", "X.NII.GZ", "x.Nii"]
    assert [NIFTI.stem(Path("a", name)) for name in named if NIFTI.claims(Path("a", name))] == [
        "x",
        "x",
        "X",
        "x",
    ]
    assert not any(NIFTI.claims(Path(name)) for name in ("x.nii.gz.gz", "x.gz", "x.nii.bz2", "nii", "x.hdr"))


def test_header_of_a_pair_under_another_name(tmp_path: Path) -> None:
    path = tmp_path / "x.nii"
    nib.save(image(), path)
    patched(path, 344, b"ni1\0")
    assert refused(path)[0] == "unreadable"


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=200)
@given(
    st.booleans(),
    st.sampled_from([nib.Nifti1Image, nib.Nifti2Image]),
    st.lists(st.tuples(st.integers(4, 539), st.binary(min_size=1, max_size=8)), max_size=4),
)
def test_a_mutated_header_is_never_a_crash(tmp_path: Path, zipped: bool, kind: Any, changes: Any) -> None:
    raw = bytearray(image(kind=kind).to_bytes())
    for offset, content in changes:
        raw[offset : offset + len(content)] = content
    path = tmp_path / "x.nii"
    path.write_bytes(gzip.compress(bytes(raw)) if zipped else bytes(raw))
    candidate = NIFTI.describe(path)
    assert candidate.usable == (candidate.code is None)
    if candidate.usable:
        with suppress(RefusalError):
            assert NIFTI.read(candidate).array.nbytes <= 1032 * 4 * path.stat().st_size  # scaled bytes become floats


def test_simpleitk_reads_alike(tmp_path: Path) -> None:
    import SimpleITK

    from tests.helpers.dicom_files import rotation

    affine = np.eye(4)
    affine[:3, :3] = rotation(12, -31, 7) * [0.5, 0.75, 3]
    affine[:3, 3] = [-120, 90, 33]
    nib.save(image(affine=affine), tmp_path / "x.nii.gz")
    volume, theirs = load(tmp_path / "x.nii.gz"), SimpleITK.ReadImage(tmp_path / "x.nii.gz")
    assert_array_equal(volume.array, SimpleITK.GetArrayViewFromImage(theirs).transpose(2, 1, 0))
    for index in [(0, 0, 0), (4, 0, 2), (4, 3, 2)]:
        point = np.array(theirs.TransformIndexToPhysicalPoint(index)) * [-1, -1, 1]
        assert_allclose(volume.geometry.voxel_to_world(index), point, atol=1e-4)


@pytest.mark.parametrize(("code", "taken"), [(9, 2), (300, 2), (-3, 0)])
def test_a_code_that_nifti_doesn_t_define_is_settled_at_reading(tmp_path: Path, code: int, taken: int) -> None:
    path = tmp_path / "a.nii"
    nib.save(image(), path)
    patched(path, 254, np.int16(code).tobytes())
    volume = load(path)
    # Without the sform the qform has the same affine.
    assert_allclose(volume.geometry.affine, AFFINE, atol=1e-6)
    assert any(f"sform_code is {code}" in note for note in volume.source.notes)
    assert volume.source.nifti is not None
    assert volume.source.nifti.sform_code == taken
    mask = LabelVolume(np.ones(volume.geometry.shape, np.uint8), volume.geometry, (), volume.source)
    volseg.save(mask, tmp_path / "mask.nii.gz")
    written = nib.load(tmp_path / "mask.nii.gz")
    assert_allclose(written.affine, AFFINE, atol=1e-6)
    assert int(written.header["sform_code"]) in ((taken,) if taken else (0, 1))


def test_a_qfac_of_0_is_1(tmp_path: Path) -> None:
    path = tmp_path / "a.nii"
    right_handed = np.diag([0.5, 0.75, 3, 1.0])
    nib.save(image(affine=right_handed, sform=0), path)
    patched(path, 76, np.float32(0).tobytes())
    assert_allclose(load(path).geometry.affine, right_handed, atol=1e-6)
    patched(path, 76, np.float32(0.5).tobytes())
    assert refused(path)[0] == "bad-affine"
