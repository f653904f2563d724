"""DICOM SEG of 118 structures: volseg, highdicom called plainly and dcmqi's itkimage2segimage, each in its own process.

``python -m benchmarks.export.seg [--slices N] [--work FOLDER]`` after ``bash .ci/readers``.
"""

from __future__ import annotations

import argparse
import json
import pickle
import resource
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pydicom
import SimpleITK

from benchmarks._machine import machine
from benchmarks.export._scan import LABELS, segmented, write_ct
from volseg.volume import LabelVolume

PROGRAM = (sys.executable, "-m", "benchmarks.export.seg")
WHO = (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)
ROOT = Path(__file__).resolve().parents[2]


def volseg_binary(mask: LabelVolume, out: Path) -> None:
    """As ``--format seg`` does."""
    from volseg.export.dicom_seg import write

    write(mask, out)


def volseg_labelmap(mask: LabelVolume, out: Path) -> None:
    """As ``--format labelmap`` does."""
    from volseg.export.dicom_seg import write

    write(mask, out, kind="labelmap")


def highdicom_binary(mask: LabelVolume, out: Path) -> None:
    """The call of highdicom's own quick start, which leaves out empty frames."""
    import highdicom
    from pydicom.sr.codedict import codes

    dicom = mask.source.dicom
    assert dicom is not None
    algorithm = highdicom.AlgorithmIdentificationSequence(
        name="benchmark", version="1", family=codes.DCM.ArtificialIntelligence
    )
    segments = [
        highdicom.seg.SegmentDescription(
            segment_number=label.value,
            segment_label=label.name,
            segmented_property_category=codes.SCT.AnatomicalStructure,
            segmented_property_type=codes.SCT.Organ,
            algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
            algorithm_identification=algorithm,
        )
        for label in mask.labels
    ]
    highdicom.seg.Segmentation(
        source_images=[pydicom.dcmread(instance.path, stop_before_pixels=True) for instance in dicom.instances],
        pixel_array=np.ascontiguousarray(mask.array.T),
        segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
        segment_descriptions=segments,
        series_instance_uid=highdicom.UID(),
        series_number=1000,
        sop_instance_uid=highdicom.UID(),
        instance_number=1,
        manufacturer="benchmark",
        manufacturer_model_name="benchmark",
        software_versions="1",
        device_serial_number="1",
    ).save_as(out)


def dcmqi_binary(mask: LabelVolume, out: Path) -> None:
    """From a label map in a NRRD, as its documentation has it."""
    dicom = mask.source.dicom
    assert dicom is not None
    image = SimpleITK.GetImageFromArray(np.ascontiguousarray(mask.array.T))
    scan = SimpleITK.ReadImage([str(instance.path) for instance in dicom.instances])
    image.CopyInformation(scan)
    SimpleITK.WriteImage(image, str(out.with_suffix(".nrrd")))
    code = {"CodeValue": "91723000", "CodingSchemeDesignator": "SCT", "CodeMeaning": "Anatomical Structure"}
    segments = [
        {
            "labelID": label.value,
            "SegmentLabel": label.name,
            "SegmentDescription": label.name,
            "SegmentAlgorithmType": "AUTOMATIC",
            "SegmentAlgorithmName": "benchmark",
            "SegmentedPropertyCategoryCodeSequence": code,
            "SegmentedPropertyTypeCodeSequence": code,
        }
        for label in mask.labels
    ]
    meta = {"ContentCreatorName": "b", "SeriesDescription": "b", "SeriesNumber": "1000", "InstanceNumber": "1"}
    out.with_suffix(".json").write_text(json.dumps({**meta, "segmentAttributes": [segments]}))
    arguments: list[str | Path] = [
        "--inputImageList",
        out.with_suffix(".nrrd"),
        "--inputDICOMDirectory",
        dicom.instances[0].path.parent,
    ]
    arguments += ["--inputMetadata", out.with_suffix(".json"), "--outputDICOM", out, "--skip"]
    subprocess.run([ROOT / ".venv-readers/bin/itkimage2segimage", *arguments], check=True, capture_output=True)


WRITERS: dict[str, Callable[[LabelVolume, Path], None]] = {
    writer.__name__: writer for writer in (volseg_binary, volseg_labelmap, highdicom_binary, dcmqi_binary)
}


def one(name: str, work: Path) -> None:
    """Write with one of them and print seconds and the most memory that the process held, its mask included."""
    # Without the scan, which a process that reads it would hold once.
    mask = pickle.loads((work / "mask.pickle").read_bytes())
    start, before = time.perf_counter(), _processor_seconds()
    WRITERS[name](mask, work / f"{name}.dcm")
    seconds, processor = time.perf_counter() - start, _processor_seconds() - before
    used = max(resource.getrusage(who).ru_maxrss for who in WHO)
    print(json.dumps({"seconds": seconds, "processor": processor, "gb": used * 1024 / 1e9}))


def _processor_seconds() -> float:
    """What this process and its children have used of the processors: it doesn't count other processes' share."""
    return sum(used.ru_utime + used.ru_stime for used in map(resource.getrusage, WHO))


def prepare(work: Path, slices: int) -> None:
    """Make the scan and its mask."""
    write_ct(work / "series", (512, 512, slices))
    (work / "mask.pickle").write_bytes(pickle.dumps(segmented(work / "series")))


def measure(work: Path, slices: int) -> None:
    """Make the scan and its mask, run each writer and print a row for it."""
    # In a process of its own: what a process has held counts for those that it starts.
    subprocess.run([*PROGRAM, "--prepare", "--slices", str(slices), "--work", work], check=True)
    print(machine("pydicom", "highdicom"))
    print(f"{LABELS} labels, 512 x 512 x {slices}")
    print("| | seconds | of a processor | peak memory, GB | MB | frames |")
    print("| --- | --- | --- | --- | --- | --- |")
    for name in WRITERS:
        run = subprocess.run([*PROGRAM, "--one", name, "--work", work], check=True, capture_output=True, text=True)
        found = json.loads(run.stdout.splitlines()[-1])
        out = work / f"{name}.dcm"
        frames = pydicom.dcmread(out, stop_before_pixels=True, specific_tags=["NumberOfFrames"]).NumberOfFrames
        size = out.stat().st_size / 1e6
        numbers = f"{found['seconds']:.1f} | {found['processor']:.1f} | {found['gb']:.2f} | {size:.1f} | {frames}"
        print(f"| {name} | {numbers} |", flush=True)
        out.unlink()


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--work", type=Path)
    parser.add_argument("--prepare", action="store_true")
    parser.add_argument("--one", choices=WRITERS)
    arguments = parser.parse_args()
    if arguments.prepare:
        prepare(arguments.work, arguments.slices)
    elif arguments.one:
        one(arguments.one, arguments.work)
    else:
        with tempfile.TemporaryDirectory(dir=arguments.work) as folder:
            measure(Path(folder), arguments.slices)
