"""What a reader gave against the truth of a row: the table's verdicts."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from benchmarks.geometry.truth import Array, Image, Truth

#: The verdicts, and what they mean.
VERDICTS = {
    "right": "exactly the true volumes: every voxel's value, and its place to within 0.001 mm, however the axes are"
    " stored",
    "refused": "an error or nothing at all, where the files don't say what the volume is",
    "needless refusal": "an error or nothing at all, where there is one right answer",
    "part": "true voxels in their true places, but not all of them, or a volume cut into pieces",
    "SILENTLY WRONG": "a volume that differs from the truth, or any volume where the truth can't be known; what is only"
    " printed to a terminal doesn't count",
    "crash": "the reader's process died, or took longer than a minute",
    "not run": "the reader isn't installed here",
    "": "not a format that the reader is for",
}
#: Storing an array's axes in another order or direction changes nothing.
_TURNS = tuple(itertools.product(itertools.permutations(range(3)), itertools.product((1, -1), repeat=3)))


@dataclass
class Found:
    """What a reader gave.

    Attributes
    ----------
    volumes
        Arrays [i, j, k] with their affines to RAS+ mm.
    error
        What it said where it gave nothing; empty otherwise.
    codes, notes
        volseg's, of refused and of usable candidates.
    """

    volumes: list[tuple[Array, Array]] = field(default_factory=list)
    error: str = ""
    codes: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)


def verdict(truth: Truth, found: Found) -> str:
    """One of `VERDICTS` for what a reader gave.

    A volume of one slice that is given beside the true ones isn't judged: readers differ in what they make of a scout.
    """
    if found.error.startswith("crash"):
        return "crash"
    if not found.volumes:
        return "refused" if truth.codes else "needless refusal"
    if any(_is_all(answer, found.volumes) for answer in truth.answers):
        return "right"
    if truth.codes or not any(_is_part(answer, found.volumes) for answer in truth.answers):
        return "SILENTLY WRONG"
    return "part"


def _is_all(answer: Sequence[Image], volumes: Sequence[tuple[Array, Array]]) -> bool:
    """Whether every image was found, and nothing else but single slices."""
    left = list(answer)
    for array, affine in volumes:
        match = next((image for image in left if same(image, array, affine)), None)
        if match is not None:
            left.remove(match)
        elif min(array.shape) > 1:
            return False
    return not left


def _is_part(answer: Sequence[Image], volumes: Sequence[tuple[Array, Array]]) -> bool:
    """Whether every volume that was found is an image, or holds some evenly spaced slices of one."""
    return all(min(volume[0].shape) == 1 or any(_is_piece(image, *volume) for image in answer) for volume in volumes)


def _is_piece(image: Image, array: Array, affine: Array) -> bool:
    slices = image.values.shape[2]
    for turned, grid in _turned(array, affine):
        indices = np.linalg.inv(image.affine) @ grid
        first, step = round(indices[2, 3]), round(indices[2, 2])
        chosen = range(first, first + step * turned.shape[2], step) if step > 0 and first >= 0 else range(0)
        if turned.shape[:2] != image.values.shape[:2] or not chosen or chosen[-1] >= slices:
            continue
        place = image.affine.copy()
        place[:3, 3] += place[:3, 2] * first
        place[:3, 2] *= step
        if _close(replace(image, values=image.values[:, :, list(chosen)], affine=place), turned, grid):
            return True
    return False


def same(image: Image, array: Array, affine: Array) -> bool:
    """Whether an array on its affine holds the image's values at the image's places."""
    return any(
        turned.shape == image.values.shape and _close(image, turned, grid) for turned, grid in _turned(array, affine)
    )


def _turned(array: Array, affine: Array) -> Iterator[tuple[Array, Array]]:
    """The 48 ways to store the same voxels."""
    for order, signs in _TURNS:
        turned = array.transpose(order)[:: signs[0], :: signs[1], :: signs[2]]
        grid = affine.copy()
        for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
            grid[:3, axis] = affine[:3, source] * sign
            if sign < 0:
                grid[:3, 3] += affine[:3, source] * (array.shape[source] - 1)
        yield turned, grid


def _close(image: Image, array: Array, affine: Array) -> bool:
    corners = np.array([*itertools.product(*((0, size - 1) for size in array.shape))])
    apart = corners @ (affine - image.affine)[:3, :3].T + (affine - image.affine)[:3, 3]
    if not np.linalg.norm(apart, axis=1).max() <= image.tolerance_mm:
        return False
    # Readers that give float32 round the 24th bit; 1e-4 covers values near 0 that are differences of large ones.
    allowed = 1e-4 + image.value_tolerance
    return np.allclose(array.astype(np.float64), image.values, rtol=1e-6, atol=allowed, equal_nan=True)


def summary(found: Found) -> str:
    """What was given, in a few words."""
    if not found.volumes:
        return found.error or "nothing"
    shown = [
        "x".join(map(str, array.shape))
        + " of "
        + " x ".join(f"{size:.4g}" for size in np.linalg.norm(affine[:3, :3], axis=0))
        + " mm"
        for array, affine in found.volumes
    ]
    kinds = [f"{shown.count(kind)} x {kind}" if shown.count(kind) > 1 else kind for kind in dict.fromkeys(shown)]
    return "; ".join(kinds)
