from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import highdicom
import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.sr.codedict import codes
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

import volseg
from tests.helpers.dicom_objects import save, segmentation
from tests.helpers.label_files import headers_of, image_of, mask_of, notes_of
from tests.helpers.scans import LABELS, OBLIQUE, blobs, write_series
from volseg.errors import GeometryError, InputError, RefusalError, VolsegError
from volseg.export import dicom_seg as export
from volseg.geometry import ORIENTATIONS, AxisMap, Shape
from volseg.labels.read import load_labels
from volseg.labels.seg import rgb_from_lab
from volseg.volume import Volume

SHAPE = (5, 7, 4)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return written(tmp_path)


def written(folder: Path, **changes: Any) -> list[Path]:
    (folder / "series").mkdir(exist_ok=True)
    return write_series(folder / "series", SHAPE, **changes)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Volume]:
    """SEG of `mask_of`, and its scan."""
    folder = tmp_path_factory.mktemp("shared")
    series = written(folder)
    return save(bare(series), folder / "seg.dcm"), image_of(series)


def bare(series: Sequence[Path]) -> Dataset:
    """SEG of `mask_of`, with a frame for each segment and slice."""
    mask = mask_of(SHAPE)
    return segmentation(headers_of(series), [mask == 1, mask == 2])


#: Named, because gdcm aborts the whole process on some arrays.
ENCODERS = {RLELossless: "pydicom", JPEGLSLossless: "pyjpegls", JPEG2000Lossless: "pylibjpeg"}


def by_highdicom(
    series: Sequence[Path], kind: str, syntax: UID = ExplicitVRLittleEndian, shape: Shape = SHAPE, **more: Any
) -> Dataset:
    """SEG of `mask_of` as highdicom writes it."""
    compress = syntax if syntax in ENCODERS else None
    pixels = mask_of(shape).transpose(2, 1, 0)
    if kind == "FRACTIONAL":
        pixels = np.stack([pixels == 1, pixels == 2], axis=-1) * np.float64(0.5)
        pixels[pixels == 0] = 0.49
    seg = highdicom.seg.Segmentation(
        source_images=headers_of(series),
        pixel_array=pixels,
        segmentation_type=kind,
        segment_descriptions=[
            highdicom.seg.SegmentDescription(
                segment_number=number,
                segment_label=f"part {number}",
                segmented_property_category=codes.SCT.Organ,
                segmented_property_type=codes.SCT.Liver,
                algorithm_type="MANUAL",
            )
            for number in (1, 2)
        ],
        series_instance_uid="1.2.3",
        series_number=9,
        sop_instance_uid="1.2.3.4",
        instance_number=1,
        manufacturer="x",
        manufacturer_model_name="x",
        software_versions="1",
        device_serial_number="1",
        transfer_syntax_uid=ExplicitVRLittleEndian if compress else syntax,
        **{"omit_empty_frames": False, "max_fractional_value": 200, **more},
    )
    stream = io.BytesIO()
    seg.save_as(stream)
    stream.seek(0)
    dataset = pydicom.dcmread(stream)
    if compress:
        dataset.compress(compress, encoding_plugin=ENCODERS[compress], generate_instance_uid=False)
    return dataset


@pytest.mark.parametrize("full_frames_bytes", [0, 2**20], ids=["without empty frames", "with all frames"])
@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
def test_what_volseg_writes_comes_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: tuple[float, ...], full_frames_bytes: int
) -> None:
    image = image_of(written(tmp_path, orientation=orientation))
    mask = blobs(image.geometry, image.source)
    monkeypatch.setattr(export, "FULL_FRAMES_BYTES", full_frames_bytes)
    export.write(mask, tmp_path / "mask.dcm")
    read = load_labels(tmp_path / "mask.dcm", image)
    assert read.geometry is image.geometry
    assert read.array.dtype == np.uint8
    assert np.array_equal(read.array, mask.array)
    assert read.source.notes == ()
    for label, wanted in zip(read.labels, LABELS, strict=True):
        assert (label.value, label.name, label.code, label.category, label.modifier) == (
            wanted.value,
            wanted.name,
            wanted.code,
            wanted.category,
            wanted.modifier,
        )
        assert np.abs(np.subtract(label.colour, wanted.colour)).max() <= 1


def test_what_was_read_can_be_written_again(series: list[Path], tmp_path: Path) -> None:
    image = image_of(series)
    read = load_labels(save(bare(series), tmp_path / "a.dcm"), image)
    volseg.save(read, tmp_path / "b.dcm")
    assert np.array_equal(load_labels(tmp_path / "b.dcm", image).array, read.array)


