"""Labelled datasets: a folder in the layout of MSD, nnU-Net, TotalSegmentator or BraTS, or a CSV of paths."""

from __future__ import annotations

import csv
import io
import re
from pathlib import Path

from volseg.datasets.case import Case
from volseg.datasets.described import DESCRIPTION, described, given, stem_of
from volseg.errors import UsageError
from volseg.files import read_text
from volseg.loaders.formats import NIFTI
from volseg.loaders.layouts import MASKS, SCANS, SEQUENCES

__all__ = ["Case", "load_dataset"]

_EXPECTED = (
    "expected a folder with dataset.json, one in the layout of TotalSegmentator (s0000/ct.nii.gz, s0000/segmentations/)"
    " or of BraTS (x/x-t1n.nii.gz, ..., x/x-seg.nii.gz), or a CSV file"
)
#: What `meta.csv` says of a scan, and whether it is for training.
_SPLITS = {"train": True, "val": True, "test": False}
#: What stands before a sequence's name in BraTS since 2023, and up to 2021.
_NOW, _THEN = "-", "_"
#: A visit in BraTS' names since 2023: ``BraTS-GLI-00005-001`` is the second one of a patient.
_VISIT = re.compile(r"(?P<patient>BraTS-[A-Za-z]+-\d+)-\d{3}")


def _checked(cases: list[Case], where: Path) -> tuple[Case, ...]:
    if not cases:
        raise UsageError(f"{where}: the dataset names no labelled case")
    names = [case.name for case in cases]
    if doubled := sorted({name for name in names if names.count(name) > 1}):
        raise UsageError(f"{where}: several cases have one name: {', '.join(doubled[:5])}")
    absent = [path for case in cases for path in (*case.images, case.label) if not path.exists()]
    if absent:
        raise UsageError(f"{where}: {len(absent)} files of the dataset don't exist, the first is {absent[0]}")
    return tuple(sorted(cases, key=lambda case: case.name))


def _rows(path: Path) -> csv.DictReader[str]:
    """Rows of a table; semicolons part its columns where the first line has one."""
    try:
        text = read_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"{path}: not a CSV file in UTF-8: {error}") from error
    mark = ";" if ";" in text.partition("\n")[0] else ","
    return csv.DictReader(io.StringIO(text, newline=""), delimiter=mark)


def _columns(rows: csv.DictReader[str]) -> str:
    return ", ".join(rows.fieldnames or ()) or "absent"


def _csv(path: Path) -> list[Case]:
    rows = _rows(path)
    columns = rows.fieldnames or []
    # By number: as text, image_10 would come before image_2.
    images = sorted(
        (name for name in columns if re.fullmatch(r"image(_?\d+)?", name)),
        key=lambda name: int(re.sub(r"\D", "", name) or 0),
    )
    # A table of label maps alone has no column that might be meant as the image.
    if "label" not in columns or not (images or set(columns) <= {"label", "case", "patient"}):
        raise UsageError(
            f"{path}: columns are {_columns(rows)}; expected image (or image_0, image_1, ...) and"
            " label, case where file names aren't unique, and patient where some have several scans"
        )
    cases = []
    for row in rows:
        if None in row or not all(row[name] for name in (*images, "label")):
            raise UsageError(f"{path}: line {rows.line_num}: expected {', '.join(columns)}, each filled in")
        paths = tuple(given(path.parent, row[name]) for name in images)
        label = given(path.parent, row["label"])
        name = row.get("case") or stem_of(paths[0] if paths else label)
        cases.append(Case(name, paths, label, row.get("patient") or None))
    return cases


def _totalsegmentator(folder: Path) -> list[Case]:
    """Scans for training; those that ``meta.csv`` keeps for a test are left out."""
    trained = _meta(folder / "meta.csv")
    cases, kept = [], 0
    for subject in _folders(folder):
        image = next((path for name in SCANS if (path := subject / f"{name}.nii.gz").exists()), None)
        labels = subject / MASKS
        if not (image or labels.is_dir()):
            continue
        if trained.get(subject.name, True):
            image = image or subject / "ct.nii.gz"
            cases.append(Case(subject.name, (image,), labels, channels=(SCANS[stem_of(image)],)))
        else:
            kept += 1
    if kept and not cases:
        raise UsageError(f"{folder}: meta.csv keeps all {kept} scans for a test")
    return cases


