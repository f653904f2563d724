"""Put an array from one grid onto another: over the same box by matrix products, anywhere else point by point.

Resizing with a spline is separable and linear: along each axis it is one matrix, and that matrix is the
one-dimensional operator applied to the identity. Grids are aligned at their outer voxel edges
(`volseg.geometry.Geometry.resized`), or, in `zoomed` and `put_back`, at the centres of their outermost voxels.
`resampled` is for grids that lie otherwise: channels of one case, and slices that are stacked at an angle
(`straight_grid`).
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import torch
from scipy import ndimage
from torch import Tensor

from volseg.geometry import Floats, Geometry, Scalar, Shape

Order = Literal[0, 1, 3]

#: Rows of an operator that are applied at once, and slices of a scan: large enough for matrix products to be fast.
ROWS, SLAB = 32, 16
#: Voxels by which an axis is continued for a cubic spline: what a voxel so far away adds is 10^-7 of its value.
PADDING = 12
#: A number of a map between voxel indices that is this near to a whole one is that one, and differs by rounding alone.
WHOLE = 1e-9


def nearest_index(size_in: int, size_out: int) -> Tensor:
    """(size_out,) int64: the input voxel whose centre is nearest to that of each output voxel; ties go to the later."""
    # The arithmetic of scipy's map_coordinates and zoom, step by step: another order rounds ties otherwise.
    centres = size_in / size_out * (np.arange(size_out) + 0.5) - 0.5
    return torch.from_numpy(np.clip(np.floor(centres + 0.5), 0, size_in - 1).astype(np.int64))


@lru_cache(maxsize=64)
def axis_operator(size_in: int, size_out: int, order: Order) -> Tensor:
    """(size_out, size_in) float64 matrix that resizes one axis with a spline of `order`, edge values repeated."""
    identity = np.eye(size_in)
    if size_in == size_out:
        return torch.from_numpy(identity)
    if size_in == 1:
        return torch.ones((size_out, 1), dtype=torch.float64)
    if order == 0:
        return torch.from_numpy(identity)[nearest_index(size_in, size_out)]
    # Beyond the edges their values are repeated, far enough for what lies further not to matter (as scipy's zoom does).
    padded = np.pad(identity, ((PADDING, PADDING), (0, 0)), mode="edge")
    centres = size_in / size_out * (np.arange(size_out) + 0.5) - 0.5 + PADDING
    low = np.floor(centres).astype(np.intp)
    share = (centres - low)[:, None]
    rest = 1 - share
    if order == 1:
        return torch.from_numpy(rest * padded[low] + share * padded[low + 1])
    c = ndimage.spline_filter1d(padded, 3, axis=0)
    weights = (rest**3, 4 - 6 * share**2 + 3 * share**3, 4 - 6 * rest**2 + 3 * rest**3, share**3)
    return torch.from_numpy(sum(weight * c[low + step] for step, weight in enumerate(weights, -1)) / 6)


def resize(array_CDHW: Tensor, shape: Shape, *, order: Order, nearest: int | None = None) -> Tensor:
    """Resize the last three axes with a spline, clipped to each channel's own range.

    Parameters
    ----------
    array_CDHW
        Floating-point values.
    shape
        Sizes D, H, W of the result.
    order
        Degree of the spline: 1 is linear, 3 cubic. A cubic spline overshoots at sharp edges: hence the clip.
    nearest
        Axis (0 D, 1 H, 2 W) along which the nearest slice is taken instead: slices across it are resized one by one,
        each clipped to its own range.
    """
    if tuple(array_CDHW.shape[1:]) == shape:
        return array_CDHW
    result = array_CDHW.new_empty((array_CDHW.shape[0], *shape))
    for channel, resized in zip(array_CDHW, result, strict=True):
        if nearest is None:
            lowest, highest = (float(value) for value in torch.aminmax(channel))
            torch.clamp(_resize_axes(channel, shape, order), lowest, highest, out=resized)
        else:
            _resize_slices(channel, order, nearest, resized)
    return result


def _resize_slices(channel_DHW: Tensor, order: Order, axis: int, out_DHW: Tensor) -> None:
    """Resize every slice across `axis` by itself, then put the nearest one at each place of `out_DHW`."""
    size_in, size_out = channel_DHW.shape[axis], out_DHW.shape[axis]
    index = nearest_index(size_in, size_out).to(channel_DHW.device)
    if size_out < size_in:  # the slices that are left out needn't be resized
        channel_DHW, index = channel_DHW.index_select(axis, index), torch.arange(size_out, device=index.device)
    across = [other for other in range(3) if other != axis]
    lowest, highest = channel_DHW.amin(across, keepdim=True), channel_DHW.amax(across, keepdim=True)
    shape = list(out_DHW.shape)
    shape[axis] = channel_DHW.shape[axis]
    slices = _resize_axes(channel_DHW, (shape[0], shape[1], shape[2]), order).clamp_(lowest, highest)
    torch.index_select(slices, axis, index, out=out_DHW)


def _resize_axes(channel_DHW: Tensor, shape: Shape, order: Order) -> Tensor:
    """Resize (D, H, W) values, not clipped; a new tensor."""
    if tuple(channel_DHW.shape) == shape:
        return channel_DHW.clone()
    d, h, w = shape
    depth, height, width = channel_DHW.shape
    # Whatever shrinks comes first: it leaves the least to hold, and to do for the other.
    if d / depth < h * w / (height * width):
        return _resize_planes(_resize_depth(channel_DHW, d, order), (h, w), order)
    return _resize_depth(_resize_planes(channel_DHW, (h, w), order), d, order)


def _resize_depth(channel_DHW: Tensor, size: int, order: Order) -> Tensor:
    """Resize the first of three axes."""
    depth, height, width = channel_DHW.shape
    if depth == size:
        return channel_DHW
    result = channel_DHW.new_empty((size, height * width))
    flat = channel_DHW.reshape(depth, -1)
    for out, into, operator in _operator_blocks(depth, size, order, channel_DHW):
        torch.mm(operator, flat[into], out=result[out])
    return result.view(size, height, width)


def _resize_planes(channel_DHW: Tensor, shape: tuple[int, int], order: Order) -> Tensor:
    """Resize the last two of three axes, a slab at a time: what lies between the two products stays small."""
    depth, height, width = channel_DHW.shape
    if (height, width) == shape:
        return channel_DHW
    h, w = shape
    rows = _operator_blocks(height, h, order, channel_DHW)
    columns = _operator_blocks(width, w, order, channel_DHW)
    result = channel_DHW.new_empty((depth, h, w))
    for start in range(0, depth, SLAB):
        slab, done = channel_DHW[start : start + SLAB], result[start : start + SLAB]
        if height != h:
            between = done if width == w else slab.new_empty((len(slab), h, width))
            for out, into, operator in rows:
                torch.bmm(operator.expand(len(slab), *operator.shape), slab[:, into], out=between[:, out])
            slab = between
        if width != w:
            lines, done_lines = slab.reshape(-1, width), done.view(-1, w)
            for out, into, operator in columns:
                torch.mm(lines[:, into], operator.T, out=done_lines[:, out])
    return result


def _operator_blocks(size_in: int, size_out: int, order: Order, like: Tensor) -> list[tuple[slice, slice, Tensor]]:
    """`axis_operator` in pieces: output rows, the input that they read, and the part of the matrix between the two.

    A cubic spline reads the whole axis, but what is a few voxels away has weights that vanish: those too small to
    change a value of `like`'s precision are left out.
    """
    operator = axis_operator(size_in, size_out, order)
    matters = operator.abs() > torch.finfo(like.dtype).eps / 100
    blocks = []
    for start in range(0, size_out, ROWS):
        out = slice(start, min(start + ROWS, size_out))
        used = matters[out].any(0).nonzero()
        into = slice(int(used[0]), int(used[-1]) + 1)
        blocks.append((out, into, operator[out, into].to(like)))
    return blocks


def zoomed(array_DHW: npt.NDArray[Any], shape: Shape) -> Floats:
    """Resize linearly, as ``scipy.ndimage.zoom`` does: the centres of the outermost voxels stay where they are.

    Spacing is then ``(size - 1) / (new size - 1)`` times the old one, not ``size / new size``; where one voxel is left
    of an axis, it is the first.

    Returns
    -------
    array
        float64 of `shape`.
    """
    # Last bits decide whether a whole number is below or at its place when it is cut to integers: scipy, and the order
    # of axes in which TotalSegmentator calls it (W first). In that order of memory, scipy is three times as fast.
    array_WHD = np.ascontiguousarray(array_DHW.T)
    factors = [new / old for new, old in zip(shape[::-1], array_WHD.shape, strict=True)]
    result: Floats = ndimage.zoom(array_WHD, factors, output=np.float64, order=1, mode="nearest").T
    return result


def outer_nearest_index(size_in: int, size_out: int) -> npt.NDArray[np.intp]:
    """(size_out,) the voxel nearest to each of an axis that `zoomed` shrank or stretched; ties go to the later."""
    # The arithmetic of scipy's zoom, step by step: another order rounds ties otherwise.
    index: npt.NDArray[np.intp] = np.floor(np.arange(size_out) * ((size_in - 1) / max(size_out - 1, 1)) + 0.5).astype(
        np.intp
    )
    return index


def put_back(array_DHW: npt.NDArray[Scalar], out_DHW: npt.NDArray[Scalar]) -> None:
    """Fill `out_DHW` with the nearest voxels of `array_DHW`, the way back of `zoomed`; ties go to the later voxel."""
    d, h, w = (outer_nearest_index(*sizes) for sizes in zip(array_DHW.shape, out_DHW.shape, strict=True))
    planes = array_DHW.take(w, 2).take(h, 1)
    for out, index in zip(out_DHW, d, strict=True):
        out[...] = planes[index]


def resampled(
    array: npt.NDArray[Any], source: Geometry, target: Geometry, *, order: Literal[0, 1], fill: float
) -> npt.NDArray[Any]:
    """Put an array onto any other grid: each target voxel takes the value that is at its centre.

    Parameters
    ----------
    array
        Voxels [i, j, k] on `source`.
    source, target
        Grids in one frame of reference; they may be turned and sheared against each other.
    order
        Degree of interpolation. 1: linear, as float32. 0: the nearest voxel's value, of the array's own type.
    fill
        Value of the voxels whose centres lie outside the source's box. Between the box's edge and the outermost
        centres, the value is that at the edge.

    Returns
    -------
    array
        [i, j, k] on `target`. Along an axis where target voxels lie exactly on slices of the source, nothing is
        interpolated.
    """
    exact = np.linalg.solve(source.affine, target.affine)[:3]
    whole = np.round(exact)
    matrix: Floats = np.where(np.abs(exact - whole) < WHOLE, whole, exact)
    parallel = matrix[0, 1] == matrix[1, 0] == matrix[2, 0] == matrix[2, 1] == 0
    slice_of = _parallel_slice if parallel else _any_slice
    result = np.empty(target.shape, array.dtype if order == 0 else np.float32, order="F")
    for k in range(target.shape[2]):
        values, outside = slice_of(array, matrix[:, :2], matrix[:, 2] * k + matrix[:, 3], target.shape[:2], order)
        result[:, :, k] = np.where(outside, result.dtype.type(fill), values)
    return result


def _any_slice(
    array: npt.NDArray[Any], steps: Floats, start: Floats, shape: tuple[int, int], order: Literal[0, 1]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values of a target slice, and which of its voxels lie outside the source.

    Parameters
    ----------
    steps, start
        (3, 2) matrix and (3,) vector: source indices from one target voxel to the next along i and j, and those of the
        first.
    shape
        Shape of the slice.
    """
    i, j = np.meshgrid(*map(np.arange, shape), indexing="ij")
    points = np.multiply.outer(steps[:, 0], i) + np.multiply.outer(steps[:, 1], j) + start[:, None, None]
    values = np.empty(shape, array.dtype if order == 0 else np.float32)
    ndimage.map_coordinates(array, points, values, order=order, mode="nearest")
    last = np.array(array.shape)[:, None, None] - 0.5
    return values, np.any((points < -0.5) | (points > last), axis=0)


