"""`volseg inspect` on enhanced multi-frame files with nested private sequences, against pydicom and dcm2niix.

    .venv/bin/python benchmarks/inspect_enhanced.py [--files 100] [--frames 100] [--rounds 3]

Each frame holds what Siemens' XA software writes: functional groups, and private sequences of undefined length inside
each other. Each round times all, each in a new process; pydicom's and volseg's times are without their imports. Where
dcm2niix is installed, its time is that of converting the files, of which reading their headers is the larger part.
"""

from __future__ import annotations

import argparse
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from pydicom.uid import EnhancedMRImageStorage, ExplicitVRLittleEndian, generate_uid

from benchmarks._machine import machine
from benchmarks.inspect_folder import FIND, PYDICOM

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "study" / "mr"
SIZE = 16


def item(**values: object) -> Dataset:
    """One item of a sequence."""
    dataset = Dataset()
    for keyword, value in values.items():
        setattr(dataset, keyword, value)
    return dataset


def private(depth: int) -> Dataset:
    """Private sequences inside each other."""
    dataset = Dataset()
    block = dataset.private_block(0x0021, "SIEMENS MR SDI 02", create=True)
    for element in range(1, 9):
        block.add_new(element, "LO", f"value {element}")
    if depth:
        block.add_new(0xFE, "SQ", Sequence([private(depth - 1), private(depth - 1)]))
    return dataset


def undefine(dataset: Dataset) -> None:
    """Leave out the lengths of all sequences and items."""
    for element in dataset:
        if element.VR == "SQ":
            element.is_undefined_length = True
            for inner in element.value:
                inner.is_undefined_length_sequence_item = True
                undefine(inner)


def enhanced(frames: int) -> Dataset:
    """One volume of `frames` slices."""
    dataset = pydicom.dcmread(sorted(SAMPLE.iterdir())[0])
    for keyword in ("ImagePositionPatient", "ImageOrientationPatient", "PixelSpacing"):
        delattr(dataset, keyword)
    dataset.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = EnhancedMRImageStorage
    dataset.Rows = dataset.Columns = SIZE
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 16, 15
    dataset.NumberOfFrames = frames
    dataset.PixelData = np.zeros((frames, SIZE, SIZE), np.int16).tobytes()
    dataset.SharedFunctionalGroupsSequence = [
        item(
            PlaneOrientationSequence=[item(ImageOrientationPatient=[1, 0, 0, 0, 1, 0])],
            PixelMeasuresSequence=[item(PixelSpacing=[1, 1])],
        )
    ]
    groups = []
    for frame in range(frames):
        groups.append(item(PlanePositionSequence=[item(ImagePositionPatient=[0, 0, frame])]))
        groups[-1].FrameContentSequence = [item(StackID="1", InStackPositionNumber=frame + 1)]
        groups[-1].update(private(3))
    dataset.PerFrameFunctionalGroupsSequence = groups
    undefine(dataset)
    return dataset


def write(folder: Path, files: int, frames: int) -> None:
    """Files that are a series each."""
    dataset = enhanced(frames)
    for number in range(files):
        for keyword in ("SOPInstanceUID", "SeriesInstanceUID"):
            setattr(dataset, keyword, generate_uid(entropy_srcs=[keyword, str(number)]))
        dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
        dataset.save_as(folder / f"{number:04d}.dcm", enforce_file_format=True)


def seconds(code: str, folder: Path) -> float:
    """What a script in a process of its own says of its time."""
    done = subprocess.run([sys.executable, "-c", code, str(folder)], capture_output=True, text=True, check=True)
    return float(done.stdout.split()[0])


def dcm2niix(folder: Path) -> float:
    """Seconds of a conversion into a folder that is thrown away."""
    with tempfile.TemporaryDirectory() as out:
        start = time.perf_counter()
        subprocess.run(["dcm2niix", "-o", out, str(folder)], capture_output=True, check=True)
        return time.perf_counter() - start


def main() -> None:
    """Print the medians."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=100)
    parser.add_argument("--frames", type=int, default=100)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write(folder, arguments.files, arguments.frames)
        runs: dict[str, Callable[[], float]] = {
            "volseg": lambda: seconds(FIND, folder),
            "pydicom": lambda: seconds(PYDICOM, folder),
        }
        if shutil.which("dcm2niix"):
            runs["dcm2niix"] = lambda: dcm2niix(folder)
        times: dict[str, list[float]] = {reader: [] for reader in runs}
        for _ in range(arguments.rounds):
            for reader, run in runs.items():
                times[reader].append(run())
    print(f"{arguments.files} files of {arguments.frames} frames; {machine()}")
    for reader, measured in times.items():
        print(f"{reader:10} {statistics.median(measured):7.2f} s  ({min(measured):.2f} to {max(measured):.2f})")


if __name__ == "__main__":
    main()