@pytest.mark.parametrize(
    ("kind", "syntax"),
    [
        ("BINARY", ExplicitVRLittleEndian),
        ("BINARY", ImplicitVRLittleEndian),
        ("FRACTIONAL", ExplicitVRLittleEndian),
        ("FRACTIONAL", RLELossless),
        ("LABELMAP", ExplicitVRLittleEndian),
        ("LABELMAP", RLELossless),
        ("LABELMAP", JPEGLSLossless),
    ],
)
@pytest.mark.parametrize("omit", [False, True])
def test_what_highdicom_writes_is_read(series: list[Path], tmp_path: Path, kind: str, syntax: UID, omit: bool) -> None:
    seg = by_highdicom(series, kind, syntax, omit_empty_frames=omit)
    seg.save_as(tmp_path / "seg.dcm")
    read = load_labels(tmp_path / "seg.dcm", image_of(series))
    assert np.array_equal(read.array, mask_of(SHAPE))
    assert [(label.value, label.name) for label in read.labels] == [(1, "part 1"), (2, "part 2")]
    assert read.labels[0].code is not None
    assert read.labels[0].code.meaning == "Liver"


def test_jpeg_2000_is_read(tmp_path: Path) -> None:
    shape = (40, 36, 3)  # the encoder takes no smaller ones
    (tmp_path / "series").mkdir()
    series = write_series(tmp_path / "series", shape)
    by_highdicom(series, "FRACTIONAL", JPEG2000Lossless, shape).save_as(tmp_path / "seg.dcm")
    assert np.array_equal(load_labels(tmp_path / "seg.dcm", image_of(series)).array, mask_of(shape))


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_whole_objects_are_encoded_in_other_ways_too(series: list[Path], tmp_path: Path, syntax: UID) -> None:
    path = save(bare(series), tmp_path / "seg.dcm", syntax)
    assert np.array_equal(load_labels(path, image_of(series)).array, mask_of(SHAPE))


def test_a_file_without_a_preamble_is_read(series: list[Path], tmp_path: Path) -> None:
    path = save(bare(series), tmp_path / "seg.dcm")
    path.write_bytes(path.read_bytes()[132:])
    assert np.array_equal(load_labels(path, image_of(series)).array, mask_of(SHAPE))


def shuffled(seg: Dataset, order: Sequence[int]) -> None:
    """Store the frames in another order, or only some of them."""
    bits = np.unpackbits(np.frombuffer(seg.PixelData, np.uint8), bitorder="little")
    frames = bits[: seg.NumberOfFrames * seg.Rows * seg.Columns].reshape(seg.NumberOfFrames, -1)
    seg.PerFrameFunctionalGroupsSequence = [seg.PerFrameFunctionalGroupsSequence[index] for index in order]
    seg.NumberOfFrames = len(order)
    packed = np.packbits(frames[list(order)].ravel(), bitorder="little").tobytes()
    seg.PixelData = packed + b"\0" * (len(packed) % 2)


@pytest.mark.parametrize("order", [range(7, -1, -1), [3, 0, 6, 5, 1, 7, 2, 4]], ids=["reversed", "mixed"])
def test_the_order_of_frames_says_nothing(series: list[Path], tmp_path: Path, order: Sequence[int]) -> None:
    seg = bare(series)
    shuffled(seg, order)
    read = load_labels(save(seg, tmp_path / "seg.dcm"), image_of(series))
    assert np.array_equal(read.array, mask_of(SHAPE))


def test_a_seg_of_some_slices_leaves_the_others_empty(series: list[Path], tmp_path: Path) -> None:
    seg = bare(series)
    shuffled(seg, [2, 6])
    read = load_labels(save(seg, tmp_path / "seg.dcm"), image_of(series))
    wanted = mask_of(SHAPE)
    wanted[:, :, [0, 1, 3]] = 0
    assert np.array_equal(read.array, wanted)


def turned(image: Volume, orientation: str) -> tuple[Volume, AxisMap]:
    """The same scan, stored in another order as a NIfTI may be."""
    axes = AxisMap.between(image.geometry.orientation, orientation)
    return Volume(axes.apply(image.array), image.geometry.turned(axes), image.source), axes


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_image_stored_in_any_orientation(series: list[Path], tmp_path: Path, orientation: str) -> None:
    image, axes = turned(image_of(series), orientation)
    read = load_labels(save(bare(series), tmp_path / "seg.dcm"), image)
    assert read.geometry is image.geometry
    assert np.array_equal(read.array, axes.apply(mask_of(SHAPE)))


