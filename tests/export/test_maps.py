"""Maps as files: other readers find what was computed, on the scan's own grid."""

from __future__ import annotations

import gzip
from collections.abc import Iterator
from pathlib import Path

import nibabel
import numpy as np
import numpy.typing as npt
import pytest
import SimpleITK

from tests.helpers.streams import Random, prepared_of, recipe_of
from volseg.errors import ExportError
from volseg.export.maps import write_maps
from volseg.export.nifti import write_slabs
from volseg.geometry import AxisMap, Geometry, ras_from_lps
from volseg.inference.maps import MapKinds, Maps
from volseg.inference.stream import Streamed, stream
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box
from volseg.volume import LabelVolume, NiftiSource, Source

NAMES = ["0-background", "1-label_1", "2-label_2", "300-label_300", "entropy"]


def oblique(shape: tuple[int, int, int]) -> Geometry:
    """LPS, turned by 20 degrees about two axes, spacing 0.7 x 0.9 x 2.5 mm."""
    c, s = np.cos(np.radians(20)), np.sin(np.radians(20))
    turn = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ np.array([[1, 0, 0], [0, c, -s], [0, s, c]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.7, 0.9, 2.5])
    affine[:3, 3] = [-31.5, 12.25, 99]
    return Geometry(shape, ras_from_lps(affine))


@pytest.fixture(scope="module")
def streamed() -> Streamed:
    """A scan of which the network sees a part."""
    recipe = recipe_of(labels=(1, 2, 300), window=[4, 4, 8])
    axes = AxisMap.between("LPS", "SAR")
    prepared = prepared_of((5, 6, 15), Box((1, 2, 3), (9, 12, 29)), (1, 0, 2), axes)
    geometry = oblique(prepared.grid.shape)
    prepared = Prepared(prepared.tensor_CDHW, axes, geometry, prepared.crop)
    source = Source(nifti=NiftiSource(sform_code=2, qform_code=1, units=("mm", "sec")))
    kinds = MapKinds(frozenset({1, 2, 300}), entropy=True)
    return stream(prepared, [Random(4, (4, 4, 8))], recipe, source, kinds=kinds)


@pytest.fixture(scope="module")
def written(streamed: Streamed, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("case")
    assert streamed.maps is not None
    names = list(write_maps(streamed.maps, streamed.mask, folder))
    assert names == [f"probabilities/{name}.nii.gz" for name in NAMES]
    assert sorted(path.name for path in (folder / "probabilities").iterdir()) == [f"{name}.nii.gz" for name in NAMES]
    return folder / "probabilities"


def by_nibabel(path: Path) -> npt.NDArray[np.float64]:
    return np.asarray(nibabel.load(path).get_fdata())


def by_simpleitk(path: Path) -> npt.NDArray[np.float64]:
    return np.asarray(SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).T, dtype=np.float64)


@pytest.mark.parametrize("read", [by_nibabel, by_simpleitk])
def test_other_readers_find_probabilities_that_sum_to_one(streamed: Streamed, written: Path, read: object) -> None:
    assert callable(read)
    shown = [read(written / f"{name}.nii.gz") for name in NAMES]
    assert streamed.maps is not None
    for values, chosen in zip(shown, streamed.maps.maps, strict=True):
        assert values == pytest.approx(streamed.maps.values(chosen), abs=1e-6)
    assert np.abs(sum(shown[:4]) - 1).max() <= 4 * 0.52 / 255
    assert shown[4].max() <= 2 + 1e-6  # bits, of four classes
    # The likeliest label is that of the mask, where rounding leaves no doubt.
    order = np.sort(shown[:4], 0)
    clear = order[-1] - order[-2] > 0.01
    assert clear.mean() > 0.9
    assert np.array_equal(np.array([0, 1, 2, 300])[np.argmax(shown[:4], 0)][clear], streamed.mask.array[clear])


def test_the_grid_is_the_scan_s_and_the_header_says_what_it_is(streamed: Streamed, written: Path) -> None:
    geometry = streamed.mask.geometry
    for name in NAMES:
        image = nibabel.load(written / f"{name}.nii.gz")
        assert image.shape == geometry.shape
        assert np.abs(image.affine - geometry.affine).max() < 1e-4
        assert (int(image.header["sform_code"]), int(image.header["qform_code"])) == (2, 1)
        assert image.header.get_xyzt_units() == ("mm", "sec")
        assert image.get_data_dtype() == np.uint8
        other = SimpleITK.ReadImage(str(written / f"{name}.nii.gz"))
        assert other.GetSize() == geometry.shape
        assert np.allclose(other.GetOrigin(), ras_from_lps(geometry.affine)[:3, 3], atol=1e-4)
    said = nibabel.load(written / "300-label_300.nii.gz").header
    assert said["descrip"].item() == b"probability of label 300 (softmax)"
    assert float(said["cal_max"]) == pytest.approx(1)
    assert nibabel.load(written / "entropy.nii.gz").header["descrip"].item() == b"entropy in bits"


def test_the_same_maps_give_the_same_bytes(streamed: Streamed, written: Path, tmp_path: Path) -> None:
    assert streamed.maps is not None
    for name in write_maps(streamed.maps, streamed.mask, tmp_path):
        content = (tmp_path / name).read_bytes()
        assert content == (written.parent / name).read_bytes()
        assert content[4:8] == b"\0\0\0\0"  # gzip's time
        assert len(gzip.decompress(content)) == 352 + np.prod(streamed.mask.geometry.shape)


def test_a_full_disk_leaves_nothing_half_written(
    streamed: Streamed, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is full when the second file is half there."""
    assert streamed.maps is not None
    whole = Maps.slabs

    def slabs(maps: Maps, chosen: object, geometry: Geometry) -> Iterator[npt.NDArray[np.uint8]]:
        for number, slab in enumerate(whole(maps, chosen, geometry)):  # type: ignore[arg-type]
            if number and chosen is maps.maps[1]:
                raise OSError(28, "No space left on device")
            yield slab

    monkeypatch.setattr(Maps, "slabs", slabs)
    found: list[str] = []
    with pytest.raises(ExportError, match=r"1-label_1\.nii\.gz: the file can't be written: No space left") as failed:
        found.extend(write_maps(streamed.maps, streamed.mask, tmp_path))
    assert failed.value.code == "no-room"
    assert [path.name for path in (tmp_path / "probabilities").iterdir()] == ["0-background.nii.gz"]


def test_a_header_takes_part_of_a_long_name_and_letters_of_every_alphabet(tmp_path: Path) -> None:
    like = LabelVolume(np.zeros((2, 3, 4), np.uint8), Geometry((2, 3, 4), np.eye(4)), ())
    values = np.arange(24, dtype=np.uint8).reshape(2, 3, 4)
    slabs = [values[..., :1], values[..., 1:]]
    write_slabs(tmp_path / "x.nii.gz", like, slabs, slope=0.5, description="ä" * 70)
    image = nibabel.load(tmp_path / "x.nii.gz")
    assert image.header["descrip"].item().decode() == "ä" * 39
    assert np.array_equal(image.get_fdata(), values / 2)
