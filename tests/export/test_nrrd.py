from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import SimpleITK

from tests.helpers.oblique_masks import SHAPE, mask_on, oblique
from tests.helpers.scans import nested
from volseg.errors import ExportError
from volseg.export import metaimage, nrrd
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry, ras_from_lps
from volseg.loaders import load
from volseg.volume import Code, Label, LabelVolume, Source, Volume

FORMATS = [(nrrd, "m.seg.nrrd"), (metaimage, "m.mha")]
SCANS = [(nrrd, "s.nrrd"), (metaimage, "s.mha")]


@pytest.mark.parametrize("orientation", ORIENTATIONS)
@pytest.mark.parametrize(("module", "name"), FORMATS)
def test_all_orientations_read_back_by_simpleitk_and_by_us(
    tmp_path: Path, module: object, name: str, orientation: str
) -> None:
    geometry = oblique().turned(AxisMap.between(oblique().orientation, orientation))
    mask = mask_on(Geometry(SHAPE, geometry.affine))
    module.write(mask, tmp_path / name)  # type: ignore[attr-defined]
    image = SimpleITK.ReadImage(str(tmp_path / name))
    np.testing.assert_array_equal(SimpleITK.GetArrayFromImage(image).T, mask.array)
    point = np.array(image.TransformIndexToPhysicalPoint((2, 4, 3)))
    np.testing.assert_allclose(ras_from_lps(point), mask.geometry.voxel_to_world((2, 4, 3)), atol=1e-6)
    back = load(tmp_path / name)
    np.testing.assert_array_equal(back.array, mask.array)
    assert back.geometry.same_grid(mask.geometry, 1e-9)


@pytest.mark.parametrize("dtype", [np.int16, np.uint8, np.float32, ">i2"])
@pytest.mark.parametrize("channels", [0, 3])
@pytest.mark.parametrize(("module", "name"), SCANS)
def test_scans_keep_voxels_type_and_channels(
    tmp_path: Path, module: object, name: str, dtype: object, channels: int
) -> None:
    shape = (channels, *SHAPE) if channels else SHAPE
    array = np.arange(np.prod(shape)).reshape(shape).astype(dtype)  # type: ignore[call-overload]
    scan = Volume(array, oblique(), Source())
    module.write_scan(scan, tmp_path / name)  # type: ignore[attr-defined]
    back = load(tmp_path / name)
    np.testing.assert_array_equal(back.array, array)
    assert back.geometry.same_grid(scan.geometry, 1e-9)
    # Channels are the components of a voxel in NRRD, a fourth axis in MetaImage.
    found = SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(tmp_path / name)))
    if channels and module is nrrd:
        found = np.moveaxis(found, -1, 0)
    np.testing.assert_array_equal(found, array.swapaxes(-1, -3))


def test_sheared_grids_are_kept(tmp_path: Path) -> None:
    affine = np.array(oblique().affine)
    affine[:3, 2] += 0.3 * affine[:3, 1]
    scan = Volume(np.zeros(SHAPE, np.int16), Geometry(SHAPE, affine), Source())
    for module, name in SCANS:
        module.write_scan(scan, tmp_path / name)
        assert load(tmp_path / name).geometry.same_grid(scan.geometry, 1e-9)


def header_of(path: Path) -> dict[str, str]:
    text = path.read_bytes().split(b"\n\n")[0].decode()
    return dict(line.split(":=", 1) for line in text.splitlines() if ":=" in line)


def test_slicers_names_colours_and_terms(tmp_path: Path) -> None:
    hippocampus = Code(value="5366008", scheme="SCT", meaning="Hippocampus")
    left = Code(value="7771000", scheme="SCT", meaning="Left")
    labels = (
        Label(value=1, name="left ~ hippocampus", colour=(255, 0, 51), code=hippocampus, modifier=left),
        Label(value=700, name="Läsion\\\n2", colour=(0, 0, 0)),
    )
    mask = LabelVolume(np.full(SHAPE, 700, np.uint16), oblique(), labels)
    nrrd.write(mask, tmp_path / "m.seg.nrrd")
    found = header_of(tmp_path / "m.seg.nrrd")
    assert [found[f"Segment{n}_Name"] for n in (0, 1)] == ["left ~ hippocampus", "Läsion/ 2"]
    assert [found[f"Segment{n}_LabelValue"] for n in (0, 1)] == ["1", "700"]
    assert [found[f"Segment{n}_Color"] for n in (0, 1)] == ["1 0 0.2", "0 0 0"]
    assert found["Segment0_Extent"] == "0 2 0 4 0 3"
    entry = found["Segment0_Tags"].removeprefix("TerminologyEntry:").removesuffix("|").split("~")
    assert entry[1:4] == ["SCT^91723000^Anatomical Structure", "SCT^5366008^Hippocampus", "SCT^7771000^Left"]
    assert len(entry) == 7
    assert found["Segment1_Tags"].split("~")[2].startswith("99VOLSEG^")


def test_equal_masks_give_equal_bytes(tmp_path: Path) -> None:
    for name in ("a.seg.nrrd", "b.seg.nrrd"):
        nrrd.write(mask_on(oblique()), tmp_path / name)
    assert (tmp_path / "a.seg.nrrd").read_bytes() == (tmp_path / "b.seg.nrrd").read_bytes()


def test_an_empty_mask(tmp_path: Path) -> None:
    mask = mask_on(oblique())
    nrrd.write(mask.with_array(np.zeros_like(mask.array)), tmp_path / "m.seg.nrrd")
    assert not load(tmp_path / "m.seg.nrrd").array.any()
    assert header_of(tmp_path / "m.seg.nrrd")["Segment1_Name"] == "three"


def test_undeclared_values_and_types_without_a_name_are_refused(tmp_path: Path) -> None:
    mask = mask_on(oblique())
    with pytest.raises(ExportError) as caught:
        nrrd.write(mask.with_array(mask.array + np.uint16(1)), tmp_path / "m.seg.nrrd")
    assert caught.value.code == "format"
    for module, name in SCANS:
        with pytest.raises(ExportError, match="no voxels of type"):
            module.write_scan(Volume(np.zeros(SHAPE, np.float16), oblique(), Source()), tmp_path / name)
    assert list(tmp_path.iterdir()) == []


def test_layers_are_slicers(tmp_path: Path) -> None:
    mask = nested(Geometry((7, 8, 5), oblique().affine), Source())
    nrrd.write(mask, tmp_path / "m.seg.nrrd")
    image = SimpleITK.ReadImage(str(tmp_path / "m.seg.nrrd"))
    assert image.GetSize() == (7, 8, 5)
    layers = SimpleITK.GetArrayFromImage(image).T
    header = header_of(tmp_path / "m.seg.nrrd")
    for number, label in enumerate(mask.labels):
        layer, value = int(header[f"Segment{number}_Layer"]), int(header[f"Segment{number}_LabelValue"])
        assert np.array_equal(layers[layer] == value, mask.voxels_of(label))
    point = np.array(image.TransformIndexToPhysicalPoint((2, 4, 3)))
    np.testing.assert_allclose(ras_from_lps(point), mask.geometry.voxel_to_world((2, 4, 3)), atol=1e-6)