def _meta(path: Path) -> dict[str, bool]:
    """For each scan that TotalSegmentator's table names, whether it is for training."""
    if not path.exists():
        return {}
    rows = _rows(path)
    if not {"image_id", "split"} <= set(rows.fieldnames or ()):
        raise UsageError(f"{path}: columns are {_columns(rows)}; expected image_id and split, as TotalSegmentator has")
    splits = {row["image_id"]: (row["split"] or "").strip() for row in rows}
    if strange := sorted(set(splits.values()) - _SPLITS.keys()):
        raise UsageError(f"{path}: split is {strange[0]!r} somewhere; expected {', '.join(_SPLITS)}")
    return {name: _SPLITS[split] for name, split in splits.items()}


def _brats(folder: Path) -> list[Case]:
    cases = []
    for scan in _folders(folder):
        for mark, sequences in ((_NOW, tuple(SEQUENCES)), (_THEN, tuple(SEQUENCES.values()))):
            paths = [_either(scan / f"{scan.name}{mark}{kind}") for kind in (*sequences, "seg")]
            if any(path.exists() for path in paths[:-1]):
                visit = _VISIT.fullmatch(scan.name)
                patient = visit["patient"] if visit else None
                cases.append(Case(scan.name, tuple(paths[:-1]), paths[-1], patient, tuple(SEQUENCES)))
    return cases


def _of_folders(folder: Path) -> list[Case]:
    """Cases of a dataset that has a folder for each, and nothing that describes it."""
    if cases := _totalsegmentator(folder) or _brats(folder):
        return cases
    raise UsageError(f"{folder}: no dataset: {_EXPECTED}")


def _folders(folder: Path) -> list[Path]:
    return sorted(path for path in folder.iterdir() if path.is_dir() and not path.name.startswith("."))


def _either(path: Path) -> Path:
    """`path` with the ending that is there; with the first where neither is."""
    found = [path.with_name(path.name + ending) for ending in NIFTI.endings]
    return next((each for each in found if each.exists()), found[0])


def load_dataset(path: Path) -> tuple[Case, ...]:
    """List the labelled cases of a dataset, sorted by name.

    Parameters
    ----------
    path
        One of

        - a folder with ``dataset.json``, in the layout of the Medical Segmentation Decathlon (it lists the files) or of
          nnU-Net (``imagesTr/x_0000.nii.gz``, ``labelsTr/x.nii.gz``, whether it lists these, ``x``, or nothing);
        - a folder in the layout of TotalSegmentator: ``s0000/ct.nii.gz`` (or ``mri.nii.gz``) and a binary mask a
          structure in ``s0000/segmentations/``. What its ``meta.csv`` keeps for a test isn't listed;
        - a folder in the layout of BraTS: ``x/x-t1n.nii.gz``, ``-t1c``, ``-t2w``, ``-t2f`` and ``-seg`` (since 2023),
          or ``x/x_t1.nii.gz``, ``_t1ce``, ``_t2``, ``_flair`` and ``_seg`` (up to 2021);
        - a CSV with the columns ``image`` (or ``image_0``, ``image_1``, ...), ``label`` and, if wanted, ``case`` and
          ``patient`` (all scans of a patient are in one fold), its paths relative to itself. Its images may be folders
          of a DICOM series, its labels SEG or RTSTRUCT files, folders of one, or folders of masks. Without ``image``
          its rows are label maps alone, which images are made of.

    Raises
    ------
    UsageError
        No such layout, files that don't exist, or two cases of one name.
    """
    if path.suffix.lower() == ".csv" and path.is_file():
        return _checked(_csv(path), path)
    if (path / DESCRIPTION).exists():
        return _checked(described(path), path / DESCRIPTION)
    if not path.is_dir():
        raise UsageError(f"{path}: no dataset: {_EXPECTED}")
    return _checked(_of_folders(path), path)
