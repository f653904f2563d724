"""A folder as a PACS and a researcher's disk leave it, everything mixed together; for tests and for looking at.

python -m tests.helpers.mixed_folder FOLDER
"""

from __future__ import annotations

import copy
import gc
import shutil
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Sequence
from pathlib import Path
from random import Random
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.filewriter import dcmwrite
from pydicom.uid import generate_uid

from tests.helpers.dicom_files import image, lps_affine, rotation, voxels
from tests.helpers.dicom_objects import (
    enhanced_mr,
    pdf,
    presentation,
    radiograph,
    report,
    save,
    secondary_capture,
    segmentation,
    structure_set,
)

#: Elements that tell a patient and a study, in three character sets.
PATIENTS: dict[str, dict[str, Any]] = {
    "Jörg": {"SpecificCharacterSet": "ISO_IR 100", "PatientName": "Müßig^Jörg", "PatientID": "A 1"},
    "太郎": {
        "SpecificCharacterSet": ["", "ISO 2022 IR 87"],
        "PatientName": "Yamada^Tarou=山田^太郎",
        "PatientID": "B/2",
    },
    "Ελένη": {"SpecificCharacterSet": "ISO_IR 192", "PatientName": "Παππά^Ελένη", "PatientID": "C-3"},
}


def series(
    patient: str,
    number: int,
    description: str,
    *,
    modality: str = "CT",
    shape: tuple[int, int, int] = (6, 5, 4),
    spacing_mm: tuple[float, float, float] = (0.7, 0.9, 2.5),
    **elements: Any,
) -> list[Dataset]:
    """Data sets of one series, a slice each."""
    array, affine = voxels(shape), lps_affine(spacing_mm)
    images = [image(array, affine, k, modality=modality, seed=f"{patient} {number}") for k in range(shape[2])]
    for one in images:
        _belong(one, patient, number, description, **elements)
    return images


def _belong(dataset: Dataset, patient: str, number: int, description: str, **elements: Any) -> Dataset:
    dataset.StudyInstanceUID = generate_uid(entropy_srcs=["study of", patient])
    dataset.FrameOfReferenceUID = generate_uid(entropy_srcs=["frame of", patient])
    dataset.StudyDate, dataset.StudyTime, dataset.StudyID = "20240229", "101112", "7"
    values = {**PATIENTS[patient], "SeriesNumber": number, "SeriesDescription": description, **elements}
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def repeated(images: Sequence[Dataset], times: Sequence[dict[str, Any]]) -> list[Dataset]:
    """The images once for each of `times`, whose elements they get: instances of their own in the same series."""
    repeats: list[Dataset] = []
    for elements in times:
        for one in images:
            again = copy.deepcopy(one)
            again.InstanceNumber = len(repeats) + 1
            again.SOPInstanceUID = generate_uid(entropy_srcs=[one.SOPInstanceUID, str(again.InstanceNumber)])
            for keyword, value in elements.items():
                setattr(again, keyword, value)
            repeats.append(again)
    return repeats


def write(root: Path) -> dict[str, Path]:
    """Write the folder; return where the files lie that are no scan, by what they are."""
    there = _flat(root / "IMAGES")
    _disc(root / "CD")
    _nested(root / "Études" / "contrôle – 対照")
    there |= _archives(root / "archives")
    there |= _research(root / "research")
    there |= _clutter(root)
    first = sorted(there["abdomen"].parent.glob("*"))
    shutil.copy(there["abdomen"], root / "Études" / "Kopie (1) von 17")
    shutil.copy(there["abdomen"], there["abdomen"].with_name(f"{len(first) + 1:08d}"))
    there["copy elsewhere"] = root / "Études" / "Kopie (1) von 17"
    there["copy beside"] = there["abdomen"].with_name(f"{len(first) + 1:08d}")
    return there


