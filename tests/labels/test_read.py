from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest

import volseg
from tests.helpers.dicom_objects import pdf, save, segmentation, structure_set
from tests.helpers.label_files import Array, headers_of, image_of, mask_of, notes_of
from tests.helpers.scans import write_series
from tests.helpers.tiny import write_nifti
from volseg.errors import GeometryError, InputError, RefusalError, UsageError
from volseg.geometry import ORIENTATIONS, Geometry
from volseg.labels.read import is_label_map, load_labels, load_labels_as
from volseg.volume import Label, Volume

SHAPE = (5, 7, 4)
AFFINE = np.array([[0, -2.0, 0, 5], [1.5, 0, 0, -3], [0, 0, 4, 9], [0, 0, 0, 1]])
TABLE = [Label(value=4, name="Part 2", colour=(1, 2, 3)), Label(value=2, name="PART 1", colour=(4, 5, 6))]


@pytest.fixture
def series(tmp_path: Path) -> list[Path]:
    (tmp_path / "series").mkdir()
    return write_series(tmp_path / "series", SHAPE)


def scan_on(affine: Array = AFFINE) -> Volume:
    return Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, affine))


def seg_of(series: list[Path], path: Path) -> Path:
    return save(segmentation(headers_of(series), [mask_of(SHAPE) == 1, mask_of(SHAPE) == 2]), path)


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.uint16, np.float32, np.float64])
def test_a_label_map_is_what_it_holds(tmp_path: Path, dtype: type) -> None:
    mask: Array = mask_of(SHAPE, values=(2, 250)).astype(dtype)
    image = scan_on()
    read = load_labels(write_nifti(tmp_path / "mask.nii.gz", mask, AFFINE), image)
    assert read.geometry is image.geometry
    assert read.array.dtype.kind == "u"
    assert np.array_equal(read.array, mask)
    assert [(label.value, label.name) for label in read.labels] == [(2, "label 2"), (250, "label 250")]
    assert read.labels[0].colour != read.labels[1].colour
    assert read.source == image.source


def test_a_rounded_affine_is_the_same_grid_and_gives_the_image_s(tmp_path: Path) -> None:
    image = scan_on()
    near = AFFINE.copy()
    near[0, 3] += 9e-4
    assert load_labels(write_nifti(tmp_path / "m.nii", mask_of(SHAPE), near), image).geometry is image.geometry
    # A twentieth of the shortest spacing, 1.5 mm, is 0.075 mm.
    off = AFFINE.copy()
    off[0, 3] += 0.0077
    noted = load_labels(write_nifti(tmp_path / "m.nii", mask_of(SHAPE), off), image)
    assert noted.geometry is image.geometry
    assert "up to 0.0077 mm apart from the image's" in notes_of(noted)
    far = AFFINE.copy()
    far[0, 3] += 0.08
    with pytest.raises(GeometryError, match=r"m.nii: not on the grid of its image: voxel centres up to 0.08") as caught:
        load_labels(write_nifti(tmp_path / "m.nii", mask_of(SHAPE), far), image)
    assert caught.value.code == "grid-mismatch"


def test_the_image_that_a_mask_does_not_fit_is_named(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), AFFINE)
    mask = write_nifti(tmp_path / "mask.nii", mask_of((5, 7, 5)), AFFINE)
    with pytest.raises(GeometryError) as caught:
        load_labels(mask, volseg.load(path))
    assert str(caught.value) == f"{mask}: not on the grid of its image {path}: shape (5, 7, 4) against (5, 7, 5)"


@pytest.mark.parametrize(("value", "says"), [(0.5, "the first is 0.5"), (-1, "from -1 to 2"), (65536, "to 65536")])
def test_numbers_that_are_no_labels_are_refused(tmp_path: Path, value: float, says: str) -> None:
    mask = mask_of(SHAPE).astype(np.float64)
    mask[0, 0, 1] = value
    with pytest.raises(InputError, match=says) as caught:
        load_labels(write_nifti(tmp_path / "mask.nii", mask, AFFINE), scan_on())
    assert caught.value.code == "unsupported"


def test_values_of_a_table_are_matched_by_number_in_a_label_map(tmp_path: Path) -> None:
    path = write_nifti(tmp_path / "mask.nii", mask_of(SHAPE, values=(2, 4)), AFFINE)
    read = load_labels_as(path, scan_on(), TABLE)
    assert np.array_equal(read.array, mask_of(SHAPE, values=(2, 4)))
    assert read.labels == tuple(TABLE[::-1])
    with pytest.raises(InputError, match=r"\[5\].*\[2, 4\]") as caught:
        load_labels_as(write_nifti(path, mask_of(SHAPE, values=(2, 5)), AFFINE), scan_on(), TABLE)
    assert caught.value.code == "unsupported"


