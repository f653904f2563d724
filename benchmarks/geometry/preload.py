"""Imported once, in the process that the readers' processes are forked from: what costs seconds at first use."""

from __future__ import annotations

import highdicom
import monai.transforms
import nibabel
import SimpleITK
from pydicom.uid import ExplicitVRLittleEndian

import benchmarks.geometry.damages
import benchmarks.geometry.readers
import volseg.loaders
from benchmarks.geometry.series import ct

__all__ = ["SimpleITK", "benchmarks", "monai", "nibabel", "volseg"]

# highdicom reads its tables of the standard at first use.
_FILES = ct().files[:2]
for _file in _FILES:
    _file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
highdicom.get_volume_from_series(_FILES)
