"""To and from the images of other libraries: nibabel, SimpleITK and MONAI. Voxels bit for bit, affines in doubles.

A volume of one channel comes back as [i, j, k], whether or not it had an axis for it.
The libraries are imported when a function is called: SimpleITK and MONAI take seconds.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from volseg.errors import ExportError, GeometryError, InputError
from volseg.geometry import AxisMap, Floats, Geometry, ras_from_lps
from volseg.volume import LabelVolume, NiftiSource, Source, Volume, Voxels

if TYPE_CHECKING:
    import nibabel
    import SimpleITK
    from monai.data import MetaTensor
    from nibabel.spatialimages import SpatialImage

#: What a NIfTI says of a grid that comes from elsewhere: scanner coordinates (1) in both transforms, millimetres.
SCANNER_NIFTI = NiftiSource(sform_code=1, qform_code=1, units=("mm", "unknown"))
#: How far a transform that a NIfTI header holds in single precision may put a voxel from where it is, in mm.
NIFTI_MM = 1e-4


def to_nibabel(volume: Volume | LabelVolume) -> nibabel.Nifti1Image:
    """Make a NIfTI image [i, j, k] or, of several channels, [i, j, k, c].

    The header's codes and units are those of a NIfTI source, else scanner coordinates in millimetres. A qform holds a
    rotation alone and in single precision: where it can't hold the affine to `NIFTI_MM`, its code is 0, and the sform
    takes its place if it wasn't set. Where a NIfTI source's qform is another transform than the affine, it is kept.

    Raises
    ------
    ExportError
        Code ``format``: NIfTI has no such voxel type.
    """
    import nibabel
    from nibabel.spatialimages import HeaderDataError

    array = volume.array if volume.array.ndim == 3 else np.moveaxis(volume.array, 0, -1)
    try:
        image = nibabel.Nifti1Image(array, volume.geometry.affine, dtype=array.dtype)
    except HeaderDataError as error:
        raise ExportError(f"NIfTI has no voxels of type {array.dtype}", code="format") from error
    said = volume.source.nifti or SCANNER_NIFTI
    _set_transforms(image, volume.geometry, said)
    image.header.set_xyzt_units(*said.units)
    return image


def _set_transforms(image: nibabel.Nifti1Image, geometry: Geometry, said: NiftiSource) -> None:
    """Write `geometry` into the header under the codes that the source had, as far as each transform can hold it."""
    header = image.header
    sform_code, qform_code = said.sform_code, said.qform_code
    header.set_qform(geometry.affine, qform_code)
    header.set_sform(geometry.affine, sform_code)
    if said.qform is not None:
        header.set_qform(np.array(said.qform), qform_code)
    elif qform_code and _misplaced(geometry, header.get_qform()):
        header.set_qform(geometry.affine, 0)
        header.set_sform(geometry.affine, sform_code or qform_code)
    # Without either code a reader makes the affine of shape and spacing; usually that isn't this one.
    if _misplaced(geometry, header.get_best_affine()):
        header.set_sform(geometry.affine, sform_code or qform_code or 1)


def _misplaced(geometry: Geometry, affine: Floats) -> bool:
    return not geometry.same_grid(Geometry(geometry.shape, affine), tolerance_mm=NIFTI_MM)


def from_nibabel(image: SpatialImage) -> Volume:
    """Make a volume of an image [i, j, k] or [i, j, k, c]; scaled as its header says.

    Raises
    ------
    GeometryError
        Code ``not-3d`` or ``bad-affine``.
    InputError
        Code ``not-scalar``: colour or complex voxels.
    """
    array = np.asanyarray(image.dataobj)
    if array.dtype.kind not in "biuf":
        raise InputError(f"voxels of type {array.dtype}; a scan has one number a voxel", code="not-scalar")
    if array.ndim not in (3, 4):
        raise GeometryError(f"an image with {array.ndim} axes; a scan has 3, or 4 with channels", code="not-3d")
    i, j, k = array.shape[:3]
    said = None
    header: Any = image.header
    if hasattr(header, "get_sform"):
        qform, qform_code = header.get_qform(coded=True)
        differs = qform is not None and not np.allclose(qform, image.affine, rtol=0, atol=NIFTI_MM)
        said = NiftiSource(
            sform_code=int(header["sform_code"]),
            qform_code=int(qform_code),
            units=header.get_xyzt_units(),
            qform=tuple(tuple(float(value) for value in row) for row in qform) if differs else None,
        )
    return Volume(_channels_first(array), Geometry((i, j, k), image.affine), Source(nifti=said))


def to_simpleitk(volume: Volume | LabelVolume) -> SimpleITK.Image:
    """Make an image of scalars, or of vectors where the volume has a channel axis.

    Raises
    ------
    GeometryError
        Code ``tilted``: ITK's direction is a rotation, which can't hold a sheared grid.
    ExportError
        Code ``format``: ITK has no such voxel type.
    """
    import SimpleITK

    geometry = volume.geometry
    if geometry.sheared:
        raise GeometryError(
            "the axes are not perpendicular, and SimpleITK holds no sheared grid; resample to a perpendicular one",
            code="tilted",
        )
    vectors = volume.array.ndim == 4
    # AxisMap moves the last three axes; ITK's arrays are [k, j, i], vector components behind them.
    array = AxisMap.reversed_axes().apply(_native(volume.array))
    try:
        image = SimpleITK.GetImageFromArray(np.moveaxis(array, 0, -1) if vectors else array, isVector=vectors)
    except TypeError as error:
        raise ExportError(f"SimpleITK has no voxels of type {array.dtype}", code="format") from error
    affine = ras_from_lps(geometry.affine)
    image.SetSpacing(geometry.spacing_mm)
    image.SetOrigin(affine[:3, 3].tolist())
    image.SetDirection((affine[:3, :3] / np.array(geometry.spacing_mm)).ravel().tolist())
    return image


def from_simpleitk(image: SimpleITK.Image) -> Volume:
    """Make a volume of a 3D image; an image of vectors becomes channels.

    Raises
    ------
    GeometryError
        Code ``not-3d``.
    InputError
        Code ``not-scalar``: complex voxels.
    """
    import SimpleITK

    if image.GetDimension() != 3:
        raise GeometryError(f"an image of {image.GetDimension()} dimensions; a scan has 3", code="not-3d")
    array = SimpleITK.GetArrayFromImage(image)
    if array.dtype.kind not in "biuf":
        raise InputError(f"voxels of type {array.dtype}; a scan has one number a voxel", code="not-scalar")
    affine = np.eye(4)
    affine[:3, :3] = np.array(image.GetDirection()).reshape(3, 3) * np.array(image.GetSpacing())
    affine[:3, 3] = image.GetOrigin()
    i, j, k = image.GetSize()
    return Volume(AxisMap.reversed_axes().apply(_channels_first(array)), Geometry((i, j, k), ras_from_lps(affine)))


def to_metatensor(volume: Volume | LabelVolume) -> MetaTensor:
    """Make MONAI's tensor [c, i, j, k] with its affine to RAS+; the voxels are copied."""
    import torch
    from monai.data import MetaTensor

    array = _native(volume.array)
    array_CIJK = array[None] if array.ndim == 3 else array
    return MetaTensor(torch.from_numpy(np.array(array_CIJK, order="C")), affine=torch.tensor(volume.geometry.affine))


def from_metatensor(tensor: MetaTensor) -> Volume:
    """Make a volume of a tensor [c, i, j, k], in RAS+ or LPS+ as it says.

    Raises
    ------
    GeometryError
        Code ``not-3d``.
    """
    if tensor.ndim != 4:
        raise GeometryError(f"a tensor with {tensor.ndim} axes; [c, i, j, k] has 4", code="not-3d")
    array = tensor.detach().cpu().numpy()
    affine = tensor.affine.detach().cpu().numpy()
    if str(tensor.meta.get("space", "RAS")).endswith("LPS"):
        affine = ras_from_lps(affine)
    _, i, j, k = array.shape
    return Volume(array[0] if len(array) == 1 else array, Geometry((i, j, k), affine))


def _channels_first(array: Voxels) -> Voxels:
    """[..., c] as [c, ...]; a single channel, or none, without that axis."""
    if array.ndim == 3:
        return array
    return array[..., 0] if array.shape[-1] == 1 else np.moveaxis(array, -1, 0)


def _native(array: Voxels) -> Voxels:
    """`array` in this machine's byte order, which is the only one that SimpleITK and torch take."""
    return array.astype(array.dtype.newbyteorder("="), copy=False)