def test_and_by_name_in_a_seg(series: list[Path], tmp_path: Path) -> None:
    read = load_labels_as(seg_of(series, tmp_path / "seg.dcm"), image_of(series), TABLE)
    assert np.array_equal(read.array, mask_of(SHAPE, values=(2, 4)))
    assert read.labels == tuple(TABLE[::-1])
    alone = load_labels_as(tmp_path / "seg.dcm", image_of(series), TABLE[:1])
    assert np.array_equal(alone.array, 4 * (mask_of(SHAPE) == 2))


def test_a_folder_that_holds_one_file_of_labels(series: list[Path], tmp_path: Path) -> None:
    """In the folder of its series, in a folder of its own, deeper; other objects and hidden files don't matter."""
    image, mask = image_of(series), mask_of(SHAPE)
    seg_of(series, tmp_path / "own" / "deep" / "x")
    (tmp_path / "own" / ".hidden").write_bytes((tmp_path / "own" / "deep" / "x").read_bytes())
    save(pdf(), tmp_path / "own" / "letter.dcm")
    (tmp_path / "own" / "notes.txt").write_text("x")
    assert np.array_equal(load_labels(tmp_path / "own", image).array, mask)
    seg_of(series, tmp_path / "series" / "seg.dcm")
    assert np.array_equal(load_labels(tmp_path / "series", image).array, mask)
    write_nifti(tmp_path / "map" / "a.nii.gz", mask, image.geometry.affine)
    assert np.array_equal(load_labels(tmp_path / "map", image).array, mask)
    assert [is_label_map(tmp_path / name) for name in ("own", "series", "map")] == [False, False, True]


def test_a_folder_of_several_is_refused_with_their_names(series: list[Path], tmp_path: Path) -> None:
    seg_of(series, tmp_path / "series" / "seg.dcm")
    write_nifti(tmp_path / "series" / "sub" / "a.nii.gz", mask_of(SHAPE))
    with pytest.raises(UsageError, match=r"holds 2 files of labels \(seg.dcm, sub/a.nii.gz\)"):
        load_labels(tmp_path / "series", image_of(series))


def test_a_path_that_leads_nowhere(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(UsageError, match="nowhere: no such file or folder"):
        load_labels(tmp_path / "nowhere", scan_on())
    with pytest.raises(InputError) as caught:
        load_labels(tmp_path / "empty", scan_on())
    assert caught.value.code == "no-image"
    (tmp_path / "seg.dcm").write_text("no DICOM")
    with pytest.raises(RefusalError, match=r"seg.dcm"):
        load_labels(tmp_path / "seg.dcm", scan_on())


def test_a_dicom_object_that_is_no_labels_says_so(series: list[Path], tmp_path: Path) -> None:
    with pytest.raises(RefusalError):
        load_labels(save(pdf(), tmp_path / "letter.dcm"), image_of(series))


def test_a_dicom_series_may_be_a_label_map(series: list[Path], tmp_path: Path) -> None:
    for path in series:
        header = pydicom.dcmread(path)
        header.PixelData = np.full((7, 5), header.InstanceNumber % 2, np.uint16).tobytes()
        header.save_as(path)
    read = load_labels(tmp_path / "series", image_of(series))
    assert read.array[0, 0].tolist() == [1, 0, 1, 0]


def test_the_sample_study_s_hippocampus(sample_data: Path, tmp_path: Path) -> None:
    """The labels of a case of the Decathlon, written as SEG of the same scan as a DICOM series, and as RTSTRUCT."""
    image = volseg.load(sample_data / "study" / "mr")
    stored = nibabel.load(sample_data / "hippocampus" / "labelsTr" / "hippocampus_125.nii.gz")
    mask = np.asarray(stored.dataobj).astype(np.uint8)
    lps = np.diag([-1, -1, 1, 1]) @ stored.affine
    assert np.abs(image.geometry.affine - stored.affine).max() < 1e-3  # the series was written to lie so
    headers = sorted(
        (pydicom.dcmread(path) for path in (sample_data / "study" / "mr").iterdir()),
        key=lambda header: float(header.ImagePositionPatient[2]),
    )
    seg = save(segmentation(headers, [mask == 1, mask == 2]), tmp_path / "seg.dcm")
    read = load_labels(seg, image)
    assert np.array_equal(read.array, mask)
    # Each voxel's outline as a contour of its own: the even-odd rule joins them to the mask.
    contours = []
    for i, j, k in np.argwhere(mask == 1)[::7]:
        corners = [(i - 0.4, j - 0.4, k), (i + 0.4, j - 0.4, k), (i + 0.4, j + 0.4, k), (i - 0.4, j + 0.4, k)]
        contours.append(np.array(corners) @ lps[:3, :3].T + lps[:3, 3])
    rt = structure_set([headers[0]] * len(contours), contours)
    wanted = np.zeros(mask.shape, bool)
    wanted[tuple(np.argwhere(mask == 1)[::7].T)] = True
    read = load_labels(save(rt, tmp_path / "rt.dcm"), image)
    assert np.array_equal(read.array, wanted)


def stored_as(mask: Array, affine: Array, orientation: str) -> nibabel.Nifti1Image:
    """The same voxels in the same places in another order, by nibabel."""
    image = nibabel.Nifti1Image(mask, affine)
    wanted = nibabel.orientations.axcodes2ornt(orientation)
    return image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(affine), wanted))


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize("turned", [False, True])
def test_voxels_stored_in_another_order_are_put_into_the_image_s(
    tmp_path: Path, orientation: str, turned: bool
) -> None:
    """No shape or spacing is twice there, and an oblique grid is one too."""
    affine = AFFINE.copy()
    if turned:
        c, s = np.cos(np.radians(44)), np.sin(np.radians(44))
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ AFFINE[:3, :3]
    mask = mask_of(SHAPE)
    path = tmp_path / "m.nii.gz"
    stored = stored_as(mask, affine, orientation)
    nibabel.save(stored, path)
    labels = load_labels(path, scan_on(affine))
    assert np.array_equal(labels.array, mask)
    assert np.array_equal(labels.geometry.affine, affine)
    told = f"stored as {orientation}" in notes_of(labels)
    assert told is not np.allclose(stored.affine, affine)