@given(start=st.tuples(*[st.integers(-2, 3)] * 3), size=st.tuples(*[st.integers(1, 8)] * 3))
def test_an_image_that_is_a_part_of_the_scan_or_more(
    shared: tuple[Path, Volume], start: tuple[int, int, int], size: tuple[int, int, int]
) -> None:
    path, whole = shared
    image = Volume(np.zeros(size, np.int16), whole.geometry.cropped(start, size), whole.source)
    # Padded on all sides, the part is a plain block.
    wanted = np.pad(mask_of(SHAPE), 12)[
        tuple(slice(low + 12, low + 12 + n) for low, n in zip(start, size, strict=True))
    ]
    if not wanted.any():
        with pytest.raises(InputError) as caught:
            load_labels(path, image)
        assert caught.value.code == "grid-mismatch"
        return
    read = load_labels(path, image)
    assert np.array_equal(read.array, wanted)
    cut = np.count_nonzero(wanted) < np.count_nonzero(mask_of(SHAPE))
    assert ("beyond the image" in notes_of(read)) == cut


def refused(seg: Dataset, series: Sequence[Path], folder: Path, image: Volume | None = None) -> RefusalError:
    path = save(seg, folder / "seg.dcm")
    with pytest.raises(RefusalError) as caught:
        load_labels(path, image or image_of(series))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def move(seg: Dataset, mm: Sequence[float]) -> None:
    for item in seg.PerFrameFunctionalGroupsSequence:
        plane = item.PlanePositionSequence[0]
        plane.ImagePositionPatient = [float(a) + b for a, b in zip(plane.ImagePositionPatient, mm, strict=True)]


def rotate(seg: Dataset) -> None:
    orientation = seg.SharedFunctionalGroupsSequence[0].PlaneOrientationSequence[0]
    tilt = np.radians(2)
    orientation.ImageOrientationPatient = [np.cos(tilt), np.sin(tilt), 0, -np.sin(tilt), np.cos(tilt), 0]


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda seg: move(seg, (0.375, 0, 0)), "0.375 mm off"),
        (lambda seg: move(seg, (0, 0, 1.25)), "1.25 mm off"),
        (lambda seg: move(seg, (0, 0.11, 0)), "0.11 mm off"),
        (lambda seg: put_spacing(seg, [1.5, 1.5]), "spacing or orientation differ"),
        (lambda seg: put_spacing(seg, [1.5, 0.8]), "0.2 mm off"),
        (rotate, "mm off"),
    ],
)
def test_frames_that_are_not_on_the_voxels_are_refused(
    tmp_path: Path, change: Callable[[Dataset], None], says: str
) -> None:
    series = written(tmp_path, orientation=AXIAL)
    seg = bare(series)
    change(seg)
    error = refused(seg, series, tmp_path)
    assert isinstance(error, GeometryError)
    assert error.code == "grid-mismatch"
    assert says in str(error)


def put_spacing(seg: Dataset, spacing: list[float]) -> None:
    seg.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = spacing


@pytest.mark.parametrize(("mm", "note"), [(0.009, False), (0.05, True)])
def test_what_loaders_even_out_is_put_onto_the_nearest_voxel_with_a_note(tmp_path: Path, mm: float, note: bool) -> None:
    series = written(tmp_path, orientation=AXIAL)
    seg = bare(series)
    move(seg, (0, 0, mm))
    read = load_labels(save(seg, tmp_path / "seg.dcm"), image_of(series))
    assert np.array_equal(read.array, mask_of(SHAPE))
    assert ("off the image's voxels" in notes_of(read)) == note


def test_another_frame_of_reference_is_refused_where_both_say_one(series: list[Path], tmp_path: Path) -> None:
    seg, image = bare(series), image_of(series)
    seg.FrameOfReferenceUID = "1.2.3.4"
    error = refused(seg, series, tmp_path)
    assert error.code == "mixed-frame"
    assert "1.2.3.4" in str(error)
    nifti = Volume(image.array, image.geometry)
    assert np.array_equal(load_labels(tmp_path / "seg.dcm", nifti).array, mask_of(SHAPE))


