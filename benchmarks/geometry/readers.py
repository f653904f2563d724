"""Readers under test: each takes what a user would give it and returns every volume that it makes, as `Found`.

Each is called as its own documentation shows, with its defaults. `Job.folder` holds what a row wrote; `Job.file` is the
one image file to give to readers that take a file, None where the folder itself is the input. MONAI looks
into one folder, so it is called for every folder that holds files.
"""

from __future__ import annotations

import importlib.metadata
import os
import subprocess
import tempfile
import warnings
from collections import defaultdict
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.connection import Client
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.geometry.truth import Array, Kind, ras
from benchmarks.geometry.verdict import Found

ROOT = Path(__file__).resolve().parents[2]
#: Made by ``make peers``.
PEERS = ROOT / ".venv-peers" / "bin"


@dataclass(frozen=True)
class Job:
    """What to read; `socket` is where the server of dicom2nifti listens."""

    folder: Path
    file: Path | None = None
    socket: str = ""


@dataclass(frozen=True)
class Reader:
    """A reader.

    Attributes
    ----------
    read
        Gives the volumes, or raises.
    kinds
        The rows that it is for.
    needs
        A program without which it isn't run, or None.
    """

    name: str
    read: Callable[[Job], Found]
    kinds: frozenset[Kind]
    packages: tuple[str, ...]
    needs: Path | None = None

    @property
    def version(self) -> str:
        """Names and versions of its packages, as they are installed."""
        return ", ".join(f"{package} {_version(package, self.needs)}" for package in self.packages)


def _version(package: str, program: Path | None) -> str:
    if program is None or package == "nibabel":
        return importlib.metadata.version(package)
    if not program.exists():
        return "not installed"
    show = f"import importlib.metadata as m; print(m.version({package!r}))"
    return subprocess.run([PEERS / "python", "-c", show], check=True, capture_output=True, text=True).stdout.strip()


def volumes(array: Array, affine: Array) -> list[tuple[Array, Array]]:
    """The 3D volumes of an array [i, j], [i, j, k] or [i, j, k, ...]."""
    array = array[..., None] if array.ndim == 2 else array
    array = array.reshape(*array.shape[:3], -1)
    return [(array[..., index], affine) for index in range(array.shape[3])]


def folders(root: Path) -> Iterator[Path]:
    """Every folder that holds files."""
    return (Path(folder) for folder, _, files in os.walk(root) if files)


def read_volseg(job: Job) -> Found:
    """volseg: every usable candidate of ``find``, loaded."""
    from volseg.errors import RefusalError
    from volseg.loaders import find

    found = Found()
    for candidate in find(job.folder).candidates:
        try:
            volume = candidate.load()
        except RefusalError as error:
            found.codes.append(error.code)
            found.error = found.error or str(error.reason)
            continue
        affine = np.array(volume.geometry.affine)
        found.volumes += [(channel, affine) for channel in volume.array_CIJK]
        found.notes += volume.source.notes
    found.codes = found.codes or ([] if found.volumes else ["no-image"])
    return found


def read_simpleitk(job: Job) -> Found:
    """SimpleITK: ``ReadImage`` of a file, or ImageSeriesReader on GDCM's file names of each series ID, at any depth."""
    import SimpleITK

    if job.file is not None:
        return Found(_from_simpleitk(SimpleITK.ReadImage(job.file)))
    found = Found()
    reader = SimpleITK.ImageSeriesReader()
    ids = {series for folder in folders(job.folder) for series in reader.GetGDCMSeriesIDs(str(folder))}
    for series in sorted(ids):
        reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(job.folder), series, recursive=True))
        try:
            found.volumes += _from_simpleitk(reader.Execute())
        except RuntimeError as error:
            found.error = str(error)
    return found


def _from_simpleitk(image: Any) -> list[tuple[Array, Array]]:
    import SimpleITK

    size = image.GetDimension()
    if image.GetNumberOfComponentsPerPixel() > 1 and size == 3:
        parts = [
            SimpleITK.VectorIndexSelectionCast(image, index) for index in range(image.GetNumberOfComponentsPerPixel())
        ]
        return [volume for part in parts for volume in _from_simpleitk(part)]
    affine = np.eye(4)
    if size > 2:
        directions = np.reshape(image.GetDirection(), (size, size))[:3, :3]
        affine[:3, :3] = directions * image.GetSpacing()[:3]
        affine[:3, 3] = image.GetOrigin()[:3]
    else:
        affine[:2, :2] = np.reshape(image.GetDirection(), (2, 2)) * image.GetSpacing()
        affine[:2, 3] = image.GetOrigin()
    array = SimpleITK.GetArrayFromImage(image)
    return volumes(array.T, ras(affine))


