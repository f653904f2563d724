"""Loading one CT series: volseg, SimpleITK and highdicom, seconds and memory, for several ways to compress it.

Run it with ``python benchmarks/load_series.py [--slices 400]``. The series is made from `sample_data/study/ct`, with
noise, so that it compresses as a scan does. Each reader reads it in a process of its own, from the folder to an array
in rescaled values; they take turns. Imports are not counted.
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from benchmarks._machine import machine

SAMPLE = Path(__file__).resolve().parents[1] / "sample_data" / "study" / "ct"
READERS = ("volseg", "SimpleITK", "highdicom")
#: Times that each reader reads a series, unless that takes longer than `SECONDS` in all.
REPEATS = 3
SECONDS = 12.0
#: Different images in the series: the others repeat them, since encoding takes longer than reading.
IMAGES = 40
#: Standard deviation of the noise that is added, in HU.
NOISE = 5.0
BITS = 12

Image = npt.NDArray[np.uint16]


def _rle(image: Image) -> bytes:
    from imagecodecs import packbits_encode

    segments = []
    for shift in (8, 0):
        # Row by row, as the standard has it.
        rows = [bytes(packbits_encode(row.tobytes())) for row in (image >> shift).astype(np.uint8)]
        segment = b"".join(rows)
        segments.append(segment + b"\0" * (len(segment) % 2))
    starts = [64, 64 + len(segments[0])]
    return struct.pack("<16L", 2, *starts, *[0] * 13) + b"".join(segments)


def _jpeg2000(image: Image) -> bytes:
    from imagecodecs import jpeg2k_encode

    return bytes(jpeg2k_encode(image, codecformat="j2k", reversible=True, bitspersample=BITS))


def _jpegls(image: Image) -> bytes:
    from imagecodecs import jpegls_encode

    return bytes(jpegls_encode(image))


def _jpeg_lossless(image: Image) -> bytes:
    from imagecodecs import jpeg8_encode

    return bytes(jpeg8_encode(image, lossless=True, predictor=1, bitspersample=BITS))


#: By name: transfer syntax, and how an image is encoded.
SYNTAXES: dict[str, tuple[str, Callable[[Image], bytes] | None]] = {
    "uncompressed": ("1.2.840.10008.1.2.1", None),
    "RLE": ("1.2.840.10008.1.2.5", _rle),
    "JPEG 2000": ("1.2.840.10008.1.2.4.90", _jpeg2000),
    "JPEG-LS": ("1.2.840.10008.1.2.4.80", _jpegls),
    "JPEG lossless": ("1.2.840.10008.1.2.4.70", _jpeg_lossless),
}


def images() -> list[Image]:
    """The sample's slices, again and again with other noise."""
    import pydicom

    stored = [pydicom.dcmread(path).pixel_array for path in sorted(SAMPLE.iterdir())]
    random = np.random.default_rng(4)
    return [
        np.clip(np.rint(stored[index % len(stored)] + random.normal(0, NOISE, stored[0].shape)), 0, 4095).astype(
            np.uint16
        )
        for index in range(IMAGES)
    ]


def write_series(folder: Path, pixels: list[Image], syntax: str, slices: int) -> None:
    """Write a series of `slices` files."""
    import pydicom
    from pydicom.encaps import encapsulate
    from pydicom.uid import UID, generate_uid

    uid, encode = SYNTAXES[syntax]
    frames = [image.tobytes() if encode is None else encapsulate([encode(image)]) for image in pixels[:slices]]
    dataset = pydicom.dcmread(min(SAMPLE.iterdir()))
    dataset.SeriesInstanceUID = generate_uid()
    dataset.file_meta.TransferSyntaxUID = UID(uid)
    x, y, z = dataset.ImagePositionPatient
    folder.mkdir()
    for index in range(slices):
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        dataset.InstanceNumber, dataset.ImagePositionPatient = index + 1, [x, y, z + 2 * index]
        dataset.PixelData = frames[index % len(frames)]
        dataset["PixelData"].VR = "OW" if encode is None else "OB"
        dataset["PixelData"].is_undefined_length = encode is not None
        dataset.save_as(folder / f"IM{index:04d}.dcm", enforce_file_format=True)


def _with_volseg(folder: Path) -> tuple[Any, Any]:
    import volseg

    volume = volseg.load(folder)
    return volume, volume.array


def _with_simpleitk(folder: Path) -> tuple[Any, Any]:
    import SimpleITK

    reader = SimpleITK.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    image = reader.Execute()
    return image, SimpleITK.GetArrayViewFromImage(image).transpose(2, 1, 0)