@pytest.mark.parametrize("orientation", ["LPS", "SLP"])
@pytest.mark.parametrize(("entry", "value"), [((0, 3), 5.75), ((1, 3), -2.25), ((2, 2), 3.0), ((1, 0), 1.2)])
def test_half_a_voxel_or_another_spacing_is_never_taken_as_rounding(
    tmp_path: Path, orientation: str, entry: tuple[int, int], value: float
) -> None:
    """An origin at a voxel's corner, and a spacing that divides the field of view by one voxel too many."""
    other = AFFINE.copy()
    other[entry] = value
    nibabel.save(stored_as(mask_of(SHAPE), other, orientation), tmp_path / "m.nii")
    with pytest.raises(GeometryError, match="not on the grid of its image: voxel centres"):
        load_labels(tmp_path / "m.nii", scan_on())


@pytest.mark.parametrize(("steps", "dtype"), [(32767, np.int16), (255, np.uint8)])
def test_labels_that_a_header_scales_are_rounded(tmp_path: Path, steps: int, dtype: type) -> None:
    """As nibabel writes floats 0 to 2 with a type of integers: 1 falls between two steps."""
    mask = mask_of(SHAPE)
    image = nibabel.Nifti1Image(mask.astype(np.float32), AFFINE)
    image.header.set_data_dtype(dtype)
    image.to_filename(tmp_path / "m.nii")
    slope = nibabel.load(tmp_path / "m.nii").dataobj.slope
    assert slope == pytest.approx(2 / steps, rel=0.6)
    assert not np.array_equal(nibabel.load(tmp_path / "m.nii").get_fdata(), mask)
    labels = load_labels(tmp_path / "m.nii", scan_on())
    assert np.array_equal(labels.array, mask)
    assert "off whole numbers, and rounded" in notes_of(labels)


@pytest.mark.parametrize("value", [0.98, 1.0118, 1.3])
def test_values_that_were_interpolated_are_not_rounded(tmp_path: Path, value: float) -> None:
    mask = np.where(mask_of(SHAPE) == 1, value, 0).astype(np.float32)
    with pytest.raises(InputError, match=r"aren't whole numbers, the first is .* \(up to 0.005 off is rounded\)"):
        load_labels(write_nifti(tmp_path / "m.nii", mask, AFFINE), scan_on())


