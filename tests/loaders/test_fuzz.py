"""Damaged files of every format: a volume or a refusal, soon and in little memory.

A small part of what `benchmarks/fuzz_loaders.py` does; what that found is here as cases of their own.
"""

from __future__ import annotations

import gzip
import io
import struct
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from random import Random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import JPEG2000Lossless, JPEGLSLossless, RLELossless

from tests.fuzzing.judge import ALLOWED_BASE, ALLOWED_RATIO, Verdict, judge
from tests.fuzzing.mutators import mutate
from tests.fuzzing.seeds import FORMATS, SLOW, seed
from tests.helpers.dicom_files import lps_affine, put, put_at, voxels, write_series
from tests.helpers.dicom_objects import enhanced_mr, save
from volseg.loaders import find

FAST = [name for name in FORMATS if name not in SLOW]


@pytest.fixture
def counted() -> Iterator[None]:
    """Count what Python and NumPy allocate."""
    tracemalloc.start(1)
    yield
    tracemalloc.stop()


def lay_out(folder: Path, format_name: str, content: bytes | None = None) -> Path:
    one = seed(format_name)
    folder.mkdir(exist_ok=True)
    for name, fine in one.files.items():
        (folder / name).write_bytes(fine if content is None or name != one.target else content)
    return folder


# the harness itself: a fuzzer that sees nothing finds nothing


@pytest.mark.parametrize("name", FORMATS)
def test_the_undamaged_input_is_read(tmp_path: Path, name: str) -> None:
    outcomes = {
        "analyze": ("missing-geometry",),
        "dicom SEG": ("volume", "labels"),
        "dicom RTSTRUCT": ("volume", "labels"),
    }
    verdict = judge(lay_out(tmp_path, name))
    assert (verdict.outcomes, verdict.breach) == (outcomes.get(name, ("volume",)), None)


@pytest.mark.parametrize("name", FORMATS)
def test_the_same_numbers_give_the_same_damage(name: str) -> None:
    fine = seed(name).files[seed(name).target]
    damaged = [mutate(Random(f"{number}"), name, fine) for number in range(20)]
    assert damaged == [mutate(Random(f"{number}"), name, fine) for number in range(20)]
    assert len({content for content in damaged if content != fine}) > 10


def test_a_breach_is_seen(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, counted: None) -> None:
    lay_out(tmp_path, "nifti")
    verdicts: list[Verdict] = []
    for broken in (_raises, _allocates):
        monkeypatch.setattr("tests.fuzzing.judge.find", broken)
        verdicts.append(judge(tmp_path))
    assert "KeyError in test_fuzz.py" in (verdicts[0].breach or "")
    assert "MiB allocated for" in (verdicts[1].breach or "")
    assert verdicts[1].allocated > 1.9 * ALLOWED_BASE


def _raises(folder: Path) -> object:
    raise KeyError("x")


def _allocates(folder: Path) -> object:
    np.empty(2 * ALLOWED_BASE, np.uint8)
    return find(folder)


# damage


@pytest.mark.parametrize("name", FAST)
def test_damaged_files_are_volumes_or_refusals(tmp_path: Path, name: str, counted: None) -> None:
    one = seed(name)
    lay_out(tmp_path, name)
    judge(tmp_path)  # imports and caches aren't the input's
    for number in range(6):
        content = mutate(Random(f"test {name} {number}"), name, one.files[one.target])
        (tmp_path / one.target).write_bytes(content)
        verdict = judge(tmp_path)
        assert verdict.breach is None, f"{name}, input {number}"


@pytest.mark.parametrize("name", SLOW)
def test_damaged_code_streams_are_volumes_or_refusals(tmp_path: Path, name: str) -> None:
    one = seed(name)
    fine = one.files[one.target]
    stream = fine.index(b"\xff\xd8\xff" if "LS" in name else b"\xff\x4f\xff")
    lay_out(tmp_path, name, fine[: stream + 40] + bytes(8) + fine[stream + 48 :])
    assert judge(tmp_path).breach is None


@pytest.mark.parametrize("name", FAST)
@settings(max_examples=4)
@given(where=st.floats(0, 1, exclude_max=True), part=st.binary(min_size=1, max_size=8), insert=st.booleans())
def test_any_bytes_anywhere(
    tmp_path_factory: pytest.TempPathFactory, name: str, where: float, part: bytes, insert: bool
) -> None:
    one = seed(name)
    fine = one.files[one.target]
    place = int(where * len(fine))
    content = fine[:place] + part + fine[place + (0 if insert else len(part)) :]
    assert judge(lay_out(tmp_path_factory.mktemp("any"), name, content)).breach is None


# headers that claim 65535 x 65535 x 65535


def _nifti_of(shape: tuple[int, ...]) -> bytes:
    header = bytearray(seed("nifti").files["scan.nii"])
    header[40:56] = struct.pack("<8h", len(shape), *shape, *[1] * (7 - len(shape)))
    return bytes(header)


def claims_nifti(folder: Path) -> None:
    (folder / "scan.nii").write_bytes(_nifti_of((32767, 32767, 32767)))


def claims_nifti_2(folder: Path) -> None:
    header = bytearray(seed("nifti 2").files["scan.nii"])
    header[16:48] = struct.pack("<4q", 3, 65535, 65535, 65535)
    (folder / "scan.nii").write_bytes(header)


def claims_nifti_gz_whose_end_agrees(folder: Path) -> None:
    """A gzip says in its last four bytes how long its content is, modulo 2 to the power of 32."""
    content = gzip.compress(_nifti_of((32767, 32767, 32767)), mtime=0)
    needed = 352 + 32767**3 * 2
    (folder / "scan.nii.gz").write_bytes(content[:-4] + struct.pack("<I", needed % 2**32))


