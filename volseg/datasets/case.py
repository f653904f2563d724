"""`Case`: one labelled case of a dataset."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from volseg.errors import InputError
from volseg.loaders.channels import sequence


@dataclass(frozen=True)
class Case:
    """One labelled case.

    Attributes
    ----------
    name
        Unique in its dataset.
    images
        One path a channel, or one path of a file that holds all channels. A DICOM series is a folder. None at all: a
        label map alone.
    label
        Path of the label map, SEG or RTSTRUCT, of the folder that holds it, or of a folder of masks.
    patient
        Patient whose scan it is, where the dataset says so: all scans of a patient are in one fold.
    channels
        Name of each image's channel, where the dataset says so.
    """

    name: str
    images: tuple[Path, ...]
    label: Path
    patient: str | None = None
    channels: tuple[str, ...] = ()

    def images_of(self, names: Sequence[str]) -> tuple[Path, ...]:
        """Images of the channels called so, in this order; all as they are, where the dataset doesn't name several.

        BraTS' sequences have two names each, such as t1c and t1ce; either will do.

        Raises
        ------
        InputError
            Code ``channels``: no image is called so, or two channels are one.
        """
        if len(self.channels) < 2:
            return self.images
        known = dict(zip(self.channels, self.images, strict=True))
        if absent := [name for name in names if sequence(name) not in known]:
            raise InputError(
                f"case {self.name} has the channels {', '.join(self.channels)}, and none called {', '.join(absent)}:"
                " the recipe's channels need these names",
                code="channels",
            )
        if len({sequence(name) for name in names}) < len(names):
            raise InputError(f"two of the recipe's channels ({', '.join(names)}) are one image", code="channels")
        return tuple(known[sequence(name)] for name in names)