def slicer(path: Path, array: Array, segments: Sequence[tuple[str, int, int]]) -> Path:
    """A segmentation as 3D Slicer writes it, on `AFFINE`; with layers, they are the array's first axis."""
    lps = np.diag([-1.0, -1, 1, 1]) @ AFFINE
    vectors = " ".join(f"({','.join(map(str, column))})" for column in lps[:3, :3].T)
    layered = array.ndim == 4
    header = [
        "NRRD0004",
        "type: unsigned char",
        f"dimension: {array.ndim}",
        "space: left-posterior-superior",
        f"sizes: {' '.join(map(str, array.shape))}",
        f"space directions: {'none ' if layered else ''}{vectors}",
        f"kinds: {'list ' if layered else ''}domain domain domain",
        "encoding: raw",
        f"space origin: ({','.join(map(str, lps[:3, 3]))})",
    ]
    for number, (name, value, layer) in enumerate(segments):
        header += [f"Segment{number}_{key}:={text}" for key, text in (("Name", name), ("LabelValue", value))]
        header += [f"Segment{number}_Layer:={layer}", f"Segment{number}_Color:=1 0.5 0"]
    path.write_bytes(("\n".join(header) + "\n\n").encode() + array.astype(np.uint8).tobytes(order="F"))
    return path


def test_a_flat_segmentation_of_3d_slicer_has_names_and_colours(tmp_path: Path) -> None:
    path = slicer(tmp_path / "a.seg.nrrd", mask_of(SHAPE), [("Part 2", 2, 0), ("Part 1", 1, 0), ("nothing", 7, 0)])
    labels = load_labels(path, scan_on())
    assert np.array_equal(labels.array, mask_of(SHAPE))
    assert [(label.value, label.name, label.colour) for label in labels.labels] == [
        (1, "Part 1", (255, 128, 0)),
        (2, "Part 2", (255, 128, 0)),
        (7, "nothing", (255, 128, 0)),
    ]


def test_its_labels_are_matched_by_name_and_not_by_the_order_of_drawing(tmp_path: Path) -> None:
    mask = mask_of(SHAPE)
    path = slicer(tmp_path / "a.seg.nrrd", mask, [("part 1", 2, 0), ("Part  2", 1, 0)])
    labels = load_labels_as(path, scan_on(), TABLE)  # Part 2 is 4, PART 1 is 2
    assert np.array_equal(labels.array, np.where(mask == 2, 2, np.where(mask == 1, 4, 0)))
    assert "values are those that the labels' names have" in notes_of(labels)
    # Names that the table doesn't have say nothing of it: by number.
    other = slicer(tmp_path / "b.seg.nrrd", np.where(mask == 1, 4, mask), [("head", 2, 0), ("tail", 4, 0)])
    assert np.array_equal(load_labels_as(other, scan_on(), TABLE).array, np.where(mask == 1, 4, mask))


def test_layers_that_overlap_are_refused_with_their_names(tmp_path: Path) -> None:
    mask = mask_of(SHAPE)
    path = slicer(tmp_path / "a.seg.nrrd", np.stack([mask == 1, mask > 0]), [("part", 1, 0), ("whole", 1, 1)])
    with pytest.raises(GeometryError, match="holds 2, the layers of part, whole; save one layer") as caught:
        load_labels(path, scan_on())
    assert caught.value.code == "not-3d"


def test_a_header_of_segments_that_is_odd_still_gives_values(tmp_path: Path) -> None:
    path = slicer(tmp_path / "a.seg.nrrd", mask_of(SHAPE), [("one", 1, 0), ("far", 99999, 0)])
    path.write_bytes(path.read_bytes().replace(b"Color:=1 0.5 0", b"Color:=red 0.50"))
    labels = load_labels(path, scan_on()).labels
    assert [(label.value, label.name) for label in labels] == [(1, "one"), (2, "label 2")]


@pytest.mark.parametrize("orientation", ["RAS", "LAS", "PSL"])
def test_a_converter_s_label_of_an_oblique_series(tmp_path: Path, orientation: str) -> None:
    """Converters turn a series' axes and round its positions; half a voxel is another place."""
    (tmp_path / "series").mkdir()
    series = write_series(tmp_path / "series", SHAPE, (0.8, 0.6, 0.0, -0.6, 0.8, 0.0))
    image, mask = image_of(series), mask_of(SHAPE)
    for share, taken in ((0.0, True), (0.01, True), (0.5, False)):
        affine = image.geometry.affine.copy()
        affine[:3, 3] += share * affine[:3, 0]
        nibabel.save(stored_as(mask, affine, orientation), tmp_path / "m.nii.gz")
        if taken:
            labels = load_labels(tmp_path / "m.nii.gz", image)
            assert np.array_equal(labels.array, mask)
            assert labels.geometry is image.geometry
            assert ("apart from the image's" in notes_of(labels)) == (share > 0)
        else:
            with pytest.raises(GeometryError, match="not on the grid of its image"):
                load_labels(tmp_path / "m.nii.gz", image)
