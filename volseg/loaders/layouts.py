"""How labelled datasets name their files, and which of these are labels and no scans."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from volseg.loaders.candidate import Candidate, Ignored

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


def without_labels(candidates: Sequence[Candidate]) -> tuple[list[Candidate], list[Ignored]]:
    """Part scans from the labels that lie beside them, by the names alone.

    Parameters
    ----------
    candidates
        All that was found below one path: where that is the folder of the labels itself, they are what is meant.

    Returns
    -------
    scans : list of Candidate
    labels : list of Ignored
        Files of ``labelsTr`` where there is something in ``imagesTr`` beside it, of ``segmentations`` beside
        ``ct.nii.gz`` or ``mri.nii.gz``, and ``x-seg.nii.gz`` beside a sequence of BraTS, such as ``x-t1n.nii.gz``.
    """
    files = {candidate.path for candidate in candidates}
    folders = {path.parent for path in files}

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
        return next((scan.name for scan in beside if scan in files), None)

    # These layouts are of files: a DICOM series says itself what it is.
    paths = [candidate.path for candidate in candidates if candidate.kind != "dicom"]
    labels = {path: scan for path in paths if (scan := of(path)) is not None}
    scans = [candidate for candidate in candidates if candidate.path not in labels]
    return scans, [Ignored(path, f"labels of {scan}") for path, scan in labels.items()]