def _with_highdicom(folder: Path) -> tuple[Any, Any]:
    import highdicom
    import pydicom

    series = [pydicom.dcmread(path) for path in folder.iterdir()]
    # [slice, row, column], slices in its own direction.
    volume = highdicom.get_volume_from_series(series, dtype=np.int16)
    array = volume.array.transpose(2, 1, 0)
    return volume, array if volume.affine[2, 0] > 0 else array[:, :, ::-1]


def read(reader: str, folder: Path) -> None:
    """Read the series with one reader, in this process, and print what it took as JSON."""
    import pydicom.pixels  # noqa: F401

    if reader == "volseg":
        import volseg.loaders  # noqa: F401
    elif reader == "SimpleITK":
        import SimpleITK  # noqa: F401
    else:
        import highdicom  # noqa: F401
    before, start, worked = _peak_mb(), time.perf_counter(), _cpu_seconds()
    # SimpleITK's array is a view: the image must stay.
    _kept, array = {"volseg": _with_volseg, "SimpleITK": _with_simpleitk, "highdicom": _with_highdicom}[reader](folder)
    seconds = time.perf_counter() - start
    worked, peak = _cpu_seconds() - worked, _peak_mb() - before
    total = int(array.sum(dtype=np.int64))
    corner = [int(value) for value in array[200:203, 250, 0]]
    print(
        json.dumps(
            {
                "seconds": seconds,
                "cpu": worked,
                "peak_mb": peak,
                "array_mb": array.nbytes / 1e6,
                "child_mb": resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1000,
                "check": [list(array.shape), total, corner],
            }
        )
    )


def _peak_mb() -> float:
    """Largest resident size of this program; Linux' ``ru_maxrss`` counts that of the one that started it, too."""
    status = Path("/proc/self/status").read_text()
    return next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmHWM")) * 1024 / 1e6


def _cpu_seconds() -> float:
    """Processor time of this process and of those that it started and that have ended."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(usage.ru_utime + usage.ru_stime for usage in used)


def measure(reader: str, folder: Path) -> dict[str, Any]:
    """Run `read` in a process of its own."""
    command = [sys.executable, __file__, "--reader", reader, "--folder", str(folder)]
    result: dict[str, Any] = json.loads(
        subprocess.run(command, check=True, capture_output=True, text=True).stdout.splitlines()[-1]
    )
    return result


def compare(folder: Path) -> dict[str, list[dict[str, Any]]]:
    """Let the readers take turns on one series; they must agree on its values."""
    results: dict[str, list[dict[str, Any]]] = {reader: [] for reader in READERS}
    for _ in range(REPEATS):
        for reader in READERS:
            if sum(result["seconds"] for result in results[reader]) < SECONDS:
                results[reader].append(measure(reader, folder))
    checks = {json.dumps(result["check"]) for runs in results.values() for result in runs}
    if len(checks) != 1:
        raise SystemExit(f"the readers differ: {checks}")
    return results


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=400)
    parser.add_argument("--syntax", action="append", choices=SYNTAXES, help="only these")
    parser.add_argument("--reader", choices=READERS, help=argparse.SUPPRESS)
    parser.add_argument("--folder", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.reader:
        read(options.reader, options.folder)
        return
    packages = ("numpy", "imagecodecs", "pydicom", *READERS[1:], "pyjpegls", "pylibjpeg-openjpeg")
    print(f"{options.slices} slices of 512 x 512, 16 bits. {machine(*packages)}\n")
    print("| syntax | reader | seconds | CPU s | runs | peak above imports, MB | array, MB | largest child, MB |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    pixels = images()
    for syntax in options.syntax or SYNTAXES:
        with tempfile.TemporaryDirectory() as parent:
            folder = Path(parent) / "series"
            write_series(folder, pixels, syntax, options.slices)
            for reader, runs in compare(folder).items():
                seconds, cpu = (statistics.median(run[key] for run in runs) for key in ("seconds", "cpu"))
                peak, array, child = (max(run[key] for run in runs) for key in ("peak_mb", "array_mb", "child_mb"))
                print(
                    f"| {syntax} | {reader} | {seconds:.2f} | {cpu:.2f} | {len(runs)} | {peak:.0f} | {array:.0f} |"
                    f" {f'{child:.0f}' if child else '-'} |",
                    flush=True,
                )


if __name__ == "__main__":
    main()
