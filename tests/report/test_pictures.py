from __future__ import annotations

import io
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from volseg.errors import GeometryError
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry
from volseg.report import pictures
from volseg.report.pictures import cut, focus, grey_window, legend, outlines, write_preview
from volseg.volume import Label, LabelVolume, Source, Volume

#: Where the panels are, in pixels, where all three fill their square.
LEFTS, TOP, SIDE = (40, 556, 1072), 84, 460
RED, GREEN = (255, 0, 0), (0, 255, 0)
LABELS = (Label(value=1, name="one", colour=RED), Label(value=2, name="two", colour=GREEN))
#: 24 mm along each axis: panels are square.
SQUARE = Geometry((8, 12, 6), np.diag([3.0, 2.0, 4.0, 1.0]))


def pair(geometry: Geometry, scan: npt.ArrayLike, mask: npt.ArrayLike = 0) -> tuple[Volume, LabelVolume]:
    source = Source(name="case", modality="MR")
    return (
        Volume(np.broadcast_to(np.asarray(scan, np.float32), geometry.shape).copy(), geometry, source),
        LabelVolume(np.broadcast_to(np.asarray(mask, np.uint8), geometry.shape).copy(), geometry, LABELS, source),
    )


def picture(path: Path, volume: Volume, mask: LabelVolume) -> npt.NDArray[np.float64]:
    write_preview(volume, mask, path)
    return np.asarray(Image.open(path), dtype=np.float64) / 255


