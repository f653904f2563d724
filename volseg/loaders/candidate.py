"""`Candidate`: one image that was found, with the verdict whether it can be segmented, and `Ignored`: what is none."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import Geometry
from volseg.loaders import tilt
from volseg.text import relative
from volseg.volume import Volume

_GEOMETRY_CODES = frozenset(
    {
        "not-3d",
        "bad-affine",
        "missing-geometry",
        "missing-slice",
        "duplicate-slice",
        "varying-spacing",
        "mixed-orientation",
        "mixed-size",
        "mixed-frame",
        "tilted",
        "grid-mismatch",
    }
)


@dataclass(frozen=True, kw_only=True)
class Candidate:
    """An image that was found: a NIfTI file, the files of a case with several channels, or a DICOM series.

    Attributes
    ----------
    name
        Case name, safe as a folder name, without patient data.
    modality
        DICOM's term, None where the source doesn't say.
    description
        Series description or file name.
    path
        File, or the folder that holds the series.
    files
        Files whose pixels form the volume: a DICOM series' in the order of its slices, channels in theirs.
    series_uid, study_uid, frame_of_reference_uid
        UIDs of the series; None for files that aren't DICOM, and where they are blank.
    geometry
        Grid of the stored slices, which is sheared where the series is tilted; None where it can't be known.
    channels
        Numbers a voxel.
    usable
        Whether `load` can be tried; it still reads the voxels for the first time.
    reason, code
        Reason why it can't be used, for people and as a key of `volseg.errors.CODES`; None where it can.
    notes
        Notes on what is unusual or was evened out, a sentence each.
    sequence
        Text of a DICOM series on its sequence and protocol.
    slices
        Slices of a DICOM series, in the order of k: the file of each, and the number of its frame there, from 0.
    parts
        The channels, where they are candidates of their own; the others then describe the first.
    reader
        Function that reads the voxels of a usable candidate: who finds one knows how.
    """

    name: str
    kind: Literal["dicom", "nifti", "nrrd", "metaimage"]
    modality: str | None
    description: str
    path: Path
    files: tuple[Path, ...]
    series_uid: str | None
    series_number: int | None
    geometry: Geometry | None
    channels: int
    usable: bool
    reader: Callable[[Candidate], Volume] = field(repr=False, compare=False)
    reason: str | None = None
    code: str | None = None
    notes: tuple[str, ...] = ()
    study_uid: str | None = None
    frame_of_reference_uid: str | None = None
    sequence: str = ""
    slices: tuple[tuple[Path, int], ...] = ()
    parts: tuple[Candidate, ...] = ()

    def load(self, *, resample_tilt: bool = False) -> Volume:
        """Read the voxels.

        Parameters
        ----------
        resample_tilt
            Whether a series with a tilt is loaded as well, on straight slices; ``source.stored`` is then the grid of
            its own.

        Returns
        -------
        Volume
            [i, j, k], or [c, i, j, k] where there are channels.

        Raises
        ------
        GeometryError, InputError
            Not usable, for the reason that `reason` and `code` give; or the voxels turn out to be damaged, not finite,
            or compressed in a way that no installed codec reads.
        """
        tilted = self.code == "tilted" and resample_tilt
        if self.code is not None and not tilted:
            raise refusal(self.reason or "", code=self.code, path=self.path)
        volume = self.reader(self)
        # Each channel has been straightened by itself.
        return tilt.straightened(volume) if tilted and not self.parts else volume

    def as_json(self, root: Path) -> dict[str, Any]:
        """Entry of ``inspect --json``, with the path relative to `root`."""
        grid = self.geometry
        return {
            "name": self.name,
            "kind": self.kind,
            "modality": self.modality,
            "description": self.description,
            "path": relative(self.path, root),
            "files": len(self.files),
            "series_uid": self.series_uid,
            "shape": list(grid.shape) if grid else None,
            "spacing_mm": list(grid.spacing_mm) if grid else None,
            "affine": grid.affine.tolist() if grid else None,
            "orientation": grid.orientation if grid else None,
            "usable": self.usable,
            "reason": self.reason,
            "code": self.code,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Ignored:
    """A file that is no image to segment, and why.

    Attributes
    ----------
    refers_to
        UIDs of the series that a DICOM object refers to.
    """

    path: Path
    reason: str
    refers_to: tuple[str, ...] = ()


def refusal(reason: str, *, code: str, path: Path | None = None) -> RefusalError:
    """Error of the class that belongs to `code`."""
    kind = GeometryError if code in _GEOMETRY_CODES else InputError
    return kind(reason, code=code, path=path)