def overlapping(series: Sequence[Path]) -> Dataset:
    """Segment 2 holds all of segment 1."""
    mask = mask_of(SHAPE)
    seg = segmentation(headers_of(series), [mask == 1, mask > 0])
    seg.SegmentSequence[0].SegmentLabel, seg.SegmentSequence[1].SegmentLabel = "Core", "Whole"
    return seg


def test_segments_that_overlap_are_refused(series: list[Path], tmp_path: Path) -> None:
    error = refused(overlapping(series), series, tmp_path)
    assert error.code == "overlap"
    assert "'Core'" in str(error)
    assert "'Whole'" in str(error)


@pytest.mark.parametrize("backwards", [False, True])
def test_names_say_what_lies_over_what(series: list[Path], tmp_path: Path, backwards: bool) -> None:
    seg, image, mask = overlapping(series), image_of(series), mask_of(SHAPE)
    if backwards:
        shuffled(seg, range(7, -1, -1))
    path = save(seg, tmp_path / "seg.dcm")
    over = load_labels(path, image, names=["WHOLE", "core"])
    assert np.array_equal(over.array, np.array([0, 1, 2])[mask])
    assert f"{np.count_nonzero(mask == 1)} voxels are in several segments" in notes_of(over)
    under = load_labels(path, image, names=["core", " whole"])
    assert np.array_equal(under.array, 2 * (mask > 0))
    alone = load_labels(path, image, names=["Core"])
    assert np.array_equal(alone.array, mask == 1)
    assert [label.name for label in alone.labels] == ["Core"]
    assert alone.source.notes == ()


def test_a_name_that_is_not_there_gives_a_note_and_none_at_all_is_refused(series: list[Path], tmp_path: Path) -> None:
    path, image = save(bare(series), tmp_path / "seg.dcm"), image_of(series)
    read = load_labels(path, image, names=["part 2", "spleen"])
    assert np.array_equal(read.array, 2 * (mask_of(SHAPE) == 2))
    assert "'spleen'" in notes_of(read)
    with pytest.raises(InputError, match="'part 1', 'part 2'") as caught:
        load_labels(path, image, names=["spleen"])
    assert caught.value.code == "unsupported"


def test_segments_keep_their_numbers(series: list[Path], tmp_path: Path) -> None:
    seg = bare(series)
    numbers = {1: 300, 2: 7}
    for item in seg.SegmentSequence:
        item.SegmentNumber = numbers[item.SegmentNumber]
    for item in seg.PerFrameFunctionalGroupsSequence:
        identity = item.SegmentIdentificationSequence[0]
        identity.ReferencedSegmentNumber = numbers[identity.ReferencedSegmentNumber]
    read = load_labels(save(seg, tmp_path / "seg.dcm"), image_of(series))
    assert [label.value for label in read.labels] == [7, 300]
    assert read.array.dtype == np.uint16
    assert np.array_equal(read.array, np.array([0, 300, 7])[mask_of(SHAPE)])


def as_label_map(series: Sequence[Path], padding: int | None = 0) -> Dataset:
    """Label map of `mask_of`, 0 in it replaced by `padding`."""
    seg = bare(series)
    shuffled(seg, range(4))
    mask = mask_of(SHAPE)
    values = np.where(mask == 0, padding or 0, mask)
    seg.SOPClassUID = "1.2.840.10008.5.1.4.1.1.66.7"
    seg.SegmentationType = "LABELMAP"
    for item in seg.PerFrameFunctionalGroupsSequence:
        del item.SegmentIdentificationSequence
    seg.BitsAllocated = seg.BitsStored = 8
    seg.HighBit = 7
    if padding is not None:
        seg.PixelPaddingValue = padding
    seg.PixelData = np.ascontiguousarray(values.astype(np.uint8).transpose(2, 1, 0)).tobytes()
    return seg


@pytest.mark.parametrize("padding", [None, 0, 9])
def test_the_background_of_a_label_map_is_what_it_says(series: list[Path], tmp_path: Path, padding: int | None) -> None:
    read = load_labels(save(as_label_map(series, padding), tmp_path / "seg.dcm"), image_of(series))
    assert np.array_equal(read.array, mask_of(SHAPE))


def test_segments_of_a_label_map_can_be_left_out_by_name(series: list[Path], tmp_path: Path) -> None:
    path = save(as_label_map(series), tmp_path / "seg.dcm")
    read = load_labels(path, image_of(series), names=["part 2"])
    assert np.array_equal(read.array, 2 * (mask_of(SHAPE) == 2))


