"""The outputs of a case: what ``volseg predict`` can write into its folder. A new one is a module, and a line here.

An output's module is imported when it is first used: some of the libraries behind them take a second.
"""

from __future__ import annotations

import importlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from volseg.errors import UsageError
from volseg.results import (
    COLOURS,
    FRACTIONAL,
    LABEL_MAP,
    MAPS,
    MESH_GLB,
    MESH_PLY,
    MESHES,
    METAIMAGE,
    NIFTI,
    NRRD,
    PREVIEW,
    REPAIRED,
    REPORT,
    RTSTRUCT,
    RTSTRUCT_XOR,
    SEG,
    SUMMARY,
    TABLE,
)

if TYPE_CHECKING:
    from volseg.inference.maps import Maps
    from volseg.loaders import Candidate
    from volseg.results.case import LabelResult, ModelIdentity
    from volseg.results.settings import Settings
    from volseg.volume import LabelVolume, Source, Volume


@dataclass(frozen=True, kw_only=True)
class FinishedCase:
    """A case that is segmented: all that an output is made from.

    Attributes
    ----------
    candidate
        The candidate that was segmented.
    scan
        The scan's voxels, as they were prepared for the network: a series with a tilt on straight slices.
    mask
        The segmentation on the scan's own grid.
    labels
        Volume and quality of each label, in the order of the mask's.
    maps
        Probabilities and entropy, where they were asked for.
    model
        The model that segmented it.
    """

    candidate: Candidate
    scan: Volume
    mask: LabelVolume
    labels: tuple[LabelResult, ...]
    maps: Maps | None
    model: ModelIdentity


@dataclass(frozen=True)
class Written:
    """What came of writing an output, beside its files.

    Attributes
    ----------
    notes
        Notes on what was changed or left out, a sentence each.
    case
        The case that later outputs are made from, where this output changes it.
    """

    notes: tuple[str, ...] = ()
    case: FinishedCase | None = None


@dataclass(frozen=True)
class Output:
    """Something that can be written of a case.

    Attributes
    ----------
    name
        Name in flags.
    files
        Pattern of its files' names, relative to a case's folder: nothing else writes files with such names there.
    module
        Module of this package that makes it, with ``write_output(case, folder) -> Written``.
    option
        Option of `volseg.results.settings.Settings` that asks for it; where several are named, any of them does.
    by_default
        Whether it is written without being asked for; one that can't be written is then a flag, and no failure.
    """

    name: str
    files: str
    module: str
    option: tuple[str, ...] = ()
    by_default: bool = False

    def wanted(self, settings: Settings, source: Source) -> bool:  # noqa: ARG002
        """Whether it is to be written of a case with this source."""
        return any(getattr(settings, name) for name in self.option)

    def required(self, settings: Settings) -> bool:  # noqa: ARG002
        """Whether a case without it is a failure."""
        return not self.by_default

    def own(self, folder: Path) -> list[str]:
        """The files in a case's folder that are this output's, relative to the folder."""
        return sorted(path.relative_to(folder).as_posix() for path in folder.glob(self.files) if path.is_file())

    def write(self, case: FinishedCase, folder: Path) -> Written:
        """Write it into a case's folder.

        Raises
        ------
        ExportError
            It can't be written for this case. What was written of it by then is among `own`.
        """
        written: Written = self._module().write_output(case, folder)
        return written

    def _module(self) -> Any:
        return importlib.import_module(f"volseg.export.{self.module}")


@dataclass(frozen=True)
class Format(Output):
    """An output that ``--format`` chooses by name.

    Attributes
    ----------
    of_dicom_alone
        Whether it is written by default only where the source is DICOM.
    """

    of_dicom_alone: bool = False

    def wanted(self, settings: Settings, source: Source) -> bool:
        """Whether it was named, or none was and it is there by default."""
        if settings.formats is not None:
            return self.name in settings.formats
        return self.by_default and (source.dicom is not None or not self.of_dicom_alone)

    def required(self, settings: Settings) -> bool:
        """Whether it was named."""
        return settings.formats is not None


