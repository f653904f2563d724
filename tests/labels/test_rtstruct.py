from __future__ import annotations

import io
import itertools
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from pydicom.uid import UID, DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian, ImplicitVRLittleEndian

from tests.helpers.dicom_objects import code, items, save, structure_set
from tests.helpers.label_files import Array, headers_of, image_of, notes_of
from tests.helpers.scans import OBLIQUE, position_ras, write_series
from volseg.errors import GeometryError, InputError, RefusalError, VolsegError
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry
from volseg.labels.read import load_labels
from volseg.volume import Code, Volume

SHAPE = (8, 6, 4)
AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)
#: Corners [column, row] of contours on one slice.
Corners = Sequence[tuple[float, float]]

RECTANGLE: Corners = [(0.5, 0.5), (4.5, 0.5), (4.5, 2.5), (0.5, 2.5)]
HOLE: Corners = [(1.5, 1.4), (3.5, 1.4), (3.5, 2.2), (1.5, 2.2)]


def box(left: float, top: float, right: float, bottom: float) -> Corners:
    return [(left, top), (right, top), (right, bottom), (left, bottom)]


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    return written(tmp_path)


def written(folder: Path, orientation: Sequence[float] = AXIAL) -> list[Path]:
    (folder / "series").mkdir(exist_ok=True)
    return write_series(folder / "series", SHAPE, orientation)


def lps(header: Dataset, corners: Corners) -> list[str]:
    """ContourData on the slice of `header`, by the standard's formula for a pixel's place."""
    points = [position_ras(header, column, row) * [-1, -1, 1] for column, row in corners]
    return [f"{value:.6f}" for value in np.concatenate(points)]


def structures(series: Sequence[Path], regions: Mapping[str, Sequence[tuple[int, Corners]]]) -> Dataset:
    """RTSTRUCT with contours (slice, corners) of each region, numbered from 1."""
    headers = headers_of(series)
    dataset = structure_set(headers, [])
    dataset.StructureSetROISequence, dataset.ROIContourSequence, dataset.RTROIObservationsSequence = [], [], []
    for number, (name, contours) in enumerate(regions.items(), start=1):
        frame = headers[0].FrameOfReferenceUID
        dataset.StructureSetROISequence += items(ROINumber=number, ROIName=name, ReferencedFrameOfReferenceUID=frame)
        sequence = [
            items(
                ContourGeometricType="CLOSED_PLANAR",
                NumberOfContourPoints=len(corners),
                ContourData=lps(headers[k], corners),
            )[0]
            for k, corners in contours
        ]
        dataset.ROIContourSequence += items(
            ReferencedROINumber=number, ROIDisplayColor=[10 * number, 20, 30], ContourSequence=sequence
        )
        dataset.RTROIObservationsSequence += items(ObservationNumber=number, ReferencedROINumber=number)
    return dataset


def drawn(*rows: str) -> Array:
    """One slice [column, row] from its rows as text."""
    return np.array([[int(letter) for letter in row.replace(".", "0")] for row in rows]).T


def on(k: int, plane: Array) -> Array:
    """A mask with `plane` on slice `k` alone."""
    mask = np.zeros(SHAPE, int)
    mask[:, :, k] = plane
    return mask


