"""What lies in a folder beside a series, how files are named, and headers' texts and UIDs."""

from __future__ import annotations

import gc
import shutil
import warnings
import zipfile
from pathlib import Path

import numpy as np
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet

from benchmarks.geometry.series import ct, mr, other_values, set_pixels, uid, write
from benchmarks.geometry.truth import Truth, right, row


@row("dicom")
def two_series_in_one_folder(folder: Path) -> Truth:
    """Two series of one study in one folder, their files in turns."""
    one = ct()
    two = ct(stored=other_values(one), part="b")
    two.put(SeriesInstanceUID=uid("second series"), SeriesNumber=2)
    write(folder, one.files, name=lambda index: f"IM{2 * index:04d}.dcm")
    write(folder, two.files, name=lambda index: f"IM{2 * index + 1:04d}.dcm")
    return right(one.image(), two.image())


@row("dicom")
def two_patients_in_one_folder(folder: Path) -> Truth:
    """A CT of one patient and an MR of another in one folder."""
    one, two = ct(), mr()
    write(folder, one.files)
    write(folder, two.files, name=lambda index: f"MR{index:04d}.dcm")
    return right(one.image(), two.image())


@row("dicom")
def two_studies_with_one_series_uid(folder: Path) -> Truth:
    """Two studies whose series carry the same SeriesInstanceUID."""
    one = ct()
    two = ct(stored=other_values(one), part="b")
    two.put(StudyInstanceUID=uid("second study"), FrameOfReferenceUID=uid("second frame"))
    write(folder, one.files)
    write(folder, two.files, name=lambda index: f"XX{index:04d}.dcm")
    return right(one.image(), two.image())


@row("dicom")
def series_over_two_folders(folder: Path) -> Truth:
    """One series lies in two folders, every second slice in each."""
    series = ct()
    write(folder / "DIR000", series.files[::2])
    write(folder / "DIR001", series.files[1::2])
    return right(series.image())


@row("dicom")
def one_folder_a_slice(folder: Path) -> Truth:
    """Each slice lies in a folder of its own, under the same name."""
    series = ct()
    for index, dataset in enumerate(series.files):
        write(folder / f"{index:03d}", [dataset])
    return right(series.image())


@row("dicom")
def nested_folders(folder: Path) -> Truth:
    """The series lies three folders down."""
    series = ct()
    write(folder / "PAT0" / "STU0" / "SER0", series.files)
    return right(series.image())


@row("dicom")
def no_extension(folder: Path) -> Truth:
    """Files without an ending, named as on a PACS export."""
    series = ct()
    write(folder, series.files, name=lambda index: f"I{index:07d}")
    return right(series.image())


@row("dicom")
def other_extensions(folder: Path) -> Truth:
    """Files named by their UIDs, so that the ending is a number."""
    series = ct()
    write(folder, series.files, name=lambda index: f"1.2.840.{index}.{index + 7}")
    return right(series.image())


@row("dicom")
def no_preamble(folder: Path) -> Truth:
    """Files without preamble and file meta information: the bare data set."""
    series = ct()
    folder.mkdir(exist_ok=True)
    for index, dataset in enumerate(series.files):
        del dataset.file_meta
        dataset.save_as(folder / f"IM{index:04d}", implicit_vr=True, little_endian=True)
    return right(series.image())


@row("dicom")
def dicomdir(folder: Path) -> Truth:
    """A DICOMDIR and the folders that it refers to, as on a CD."""
    series = ct()
    source = folder / "source"
    paths = write(source, series.files)
    with warnings.catch_warnings():
        # pydicom leaves the closing of its temporary folder to the garbage collector.
        warnings.simplefilter("ignore", ResourceWarning)
        media = FileSet()
        for path in paths:
            media.add(path)
        media.write(folder)
        del media
        gc.collect()
    shutil.rmtree(source)
    return right(series.image())


@row("dicom")
def viewer_and_report_beside(folder: Path) -> Truth:
    """A PDF, a thumbnail, a zip with a viewer, an empty file and a text lie among the slices."""
    series = ct()
    write(folder, series.files, name=lambda index: f"I{index:04d}")
    (folder / "report.pdf").write_bytes(b"%PDF-1.7\n" + bytes(range(256)) * 4)
    (folder / "IM0001.jpg").write_bytes(b"\xff\xd8\xff\xe0\0\x10JFIF\0" + bytes(300))
    (folder / "Thumbs.db").write_bytes(b"\xd0\xcf\x11\xe0\xa1\xb1\x1a\xe1" + bytes(600))
    (folder / "empty").write_bytes(b"")
    (folder / "README.TXT").write_text("Start viewer.exe\n")
    with zipfile.ZipFile(folder / "viewer.zip", "w") as archive:
        archive.writestr("viewer.exe", b"MZ" + bytes(500))
    return right(series.image())


