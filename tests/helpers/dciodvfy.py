"""Debian's checker of DICOM objects."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path


def findings(path: Path, kind: str = "Segmentation") -> list[str]:
    """What dciodvfy finds wrong with a file of a kind of object."""
    checker = shutil.which("dciodvfy")
    assert checker is not None, "dciodvfy is absent; it is in Debian's package dicom3tools (make test-readers)"
    run = subprocess.run([checker, "-new", path], capture_output=True, text=True, check=False)
    lines = (run.stderr + run.stdout).splitlines()
    assert kind in lines, f"dciodvfy didn't recognise the object: {lines}"
    return [line for line in lines if line.startswith("Error")]
