"""Two small series cut from the sample data, to be damaged before they are written; and what they truly are.

A `Series` is made of numbers (stored values, an affine in LPS+ mm as DICOM's are) and of one pydicom data set a slice,
whose header is the sample file's own. A row changes the data sets; the truth stays with the numbers.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.encaps import encapsulate, generate_frames
from pydicom.uid import UID, ExplicitVRBigEndian, ExplicitVRLittleEndian, JPEG2000Lossless, generate_uid
from pydicom.valuerep import DSfloat

from benchmarks.geometry.truth import Array, Image, ras

STUDY = Path(__file__).resolve().parents[2] / "sample_data" / "study"
SLICES = 12
#: Between the CT sample's slices, which are 3 mm thick.
CT_STEP_MM = 2.0
#: What is left out of the samples' headers: wrong after the crop, or of no interest to any reader.
UNUSED = {
    *("PixelData", "SmallestImagePixelValue", "LargestImagePixelValue", "SliceLocation", "DataCollectionDiameter"),
    *("ReconstructionDiameter", "RotationDirection", "ExposureTime", "XRayTubeCurrent", "Exposure", "FilterType"),
    *("FocalSpots", "WindowCenter", "WindowWidth", "WindowCenterWidthExplanation", "PatientIdentityRemoved"),
    "DeidentificationMethod",
}


def uid(*parts: object) -> UID:
    """UID that is the same at every run."""
    return generate_uid(entropy_srcs=[str(part) for part in parts])


@cache
def _sample(name: str) -> tuple[Dataset, Array, Array]:
    """Header, stored values [column, row, slice] and LPS affine of a block cut from a sample series."""
    files = [pydicom.dcmread(path) for path in sorted((STUDY / name).iterdir())]
    files.sort(key=lambda dataset: float(dataset.ImagePositionPatient[2]))
    corner, size = ((180, 205), (48, 40)) if name == "ct" else ((0, 0), (43, 42))
    files = files[len(files) // 2 - SLICES // 2 :][:SLICES]
    values = np.stack([dataset.pixel_array.T for dataset in files], axis=-1)
    values = values[corner[0] :, corner[1] :][: size[0], : size[1]]
    header = files[0]
    affine = np.eye(4)
    across, down = np.reshape([float(value) for value in header.ImageOrientationPatient], (2, 3))
    affine[:3, 0] = across * float(header.PixelSpacing[1])
    affine[:3, 1] = down * float(header.PixelSpacing[0])
    positions = np.array([[float(value) for value in dataset.ImagePositionPatient] for dataset in files])
    affine[:3, 2] = (positions[-1] - positions[0]) / (SLICES - 1)
    affine[:3, 3] = positions[0] + affine[:3, 0] * corner[0] + affine[:3, 1] * corner[1]
    if name == "mr":
        # Blank in the sample, which one reader can't take; a row of its own is about that.
        header.EchoTime, header.RepetitionTime = "4.6", "2000"
    # A plain data set of decoded elements, so that it can be written in any encoding.
    plain = Dataset()
    for element in header:
        if element.keyword not in UNUSED:
            plain.add(element)
    return plain, values, affine


def decimals(numbers: Iterable[float]) -> list[DSfloat]:
    """Numbers as DICOM's decimal strings of at most 16 characters."""
    return [DSfloat(float(number), auto_format=True) for number in numbers]


def set_pixels(dataset: Dataset, pixels: Array) -> None:
    """Put `pixels` [row, column] in, uncompressed, and say how large they are."""
    dataset.Rows, dataset.Columns = pixels.shape
    bits = pixels.dtype.itemsize * 8
    dataset.BitsAllocated = bits
    dataset.BitsStored, dataset.HighBit = bits, bits - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    data = np.ascontiguousarray(pixels).tobytes()
    dataset.PixelData = data + b"\0" * (len(data) % 2)
    dataset["PixelData"].VR = "OW" if bits > 8 else "OB"


