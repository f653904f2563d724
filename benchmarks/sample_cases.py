"""The bundled model on the dozen sample cases, which it never saw: how good, how fast, how much memory.

Run it with ``make bench`` or ``python benchmarks/sample_cases.py``. Whole processes are timed, as a user meets them.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks._machine import machine

SAMPLES = Path(__file__).resolve().parents[1] / "sample_data"


def volseg(*arguments: str | Path) -> tuple[float, str]:
    """Wall seconds and stdout of one command."""
    start = time.perf_counter()
    done = subprocess.run(
        [sys.executable, "-m", "volseg", *map(str, arguments)], check=True, capture_output=True, text=True
    )
    return time.perf_counter() - start, done.stdout


def predicted(cases: Path, out: Path, *options: str) -> tuple[float, list[dict[str, Any]]]:
    """Wall seconds of one call on all cases, and their results."""
    seconds, _ = volseg("predict", cases, "-o", out, "--model", "hippocampus", *options)
    return seconds, [json.loads(path.read_text()) for path in sorted(out.glob("*/result.json"))]


def main() -> None:
    """Print the table."""
    dataset = SAMPLES / "hippocampus"
    print(machine("torch", "numpy"))
    with tempfile.TemporaryDirectory() as folder:
        for title, options in (("default (one mirrored pass)", ()), ("--no-tta", ("--no-tta",))):
            out = Path(folder) / title.split()[0].strip("-")
            seconds, results = predicted(dataset / "imagesTr", out, *options)
            document = json.loads(volseg("evaluate", out, dataset / "labelsTr", "--json")[1])
            network = sum(result["seconds"]["network"] for result in results) / len(results)
            peak = max(result["peak_memory_mb"] for result in results)
            print(
                f"\n{title}: {len(results)} cases in {seconds:.1f} s (whole process; network {network:.2f} s a case),"
                f" peak memory {peak:.0f} MB"
            )
            for row in document["summary"]:
                shown = [_shown(name, row["metrics"][name]) for name in ("dice", "nsd", "hd95_mm")]
                print(f"  {row['name']:22} {', '.join(shown)}")
        first = sorted((dataset / "imagesTr").iterdir())[0]
        seconds, _ = predicted(first, Path(folder) / "one")
        print(f"\none case from the shell: {seconds:.1f} s")
        study, _ = predicted(SAMPLES / "study", Path(folder) / "study")
        print(f"the sample study (one series segmented, one skipped): {study:.1f} s")
        print(f"volseg --help: {min(volseg('--help')[0] for _ in range(3)):.2f} s")


def _shown(name: str, metric: dict[str, float]) -> str:
    return f"{name} {metric['mean']:.4f} ({metric['ci_low']:.4f} to {metric['ci_high']:.4f}, n = {metric['n']})"


if __name__ == "__main__":
    main()