@pytest.mark.parametrize("orientation", [AXIAL, OBLIQUE], ids=["axial", "oblique"])
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian])
def test_known_contours(tmp_path: Path, orientation: tuple[float, ...], syntax: UID) -> None:
    series = written(tmp_path, orientation)
    keyhole = [*RECTANGLE, RECTANGLE[0], *HOLE, HOLE[0]]
    rt = structures(
        series,
        {
            "rectangle": [(0, RECTANGLE)],
            "ring": [(1, RECTANGLE), (1, HOLE)],
            "keyhole": [(2, keyhole)],
            "two parts": [(3, box(-0.5, -0.5, 0.5, 5.5)), (3, box(6.2, 3.8, 7.4, 5.4))],
        },
    )
    image = image_of(series)
    read = load_labels(save(rt, tmp_path / "rt.dcm", syntax), image)
    assert read.geometry is image.geometry
    assert read.array.dtype == np.uint8
    ring = "........", ".{0}{0}{0}{0}...", ".{0}..{0}...", "........", "........", "........"
    planes = [
        drawn("........", ".1111...", ".1111...", "........", "........", "........"),
        *(drawn(*(row.format(value) for row in ring)) for value in (2, 3)),
        drawn("4.......", "4.......", "4.......", "4.......", "4......4", "4......4"),
    ]
    assert np.array_equal(read.array, sum(on(k, plane) for k, plane in enumerate(planes)))
    assert [(label.value, label.name, label.colour) for label in read.labels] == [
        (number, name, (10 * number, 20, 30))
        for number, name in enumerate(("rectangle", "ring", "keyhole", "two parts"), start=1)
    ]
    assert read.source.notes == ()


@pytest.mark.parametrize("orientation", ORIENTATIONS)
def test_an_image_stored_in_any_orientation(tmp_path: Path, orientation: str) -> None:
    series = written(tmp_path, OBLIQUE)
    image = image_of(series)
    path = save(structures(series, {"a": [(1, RECTANGLE), (2, HOLE)]}), tmp_path / "rt.dcm")
    axes = AxisMap.between(image.geometry.orientation, orientation)
    turned = Volume(axes.apply(image.array), image.geometry.turned(axes), image.source)
    read = load_labels(path, turned)
    assert np.array_equal(read.array, axes.apply(load_labels(path, image).array))
    assert np.count_nonzero(read.array) == 8 + 2


def test_a_sheared_grid_is_filled_where_its_voxels_are(tmp_path: Path) -> None:
    series = written(tmp_path)
    image = image_of(series)
    affine = image.geometry.affine.copy()
    affine[:3, 2] += affine[:3, 0]  # each slice lies one column further
    sheared = Volume(image.array, Geometry(SHAPE, affine), image.source)
    path = save(structures(series, {"a": [(1, RECTANGLE), (2, RECTANGLE)]}), tmp_path / "rt.dcm")
    wanted = on(1, drawn("........", "1111....", "1111....", "........", "........", "........"))
    wanted += on(2, drawn("........", "111.....", "111.....", "........", "........", "........"))
    assert np.array_equal(load_labels(path, sheared).array, wanted)


def test_an_image_of_part_of_the_slices_and_columns_gets_its_part_with_a_note(
    series: list[Path], tmp_path: Path
) -> None:
    rt = structures(series, {"a": [(0, RECTANGLE), (1, RECTANGLE)], "b": [(3, box(5.5, 0.5, 7.5, 2.5))]})
    path, whole = save(rt, tmp_path / "rt.dcm"), image_of(series)
    part = Volume(np.zeros((4, 3, 2)), whole.geometry.cropped((3, 2, 1), (4, 3, 2)), whole.source)
    read = load_labels(path, part)
    assert np.argwhere(read.array).tolist() == [[0, 0, 0], [1, 0, 0]]
    assert "beyond the image" in notes_of(read)
    far = Volume(np.zeros((2, 2, 2)), whole.geometry.cropped((30, 30, 1), (2, 2, 2)), whole.source)
    with pytest.raises(InputError, match="all of it lies beyond") as caught:
        load_labels(path, far)
    assert caught.value.code == "grid-mismatch"


def test_regions_get_values_in_the_order_of_their_numbers(series: list[Path], tmp_path: Path) -> None:
    rt = structures(series, {"late": [(0, RECTANGLE)], "early": [(1, RECTANGLE)], "never": []})
    for sequence, keyword in (
        (rt.StructureSetROISequence, "ROINumber"),
        (rt.ROIContourSequence, "ReferencedROINumber"),
        (rt.RTROIObservationsSequence, "ReferencedROINumber"),
    ):
        for item, number in zip(sequence, (700000, 0, 800000), strict=True):
            setattr(item, keyword, number)
    rt.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence = code("10200004", "SCT", "Liver")
    del rt.ROIContourSequence[2]
    del rt.ROIContourSequence[1].ROIDisplayColor
    read = load_labels(save(rt, tmp_path / "rt.dcm"), image_of(series))
    assert [(label.value, label.name) for label in read.labels] == [(1, "early"), (2, "late"), (3, "never")]
    assert [label.code for label in read.labels] == [
        None,
        Code(value="10200004", scheme="SCT", meaning="Liver"),
        None,
    ]
    assert read.voxel_counts() == {1: 8, 2: 8, 3: 0}
    assert read.array[:, :, 0].max() == 2