def _flat(folder: Path) -> dict[str, Path]:
    """Three patients in one folder, under numbers that say nothing."""
    abdomen = series("Jörg", 2, "Oberbauch nativ ä", shape=(6, 5, 5))
    head = series("太郎", 1, "頭部 T1", modality="MR", shape=(4, 6, 4), spacing_mm=(1.0, 1.0, 3.0))
    echoes = repeated(
        series("太郎", 2, "PD T2 頭部", modality="MR", shape=(5, 4, 3)),
        [{"EchoNumbers": 1, "EchoTime": 12.0}, {"EchoNumbers": 2, "EchoTime": 90.0}],
    )
    dynamic = repeated(
        series("太郎", 3, "dyn", modality="MR", shape=(5, 4, 3)),
        [
            {"TemporalPositionIdentifier": number, "NumberOfTemporalPositions": 3, "AcquisitionTime": f"10{number}000"}
            for number in (1, 2, 3)
        ],
    )
    enhanced = enhanced_mr(voxels((5, 4, 6)), lps_affine((1.0, 1.0, 2.0), directions=rotation(10, 0, 0)))
    _belong(enhanced, "太郎", 4, "頭部 3D")
    gap = series("Ελένη", 5, "κενό", shape=(5, 4, 7))
    del gap[3]
    mask = np.zeros((6, 5, 5), np.uint8)
    mask[2:4, 1:4, 1:4] = 1
    square = np.array([[-29.0, 13.0], [-27.5, 13.0], [-27.5, 14.5], [-29.0, 14.5]])
    contours = [np.column_stack([square, np.full(4, one.ImagePositionPatient[2])]) for one in abdomen]
    localizer = series("Jörg", 1, "Topogramm", shape=(6, 5, 1), ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    others = {
        "localizer": localizer[0],
        "screenshot": secondary_capture(like=abdomen[0]),
        "segmentation": segmentation(abdomen, [mask]),
        "structures": structure_set(abdomen, contours),
        "report": report(abdomen),
        "presentation": presentation(abdomen),
        "letter": pdf(like=abdomen[0]),
    }
    for one in others.values():
        one.SpecificCharacterSet = "ISO_IR 100"
    chest = _belong(radiograph(), "Ελένη", 6, "θώρακας")
    scans = [*abdomen, *head, *echoes, *dynamic, enhanced, *gap, chest]
    numbers = list(range(1, len(scans) + len(others) + 1))
    Random(3).shuffle(numbers)
    paths = [folder / f"{number:08d}" for number in numbers]
    folder.mkdir(parents=True)
    for one, path in zip([*scans, *others.values()], paths, strict=True):
        if one in head:
            _without_preamble(one, path)
        else:
            save(one, path)
    return {"abdomen": paths[0], **dict(zip(others, paths[len(scans) :], strict=True))}


def _without_preamble(dataset: Dataset, path: Path) -> None:
    bare = copy.deepcopy(dataset)
    del bare.file_meta
    dcmwrite(path, bare, implicit_vr=True, little_endian=True)


def _disc(folder: Path) -> None:
    """A file-set with its DICOMDIR, as it lies on a CD."""
    with tempfile.TemporaryDirectory() as name, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        files = FileSet()
        for one in series("Ελένη", 1, "ΑΞΟΝΙΚΗ", shape=(4, 5, 3), spacing_mm=(0.8, 0.8, 5.0)):
            files.add(save(one, Path(name, one.SOPInstanceUID)))
        files.write(folder)
        # A file-set leaves its temporary folder to the garbage collector, which warns of that wherever it comes by.
        del files
        gc.collect()


def _nested(folder: Path) -> None:
    """One series of which each folder has a part."""
    for number, one in enumerate(series("Jörg", 9, "Verlauf", shape=(5, 6, 4))):
        save(one, folder / f"Disc {number % 2 + 1}" / "DICOM" / f"{number}.IMA")


def _archives(folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True)
    with zipfile.ZipFile(folder / "älter.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("liesmich.txt", "hello")
        for number, one in enumerate(series("Jörg", 8, "Archiv", shape=(5, 4, 3))):
            archive.writestr(f"study/IM{number}", _packed(one))
    with zipfile.ZipFile(folder / "odd.zip", "w") as archive:
        archive.writestr("../../outside/IM0", _packed(series("Jörg", 7, "outside")[0]))
        archive.writestr("thumb.jpg", _JPEG)
    return {
        "text in archive": folder / "älter.zip" / "liesmich.txt",
        "member that leads out": folder / "odd.zip" / "outside" / "IM0",
        "thumbnail in archive": folder / "odd.zip" / "thumb.jpg",
    }


def _packed(dataset: Dataset) -> bytes:
    with tempfile.TemporaryDirectory() as name:
        return save(dataset, Path(name, "one")).read_bytes()


_JPEG = b"\xff\xd8\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00\xff\xd9"


def _research(folder: Path) -> dict[str, Path]:
    """What is no DICOM, written by other people's libraries."""
    folder.mkdir()
    nib.save(nib.Nifti1Image(voxels((7, 5, 3)), np.diag([1.0, 1.5, 2.0, 1.0])), folder / "brain.nii.gz")
    picture = SimpleITK.GetImageFromArray(voxels((3, 4, 5)))
    picture.SetSpacing((0.5, 0.6, 0.7))
    SimpleITK.WriteImage(picture, folder / "liver.nrrd")
    SimpleITK.WriteImage(picture, folder / "spleen.mha")
    nib.AnalyzeImage(voxels((4, 5, 6)), np.eye(4)).to_filename(folder / "old.hdr")
    (folder / "labels.csv").write_text("case,label\n1,2\n")
    return {"voxels of Analyze": folder / "old.img", "table": folder / "labels.csv"}


def _clutter(root: Path) -> dict[str, Path]:
    files = {
        "thumbnail": ("THUMBS/00000001.jpg", _JPEG),
        "document": ("Befund.pdf", b"%PDF-1.4\n%%EOF\n"),
        "text": ("autorun.inf", b"[autorun]\nopen=viewer.exe\n"),
        "empty": ("IMAGES.idx", b""),
        "hidden": (".DS_Store", b"\0\0\0\1Bud1"),
    }
    for name, content in files.values():
        (root / name).parent.mkdir(exist_ok=True)
        (root / name).write_bytes(content)
    (root / "latest").symlink_to(root / "nowhere")
    there = {what: root / name for what, (name, _) in files.items()}
    return {**there, "broken link": root / "latest", "index": root / "CD" / "DICOMDIR"}


if __name__ == "__main__":
    write(Path(sys.argv[1]))
