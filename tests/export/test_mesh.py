from __future__ import annotations

import json
import struct
from pathlib import Path

import numpy as np
import pytest

from tests.helpers.oblique_masks import oblique
from volseg.errors import ExportError
from volseg.export import mesh
from volseg.export.surface import Surface, faces, surfaces
from volseg.geometry import ORIENTATIONS, AxisMap, Geometry
from volseg.volume import Label, LabelVolume

LABELS = (Label(value=1, name="ball", colour=(255, 0, 10)), Label(value=2, name="box/2", colour=(0, 128, 255)))


def balls(geometry: Geometry) -> LabelVolume:
    """A ball and a box beside it."""
    i, j, k = np.ogrid[: geometry.shape[0], : geometry.shape[1], : geometry.shape[2]]
    array = ((i - 12) ** 2 + (j - 13) ** 2 + (k - 11) ** 2 < 80).astype(np.uint8)
    array[24:28, 3:9, 5:8] = 2
    return LabelVolume(array, geometry, LABELS)


@pytest.fixture
def mask() -> LabelVolume:
    return balls(Geometry((30, 26, 24), oblique().affine))


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAS", "SRA", "PIL"])
def test_the_faces_enclose_the_voxels_exactly_on_any_grid(mask: LabelVolume, orientation: str) -> None:
    assert orientation in ORIENTATIONS
    axes = AxisMap.between(mask.geometry.orientation, orientation)
    turned = LabelVolume(axes.apply(mask.array), mask.geometry.turned(axes), LABELS)
    counts = mask.voxel_counts()
    for label, surface in surfaces(turned, steps=0):
        # Positive: seen from outside, triangles go counter-clockwise.
        assert surface.volume_ml == pytest.approx(counts[label.value] * mask.geometry.voxel_volume_ml)
        where = mask.geometry.voxel_to_world(np.argwhere(mask.array == label.value))
        middle = (surface.corners.max(axis=0) + surface.corners.min(axis=0)) / 2
        np.testing.assert_allclose(middle, (where.max(axis=0) + where.min(axis=0)) / 2, atol=1e-6)


def test_one_voxel_is_a_cuboid_of_twelve_triangles() -> None:
    geometry = Geometry((3, 4, 5), np.array([[2.0, 0, 0, 10], [0, 3, 0, 20], [0, 0, 4, 30], [0, 0, 0, 1]]))
    inside = np.ones((1, 1, 1), np.bool_)
    found = faces(inside, (slice(1, 2), slice(2, 3), slice(3, 4)), geometry)
    assert (found.corners.shape, found.triangles.shape) == ((8, 3), (12, 3))
    # Its centre is at (12, 26, 42), and corners are half a voxel away.
    np.testing.assert_allclose(found.corners.min(axis=0), (11, 24.5, 40))
    np.testing.assert_allclose(found.corners.max(axis=0), (13, 27.5, 44))
    assert found.volume_ml == pytest.approx(24e-3)


def test_every_edge_belongs_to_two_triangles_in_opposite_directions(mask: LabelVolume) -> None:
    for _, surface in surfaces(mask):
        edges = [tuple(edge) for n in range(3) for edge in surface.triangles[:, [n, (n + 1) % 3]].tolist()]
        assert len(set(edges)) == len(edges)
        assert {(b, a) for a, b in edges} == set(edges)


def test_smoothing_keeps_a_balls_volume_and_makes_it_rounder(mask: LabelVolume) -> None:
    (_, stairs), _ = surfaces(mask, steps=0)
    (_, smooth), _ = surfaces(mask)
    assert smooth.volume_ml == pytest.approx(stairs.volume_ml, rel=0.02)
    assert area(smooth) < 0.8 * area(stairs)


def area(surface: Surface) -> float:
    a, b, c = (surface.corners[surface.triangles[:, n]] for n in range(3))
    return float(np.linalg.norm(np.cross(b - a, c - a), axis=1).sum() / 2)


def test_stl_by_its_definition(mask: LabelVolume) -> None:
    (_, surface), _ = surfaces(mask)
    content = mesh.stl(surface)
    assert b"SPACE=RAS" in content[:80]
    assert not content.startswith(b"solid")
    (count,) = struct.unpack("<I", content[80:84])
    assert (count, len(content)) == (len(surface.triangles), 84 + 50 * count)
    numbers = struct.unpack("<12f", content[84 : 84 + 48])
    np.testing.assert_allclose(np.reshape(numbers[3:], (3, 3)), surface.corners[surface.triangles[0]], rtol=1e-5)
    assert np.linalg.norm(numbers[:3]) == pytest.approx(1, abs=1e-5)


def test_ply_by_its_definition(mask: LabelVolume, tmp_path: Path) -> None:
    assert mesh.write(mask, tmp_path / "m.ply", kind="ply", steps=0) == ()
    head, body = (tmp_path / "m.ply").read_bytes().split(b"end_header\n", 1)
    assert b"comment SPACE=RAS" in head
    (_, ball), (_, box) = surfaces(mask, steps=0)
    corners, triangles = len(ball.corners) + len(box.corners), len(ball.triangles) + len(box.triangles)
    assert f"element vertex {corners}\n".encode() in head
    assert f"element face {triangles}\n".encode() in head
    assert len(body) == 15 * corners + 13 * triangles
    last = struct.unpack("<3f3B", body[15 * (corners - 1) : 15 * corners])
    np.testing.assert_allclose(last[:3], box.corners[-1], rtol=1e-5)
    assert last[3:] == (0, 128, 255)
    assert struct.unpack("<B3i", body[-13:]) == (3, *(box.triangles[-1] + len(ball.corners)).tolist())


def test_glb_by_its_definition(mask: LabelVolume, tmp_path: Path) -> None:
    mesh.write(mask, tmp_path / "m.glb", kind="glb", steps=0)
    content = (tmp_path / "m.glb").read_bytes()
    magic, version, length, size, kind = struct.unpack("<4sIIII", content[:20])
    assert (magic, version, length, kind) == (b"glTF", 2, len(content), 0x4E4F534A)
    told = json.loads(content[20 : 20 + size])
    assert [part["name"] for part in told["meshes"]] == ["ball", "box/2"]
    data = content[28 + size :]
    view = told["bufferViews"][2]
    places = np.frombuffer(data[view["byteOffset"] :][: view["byteLength"]], "<f4").reshape(-1, 3)
    _, (_, box) = surfaces(mask, steps=0)
    np.testing.assert_allclose(places, box.corners, rtol=1e-5)
    matrix = np.reshape(told["nodes"][-1]["matrix"], (4, 4)).T
    # A point 10 mm to the right, 20 to the front and 30 up: x to the right, y up, z to the back, in metres.
    np.testing.assert_allclose(matrix @ [10, 20, 30, 1], [0.01, 0.03, -0.02, 1])


def test_an_empty_mask_and_a_small_one(mask: LabelVolume, tmp_path: Path) -> None:
    with pytest.raises(ExportError, match="no surface"):
        mesh.write(mask.with_array(np.zeros_like(mask.array)), tmp_path / "m.ply", kind="ply")
    assert not (tmp_path / "m.ply").exists()
    one = np.zeros_like(mask.array)
    one[3, 3, 3] = 1
    (note,) = mesh.write(mask.with_array(one), tmp_path / "m.ply", kind="ply")
    assert note.startswith("ball has")