def test_points_and_open_contours_are_left_out_with_a_note(series: list[Path], tmp_path: Path) -> None:
    rt = structures(series, {"marker": [(0, [(1, 1)])], "organ": [(0, RECTANGLE), (0, HOLE)]})
    rt.ROIContourSequence[0].ContourSequence[0].ContourGeometricType = "POINT"
    rt.ROIContourSequence[1].ContourSequence[1].ContourGeometricType = "OPEN_PLANAR"
    read = load_labels(save(rt, tmp_path / "rt.dcm"), image_of(series))
    assert [(label.value, label.name) for label in read.labels] == [(2, "organ")]
    assert np.count_nonzero(read.array == 2) == 8
    assert read.source.notes == (
        "'marker': 1 contour of type POINT left out",
        "'organ': 1 contour of type OPEN_PLANAR left out",
    )


def test_the_same_contour_twice_is_no_hole(series: list[Path], tmp_path: Path) -> None:
    rt = structures(series, {"a": [(0, RECTANGLE), (0, RECTANGLE)]})
    assert np.count_nonzero(load_labels(save(rt, tmp_path / "rt.dcm"), image_of(series)).array) == 8


def test_slices_without_a_contour_in_between_are_noted(series: list[Path], tmp_path: Path) -> None:
    rt = structures(series, {"a": [(0, RECTANGLE), (3, RECTANGLE)]})
    read = load_labels(save(rt, tmp_path / "rt.dcm"), image_of(series))
    assert read.array.any(axis=(0, 1)).tolist() == [True, False, False, True]
    assert "'a' has no contour on 2 slices" in notes_of(read)


def test_regions_that_overlap_need_names(series: list[Path], tmp_path: Path) -> None:
    path, image = (
        save(structures(series, {"A": [(0, RECTANGLE)], "B": [(0, HOLE)]}), tmp_path / "rt.dcm"),
        image_of(series),
    )
    with pytest.raises(InputError, match="'A' and 'B' overlap") as caught:
        load_labels(path, image)
    assert caught.value.code == "overlap"
    assert load_labels(path, image, names=["a", "b"]).voxel_counts() == {1: 6, 2: 2}
    assert load_labels(path, image, names=["b", "a"]).voxel_counts() == {1: 8, 2: 0}
    assert load_labels(path, image, names=["b"]).voxel_counts() == {2: 2}


def refused(rt: Dataset, series: Sequence[Path], folder: Path) -> RefusalError:
    path = save(rt, folder / "rt.dcm")
    with pytest.raises(RefusalError) as caught:
        load_labels(path, image_of(series))
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)
    return caught.value


def moved(rt: Dataset, mm: Sequence[float], points: slice = slice(None)) -> Dataset:
    contour = rt.ROIContourSequence[0].ContourSequence[0]
    places = np.array(contour.ContourData, float).reshape(-1, 3)
    places[points] += mm
    contour.ContourData = [f"{value:.4f}" for value in places.ravel()]
    return rt


def test_contours_may_lie_a_tenth_of_the_slice_spacing_off(series: list[Path], tmp_path: Path) -> None:
    for mm in (0.24, -0.24):
        rt = moved(structures(series, {"a": [(1, RECTANGLE)]}), (0, 0, mm))
        read = load_labels(save(rt, tmp_path / "rt.dcm"), image_of(series))
        assert read.array.any(axis=(0, 1)).tolist() == [False, True, False, False]
    error = refused(moved(structures(series, {"a": [(1, RECTANGLE)]}), (0, 0, 0.26)), series, tmp_path)
    assert isinstance(error, GeometryError)
    assert error.code == "grid-mismatch"
    assert "'a' lies up to 0.26 mm off" in str(error)