def test_two_frames_of_a_segment_at_one_position_are_refused(series: list[Path], tmp_path: Path) -> None:
    seg = bare(series)
    shuffled(seg, [0, 1, 2, 3, 4, 5, 6, 7, 2])
    error = refused(seg, series, tmp_path)
    assert error.code == "duplicate-slice"
    assert "frame 9" in str(error)


def spoil_position(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence[2].PlanePositionSequence


def spoil(**values: Any) -> Callable[[Dataset], None]:
    def change(seg: Dataset) -> None:
        for keyword, value in values.items():
            if value is None:
                delattr(seg, keyword)
            else:
                setattr(seg, keyword, value)

    return change


def spoil_segment(seg: Dataset) -> None:
    seg.SegmentSequence[1].SegmentNumber = 1


def spoil_reference(seg: Dataset) -> None:
    identity = seg.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence
    identity[0].ReferencedSegmentNumber = 3


def spoil_identity(seg: Dataset) -> None:
    del seg.PerFrameFunctionalGroupsSequence[1].SegmentIdentificationSequence


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (spoil_position, "missing-geometry"),
        (spoil_segment, "unreadable"),
        (spoil_identity, "unreadable"),
        (spoil_reference, "unreadable"),
        (spoil(SegmentSequence=None), "unreadable"),
        (spoil(PerFrameFunctionalGroupsSequence=None), "unreadable"),
        (spoil(SharedFunctionalGroupsSequence=None), "missing-geometry"),
        (spoil(PixelData=None), "unreadable"),
        (spoil(NumberOfFrames=7), "unreadable"),
        (spoil(NumberOfFrames=2**31 - 1), "unreadable"),
        (spoil(Rows=65535, Columns=65535), "unreadable"),
        (spoil(Rows=0), "unreadable"),
        (spoil(Rows=None), "unreadable"),
        (spoil(BitsAllocated=32), "unreadable"),
        (spoil(BitsAllocated=4), "unreadable"),
        (spoil(SegmentationType="FRACTIONAL"), "unreadable"),
        (spoil(SegmentationType="FRACTIONAL", MaximumFractionalValue=0), "unreadable"),
    ],
)
def test_damage_is_refused_by_name(
    series: list[Path], tmp_path: Path, change: Callable[[Dataset], None], code: str
) -> None:
    seg = bare(series)
    change(seg)
    assert refused(seg, series, tmp_path).code == code


def test_a_value_that_no_segment_has_is_refused(series: list[Path], tmp_path: Path) -> None:
    seg = as_label_map(series)
    seg.PixelData = b"\5" + seg.PixelData[1:]
    error = refused(seg, series, tmp_path)
    assert error.code == "unreadable"
    assert "value 5" in str(error)


def test_a_compressed_frame_that_claims_too_much_is_refused_before_it_is_decoded(
    series: list[Path], tmp_path: Path
) -> None:
    seg = by_highdicom(series, "LABELMAP", RLELossless)
    seg.Rows = seg.Columns = 65535
    image = image_of(series)
    seg.save_as(tmp_path / "seg.dcm")
    with pytest.raises(InputError, match="65535x65535"):
        load_labels(tmp_path / "seg.dcm", image)


def test_a_file_that_is_cut_short_anywhere_is_refused(series: list[Path], tmp_path: Path) -> None:
    path, image = save(bare(series), tmp_path / "seg.dcm"), image_of(series)
    content = path.read_bytes()
    for length in itertools.chain(range(400, len(content), 97), range(len(content) - 60, len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(InputError) as caught:
            load_labels(path, image)
        assert caught.value.code == "unreadable", length


@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_give_labels_or_a_refusal(shared: tuple[Path, Volume], places: list[tuple[int, int]]) -> None:
    path, image = shared
    content = bytearray(path.read_bytes())
    for place, value in places:
        content[place % (len(content) - 132) + 132] = value
    damaged = path.with_name("damaged.dcm")
    damaged.write_bytes(content)
    try:
        read = load_labels(damaged, image)
    except VolsegError:
        return
    assert read.array.shape == SHAPE


@given(rgb=st.tuples(*[st.integers(0, 255)] * 3))
def test_colours_are_those_that_highdicom_stores(rgb: tuple[int, int, int]) -> None:
    stored = highdicom.color.CIELabColor.from_rgb(*rgb).value
    assert np.abs(np.subtract(rgb_from_lab(stored), rgb)).max() <= 1
