"""What a dataset is like: everything that the plan of a recipe depends on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from volseg.datasets.cases import load_dataset
from volseg.errors import InputError, RefusalError, VolsegError
from volseg.planning.case import Measured, Names, measure
from volseg.planning.naming import Naming, Region, read_naming
from volseg.planning.sides import Pair, side_pairs

#: A label with at most this many voxels in a case is mentioned: it is often a slip of the pen.
FEW_VOXELS = 10
#: Names of cases that a note lists; it says how many more there are.
LISTED = 5


@dataclass(frozen=True)
class Problem:
    """Why a case can't be used: its name, a key of `volseg.errors.CODES`, and a sentence."""

    case: str
    code: str
    reason: str


@dataclass(frozen=True)
class Intensities:
    """Values of one channel inside labels, over all cases; every voxel counts as much as any other.

    Attributes
    ----------
    lowest
        Median over the cases of the scan's lowest value.
    low, high
        0.5th and 99.5th percentile.
    mean, std
        Mean and standard deviation of all voxels.
    """

    lowest: float
    low: float
    high: float
    mean: float
    std: float


@dataclass(frozen=True)
class Fingerprint:
    """A dataset.

    Attributes
    ----------
    naming
        Names by which the dataset describes itself.
    cases
        Cases that can be used.
    problems
        Problems of the cases that can't.
    regions
        Labels that occur, in the order of the network's outputs.
    intensities
        Intensities, one a channel.
    pairs
        Labels that are the left and the right one of two.
    notes
        Notes on what is unusual, a sentence each.
    """

    naming: Naming
    cases: tuple[Measured, ...]
    problems: tuple[Problem, ...]
    regions: tuple[Region, ...]
    intensities: tuple[Intensities, ...]
    pairs: tuple[Pair, ...]
    notes: tuple[str, ...]

    def volumes_ml(self, region: Region) -> list[float]:
        """Volume of a label in each case where it occurs."""
        sums = [sum(case.voxels.get(value, 0) for value in region.members) * case.voxel_ml for case in self.cases]
        return [volume for volume in sums if volume]

    @property
    def touching(self) -> dict[tuple[int, int], int]:
        """Number of cases in which two label values touch."""
        found = sorted(pair for case in self.cases for pair in case.touching)
        return {pair: found.count(pair) for pair in found}

    def check(self) -> None:
        """Refuse a dataset with cases that can't be used.

        Raises
        ------
        RefusalError
            It names all of them, by the code of the first.
        """
        if self.problems:
            listed = ", ".join(f"{problem.case} ({problem.code})" for problem in self.problems)
            total = len(self.problems) + len(self.cases)
            raise RefusalError(
                f"{len(self.problems)} of {total} cases can't be used: {listed}; correct them, or leave them out of"
                " the dataset",
                code=self.problems[0].code,
            )
        if not self.regions:
            raise InputError("no case has a voxel of any label", code="unsupported")

    def as_dict(self) -> dict[str, Any]:
        """What `--json` prints."""
        return {
            "name": self.naming.name,
            "cases": [
                {
                    "name": case.name,
                    "shape_RAS": case.shape,
                    "spacing_mm_RAS": case.spacing_mm,
                    "orientation": case.orientation,
                    "modality": case.modality,
                    "content_share": case.content_share,
                    "voxels": case.voxels,
                    "touching": sorted(case.touching),
                    "notes": case.notes,
                }
                for case in self.cases
            ],
            "problems": [vars(problem) for problem in self.problems],
            "labels": [
                {
                    "value": region.value,
                    "name": region.name,
                    "members": region.members,
                    "cases": len(volumes := self.volumes_ml(region)),
                    "median_ml": float(np.median(volumes)) if volumes else 0.0,
                }
                for region in self.regions
            ],
            "touching": [{"labels": pair, "cases": count} for pair, count in self.touching.items()],
            "left_right_pairs": [vars(pair) for pair in self.pairs],
            "intensities": [vars(channel) for channel in self.intensities],
            "notes": self.notes,
        }