def test_a_contour_across_slices_is_refused(series: list[Path], tmp_path: Path) -> None:
    rt = moved(structures(series, {"a": [(1, RECTANGLE)]}), (0, 0, 2.5), slice(1))
    assert refused(rt, series, tmp_path).code == "grid-mismatch"


def test_another_frame_of_reference_is_refused(series: list[Path], tmp_path: Path) -> None:
    rt = structures(series, {"a": [(1, RECTANGLE)], "b": [(2, RECTANGLE)]})
    rt.StructureSetROISequence[1].ReferencedFrameOfReferenceUID = "1.2.3"
    assert refused(rt, series, tmp_path).code == "mixed-frame"
    alone = load_labels(tmp_path / "rt.dcm", image_of(series), names=["a"])
    assert alone.voxel_counts() == {1: 8}


def in_a_random_frame(rt: Dataset, series: Sequence[Path], slices: Sequence[int]) -> Dataset:
    """As rt-utils up to 1.2 writes it: the frame is random, each contour names the slice it was drawn on."""
    headers = headers_of(series)
    rt.FrameOfReferenceUID = rt.StructureSetROISequence[0].ReferencedFrameOfReferenceUID = "1.2.826.0.1.3680043.8.498.7"
    for drawn, k in zip(rt.ROIContourSequence[0].ContourSequence, slices, strict=True):
        drawn.ContourImageSequence = items(
            ReferencedSOPClassUID=headers[k].SOPClassUID, ReferencedSOPInstanceUID=headers[k].SOPInstanceUID
        )
    return rt


def test_a_random_frame_of_reference_where_contours_name_the_images(series: list[Path], tmp_path: Path) -> None:
    regions = {"a": [(1, RECTANGLE), (2, RECTANGLE)]}
    rt = in_a_random_frame(structures(series, regions), series, [1, 2])
    read = load_labels(save(rt, tmp_path / "rt.dcm"), image_of(series))
    whole = load_labels(save(structures(series, regions), tmp_path / "other.dcm"), image_of(series))
    assert np.array_equal(read.array, whole.array)
    assert "frame of reference" in notes_of(read)


@pytest.mark.parametrize("slices", [[2, 1], [1, 1], [3, 3]])
def test_a_contour_that_names_another_slice_is_refused(series: list[Path], tmp_path: Path, slices: list[int]) -> None:
    rt = in_a_random_frame(structures(series, {"a": [(1, RECTANGLE), (2, RECTANGLE)]}), series, slices)
    assert refused(rt, series, tmp_path).code == "mixed-frame"


def test_a_contour_that_names_an_image_of_another_series_is_refused(series: list[Path], tmp_path: Path) -> None:
    rt = in_a_random_frame(structures(series, {"a": [(1, RECTANGLE)]}), series, [1])
    contour(rt).ContourImageSequence[0].ReferencedSOPInstanceUID = "1.2.3.4"
    assert refused(rt, series, tmp_path).code == "mixed-frame"


def contour(rt: Dataset) -> Dataset:
    first: Dataset = rt.ROIContourSequence[0].ContourSequence[0]
    return first


