"""What a row of the table is: a function that writes damaged or complicated files, and what would be right.

The truth is computed from the numbers that the files are made of, with numpy alone: no reader has a part in it.
Arrays are [i, j, k]; affines map voxel indices to RAS+ millimetres.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Kind = Literal["dicom", "nifti", "itk"]


@dataclass(frozen=True, kw_only=True, eq=False)
class Image:
    """One volume.

    Attributes
    ----------
    values
        [i, j, k], rescaled; NaN equals NaN.
    affine
        (4, 4), to RAS+ mm.
    tolerance_mm
        How far a voxel centre may lie from its true place.
    value_tolerance
        How far a value may be off, beyond the rounding of float32.
    """

    values: Array
    affine: Array
    tolerance_mm: float = 1e-3
    value_tolerance: float = 0.0


@dataclass(frozen=True, kw_only=True)
class Truth:
    """What is right.

    Attributes
    ----------
    answers
        Sets of volumes; giving exactly one of these sets is right.
    codes
        volseg's codes that name the reason to refuse; empty where a refusal is needless.
    beside
        Codes of the candidates that volseg refuses beside the volumes that it gives.
    note
        A word that volseg's notes must hold, where the answer needs one; empty where it doesn't.
    file
        File to give to readers that take a file, relative to the row's folder; empty for the folder itself.
    """

    answers: tuple[tuple[Image, ...], ...] = ()
    codes: frozenset[str] = frozenset()
    beside: frozenset[str] = frozenset()
    note: str = ""
    file: str = ""


def right(
    *images: Image,
    also: Sequence[Sequence[Image]] = (),
    beside: Sequence[str] = (),
    note: str = "",
    file: str = "",
) -> Truth:
    """There is one right answer, `images`; with `also`, other sets that are as faithful."""
    answers = (images, *map(tuple, also))
    return Truth(answers=answers, beside=frozenset(beside), note=note, file=file)


def refuse(*codes: str, also: Sequence[Sequence[Image]] = (), file: str = "") -> Truth:
    """The files don't say what the volume is, for the reason `codes`; `also` are sets that are faithful still."""
    return Truth(answers=tuple(map(tuple, also)), codes=frozenset(codes), file=file)


Make = Callable[[Path], Truth]


@dataclass(frozen=True)
class Row:
    """One way to damage or complicate files.

    Attributes
    ----------
    make
        Writes the files into an empty folder and returns the truth.
    """

    name: str
    sentence: str
    kind: Kind
    make: Make


#: Every row by its name, in the order in which the modules were imported.
ROWS: dict[str, Row] = {}


def row(kind: Kind) -> Callable[[Make], Make]:
    """Enter a function into the table under its own name, with its docstring as the description."""

    def enter(make: Make) -> Make:
        name = make.__name__
        if name in ROWS:
            raise ValueError(f"two rows are called {name}")
        ROWS[name] = Row(name, " ".join((make.__doc__ or "").split()), kind, make)
        return make

    return enter


def ras(affine: Array) -> Array:
    """Affine to RAS+ from one to LPS+."""
    return np.asarray(np.diag([-1.0, -1.0, 1.0, 1.0]) @ affine)
