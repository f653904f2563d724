"""The wheel holds everything that works outside a checkout."""

from __future__ import annotations

import subprocess
import sys
import zipfile
from pathlib import Path

import volseg


def test_the_wheel_holds_the_package_and_its_data(tmp_path: Path, root: Path) -> None:
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", str(tmp_path), str(root)]
    subprocess.run(command, capture_output=True, check=True)
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name == f"volseg-{volseg.__version__}-py3-none-any.whl"
    there = {name for name in zipfile.ZipFile(wheel).namelist() if ".dist-info/" not in name}
    wanted = {
        path.relative_to(root).as_posix()
        for path in (root / "volseg").rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert "volseg/py.typed" in there
    assert any(name.endswith("model.json") for name in there)
    assert any(name.endswith(".safetensors") for name in there)
    assert there == wanted