@dataclass(frozen=True)
class MaskFormat(Format):
    """A format of the mask, one file.

    Its module has ``write(mask, path) -> notes``.

    Attributes
    ----------
    endings
        Endings of file names that choose it in `volseg.save`, in small letters.
    of_scans
        Whether it holds scans as well: its module has ``write_scan(volume, path) -> notes``.
    readable
        Whether its files can be read as masks again; meshes can't.
    keywords
        Arguments by name for the module's ``write``, where a module writes several formats.
    """

    endings: tuple[str, ...] = ()
    of_scans: bool = False
    readable: bool = True
    keywords: Mapping[str, str] = field(default_factory=dict)

    def save(self, mask: LabelVolume, path: Path) -> tuple[str, ...]:
        """Write a mask to a path and return notes, a sentence each.

        Raises
        ------
        ExportError
            The format can't hold this mask.
        """
        notes: tuple[str, ...] = self._module().write(mask, path, **self.keywords)
        return notes

    def save_scan(self, volume: Volume, path: Path) -> tuple[str, ...]:
        """Write a scan to a path and return notes, a sentence each; of a format `of_scans`.

        Raises
        ------
        ExportError
            The format can't hold this scan.
        """
        notes: tuple[str, ...] = self._module().write_scan(volume, path)
        return notes

    def write(self, case: FinishedCase, folder: Path) -> Written:
        """Write the mask into a case's folder."""
        return Written(notes=self.save(case.mask, folder / self.files))


#: In the order in which they are written. The copy with repaired UIDs comes first: the others refer to it.
OUTPUTS: tuple[Output, ...] = (
    Output("repair-uids", f"{REPAIRED}/*", "identity", option=("repair_uids",)),
    MaskFormat("nifti", NIFTI, "nifti", by_default=True, endings=(".nii", ".nii.gz"), of_scans=True),
    MaskFormat("seg", SEG, "dicom_seg", by_default=True, of_dicom_alone=True, endings=(".dcm",)),
    MaskFormat("labelmap", LABEL_MAP, "dicom_seg", endings=(".labelmap.dcm",), keywords={"kind": "labelmap"}),
    MaskFormat("rtstruct", RTSTRUCT, "dicom_rtstruct", endings=(".rtstruct.dcm",)),
    MaskFormat(
        "rtstruct-xor", RTSTRUCT_XOR, "dicom_rtstruct", endings=(".rtstruct-xor.dcm",), keywords={"holes": "xor"}
    ),
    MaskFormat("nrrd", NRRD, "nrrd", endings=(".nrrd",), of_scans=True),
    MaskFormat("metaimage", METAIMAGE, "metaimage", endings=(".mha",), of_scans=True),
    MaskFormat("ply", MESH_PLY, "mesh", endings=(".ply",), keywords={"kind": "ply"}, readable=False),
    MaskFormat("glb", MESH_GLB, "mesh", endings=(".glb",), keywords={"kind": "glb"}, readable=False),
    Format("stl", f"{MESHES}/*.stl", "mesh"),
    Format("csv", TABLE, "table"),
    Format("colours", COLOURS, "colours"),
    # It refers to the SEG, which is there by then.
    Format("sr", REPORT, "dicom_sr"),
    Format("fractional", FRACTIONAL, "dicom_fractional"),
    Format("sc", SUMMARY, "dicom_sc"),
    Output("probabilities", f"{MAPS}/*.nii.gz", "maps", option=("probabilities", "entropy")),
    Output("preview", PREVIEW, "preview", option=("preview",), by_default=True),
)


def named() -> dict[str, Format]:
    """All that ``--format`` takes, by name."""
    return {output.name: output for output in OUTPUTS if isinstance(output, Format)}


def formats() -> dict[str, MaskFormat]:
    """The formats of a mask among them."""
    return {output.name: output for output in OUTPUTS if isinstance(output, MaskFormat)}


def check_formats(names: tuple[str, ...] | None) -> None:
    """Refuse formats that there aren't.

    Raises
    ------
    UsageError
        It names those that there are.
    """
    if unknown := [name for name in names or () if name not in named()]:
        raise UsageError(f"no format {', '.join(unknown)}; formats are {', '.join(named())}")


def chosen(settings: Settings, source: Source) -> Iterator[Output]:
    """The outputs that are to be written of a case, in this order."""
    return (output for output in OUTPUTS if output.wanted(settings, source))