def pixels_of(dataset: Dataset) -> Array:
    """Pixels [row, column] that `set_pixels` put in."""
    kind = "i" if dataset.PixelRepresentation else "u"
    count = dataset.Rows * dataset.Columns
    return np.frombuffer(dataset.PixelData, f"<{kind}{dataset.BitsAllocated // 8}", count).reshape(
        dataset.Rows, dataset.Columns
    )


@dataclass
class Series:
    """Slices to be written.

    Attributes
    ----------
    stored
        [column, row, slice], as in the files.
    affine
        (4, 4), of `stored` to LPS+ mm.
    files
        One data set a slice.
    """

    stored: Array
    affine: Array
    intercept: float = 0.0
    files: list[Dataset] = field(default_factory=list)

    def image(self, slices: slice | Sequence[int] = slice(None), **tolerances: float) -> Image:
        """The true volume, of all slices or of some that are evenly spaced."""
        chosen = np.arange(self.stored.shape[2])[slices]
        affine = self.affine.copy()
        affine[:3, 3] += self.affine[:3, 2] * chosen[0]
        if len(chosen) > 1:
            affine[:3, 2] *= chosen[1] - chosen[0]
        values = self.stored[:, :, chosen] + np.float64(self.intercept)
        return Image(values=values, affine=ras(affine), **tolerances)

    def put(self, at: Iterable[int] | None = None, **values: Any) -> None:
        """Set elements in all slices or in those named; None deletes an element."""
        for index in range(len(self.files)) if at is None else at:
            for keyword, value in values.items():
                if value is None:
                    self.files[index].pop(keyword, None)
                else:
                    setattr(self.files[index], keyword, value)

    def each(self, keyword: str, value: Callable[[int], Any]) -> None:
        """Set an element to a value of the slice's index."""
        for index, dataset in enumerate(self.files):
            setattr(dataset, keyword, value(index))

    def move(self, at: Iterable[int], mm: npt.ArrayLike) -> None:
        """Add `mm` (LPS) to the position of some slices."""
        for index in at:
            position = np.array(self.files[index].ImagePositionPatient, float) + np.asarray(mm)
            self.files[index].ImagePositionPatient = decimals(position)

    def turn(self, at: Iterable[int], degrees: float) -> None:
        """Rotate some slices about the patient's x axis through their first pixel."""
        for index in at:
            cosines = np.reshape(np.array(self.files[index].ImageOrientationPatient, float), (2, 3))
            self.files[index].ImageOrientationPatient = decimals((cosines @ rotation(degrees, 0, 0).T).ravel())

    @property
    def normal(self) -> Array:
        """Unit vector across the slices, LPS."""
        across = np.cross(self.affine[:3, 0], self.affine[:3, 1])
        return np.asarray(across / np.linalg.norm(across))

    def without(self, *indices: int) -> list[Dataset]:
        """The data sets of all other slices."""
        return [dataset for index, dataset in enumerate(self.files) if index not in indices]


def rotation(x_degrees: float, y_degrees: float, z_degrees: float) -> Array:
    """Rotation about x, then y, then z."""
    x, y, z = np.radians([x_degrees, y_degrees, z_degrees])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    about_y = np.array([[np.cos(y), 0, np.sin(y)], [0, 1, 0], [-np.sin(y), 0, np.cos(y)]])
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    return np.asarray(about_z @ about_y @ about_x)


