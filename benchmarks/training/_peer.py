"""nnunetv2 on volseg's dataset and split: its own preprocessing, training and prediction, in its own environment."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmarks.inference._compare import ROOT
from volseg.training.folds import Splits

ENVIRONMENT = ROOT / ".venv-nnunet" / "bin"
NAME = "Dataset004_Hippocampus"
#: Processes of its preprocessing: one a core. It would start 8 and 4 by itself, whatever the machine.
PROCESSES = str(os.cpu_count() or 1)


class Peer:
    """One nnunetv2 dataset on disk, with what is trained on it.

    Parameters
    ----------
    folder
        Where all of it goes.
    dataset
        In the MSD layout, of one channel.
    """

    def __init__(self, folder: Path, dataset: Path) -> None:
        if not (ENVIRONMENT / "python").exists():
            raise SystemExit("no .venv-nnunet: make nnunet-peers")
        self.folder, self.dataset = folder.resolve(), dataset.resolve()
        self.images = self.folder / "raw" / NAME / "imagesTr"

    def prepare(self, splits: Splits) -> float:
        """Plan and preprocess as its command does, and put volseg's folds where it looks for its own.

        Returns
        -------
        float
            Seconds of ``nnUNetv2_plan_and_preprocess``, for the 3d_fullres configuration alone.
        """
        record = self.folder / "preprocessing.json"
        if not record.exists():
            self._link()
            start = time.perf_counter()
            options = ("-d", "4", "-c", "3d_fullres", "-npfp", PROCESSES, "-np", PROCESSES)
            self._run(ENVIRONMENT / "nnUNetv2_plan_and_preprocess", *options)
            record.write_text(json.dumps({"seconds": round(time.perf_counter() - start, 1)}))
        everything = {case for fold in splits.folds for case in fold}
        folds = [{"train": sorted(everything - set(fold)), "val": list(fold)} for fold in splits.folds]
        (self.folder / "preprocessed" / NAME / "splits_final.json").write_text(json.dumps(folds, indent=1))
        return float(json.loads(record.read_text())["seconds"])

    def _link(self) -> None:
        """The dataset in its layout: links to the files, under its names."""
        labels = self.images.with_name("labelsTr")
        for folder in (self.images, labels):
            folder.mkdir(parents=True, exist_ok=True)
        about = json.loads((self.dataset / "dataset.json").read_text(encoding="utf-8"))
        for entry in about["training"]:
            image, label = (self.dataset / entry[kind] for kind in ("image", "label"))
            name = label.name.removesuffix(".nii.gz")
            for link, file in ((self.images / f"{name}_0000.nii.gz", image), (labels / label.name, label)):
                link.unlink(missing_ok=True)
                link.symlink_to(file.resolve())
        content = {
            "channel_names": about["modality"],
            "labels": {name if int(value) else "background": int(value) for value, name in about["labels"].items()},
            "numTraining": len(about["training"]),
            "file_ending": ".nii.gz",
        }
        (self.images.parent / "dataset.json").write_text(json.dumps(content, indent=1))

    def train(self, fold: int, minutes: float, marks: Sequence[float]) -> dict[str, Any]:
        """Train, or return what is there of such a training; as `benchmarks.training._nnunet` reports it."""
        report = self.folder / f"training_{fold}_{minutes:g}.json"
        if not report.exists():
            listed = ",".join(f"{mark:g}" for mark in marks)
            self._script("train", str(fold), f"{minutes:g}", listed, report, minutes=minutes)
        result: dict[str, Any] = json.loads(report.read_text())
        return result

    def predict(self, training: dict[str, Any], fold: int, checkpoint: str, cases: Sequence[str]) -> dict[bool, Path]:
        """Folders of masks of some cases, ``<case>.nii.gz``, by whether mirrored passes were averaged."""
        images = [self.images / f"{case}_0000.nii.gz" for case in cases]
        output = Path(training["model"]).parents[1] / "masks" / Path(checkpoint).stem
        self._script("predict", training["model"], str(fold), checkpoint, output, *images)
        return {False: output / "once", True: output / "mirrored"}

    def _script(self, *arguments: str | Path, minutes: float | None = None) -> None:
        self._run(ENVIRONMENT / "python", "-m", "benchmarks.training._nnunet", *arguments, minutes=minutes)

    def _run(self, *command: str | Path, minutes: float | None = None) -> None:
        # Trainings of other lengths get folders of their own: nnunetv2 names them by its trainer alone.
        results = "results" if minutes is None else f"results_{minutes:g}"
        paths = {"nnUNet_raw": "raw", "nnUNet_preprocessed": "preprocessed", "nnUNet_results": results}
        variables = {name: str(self.folder / path) for name, path in paths.items()}
        log = self.folder / "log.txt"
        print(f"+ nnunetv2 {' '.join(map(str, command[1:5]))} ..., output in {log}", file=sys.stderr, flush=True)
        with log.open("ab") as file:
            made = subprocess.run(
                list(map(str, command)), cwd=ROOT, env={**os.environ, **variables}, stdout=file, stderr=file
            )
        if made.returncode:
            raise SystemExit(f"nnunetv2 ended with {made.returncode}; its output is in {log}")