def _parallel_slice(
    array: npt.NDArray[Any], steps: Floats, start: Floats, shape: tuple[int, int], order: Literal[0, 1]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """`_any_slice` where source and target have parallel axes, one axis after the other: some 20 times faster."""
    slices, outside = _along_axis(array.transpose(2, 1, 0), start[2:], order)
    columns, off_columns = _along_axis(slices[0].T, start[0] + steps[0, 0] * np.arange(shape[0]), order)
    rows, off_rows = _along_axis(columns.T, start[1] + steps[1, 1] * np.arange(shape[1]), order)
    return rows.T, off_columns[:, None] | off_rows | outside


def _along_axis(
    array: npt.NDArray[Any], points: Floats, order: Literal[0, 1]
) -> tuple[npt.NDArray[Any], npt.NDArray[np.bool_]]:
    """Values at `points` along the first axis, as `resampled` has them, and which points lie outside."""
    size = array.shape[0]
    inside = np.clip(points, 0, size - 1)
    low = np.floor(inside + (0.5 if order == 0 else 0)).astype(np.intp)
    values = array[low]
    share = (inside - low).astype(np.float32).reshape(-1, *[1] * (array.ndim - 1))
    if order == 1 and share.any():
        values = values.astype(np.float32)
        values += (array[np.minimum(low + 1, size - 1)] - values) * share
    return values, (points < -0.5) | (points > size - 0.5)


def straight_grid(geometry: Geometry) -> Geometry:
    """Grid of the same slices (k), stacked along their normal: in each, the same pixels and as many more as are needed.

    Along i and j it is larger by what the stack leans, so that each of the slices is inside. Voxels lie as far apart
    along the normal as the slices do.
    """
    axes = geometry.affine[:3, :3]
    normal = np.cross(axes[:, 0], axes[:, 1])
    normal /= np.linalg.norm(normal)
    affine = geometry.affine.copy()
    affine[:3, 2] = (axes[:, 2] @ normal) * normal
    # How many pixels the last slice lies off the first, along i and j.
    off = np.linalg.solve(affine[:3, :3], axes[:, 2])[:2] * (geometry.shape[2] - 1)
    first = np.floor(np.minimum(off, 0) + WHOLE).astype(int)
    more = np.ceil(np.maximum(off, 0) - WHOLE).astype(int) - first
    columns, rows, slices = geometry.shape
    shape = (columns + int(more[0]), rows + int(more[1]), slices)
    return Geometry(geometry.shape, affine).cropped((int(first[0]), int(first[1]), 0), shape)


def tilt_degrees(geometry: Geometry) -> float:
    """Angle between the direction in which slices (k) are stacked and their normal."""
    i, j, k = geometry.directions.T
    normal = np.cross(i, j) / np.linalg.norm(np.cross(i, j))
    along = float(k @ normal)
    return float(np.degrees(np.arctan2(np.linalg.norm(k - along * normal), abs(along))))