def claims_nrrd(folder: Path) -> None:
    content = seed("nrrd gzip").files["scan.nrrd"]
    (folder / "scan.nrrd").write_bytes(content.replace(b"sizes: 5 4 3", b"sizes: 65535 65535 65535"))


def claims_metaimage(folder: Path) -> None:
    content = seed("metaimage zlib").files["scan.mha"]
    (folder / "scan.mha").write_bytes(content.replace(b"DimSize = 5 4 3", b"DimSize = 65535 65535 65535"))


def _claims_dicom(folder: Path, **options: object) -> None:
    write_series(folder, voxels((36, 33, 3), np.uint16), edit=put(Rows=65535, Columns=65535), **options)  # type: ignore[arg-type]


def claims_dicom(folder: Path) -> None:
    _claims_dicom(folder)


def claims_dicom_rle(folder: Path) -> None:
    _claims_dicom(folder, syntax=RLELossless)


def claims_dicom_jpeg_ls(folder: Path) -> None:
    _claims_dicom(folder, syntax=JPEGLSLossless)


def claims_dicom_jpeg_2000(folder: Path) -> None:
    _claims_dicom(folder, syntax=JPEG2000Lossless)


def claims_frames(folder: Path) -> None:
    dataset: Dataset = enhanced_mr(voxels(), lps_affine())
    dataset.NumberOfFrames, dataset.Rows, dataset.Columns = 65535, 65535, 65535
    save(dataset, folder / "enhanced.dcm")


def claims_a_long_element(folder: Path) -> None:
    """An element said to be 1.4 GB long: a reader that believes it asks for the room first."""
    for path in write_series(folder):
        content = path.read_bytes()
        place = content.index(b"\x08\x00\x60\x00CS")
        path.write_bytes(
            content[:place] + b"\x08\x00\x60\x00UN\0\0" + struct.pack("<I", 1_400_000_000) + content[place:]
        )


def claims_a_small_member(folder: Path) -> None:
    """A member that unpacks to 100 MB, in an archive whose directory says that it has 1000 bytes."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("IM0.dcm", bytes(128) + b"DICM" + bytes(100 << 20))
    content = bytearray(buffer.getvalue())
    directory = content.rindex(b"PK\x01\x02")
    content[directory + 24 : directory + 28] = struct.pack("<I", 1000)
    (folder / "study.zip").write_bytes(content)


CLAIMS: list[Callable[[Path], None]] = [
    claims_nifti,
    claims_nifti_2,
    claims_nifti_gz_whose_end_agrees,
    claims_nrrd,
    claims_metaimage,
    claims_dicom,
    claims_dicom_rle,
    claims_dicom_jpeg_ls,
    claims_dicom_jpeg_2000,
    claims_frames,
    claims_a_long_element,
    claims_a_small_member,
]


@pytest.mark.parametrize("claim", CLAIMS, ids=lambda claim: claim.__name__)
def test_memory_is_that_of_the_file_and_not_of_its_claims(
    tmp_path: Path, claim: Callable[[Path], None], counted: None
) -> None:
    claim(tmp_path)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    verdict = judge(tmp_path)
    assert verdict.breach is None
    assert verdict.allocated < ALLOWED_BASE + ALLOWED_RATIO * size
    assert "volume" not in verdict.outcomes


# what the fuzzer found


def test_a_member_without_a_name(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.writestr(zipfile.ZipInfo(""), b"content")
    (tmp_path / "study.zip").write_bytes(buffer.getvalue())
    assert [item.reason for item in find(tmp_path).ignored] == ["a member of the archive has no name"]


def test_values_are_one_line_that_a_terminal_can_show(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put(SeriesDescription="a\x1b[2J\r\nb\x07"))
    (candidate,) = find(tmp_path).candidates
    assert candidate.description.split() == ["a", "[2J", "b"]
    assert candidate.description.isprintable()


def test_bits_that_no_number_has(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put_at(1, BitsStored=65535))
    assert judge(tmp_path).outcomes != ("volume",)
    assert judge(tmp_path).breach is None


def test_a_value_representation_that_is_none(tmp_path: Path) -> None:
    path = write_series(tmp_path)[1]
    content = path.read_bytes()
    assert content.count(b"\x20\x00\x32\x00DS") == 1
    path.write_bytes(content.replace(b"\x20\x00\x32\x00DS", b"\x20\x00\x32\x00DW"))
    assert judge(tmp_path).breach is None


def test_a_direction_whose_square_is_no_number(tmp_path: Path) -> None:
    write_series(tmp_path, edit=put_at(1, ImageOrientationPatient=[1e308, 0, 0, 0, 1, 0]))
    verdict = judge(tmp_path)
    assert (verdict.outcomes, verdict.breach) == (("bad-affine",), None)


def test_a_structure_set_with_a_long_element(tmp_path: Path, counted: None) -> None:
    content = seed("dicom RTSTRUCT").files["object.dcm"]
    place = content.index(b"\x02\x00\x02\x00UI")
    long = b"\x02\x00\x01\x01UN\0\0" + struct.pack("<I", 1_400_000_000)
    verdict = judge(lay_out(tmp_path, "dicom RTSTRUCT", content[:place] + long + content[place:]))
    assert verdict.breach is None


def test_an_offset_of_voxels_that_is_infinite(tmp_path: Path) -> None:
    header = bytearray(seed("nifti").files["scan.nii"])
    header[108:112] = struct.pack("<f", float("inf"))
    (tmp_path / "scan.nii").write_bytes(header)
    assert judge(tmp_path).outcomes == ("unreadable",)