def read_monai(job: Job) -> Found:
    """MONAI: ``LoadImage`` with its defaults: PydicomReader for DICOM, NibabelReader for NIfTI.

    Those are what it takes where itk and pynrrd, which it can use, aren't installed. It looks into one folder, so it is
    called for every folder that holds files.
    """
    from monai.transforms import LoadImage

    found = Found()
    for source in [job.file] if job.file is not None else [*folders(job.folder)]:
        try:
            image = LoadImage()(source)
        except Exception as error:
            found.error = f"{type(error).__name__}: {error}"
            continue
        affine = np.array(image.affine, dtype=np.float64)
        found.volumes += volumes(np.asarray(image), affine)
    return found


def read_nibabel(job: Job) -> Found:
    """Nibabel for a file (``load``, ``get_fdata``), dicom2nifti for a folder (``convert_directory``)."""
    import nibabel

    if job.file is not None:
        image: Any = nibabel.load(job.file)
        return Found(volumes(image.get_fdata(), np.array(image.affine)))
    with tempfile.TemporaryDirectory() as out, Client(job.socket) as connection:
        connection.send((str(job.folder), out))
        try:
            said = str(connection.recv())
        except EOFError:
            return Found(error="crash: the process died")
        return Found(_from_nifti(out), said)


def _from_nifti(folder: str) -> list[tuple[Array, Array]]:
    """What a converter wrote."""
    import nibabel

    found = []
    for path in sorted(Path(folder).rglob("*.nii*")):
        image: Any = nibabel.load(path)
        array = np.asarray(image.dataobj)
        if array.dtype.names:
            array = np.stack([array[name] for name in array.dtype.names], axis=-1)
        found += volumes(array, np.array(image.affine))
    return found


def read_highdicom(job: Job) -> Found:
    """highdicom: ``imread`` of a multi-frame file, else ``get_volume_from_series`` of each series in the folder.

    Values are asked for as they are, without the inversion that MONOCHROME1 asks of a display.
    """
    import highdicom
    import pydicom

    series: dict[str, list[Any]] = defaultdict(list)
    for path in sorted(path for path in job.folder.rglob("*") if path.is_file()):
        try:
            dataset = pydicom.dcmread(path)
        except pydicom.errors.InvalidDicomError:
            continue
        if "Rows" in dataset:
            series[str(dataset.get("SeriesInstanceUID"))].append(dataset)
    found = Found()
    for datasets in series.values():
        groups = [[dataset] for dataset in datasets] if "NumberOfFrames" in datasets[0] else [datasets]
        for group in groups:
            try:
                if "NumberOfFrames" in group[0]:
                    image = highdicom.Image.from_dataset(group[0])
                    volume = image.get_volume(apply_presentation_lut=False)
                else:
                    volume = highdicom.get_volume_from_series(group, apply_presentation_lut=False)
            except Exception as error:
                found.error = f"{type(error).__name__}: {error}"
                continue
            found.volumes += volumes(np.asarray(volume.array), ras(np.array(volume.affine)))
    return found


def read_dcm2niix(job: Job) -> Found:
    """dcm2niix, with its defaults; every NIfTI that it writes counts.

    Of a tilted CT it writes one volume as if it were upright, and another that it resampled onto upright slices.
    """
    with tempfile.TemporaryDirectory() as out:
        done = subprocess.run([PEERS / "dcm2niix", "-o", out, job.folder], capture_output=True, text=True)
        said = f"{done.stdout}\n{done.stderr}".strip().splitlines()
        error = f"crash: signal {-done.returncode}" if done.returncode < 0 else said[-1] if said else ""
        return Found(_from_nifti(out), error)


EVERYTHING: frozenset[Kind] = frozenset({"dicom", "nifti", "itk"})
DICOM: frozenset[Kind] = frozenset({"dicom"})
READERS = (
    Reader("volseg", read_volseg, EVERYTHING, ("volseg",)),
    Reader("SimpleITK", read_simpleitk, EVERYTHING, ("SimpleITK",)),
    Reader("MONAI", read_monai, frozenset({"dicom", "nifti"}), ("monai",)),
    Reader(
        "nibabel / dicom2nifti",
        read_nibabel,
        frozenset({"dicom", "nifti"}),
        ("nibabel", "dicom2nifti"),
        PEERS / "dicom2nifti",
    ),
    Reader("highdicom", read_highdicom, DICOM, ("highdicom",)),
    Reader("dcm2niix", read_dcm2niix, DICOM, ("dcm2niix",), PEERS / "dcm2niix"),
)


def run(reader: Reader, job: Job) -> Found:
    """What a reader gives; an error that it raises becomes the text of one."""
    if reader.needs is not None and not reader.needs.exists() and job.file is None:
        return Found(error="not run")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            return reader.read(job)
        except Exception as error:
            return Found(error=f"{type(error).__name__}: {error}")