DAMAGE: dict[str, Callable[[Dataset], object]] = {
    "no structures": lambda rt: delattr(rt, "StructureSetROISequence"),
    "no contours": lambda rt: delattr(rt, "ROIContourSequence"),
    "no number": lambda rt: delattr(rt.StructureSetROISequence[0], "ROINumber"),
    "no reference": lambda rt: delattr(rt.ROIContourSequence[0], "ReferencedROINumber"),
    "one number twice": lambda rt: setattr(rt.StructureSetROISequence[1], "ROINumber", 1),
    "drawn twice": lambda rt: setattr(rt.ROIContourSequence[1], "ReferencedROINumber", 1),
    "drawn for nothing": lambda rt: setattr(rt.ROIContourSequence[1], "ReferencedROINumber", 7),
    "no data": lambda rt: delattr(contour(rt), "ContourData"),
    "empty": lambda rt: setattr(contour(rt), "ContourData", []),
    "not threes": lambda rt: setattr(contour(rt), "ContourData", ["1"] * 11),
    "too few": lambda rt: setattr(contour(rt), "NumberOfContourPoints", 5),
    "far away": lambda rt: setattr(contour(rt), "ContourData", ["1e30"] * 12),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_damage_is_refused_by_name(series: list[Path], tmp_path: Path, damage: str) -> None:
    rt = structures(series, {"a": [(1, RECTANGLE)], "b": [(2, RECTANGLE)]})
    DAMAGE[damage](rt)
    assert refused(rt, series, tmp_path).code == "unreadable"


def test_numbers_that_are_none_are_refused(series: list[Path], tmp_path: Path) -> None:
    path, image = save(structures(series, {"a": [(1, RECTANGLE)]}), tmp_path / "rt.dcm"), image_of(series)
    number = str(contour(structures(series, {"a": [(1, RECTANGLE)]})).ContourData[0]).encode()
    for wrong in (b"abc", b"nan", b"inf"):
        path.write_bytes(path.read_bytes().replace(number, wrong.ljust(len(number)), 1))
        with pytest.raises(InputError) as caught:
            load_labels(path, image)
        assert caught.value.code == "unreadable"
        path.write_bytes(path.read_bytes().replace(wrong.ljust(len(number)), number, 1))


def test_a_file_that_is_cut_short_anywhere_is_refused(series: list[Path], tmp_path: Path) -> None:
    rt = structures(series, {"a": [(1, RECTANGLE), (2, RECTANGLE)], "b": [(3, RECTANGLE)]})
    del rt.RTROIObservationsSequence  # so that the contours come last
    path, image = save(rt, tmp_path / "rt.dcm"), image_of(series)
    content = path.read_bytes()
    for length in itertools.chain(range(400, len(content), 41), range(len(content) - 60, len(content))):
        path.write_bytes(content[:length])
        with pytest.raises(InputError) as caught:
            load_labels(path, image)
        assert caught.value.code == "unreadable", length


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Volume, bytes]:
    folder = tmp_path_factory.mktemp("whole")
    series = written(folder)
    stream = io.BytesIO()
    rt = structures(series, {"a": [(1, RECTANGLE), (2, HOLE)], "b": [(3, RECTANGLE)]})
    rt.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    rt.save_as(stream, enforce_file_format=True)
    return folder / "rt.dcm", image_of(series), stream.getvalue()


@given(places=st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=4))
def test_damaged_bytes_give_labels_or_a_refusal(
    whole: tuple[Path, Volume, bytes], places: list[tuple[int, int]]
) -> None:
    path, image, content = whole
    damaged = bytearray(content)
    for place, value in places:
        damaged[132 + place % (len(content) - 132)] = value
    path.write_bytes(damaged)
    try:
        read = load_labels(path, image)
    except VolsegError:
        return
    assert read.array.shape == SHAPE


@pytest.mark.parametrize("gone", ["contours", "item"])
def test_a_region_without_contours_is_empty_with_a_note(series: list[Path], tmp_path: Path, gone: str) -> None:
    dataset = structures(series, {"liver": [(1, RECTANGLE)], "spleen": [(2, HOLE)], "kidney": [(2, HOLE)]})
    for index in (2, 1):
        if gone == "contours":
            del dataset.ROIContourSequence[index].ContourSequence
        else:
            del dataset.ROIContourSequence[index]
    labels = load_labels(save(dataset, tmp_path / "rt.dcm"), image_of(series), names=["liver", "spleen"])
    assert set(np.unique(labels.array)) == {0, 1}
    # The kidney isn't asked for.
    assert notes_of(labels) == "'spleen' has no contours: this label is empty"
