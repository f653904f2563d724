"""Ways to damage or complicate a series or a file, each a function of its own; see `benchmarks.geometry.truth`."""

from benchmarks.geometry.damages import folders, multiframe, nifti, nrrd, orientation, pixels, several, slices
from benchmarks.geometry.truth import ROWS as _FOUND
from benchmarks.geometry.truth import Row

_ORDER = [module.__name__ for module in (slices, orientation, several, pixels, folders, multiframe, nifti, nrrd)]

#: Every row by its name, in the order of the table.
ROWS: dict[str, Row] = dict(sorted(_FOUND.items(), key=lambda item: _ORDER.index(item[1].make.__module__)))