def take_fingerprint(dataset: Path, on_case: Callable[[int, int, str], None] = lambda *_: None) -> Fingerprint:
    """Measure a dataset, one case in memory at a time.

    Parameters
    ----------
    dataset
        Folder or CSV, as `load_dataset` takes it.
    on_case
        A function that is called before each case with its number from 1, how many there are, and its name.

    Returns
    -------
    Fingerprint
        With a `Problem` for each case that can't be used; see `Fingerprint.check`.

    Raises
    ------
    UsageError
        No dataset, or one that can't be understood.
    """
    cases = load_dataset(dataset)
    naming = read_naming(dataset, cases)
    names = Names(naming.regions)
    good: list[Measured] = []
    problems: list[Problem] = []
    for number, case in enumerate(cases, start=1):
        on_case(number, len(cases), case.name)
        try:
            measured = measure(case, names, naming.ignored)
            _check(measured, len(naming.channels) or (len(good[0].channels) if good else 0), naming)
        except VolsegError as error:
            code = error.code if isinstance(error, RefusalError) else "unsupported"
            problems.append(Problem(case.name, code, str(error)))
        else:
            good.append(measured)
    occurring = {value for case in good for value in case.voxels}
    known = naming.regions or tuple(names.found.values())
    known = known or tuple(Region(value, f"label {value}", (value,)) for value in sorted(occurring))
    regions = tuple(region for region in known if occurring & set(region.members))
    return Fingerprint(
        naming=naming,
        cases=tuple(good),
        problems=tuple(problems),
        regions=regions,
        intensities=_intensities(good),
        pairs=side_pairs(regions, good),
        notes=tuple(_notes(good, known, regions)),
    )


def _check(case: Measured, channels: int, naming: Naming) -> None:
    """Refuse a case that isn't like what the dataset says, or like its first case."""
    if channels and len(case.channels) != channels:
        raise InputError(f"has {len(case.channels)} channels, and the dataset {channels}", code="channels")
    if naming.regions and (unknown := sorted(case.voxels.keys() - naming.values)):
        raise InputError(
            f"holds the label values {unknown}, which the dataset doesn't name; it names {sorted(naming.values)}",
            code="unsupported",
        )


def _intensities(cases: Sequence[Measured]) -> tuple[Intensities, ...]:
    """Statistics over all foreground voxels; a case's sample stands for as many voxels as the case has."""
    result = []
    for channel in zip(*(case.channels for case in cases), strict=True):
        counts = np.array([values.count for values in channel], dtype=np.float64)
        means = np.array([values.mean for values in channel])
        total = max(counts.sum(), 1.0)
        mean = float((counts * means).sum() / total)
        squares = sum(values.squares for values in channel) + float((counts * (means - mean) ** 2).sum())
        sample = np.concatenate([values.sample for values in channel])
        weights = np.concatenate([np.full(v.sample.size, v.count / max(v.sample.size, 1)) for v in channel])
        low, high = _percentiles(sample, weights, (0.005, 0.995))
        lowest = float(np.median([values.lowest for values in channel]))
        result.append(Intensities(lowest, low, high, mean, float(squares / total) ** 0.5))
    return tuple(result)


def _percentiles(sample: Any, weights: Any, shares: tuple[float, float]) -> tuple[float, float]:
    """Values below which the given shares of the weight lie; 0 and 0 of nothing."""
    if not sample.size:
        return 0.0, 0.0
    order = np.argsort(sample, kind="stable")
    below = np.cumsum(weights[order])
    low, high = (min(int(np.searchsorted(below, share * below[-1])), sample.size - 1) for share in shares)
    return float(sample[order[low]]), float(sample[order[high]])


def _notes(cases: Sequence[Measured], known: Sequence[Region], regions: Sequence[Region]) -> list[str]:
    notes = [f"{case.name}: {note}" for case in cases for note in case.notes]
    absent = [region.name for region in known if region not in regions]
    if absent:
        notes.append(f"no case has a voxel of {', '.join(absent)}: left out of the recipe")
    for region in regions:
        counts = {case.name: sum(case.voxels.get(value, 0) for value in region.members) for case in cases}
        without = [name for name, count in counts.items() if count == 0]
        tiny = [name for name, count in counts.items() if 0 < count <= FEW_VOXELS]
        if without:
            notes.append(f"{region.name} is absent in {_listed(without, len(cases))}")
        if tiny:
            notes.append(f"{region.name} has {FEW_VOXELS} voxels or fewer in {_listed(tiny, len(cases))}")
    thin = [case.name for case in cases if min(case.shape) < 8]
    if thin:
        notes.append(f"fewer than 8 slices in {_listed(thin, len(cases))}: the network doesn't halve them")
    if len(cases) == 1:
        notes.append("one case: no fold can be held out, so train without --fold; nothing says how well it does")
    return notes


def _listed(names: Sequence[str], total: int) -> str:
    more = f" and {len(names) - LISTED} more" if len(names) > LISTED else ""
    return f"{len(names)} of {total} cases ({', '.join(names[:LISTED])}{more})"
