"""`volseg inspect` on a folder of 10,000 DICOM files, against pydicom reading them one after another.

    .venv/bin/python benchmarks/inspect_folder.py [--files 10000] [--size 256] [--rounds 3] [--folder FOLDER]

The files are those of a scanner: the header of the sample CT and 150 elements more, nested sequences and private ones
among them, 50 series of 200 slices, and pixels of 256 x 256 (`--size 512` needs 5 GB of disk). Each round times all
three, each in a new process; the files stay in the page cache, which a reading before the first round fills.
pydicom's time is that of its loop alone, without its import; volseg's are that of the whole command, and of `find`.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from benchmarks._machine import machine

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "study" / "ct" / "slice_0001.dcm"
SLICES = 200

#: Run in a process of its own each: seconds, and what was found.
PYDICOM = """
import sys, time, warnings
from pathlib import Path
import pydicom
warnings.simplefilter("ignore")
paths = sorted(path for path in Path(sys.argv[1]).rglob("*") if path.is_file())
start = time.perf_counter()
for path in paths:
    pydicom.dcmread(path)
print(time.perf_counter() - start, len(paths))
"""
FIND = """
import sys, time
from pathlib import Path
from volseg.loaders import find
start = time.perf_counter()
study = find(Path(sys.argv[1]))
print(time.perf_counter() - start, sum(len(candidate.files) for candidate in study.candidates))
"""


def header(size: int) -> Dataset:
    """A CT header as rich as a scanner's."""
    dataset = pydicom.dcmread(SAMPLE, stop_before_pixels=True)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.Rows = dataset.Columns = size
    dataset.BitsStored, dataset.HighBit = 16, 15
    _add_public(dataset)
    _add_private(dataset)
    return dataset


def _add_public(dataset: Dataset) -> None:
    code = Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "T-D4000", "SRT", "Abdomen"
    procedure = Dataset()
    procedure.ScheduledProcedureStepDescription, procedure.ScheduledProcedureStepID = "Abdomen", "1"
    procedure.ScheduledProtocolCodeSequence = [code]
    for keyword in ("AnatomicRegionSequence", "ProcedureCodeSequence", "PerformedProtocolCodeSequence"):
        setattr(dataset, keyword, [code])
    dataset.RequestAttributesSequence = [procedure]
    images = []
    for number in range(3):
        item = Dataset()
        item.ReferencedSOPClassUID = dataset.SOPClassUID
        item.ReferencedSOPInstanceUID = generate_uid(entropy_srcs=["reference", str(number)])
        item.PurposeOfReferenceCodeSequence = [code]
        images.append(item)
    dataset.ReferencedImageSequence = dataset.SourceImageSequence = images
    dataset.InstitutionName, dataset.InstitutionAddress, dataset.StationName = "Hospital", "A street 1", "CT01"
    dataset.ManufacturerModelName, dataset.SoftwareVersions = "A scanner", ["syngo CT", "VB10A"]
    dataset.ProtocolName, dataset.DeviceSerialNumber, dataset.BodyPartExamined = "01_Abdomen", "12345", "ABDOMEN"
    dataset.CTDIvol, dataset.SpiralPitchFactor, dataset.TableSpeed = 7.25, 0.6, 23.0
    dataset.ExposureModulationType, dataset.SingleCollimationWidth, dataset.TotalCollimationWidth = "XYZ_EC", 0.6, 38.4


def _add_private(dataset: Dataset) -> None:
    """Four blocks of a vendor's elements: numbers, texts, a block of bytes, and sequences in a sequence."""
    for group in (0x0019, 0x0021, 0x0029, 0x0051):
        block = dataset.private_block(group, "VENDOR CT HEADER", create=True)
        for element in range(0x10, 0x28):
            block.add_new(element, "DS" if element % 2 else "LO", str(element * 1.5))
        inner = Dataset()
        inner.private_block(group, "VENDOR CT HEADER", create=True).add_new(0x01, "OB", bytes(64))
        outer = Dataset()
        outer.private_block(group, "VENDOR CT HEADER", create=True).add_new(0x02, "SQ", [inner, inner])
        block.add_new(0x40, "SQ", [outer, outer])
        block.add_new(0x41, "OB", bytes(2000))


def make_folder(folder: Path, files: int, size: int) -> None:
    """Write the files, 200 to a series, a folder each."""
    dataset = header(size)
    generator = np.random.default_rng(1)
    for index in range(files):
        number, k = divmod(index, SLICES)
        if k == 0:
            dataset.SeriesInstanceUID = generate_uid(entropy_srcs=["series", str(number)])
            dataset.SeriesNumber, dataset.SeriesDescription = number + 1, f"Abdomen {number + 1}"
            dataset.PixelData = generator.integers(0, 4096, size * size, np.uint16).tobytes()
            dataset["PixelData"].VR = "OW"
            (folder / f"series{number:03d}").mkdir()
        uid = generate_uid(entropy_srcs=["instance", str(index)])
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = uid
        dataset.InstanceNumber = k + 1
        dataset.ImagePositionPatient = [-249.5, -437.5, -804.5 + 1.5 * k]
        dataset.SliceLocation = -804.5 + 1.5 * k
        dataset.save_as(folder / f"series{number:03d}" / f"IM{k:06d}", enforce_file_format=True)


def script(code: str, folder: Path, expected: int) -> float:
    """Seconds that a script says it took."""
    said = subprocess.run([sys.executable, "-c", code, folder], check=True, capture_output=True, text=True).stdout
    seconds, found = said.split()
    if int(found) != expected:
        raise SystemExit(f"{found} files were read, {expected} are there")
    return float(seconds)


def command(folder: Path, expected: int) -> float:
    """Seconds of the whole command."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "volseg", "inspect", folder, "--json"], check=True, capture_output=True, text=True
    )
    seconds = time.perf_counter() - start
    candidates = json.loads(done.stdout)["candidates"]
    if sum(one["files"] for one in candidates) != expected or not all(one["usable"] for one in candidates):
        raise SystemExit("volseg did not find every file in a usable series")
    return seconds


def main() -> None:
    """Make the folder, time, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--size", type=int, default=256, help="rows and columns")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep the files there, or take those that are there")
    options = parser.parse_args()
    with contextlib.ExitStack() as stack:
        folder = options.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
        folder.mkdir(parents=True, exist_ok=True)
        if not any(folder.iterdir()):
            make_folder(folder, options.files, options.size)
        paths = [path for path in folder.rglob("*") if path.is_file()]
        megabytes = sum(len(path.read_bytes()) for path in paths) / 1e6
        elements = sum(1 for _ in pydicom.dcmread(paths[0]).iterall())
        rounds = [
            (script(PYDICOM, folder, len(paths)), script(FIND, folder, len(paths)), command(folder, len(paths)))
            for _ in range(options.rounds)
        ]
    reading, finding, whole = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(
        f"{len(paths)} files of {elements} elements, {megabytes:.0f} MB, warm page cache, {machine('pydicom')};"
        f" median of {options.rounds} alternating rounds\n"
    )
    print("| what | seconds | files a second | times faster |")
    print("| --- | --: | --: | --: |")
    for name, seconds in (
        ("`pydicom.dcmread(path)`, one after another", reading),
        ("`volseg.loaders.find`", finding),
        ("`volseg inspect FOLDER --json`, the whole command", whole),
    ):
        print(f"| {name} | {seconds:.2f} | {len(paths) / seconds:.0f} | {reading / seconds:.1f} |")


if __name__ == "__main__":
    main()
