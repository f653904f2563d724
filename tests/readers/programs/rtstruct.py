"""Read an RTSTRUCT with another library, into an .npz of masks [column, row, slice] by the regions' names.

Run in the environment of `.ci/readers`, which has neither volseg nor its pydicom:
``python rtstruct.py READER RTSTRUCT SERIES OUT.npz WORK``.
"""

from __future__ import annotations

import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import SimpleITK


def dcmrtstruct2nii(rtstruct: str, series: str, work: Path) -> dict[str, Any]:
    from dcmrtstruct2nii import dcmrtstruct2nii

    dcmrtstruct2nii(rtstruct, series, str(work), gzip=False, convert_original_dicom=False)
    return {path.name.removeprefix("mask_").removesuffix(".nii"): read(path) for path in work.glob("mask_*.nii")}


def platipy(rtstruct: str, series: str, work: Path) -> dict[str, Any]:
    from platipy.dicom.io.rtstruct_to_nifti import convert_rtstruct

    convert_rtstruct(series, rtstruct, prefix="", output_dir=str(work))
    return {path.name.removesuffix(".nii.gz"): read(path) for path in work.glob("*.nii.gz")}


def rt_utils(rtstruct: str, series: str, work: Path) -> dict[str, Any]:
    from rt_utils import RTStructBuilder

    structures = RTStructBuilder.create_from(dicom_series_path=series, rt_struct_path=rtstruct)
    return {
        # Its masks are [row, column, slice], though it makes them [columns, rows, slices] large.
        name: structures.get_roi_mask_by_name(name).transpose(1, 0, 2)
        for name, item in zip(structures.get_roi_names(), structures.ds.ROIContourSequence, strict=True)
        if "ContourSequence" in item
    }


def plastimatch(rtstruct: str, series: str, work: Path) -> dict[str, Any]:
    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(series))
    # It takes the grid of the contours' own box unless it is told another.
    SimpleITK.WriteImage(reader.Execute(), str(work / "image.nrrd"))
    command = [str(Path(sys.executable).with_name("plastimatch")), "convert", "--input", rtstruct]
    command += ["--fixed", str(work / "image.nrrd"), "--output-prefix", str(work / "masks"), "--prefix-format", "nrrd"]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL)
    return {path.stem: read(path) for path in (work / "masks").glob("*.nrrd")}


def read(path: Path) -> Any:
    return SimpleITK.GetArrayFromImage(SimpleITK.ReadImage(str(path))).transpose(2, 1, 0) > 0


if __name__ == "__main__":
    reader, rtstruct, series, out = sys.argv[1:]
    with tempfile.TemporaryDirectory() as work:
        masks = globals()[reader](rtstruct, series, Path(work))
    # Each makes a file's name of a region's in its own way.
    np.savez(out, **{re.sub(r"\W+|_", " ", name).strip(): mask for name, mask in masks.items()})