def series(
    source: str,
    *,
    stored: Array | None = None,
    affine: Array | None = None,
    part: str = "",
    first_number: int = 1,
) -> Series:
    """Undamaged series of a sample's headers.

    Parameters
    ----------
    source
        ``"ct"`` (48 x 40 x 12 voxels of 0.977 x 0.977 x 2 mm, unsigned, intercept -1024) or ``"mr"`` (43 x 42 x 12 of
        1 mm, signed).
    stored, affine
        Other values and another grid (LPS) than the sample's.
    part
        Tells the instances of two stacks of one series apart.
    first_number
        InstanceNumber of the first slice.
    """
    header, sample, grid = _sample(source)
    stored = sample.copy() if stored is None else stored
    affine = grid.copy() if affine is None else affine
    made = Series(stored, affine, float(header.get("RescaleIntercept", 0)))
    spacing = np.linalg.norm(affine[:3, :2], axis=0)
    for index in range(stored.shape[2]):
        dataset = Dataset()
        for element in header:
            dataset.add(copy.copy(element))
        dataset.file_meta = FileMetaDataset()
        dataset.SOPInstanceUID = uid(source, part, index)
        dataset.InstanceNumber = first_number + index
        dataset.ImagePositionPatient = decimals(affine[:3] @ [0, 0, index, 1])
        dataset.ImageOrientationPatient = decimals((affine[:3, :2] / spacing).T.ravel())
        dataset.PixelSpacing = decimals(spacing[::-1])
        set_pixels(dataset, stored[:, :, index].T)
        if stored.dtype == np.uint16 and stored.max() < 4096:
            dataset.BitsStored, dataset.HighBit = 12, 11  # as in the sample
        made.files.append(dataset)
    return made


def ct(**options: Any) -> Series:
    """The CT sample's series."""
    return series("ct", **options)


def mr(**options: Any) -> Series:
    """The MR sample's series."""
    return series("mr", **options)


def other_values(given: Series) -> Array:
    """Values that differ from the series' own everywhere: those of a second time point or echo."""
    return np.asarray(given.stored // 2 + 7).astype(given.stored.dtype)


def changed(given: Series, directions: npt.ArrayLike | None = None, spacing: Sequence[float] | None = None) -> Array:
    """The series' affine with other directions (columns, LPS) or another spacing."""
    old = np.linalg.norm(given.affine[:3, :3], axis=0)
    affine = given.affine.copy()
    turned = given.affine[:3, :3] / old if directions is None else np.asarray(directions, float)
    affine[:3, :3] = turned * (old if spacing is None else np.asarray(spacing))
    return affine


def encode(dataset: Dataset, syntax: UID) -> None:
    """Give a data set with plain pixels another transfer syntax."""
    dataset.file_meta.TransferSyntaxUID = syntax
    if syntax == ExplicitVRBigEndian:
        pixels = pixels_of(dataset)
        dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder(">")).tobytes()
    elif syntax == JPEG2000Lossless:
        from openjpeg.utils import encode_array

        pixels = np.ascontiguousarray(pixels_of(dataset))
        code = encode_array(pixels, bits_stored=dataset.BitsStored, photometric_interpretation=2)
        set_encapsulated(dataset, [bytes(code)])
    elif syntax.is_encapsulated:
        dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        # Named, because gdcm ends the whole process on some arrays.
        plugin = "pydicom" if "RLE" in syntax.name else "pyjpegls"
        dataset.compress(syntax, pixels_of(dataset), encoding_plugin=plugin, generate_instance_uid=False)


def compressed(dataset: Dataset) -> bytes:
    """Compressed pixels of a data set of one frame."""
    return next(generate_frames(dataset.PixelData, number_of_frames=1))


def set_encapsulated(dataset: Dataset, frames: list[bytes], fragments: int = 1) -> None:
    """Put compressed pixels in."""
    dataset.PixelData = encapsulate(frames, fragments_per_frame=fragments)
    dataset["PixelData"].VR = "OB"
    dataset["PixelData"].is_undefined_length = True


def numbered(index: int) -> str:
    """File name of a slice, unless a row wants another."""
    return f"IM{index:04d}.dcm"


def write(
    folder: Path,
    files: Sequence[Dataset],
    *,
    syntax: UID = ExplicitVRLittleEndian,
    name: Callable[[int], str] = numbered,
) -> list[Path]:
    """Write data sets into `folder`, compressed where `syntax` asks for it."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for index, dataset in enumerate(files):
        if "TransferSyntaxUID" not in dataset.file_meta:
            encode(dataset, syntax)
        paths.append(folder / name(index))
        dataset.save_as(paths[-1], enforce_file_format=True)
    return paths
