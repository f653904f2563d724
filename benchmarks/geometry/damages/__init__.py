"""Ways to damage or complicate a series or a file, each a function of its own; see `benchmarks.geometry.truth`."""

from benchmarks.geometry.damages import folders, multiframe, nifti, nrrd, orientation, pixels, several, slices
from benchmarks.geometry.truth import ROWS

__all__ = ["ROWS", "folders", "multiframe", "nifti", "nrrd", "orientation", "pixels", "several", "slices"]
