"""Prepared cases on disk, one file a case: read and resampled once, then mapped into memory by every run.

A file's name is the hash of what the case's files hold and of what the recipe does to them, so a changed scan, label or
recipe is another file. A file appears under its name when it is whole; one that can't be read is made again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import safetensors
import safetensors.torch
import torch
from torch import Tensor

import volseg
from volseg.config import Recipe
from volseg.datasets.cases import Case
from volseg.files import write_atomically
from volseg.geometry import AxisMap, Geometry
from volseg.loaders.layouts import MASKS
from volseg.preprocess import Prepared
from volseg.preprocess.grid import Box
from volseg.training.dataset import TrainingCase, prepare_case
from volseg.training.synthesis.maps import label_map, map_case
from volseg.volume import LabelVolume, Source

#: Changes where the files' layout does.
FORMAT = 1
#: Bytes that the cache leaves free on its disk: checkpoints need room.
RESERVE = 1 << 30

#: Parts of a recipe that a prepared case doesn't depend on.
_NOT_PREPARATION = {
    "name", "version", "description", "window", "network", "tile_step", "mirroring", "postprocess", "training",
}  # fmt: skip
#: Of the recipe's training part, what it does depend on.
_PREPARATION = {"ignored_label"}

_hashes: dict[tuple[str, int, int], str] = {}


def _file_sha256(path: Path) -> str:
    """Hash of a file; of one that didn't change since it was last asked for, known without reading it."""
    state = path.stat()
    key = (str(path.absolute()), state.st_size, state.st_mtime_ns)
    if key not in _hashes:
        with path.open("rb") as file:
            _hashes[key] = hashlib.file_digest(file, "sha256").hexdigest()
    return _hashes[key]


def content_sha256(case: Case) -> str:
    """Hash of what a case's images and label hold, whatever they are called; but masks' names say what they are."""
    total = hashlib.sha256()
    for path in (*case.images, case.label):
        files = sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]
        total.update(f"{len(files)};".encode() + b"".join(_file_sha256(file).encode() for file in files))
        if path.name == MASKS:
            total.update("/".join(file.name for file in files).encode())
    return total.hexdigest()


def cache_key(case: Case, recipe: Recipe) -> str:
    """Name of a case's file: its content, and what the recipe and this version of volseg do to it."""
    chosen = recipe.model_dump_json(exclude=_NOT_PREPARATION) + recipe.training.model_dump_json(include=_PREPARATION)
    return hashlib.sha256(f"{FORMAT} {volseg.__version__} {content_sha256(case)} {chosen}".encode()).hexdigest()[:32]


class CaseCache:
    """Prepared cases of one recipe.

    Parameters
    ----------
    folder
        Folder of the files; it is made when the first one is written.
    recipe
        Recipe that says how cases are prepared.
    note
        A function that is called once where a case couldn't be kept: the disk is (nearly) full. Such cases are held in
        memory.
    """

    def __init__(self, folder: Path, recipe: Recipe, note: Callable[[str], None] = lambda _: None) -> None:
        self.folder, self.recipe, self.note = folder, recipe, note
        self.full = False

    def get(self, case: Case) -> TrainingCase:
        """The case, prepared: from the disk where it is there.

        Raises
        ------
        RefusalError
            As `prepare_case`.
        """
        synthesis = self.recipe.training.synthesis
        if synthesis is not None and not case.images:
            return map_case(case, self.recipe, synthesis)
        found = self._get(case)
        if synthesis is None:
            return found
        return replace(found, label_map=label_map(found.reference, self.recipe, synthesis))

    def _get(self, case: Case) -> TrainingCase:
        """A case that has an image."""
        path = self.folder / f"{cache_key(case, self.recipe)}.safetensors"
        if (found := self._read(path, case)) is not None:
            return found
        prepared = prepare_case(case, self.recipe)
        prepared = replace(prepared, reference=replace(prepared.reference, source=_plain(prepared.reference.source)))
        return (self._read(path, case) if self._write(path, prepared) else None) or prepared

    def bytes(self) -> int:
        """What the cache takes on the disk."""
        return sum(path.stat().st_size for path in self.folder.glob("*.safetensors"))

    def _read(self, path: Path, case: Case) -> TrainingCase | None:
        try:
            with safetensors.safe_open(path, "pt") as file:
                about = json.loads(file.metadata()["case"])
                tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
        except (OSError, safetensors.SafetensorError):
            return None
        return _unpacked(case.name, tensors, about, self.recipe)

    def _write(self, path: Path, case: TrainingCase) -> bool:
        tensors, about = _packed(case)
        need = sum(tensor.nbytes for tensor in tensors.values())
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not self.full and shutil.disk_usage(self.folder).free - need > RESERVE:
                write_atomically(path, safetensors.torch.save(tensors, {"case": json.dumps(about)}))
                return True
            problem = f"less than {RESERVE >> 30} GiB would be left on the disk"
        except OSError as error:
            problem = error.strerror or str(error)
        if not self.full:
            self.note(f"{self.folder}: {problem}; from {case.name} on, prepared cases are held in memory alone")
        self.full = True
        return False


