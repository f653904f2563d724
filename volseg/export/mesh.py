"""Surfaces of the labels as meshes: STL a label, PLY and glTF (``.glb``) with all labels in their colours."""

from __future__ import annotations

import json
import struct
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np

from volseg import __version__
from volseg.errors import ExportError
from volseg.export.outputs import FinishedCase, Written
from volseg.export.surface import SMOOTHING, Surface, surfaces
from volseg.files import write_atomically
from volseg.results import MESHES
from volseg.text import safe_name
from volseg.volume import Label, LabelVolume

#: Said in a note where smoothing changes a volume by more than this share.
CHANGED_SHARE = 0.02

Named = Sequence[tuple[Label, Surface]]


def write(mask: LabelVolume, path: Path, *, kind: Literal["ply", "glb"], steps: int = SMOOTHING) -> tuple[str, ...]:
    """Write all labels into one file, in RAS+ millimetres.

    Parameters
    ----------
    mask
        The segmentation.
    path
        Path of the file; its folder exists.
    kind
        Format.
    steps
        Steps of smoothing; 0: the faces of the voxels.

    Returns
    -------
    tuple of str
        Notes on volumes that smoothing changed.

    Raises
    ------
    ExportError
        Code ``format``: the mask is empty.
    """
    named = list(surfaces(mask, steps))
    if not named:
        raise ExportError("an empty mask has no surface", code="format", path=path)
    write_atomically(path, {"ply": ply, "glb": glb}[kind](named))
    return _changes(mask, named)


def write_output(case: FinishedCase, folder: Path) -> Written:
    """Write an STL for each label that occurs, as 3D Slicer and printers read them."""
    named = list(surfaces(case.mask))
    (folder / MESHES).mkdir(exist_ok=True)
    for label, surface in named:
        write_atomically(folder / MESHES / f"{label.value}-{safe_name(label.name)}.stl", stl(surface))
    return Written(notes=_changes(case.mask, named))


def _changes(mask: LabelVolume, named: Named) -> tuple[str, ...]:
    notes = []
    for label, surface in named:
        voxels_ml = np.count_nonzero(mask.voxels_of(label)) * mask.geometry.voxel_volume_ml
        if abs(surface.volume_ml / voxels_ml - 1) > CHANGED_SHARE:
            changed = f"{voxels_ml:.3g} ml, and its smoothed surface encloses {surface.volume_ml:.3g} ml"
            notes.append(f"{label.name} has {changed}")
    return tuple(notes)


def stl(surface: Surface) -> bytes:
    """A binary STL; 3D Slicer takes the frame from its header."""
    record = np.dtype([("normal", "<f4", 3), ("corners", "<f4", (3, 3)), ("attribute", "<u2")])
    found = np.zeros(len(surface.triangles), record)
    a, b, c = (surface.corners[surface.triangles[:, n]] for n in range(3))
    normals = np.cross(b - a, c - a)
    found["normal"] = normals / np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-12)
    found["corners"] = np.stack([a, b, c], 1)
    head = f"volseg {__version__} SPACE=RAS UNITS=mm".encode().ljust(80)
    return head + struct.pack("<I", len(found)) + found.tobytes()


def ply(named: Named) -> bytes:
    """A binary PLY whose corners have the labels' colours."""
    corner = np.dtype([("place", "<f4", 3), ("colour", "u1", 3)])
    face = np.dtype([("count", "u1"), ("corners", "<i4", 3)])
    corners, faces, start = [], [], 0
    for label, surface in named:
        here = np.zeros(len(surface.corners), corner)
        here["place"], here["colour"] = surface.corners, label.colour
        there = np.full(len(surface.triangles), 3, face)
        there["corners"] = surface.triangles + start
        corners.append(here)
        faces.append(there)
        start += len(here)
    lines = [
        "ply",
        "format binary_little_endian 1.0",
        f"comment volseg {__version__}",
        "comment SPACE=RAS",
        "comment UNITS=mm",
        f"element vertex {start}",
        *(f"property float {axis}" for axis in "xyz"),
        *(f"property uchar {part}" for part in ("red", "green", "blue")),
        f"element face {sum(map(len, faces))}",
        "property list uchar int vertex_indices",
        "end_header",
        "",
    ]
    return "\n".join(lines).encode() + b"".join(part.tobytes() for part in (*corners, *faces))


def glb(named: Named) -> bytes:
    """A binary glTF 2.0: a mesh a label, called like it. glTF is in metres with y upwards: its root turns RAS+ mm."""
    views, accessors, meshes, materials, nodes = [], [], [], [], []
    data = b""
    for number, (label, surface) in enumerate(named):
        places = surface.corners.astype("<f4")
        for array, target in ((places, 34962), (surface.triangles.astype("<u4").ravel(), 34963)):
            views.append({"buffer": 0, "byteOffset": len(data), "byteLength": array.nbytes, "target": target})
            data += array.tobytes()
        low, high = places.min(axis=0).tolist(), places.max(axis=0).tolist()
        accessors += [
            {"bufferView": 2 * number, "componentType": 5126, "count": len(places), "type": "VEC3"}
            | {"min": low, "max": high},
            {"bufferView": 2 * number + 1, "componentType": 5125, "count": surface.triangles.size, "type": "SCALAR"},
        ]
        part = {"attributes": {"POSITION": 2 * number}, "indices": 2 * number + 1, "material": number}
        meshes.append({"name": label.name, "primitives": [part]})
        colour = [round((value / 255) ** 2.2, 5) for value in label.colour]
        materials.append({"pbrMetallicRoughness": {"baseColorFactor": [*colour, 1], "metallicFactor": 0}})
        nodes.append({"name": label.name, "mesh": number})
    # By columns: R becomes x, A -z, S y, in metres.
    matrix = [0.001, 0, 0, 0, 0, 0, -0.001, 0, 0, 0.001, 0, 0, 0, 0, 0, 1]
    root = {"name": "RAS mm", "matrix": matrix, "children": list(range(len(nodes)))}
    content = {
        "asset": {"version": "2.0", "generator": f"volseg {__version__}"},
        "scene": 0,
        "scenes": [{"nodes": [len(nodes)]}],
        "nodes": [*nodes, root],
        "meshes": meshes,
        "materials": materials,
        "accessors": accessors,
        "bufferViews": views,
        "buffers": [{"byteLength": len(data)}],
    }
    text = json.dumps(content).encode()
    text += b" " * (-len(text) % 4)
    chunks = struct.pack("<II", len(text), 0x4E4F534A) + text + struct.pack("<II", len(data), 0x004E4942) + data
    return struct.pack("<III", 0x46546C67, 2, 12 + len(chunks)) + chunks