def test_the_patients_right_front_and_top_are_where_a_radiologist_expects_them(tmp_path: Path) -> None:
    i, j, k = np.indices(SQUARE.shape)  # RAS: growing to right, anterior, superior
    halves = {"R": i >= 4, "A": j >= 6, "S": k >= 3}
    bright_sides = {"R": ("left", "left", None), "A": ("top", None, "left"), "S": (None, "top", "top")}
    for letter, half in halves.items():
        found = picture(tmp_path / "p.png", *pair(SQUARE, half * 50.0 + i + j))
        for left, side in zip(LEFTS, bright_sides[letter], strict=True):
            panel = found[TOP : TOP + SIDE, left : left + SIDE].mean(axis=2)
            quarters = {
                "left": panel[:, : SIDE // 2 - 30].min() - panel[:, SIDE // 2 + 30 :].max(),
                "top": panel[: SIDE // 2 - 30].min() - panel[SIDE // 2 + 30 :].max(),
            }
            assert [name for name, difference in quarters.items() if difference > 0.2] == ([side] if side else [])


def test_every_pixel_survives_the_file() -> None:
    pixels = np.random.default_rng(3).integers(0, 256, (7, 5, 3), dtype=np.uint8)
    found = Image.open(io.BytesIO(pictures.png(Image.fromarray(pixels))))
    found.verify()
    assert (found.format, found.mode) == ("PNG", "RGB")
    assert np.array_equal(np.asarray(Image.open(io.BytesIO(pictures.png(Image.fromarray(pixels))))), pixels)


def test_letters_are_on_their_sides(monkeypatch: pytest.MonkeyPatch) -> None:
    written: list[tuple[tuple[int, int], str]] = []
    monkeypatch.setattr(pictures, "_write", lambda _, at, text, **_style: written.append((at, text)))
    volume, mask = pair(SQUARE, 1.0)
    axes = AxisMap.between("RAS", pictures.SHOWN)
    panels = cut(axes.apply(volume.array), axes.apply(mask.array), SQUARE.turned(axes), (4, 6, 3))
    pictures.draw(panels, (0, 1), {}, [], ("", ""))
    for number, (left, letters) in enumerate(zip(LEFTS, ("RLAP", "RLSI", "APSI"), strict=True)):
        sides = {}
        for (x, y), text in written[4 * number : 4 * number + 4]:
            assert not (left - 4 < x < left + SIDE + 4 and TOP - 4 < y < TOP + SIDE + 4), "a letter covers the scan"
            side = "left" if x < left else "right" if x > left + SIDE else "top" if y < TOP else "bottom"
            middle = {"left": y - TOP, "right": y - TOP, "top": x - left, "bottom": x - left}[side]
            assert middle == SIDE // 2
            sides[side] = text
        assert sides["left"] + sides["right"] + sides["top"] + sides["bottom"] == letters


@pytest.mark.parametrize("oblique", [False, True])
def test_the_same_picture_however_the_scan_is_stored(tmp_path: Path, oblique: bool) -> None:
    affine = np.diag([0.7, 1.1, 4.0, 1.0])
    if oblique:
        c, s = np.cos(0.35), np.sin(0.35)
        affine[:3, :3] = np.array([[c, -s, 0], [s, c, 0], [0, 0, 1]]) @ affine[:3, :3]
    geometry = Geometry((9, 7, 5), affine)
    random = np.random.default_rng(5)
    scan = random.normal(size=geometry.shape)
    labels = np.zeros(geometry.shape, dtype=np.uint8)
    labels[2:5, 1:4, 1:3], labels[6:8, 4:6, 2:5] = 1, 2
    volume, mask = pair(geometry, scan, labels)
    write_preview(volume, mask, tmp_path / "reference.png")
    expected = (tmp_path / "reference.png").read_bytes()
    for orientation in ORIENTATIONS[::9]:
        axes = AxisMap.between(geometry.orientation, orientation)
        turned = geometry.turned(axes)
        write_preview(
            replace(volume, array=axes.apply(volume.array), geometry=turned),
            replace(mask, array=axes.apply(mask.array), geometry=turned),
            tmp_path / "turned.png",
        )
        assert (tmp_path / "turned.png").read_bytes() == expected, orientation


def test_proportions_are_millimetres(tmp_path: Path) -> None:
    # 30 x 20 x 60 mm: axial 20 high and 30 wide, coronal 60 x 30, sagittal 60 x 20.
    geometry = Geometry((10, 40, 8), np.diag([3.0, 0.5, 7.5, 1.0]))
    found = picture(tmp_path / "p.png", *pair(geometry, 1.0, 1))
    red = (found[..., 0] > 0.9) & (found[..., 1] < 0.1)
    for left, (height, width) in zip(LEFTS, ((307, 460), (460, 230), (460, 153)), strict=True):
        rows, columns = np.nonzero(red[: TOP + SIDE, left - 20 : left + SIDE + 20])
        assert (rows.max() - rows.min() + 1, columns.max() - columns.min() + 1) == (height, width)
        assert abs((columns.min() + columns.max()) / 2 - 20 - (SIDE - 1) / 2) <= 1


def test_outlines_follow_voxel_edges_inside_each_label() -> None:
    mask = np.array([[0, 0, 0, 0], [0, 1, 2, 0], [0, 0, 0, 0]])
    drawn = outlines(mask, (30, 40), {1: RED, 2: GREEN})
    for start, colour in ((10, RED), (20, GREEN)):
        block = drawn[10:20, start : start + 10]
        np.testing.assert_array_equal(block[:2], np.broadcast_to((*colour, 255), (2, 10, 4)))
        np.testing.assert_array_equal(block[:, -2:], np.broadcast_to((*colour, 255), (10, 2, 4)))
        assert not block[2:-2, 2:-2].any()
    outside = drawn.copy()
    outside[10:20, 10:30] = 0
    assert not outside.any()


def test_a_label_at_the_border_of_the_scan_is_closed() -> None:
    drawn = outlines(np.array([[1]]), (9, 9), {1: RED})
    assert drawn[0].any(axis=1).all()
    assert drawn[:, -1].any(axis=1).all()
    assert not drawn[2:-2, 2:-2].any()


def test_planes_go_through_the_largest_labels_own_voxel_nearest_to_its_centre() -> None:
    mask = np.zeros((8, 12, 6), dtype=np.uint8)
    mask[1:6, 2, 1] = mask[1:6, 8, 1] = mask[1, 2:9, 1] = 2  # a U, its centre (2.4, 5, 1) empty
    mask[7, 11, 5] = 1
    # (1, 5) is 1.4 voxels of 3 mm away; (2.4, 2) is 3 of 2 mm.
    assert focus(mask, SQUARE, {1: 1, 2: 15}) == (1, 5, 1)
    assert focus(mask, Geometry(SQUARE.shape, np.diag([9.0, 1, 1, 1])), {1: 1, 2: 15}) == (2, 2, 1)
    assert focus(np.zeros_like(mask), SQUARE, {1: 0, 2: 0}) == (4, 6, 3)
    assert focus(np.zeros_like(mask), SQUARE, {}) == (4, 6, 3)


def test_windows() -> None:
    scan = np.zeros((20, 10, 10))
    scan[10:] = np.arange(1000).reshape(10, 10, 10)
    low, high = grey_window(scan, "MR")
    assert (low, high) == pytest.approx((10.98, 989.02), abs=0.5)
    assert grey_window(scan - 1000, "CT") == (-160, 240)
    assert grey_window(scan - 1000, None) == (-160, 240)
    assert grey_window(scan - 1000, "MR") == pytest.approx((low - 1000, high - 1000))
    for constant in (0.0, -3.0, 1e9):
        low, high = grey_window(np.full((2, 3, 4), constant), "MR")
        assert low < high


def test_the_legend_lists_the_largest_labels() -> None:
    labels = tuple(Label(value=value, name=f"label {value}", colour=(value, 0, 0)) for value in range(1, 31))
    counts = {label.value: 1000 * label.value if label.value > 10 else 0 for label in labels}
    entries = legend(labels, counts, voxel_ml=0.001)
    assert [text for _, text in entries[:2]] == ["label 30  30.0 ml", "label 29  29.0 ml"]
    assert len(entries) == 12
    assert entries[-1] == (None, "+ 9 more")
    assert legend(labels[:2], {1: 0, 2: 7}, 0.5) == [((2, 0, 0), "label 2  3.50 ml"), ((1, 0, 0), "label 1  0.00 ml")]
    assert legend(labels[:1], {1: 1}, 0.001)[0][1] == "label 1  < 0.01 ml"
    assert legend(labels[:1], {1: 1}, 1043.4)[0][1] == "label 1  1043 ml"
    (entry,) = legend((replace(labels[0], name="x" * 80),), {1: 1}, 1)
    assert entry[1] == "x" * 25 + "…  1.00 ml"


def test_the_legend_is_below_the_panels(tmp_path: Path) -> None:
    volume, mask = pair(SQUARE, 1.0)
    mask = replace(mask, labels=tuple(Label(value=v, name=str(v), colour=RED) for v in range(1, 6)))
    found = picture(tmp_path / "p.png", volume, mask)
    red = (found == (1, 0, 0)).all(axis=2)
    rows, _ = np.nonzero(red)
    assert rows.min() > TOP + SIDE + 20
    # Five squares of 14 x 14 in two rows, none cut off.
    assert red.sum() == pytest.approx(5 * 14 * 14, rel=0.15)
    assert rows.max() < len(found) - 20


def test_the_first_channel_is_shown(tmp_path: Path) -> None:
    i, _, _ = np.indices(SQUARE.shape)
    volume, mask = pair(SQUARE, i)
    write_preview(volume, mask, tmp_path / "one.png")
    write_preview(volume.with_array(np.stack([volume.array, volume.array[::-1]])), mask, tmp_path / "two.png")
    assert (tmp_path / "one.png").read_bytes() == (tmp_path / "two.png").read_bytes()


def test_names_are_text_and_nothing_else(tmp_path: Path) -> None:
    volume, mask = pair(SQUARE, 1.0)
    names = ("$\\frac$", "two\nlines", "脳", "ö" * 300)
    labels = tuple(Label(value=value, name=name, colour=RED) for value, name in enumerate(names, start=1))
    volume = replace(volume, source=replace(volume.source, name="$x_$" * 90))
    found = picture(tmp_path / "p.png", volume, replace(mask, labels=labels))
    assert found.shape[1] == 1572


def test_threads_do_not_disturb_each_other(tmp_path: Path) -> None:
    volume, mask = pair(SQUARE, np.arange(576).reshape(SQUARE.shape), 1)
    with ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda n: write_preview(volume, mask, tmp_path / f"{n}.png"), range(3)))
    assert len({path.read_bytes() for path in tmp_path.iterdir()}) == 1


def test_a_mask_on_another_grid(tmp_path: Path) -> None:
    volume, mask = pair(SQUARE, 1.0)
    moved = SQUARE.affine.copy()
    moved[2, 3] = 1
    with pytest.raises(GeometryError) as caught:
        write_preview(volume, replace(mask, geometry=Geometry(SQUARE.shape, moved)), tmp_path / "p.png")
    assert caught.value.code == "grid-mismatch"
    assert not list(tmp_path.iterdir())
