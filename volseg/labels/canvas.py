"""The structures of one file, painted onto the grid of an image: one label a voxel."""

from __future__ import annotations

import colorsys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import numpy.typing as npt

from volseg.errors import InputError
from volseg.geometry import Shape
from volseg.text import count
from volseg.volume import Label, LabelVolume, Volume

Mask = npt.NDArray[np.bool_]
Unsigned = npt.NDArray[np.unsignedinteger]
Index = tuple[int | slice, ...]


def any_colour(value: int) -> tuple[int, int, int]:
    """Colour for a label whose file gives none: the golden ratio puts neighbours far apart on the circle of hues."""
    red, green, blue = (round(255 * part) for part in colorsys.hsv_to_rgb(value * 0.618034 % 1, 0.7, 0.9))
    return red, green, blue


def plain(name: str) -> str:
    """`name` as names are compared: without regard to case and to how words are spaced."""
    return " ".join(name.split()).casefold()


def values_in(array: Unsigned) -> set[int]:
    """Values other than 0, found slab by slab: counting all at once takes eight bytes a voxel."""
    slabs = array if array.flags.c_contiguous else array.T
    found = np.zeros(int(array.max(initial=0)) + 1, np.bool_)
    for slab in slabs:
        found |= np.bincount(slab.ravel(), minlength=found.size) > 0
    return set(np.flatnonzero(found).tolist()) - {0}


class Canvas:
    """What is painted so far.

    Structures that overlap are refused, unless `names` gives an order: then the later one is on top, whatever the
    order of painting. Each has a rank, 1 for the first, and a voxel keeps the highest.

    Parameters
    ----------
    labels
        All structures of the file.
    shape
        Shape of the image.
    names
        Structures to take, in order; None for all of them, without an order.
    noun
        Word of the file for a structure, such as ``"segment"``.

    Raises
    ------
    InputError
        Code ``unsupported``: the file has structures, and none is called by one of `names`.
    """

    def __init__(
        self, labels: Sequence[Label], shape: Shape, names: Sequence[str] | None, path: Path, noun: str
    ) -> None:
        self._path, self._noun, self._ordered = path, noun, names is not None
        self._labels = list(labels) if names is None else _named(labels, names, path, noun)
        self._ranks = {label.value: rank for rank, label in enumerate(self._labels, start=1)}
        # Slices along k lie in one piece each: a DICOM image's are painted one by one.
        self._array: Unsigned = np.zeros(shape, np.min_scalar_type(len(self._labels)), order="F")
        self._declared = {label.value for label in labels}
        self._overlap = 0
        self._inside = self._outside = False
        held = {plain(label.name) for label in labels}
        absent = [name for name in names or () if plain(name) not in held]
        self._notes = [f"no {noun} is called {name!r}: this label is empty" for name in absent]

    def takes(self, value: int) -> bool:
        """Whether the structure of this value is painted at all.

        Raises
        ------
        InputError
            Code ``unreadable``: the file describes no such structure.
        """
        if value not in self._declared:
            raise InputError(f"holds the value {value}, which is no {self._noun}'s", code="unreadable", path=self._path)
        return value in self._ranks

    def note(self, text: str) -> None:
        """Say something unusual, once."""
        if text not in self._notes:
            self._notes.append(text)

    def outside(self) -> None:
        """Say that part of a structure lies beyond the image."""
        self._outside = True

    def paint(self, value: int, where: Index, mask: Mask) -> None:
        """Paint one structure on the plane ``array[where]``, as far as `mask` goes.

        Raises
        ------
        InputError
            Code ``overlap``.
        """
        ranks: Unsigned = np.where(mask, self._array.dtype.type(self._ranks[value]), self._array.dtype.type(0))
        self._add(where, ranks)

    def paint_values(self, where: Index, values: Unsigned) -> None:
        """Paint a plane that holds the value of a structure in each voxel, 0 where there is none.

        Raises
        ------
        InputError
            Code ``unreadable``: a value that is no structure's. Code ``overlap``.
        """
        ranks: Unsigned = np.zeros(max(int(values.max()), *self._declared, 0) + 1, self._array.dtype)
        for value in values_in(values):
            ranks[value] = self._ranks[value] if self.takes(value) else 0
        self._add(where, ranks[values])

    def _add(self, where: Index, ranks: Unsigned) -> None:
        plane = self._array[where]
        other = (plane != 0) & (ranks != 0) & (plane != ranks)
        if clashes := int(np.count_nonzero(other)):
            if not self._ordered:
                first, second = (self._labels[int(layer[other][0]) - 1].name for layer in (plane, ranks))
                raise InputError(
                    f"{self._noun}s {first!r} and {second!r} overlap ({count(clashes, 'voxel')} on one slice), and a"
                    " mask has one label a voxel; say which to take, later ones over earlier",
                    code="overlap",
                    path=self._path,
                )
            self._overlap += clashes
        self._inside = self._inside or bool(ranks.any())
        np.maximum(plane, ranks, out=plane)

    def finish(self, image: Volume) -> LabelVolume:
        """Return what was painted, with the values of the labels, on the grid of `image`.

        Raises
        ------
        InputError
            Code ``grid-mismatch``: all of it lies beyond the image.
        """
        if self._outside and not self._inside:
            raise InputError("all of it lies beyond the image", code="grid-mismatch", path=self._path)
        if self._outside:
            self.note("part of it lies beyond the image and is left out")
        if self._overlap:
            self.note(f"{count(self._overlap, 'voxel')} are in several {self._noun}s; the later one has them")
        values = [0, *(label.value for label in self._labels)]
        table: Unsigned = np.array(values, np.uint8 if max(values) < 256 else np.uint16)
        labels = tuple(sorted(self._labels, key=lambda label: label.value))
        return LabelVolume(table[self._array], image.geometry, labels, replace(image.source, notes=tuple(self._notes)))


def _named(labels: Sequence[Label], names: Sequence[str], path: Path, noun: str) -> list[Label]:
    """Labels that are called by one of `names`, in the order of these."""
    wanted = [plain(name) for name in names]
    found = [label for name in wanted for label in labels if plain(label.name) == name]
    if labels and not found:
        raise InputError(
            f"no {noun} is called {' or '.join(repr(name) for name in names)}; there are"
            f" {', '.join(repr(label.name) for label in labels)}",
            code="unsupported",
            path=path,
        )
    return found


def renumbered(mask: LabelVolume, table: Mapping[str, int]) -> Unsigned:
    """Voxels of `mask` with the value that `table` gives to each label's name, 0 where it gives none."""
    values = {plain(name): value for name, value in table.items()}
    new = np.zeros(max((label.value for label in mask.labels), default=0) + 1, np.uint16)
    for label in mask.labels:
        new[label.value] = values.get(plain(label.name), 0)
    return np.asarray(new[mask.array])