def _plain(source: Source) -> Source:
    """What a training case needs to know of its source."""
    return Source(name=source.name, modality=source.modality, notes=source.notes)


def _packed(case: TrainingCase) -> tuple[dict[str, Tensor], dict[str, Any]]:
    prepared, reference = case.prepared, case.reference
    tensors = {
        "image": prepared.tensor_CDHW,
        "labels": case.labels_DHW,
        "reference": torch.from_numpy(np.ascontiguousarray(reference.array)),
        **{f"foreground.{value}": voxels for value, voxels in case.foreground.items()},
    }
    if case.judged is not None and case.ignored is not None:
        tensors |= {"judged": case.judged, "ignored": torch.from_numpy(case.ignored)}
    about = {
        "axes": asdict(prepared.axes),
        "shape": prepared.grid.shape,
        "affine": prepared.grid.affine.tolist(),
        "crop": None if prepared.crop is None else asdict(prepared.crop),
        "nearest_axis": prepared.nearest_axis,
        "zoomed": prepared.zoomed,
        "intensity": case.intensity,
        "notes": case.notes,
        "source": {"name": reference.source.name, "modality": reference.source.modality},
    }
    return {name: tensor.contiguous() for name, tensor in tensors.items()}, about


def _unpacked(name: str, tensors: dict[str, Tensor], about: dict[str, Any], recipe: Recipe) -> TrainingCase:
    geometry = Geometry(about["shape"], np.array(about["affine"]))
    crop, zoomed = about["crop"], about["zoomed"]
    prepared = Prepared(
        tensor_CDHW=tensors["image"],
        axes=AxisMap(**{field: tuple(value) for field, value in about["axes"].items()}),
        grid=geometry,
        crop=None if crop is None else Box(**{field: tuple(value) for field, value in crop.items()}),
        nearest_axis=about["nearest_axis"],
        zoomed=None if zoomed is None else tuple(zoomed),
    )
    notes = tuple(about["notes"])
    source = Source(**about["source"], notes=notes)
    return TrainingCase(
        name=name,
        prepared=prepared,
        labels_DHW=tensors["labels"],
        reference=LabelVolume(tensors["reference"].numpy(), geometry, recipe.label_table(), source),
        foreground={
            int(key.removeprefix("foreground.")): tensors[key]
            for key in sorted(tensors, key=lambda key: (len(key), key))
            if key.startswith("foreground.")
        },
        intensity=tuple((low, high) for low, high in about["intensity"]),
        notes=notes,
        judged=tensors.get("judged"),
        ignored=tensors["ignored"].numpy() if "ignored" in tensors else None,
    )
