"""How datasets and volseg's own results name their files, and which of these are labels and no scans."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from volseg.errors import InputError
from volseg.loaders import archive
from volseg.loaders.candidate import Candidate, Ignored
from volseg.loaders.formats import stem
from volseg.results import RESULT

#: TotalSegmentator's name of a folder of masks. Of any other, nothing says that its files are structures and not
#: several label maps.
MASKS = "segmentations"
#: Images of TotalSegmentator's two data sets, and what they are.
SCANS = {"ct": "CT", "mri": "MR"}
#: BraTS' sequences under the names that they have since 2023, and those up to 2021.
SEQUENCES = {"t1n": "t1", "t1c": "t1ce", "t2w": "t2", "t2f": "flair"}
#: The Decathlon's and nnU-Net's folder of the labels of ``imagesTr`` or ``imagesTs``.
_LABELS = re.compile(r"labels(?P<part>\w*)")
#: BraTS' labels of a case.
_SEG = re.compile(r"(?P<case>.+[-_])seg\.nii(\.gz)?")
#: BIDS' names of segmentations, maps of probabilities and masks of a subject.
_DERIVED = re.compile(r"(?P<subject>sub-[A-Za-z0-9]+)_(.+_)?(dseg|probseg|mask)")
_SUBJECT = re.compile(r"(?P<subject>sub-[A-Za-z0-9]+)_.+")
#: No result of volseg's is as large.
_RESULT_BYTES = 2**20


def without_labels(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Ignored]]:
    """Part scans from the labels that lie beside them, by the names alone.

    Parameters
    ----------
    candidates
        Candidates that were found below one path: where that is the folder of the labels itself, they are what is
        meant.

    Returns
    -------
    scans : list of Candidate
    labels : list of Ignored
        Files of ``labelsTr`` where there is something in ``imagesTr`` beside it, of ``segmentations`` beside
        ``ct.nii.gz`` or ``mri.nii.gz``, ``x-seg.nii.gz`` beside a sequence of BraTS, such as ``x-t1n.nii.gz``, and
        BIDS' ``sub-x_dseg.nii.gz``, ``_probseg`` and ``_mask`` where there is a scan ``sub-x_``, in any folder.
    """
    files = {candidate.path for candidate in candidates}
    folders = {path.parent for path in files}
    subjects = {
        match["subject"]: path
        for path in sorted(files, reverse=True)
        if (match := _SUBJECT.fullmatch(stem(path))) and not _DERIVED.fullmatch(stem(path))
    }

    def of(path: Path) -> str | None:
        """What a file is the labels of."""
        folder = path.parent
        if (match := _LABELS.fullmatch(folder.name)) and (
            images := folder.with_name(f"images{match['part']}")
        ) in folders:
            return images.name
        beside = [folder.parent / f"{scan}.nii.gz" for scan in SCANS] if folder.name == MASKS else []
        if seg := _SEG.fullmatch(path.name):
            names = [*SEQUENCES, *SEQUENCES.values()]
            beside += [folder / f"{seg['case']}{name}{ending}" for name in names for ending in (".nii.gz", ".nii")]
        if derived := _DERIVED.fullmatch(stem(path)):
            beside += [scan for scan in (subjects.get(derived["subject"]),) if scan]
        return next((scan.name for scan in beside if scan in files), None)

    # These layouts are of files: a DICOM series says itself what it is.
    paths = [candidate.path for candidate in candidates if candidate.kind != "dicom"]
    labels = {path: scan for path in paths if (scan := of(path)) is not None}
    scans = [candidate for candidate in candidates if candidate.path not in labels]
    return scans, [Ignored(path, f"labels of {scan}") for path, scan in labels.items()]


def without_results(paths: Iterable[Path], root: Path) -> tuple[list[Path], list[Ignored]]:
    """Part files from those that an earlier run of volseg wrote: all in a folder with its ``result.json``.

    Masks, maps of probabilities and copies of a series lie there, and none is a scan to segment.

    Parameters
    ----------
    paths
        All files below `root`.
    root
        Path that was asked for: where it is the folder of a result itself, its files are what is meant.
    """
    files = list(paths)
    folders = {path.parent for path in files if path.name == RESULT and path.parent != root and _is_result(path)}
    if not folders:
        return files, []
    written = [path for path in files if not folders.isdisjoint(path.parents)]
    kept = set(files).difference(written)
    return [path for path in files if path in kept], [Ignored(path, "written by an earlier run") for path in written]


def _is_result(path: Path) -> bool:
    """Whether a file is a result of volseg; other programs call theirs ``result.json`` too."""
    try:
        content = json.loads(archive.read_bytes(path)) if archive.size_of(path) <= _RESULT_BYTES else None
    except (InputError, OSError, ValueError, RecursionError):
        return False
    return isinstance(content, dict) and {"case", "status", "volseg"} <= content.keys()