@row("dicom")
def text_named_dcm(folder: Path) -> Truth:
    """A text file named .dcm lies among the slices."""
    series = ct()
    write(folder, series.files)
    (folder / "notes.dcm").write_text("these are the slices of last week, all of them\n" * 10)
    return right(series.image(), beside=["unreadable"])


@row("dicom")
def apple_double_files(folder: Path) -> Truth:
    """A Mac's hidden twin ._IM0000.dcm lies beside every slice."""
    series = ct()
    for path in write(folder, series.files):
        (folder / f"._{path.name}").write_bytes(b"\0\5\x16\7\0\2\0\0Mac OS X        " + bytes(200))
    return right(series.image())


@row("dicom")
def dicom_in_a_zip(folder: Path) -> Truth:
    """The series lies in a zip file."""
    series = ct()
    with zipfile.ZipFile(folder / "study.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in write(folder / "files", series.files):
            archive.write(path, f"study/ct/{path.name}")
    shutil.rmtree(folder / "files")
    return right(series.image())


@row("dicom")
def non_ascii_texts(folder: Path) -> Truth:
    """Names and descriptions in UTF-8, in folders and files with such names."""
    series = ct()
    series.put(
        SpecificCharacterSet="ISO_IR 192",
        PatientName="Müller^Jürgen=山田^太郎",
        SeriesDescription="Schädel ä 3 mm 頭部",
    )
    write(folder / "Schädel 頭部", series.files, name=lambda index: f"Bild {index} ü.dcm")
    return right(series.image())


@row("dicom")
def wrong_character_set(folder: Path) -> Truth:
    """Texts in UTF-8 whose header says plain ASCII."""
    series = ct()
    for path in write(folder, series.files):
        raw = path.read_bytes()
        path.write_bytes(raw.replace(b"volseg^sample", "Müllér^samp".encode()).replace(b"ISO_IR 100", b"ISO_IR 6  "))
    return right(series.image())


@row("dicom")
def blank_uids(folder: Path) -> Truth:
    """Study, series, frame of reference and instance UIDs are blank."""
    series = ct()
    series.put(StudyInstanceUID="", SeriesInstanceUID="", FrameOfReferenceUID="")
    for index, dataset in enumerate(series.files):
        dataset.file_meta.MediaStorageSOPInstanceUID = uid("meta", index)
        dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    write(folder, series.files)
    for path in folder.iterdir():
        raw = path.read_bytes()
        at = raw.index(b"\x08\x00\x18\x00UI")
        length = int.from_bytes(raw[at + 6 : at + 8], "little")
        path.write_bytes(raw[: at + 6] + b"\0\0" + raw[at + 8 + length :])
    return right(series.image())


@row("dicom")
def no_patient(folder: Path) -> Truth:
    """An anonymiser removed the patient, the modality and the descriptions."""
    series = ct()
    series.put(PatientName=None, PatientID=None, Modality=None, SeriesDescription=None, StudyDate=None)
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def blank_elements(folder: Path) -> Truth:
    """Elements that may be blank are: echo and repetition time, dates, times and numbers."""
    series = mr()
    blank = "EchoTime", "RepetitionTime", "StudyDate", "StudyTime", "SeriesNumber", "InstanceNumber", "ScanOptions"
    series.put(None, **dict.fromkeys(blank, ""))
    write(folder, series.files)
    return right(series.image())


@row("dicom")
def private_elements(folder: Path) -> Truth:
    """Private elements, some of unknown VR, and an icon with pixels of its own in a sequence of undefined length."""
    series = ct()
    for dataset in series.files:
        block = dataset.private_block(0x0029, "VOLSEG TEST", create=True)
        block.add_new(0x10, "UN", bytes(range(100)))
        block.add_new(0x11, "OB", bytes(2000))
        icon = Dataset()
        icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, "MONOCHROME2"
        set_pixels(icon, np.arange(64, dtype=np.uint8).reshape(8, 8))
        dataset.IconImageSequence = [icon]
        dataset["IconImageSequence"].is_undefined_length = True
    write(folder, series.files)
    return right(series.image())
