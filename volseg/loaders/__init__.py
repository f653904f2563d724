"""From a path to volumes: NIfTI files and DICOM series, each with a verdict whether it can be segmented."""

from volseg.loaders.study import Candidate, Ignored, Study, find, load

__all__ = ["Candidate", "Ignored", "Study", "find", "load"]
