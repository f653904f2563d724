"""Several images as the channels of one case: files called by number or by channel, or the series of a study.

A case with several channels is a `Candidate` whose `parts` are the images. It lies on the first one's grid. Files must
all lie there; series may lie elsewhere in the same frame of reference, and are resampled.
"""

from __future__ import annotations

import hashlib
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from volseg.errors import GeometryError, InputError, RefusalError
from volseg.geometry import Geometry
from volseg.loaders.candidate import Candidate, Ignored, refusal
from volseg.loaders.formats import format_of, stem
from volseg.loaders.layouts import SEQUENCES
from volseg.text import safe_name
from volseg.volume import Volume, Voxels

if TYPE_CHECKING:
    from volseg.config import ChannelConfig

#: A channel must cover at least this share of the first one's grid.
COVERED_SHARE = 0.5

#: nnU-Net's name of one of several channels.
_NUMBERED = re.compile(r"(?P<case>.+)_(?P<channel>\d{4})")
#: Points along each axis at which `_covered` looks.
_LOOKS = 32


def sequence(name: str) -> str:
    """A channel's name in small letters; BraTS' name of today where it is one that they had."""
    small = name.casefold()
    return next((now for now, then in SEQUENCES.items() if small == then), small)


def from_files(
    candidates: Iterable[Candidate], channels: Sequence[ChannelConfig]
) -> tuple[list[Candidate], list[Ignored]]:
    """Make the files of one folder that are channels of one case this case.

    They are called by numbers (``x_0000``, ``x_0001``, ...) or, where these are all different, by the names of the
    channels (``x_CT`` and ``x_PET``; ``x-t1n``, ``x-t1c``, ... or ``x_t1``, ``x_t1ce``, ... as in BraTS).

    Parameters
    ----------
    candidates
        Images that were found, a file each; series are left as they are.
    channels
        Channels of the model. With one alone, `x_0000` is the case `x` where there is neither `x` nor another number of
        it, and all else is left as it is, unless the channel is one of BraTS' sequences.

    Returns
    -------
    cases : list of Candidate
        A case isn't usable where a channel is absent (code ``channels``), lies on another grid (``grid-mismatch``), or
        isn't usable itself.
    ignored : list of Ignored
        The other sequences of BraTS' cases, for a model that takes some.
    """
    needed = [sequence(channel.name) for channel in channels]
    of_brats = bool(needed) and SEQUENCES.keys() >= set(needed)
    if len(needed) < 2 and not of_brats:
        return _without_numbers(list(candidates)) if needed else list(candidates), []
    # Where two channels have one name it says nothing.
    known = [*SEQUENCES] if of_brats else needed
    spelt = [*known, *(SEQUENCES[name] for name in known if name in SEQUENCES)]
    # The longest first: a channel may be called t1, and another fat_t1.
    names = sorted(spelt, key=len, reverse=True) if len(set(needed)) == len(needed) else []
    result: list[Candidate] = []
    cases: dict[tuple[Path, str, bool], dict[str, Candidate]] = defaultdict(dict)
    for candidate in candidates:
        called = None if candidate.kind == "dicom" else _channel(candidate.path.name, names, numbered=len(needed) > 1)
        if called is None:
            result.append(candidate)
            continue
        name, channel, by_number = called
        if cases[candidate.path.parent, name, by_number].setdefault(channel, candidate) is not candidate:
            result.append(candidate)
    ignored: list[Ignored] = []
    for (_, name, numbered), files in cases.items():
        wanted = [f"{number:04d}" for number in range(len(needed))] if numbered else needed
        taken = {channel: file for channel, file in files.items() if numbered or channel in needed}
        result.append(_of_files(name, taken or files, wanted))
        if taken:
            others = files.keys() - taken.keys()
            ignored += [Ignored(files[each].path, f"{each} isn't a channel of the model") for each in others]
    return result, ignored


def _without_numbers(candidates: list[Candidate]) -> list[Candidate]:
    """Cases called ``x`` for the files ``x_0000`` that nnU-Net expects of a model with one channel.

    Where other numbers of ``x`` are there, these are those of the cases.
    """
    files = [each for each in candidates if each.kind != "dicom"]
    numbered = {each.path: match for each in files if (match := _NUMBERED.fullmatch(stem(each.path)))}
    known = Counter((path.parent, match["case"]) for path, match in numbered.items())
    known.update((each.path.parent, stem(each.path)) for each in files if each.path not in numbered)

    def called(candidate: Candidate) -> Candidate:
        match = numbered.get(candidate.path)
        if match is None or match["channel"] != "0000" or known[candidate.path.parent, match["case"]] > 1:
            return candidate
        return replace(candidate, name=safe_name(match["case"]))

    return [called(candidate) for candidate in candidates]


def _channel(file: str, names: Iterable[str], *, numbered: bool) -> tuple[str, str, bool] | None:
    """Case and channel that a file is called after, if it is, and whether that is a number."""
    if format_of(Path(file)) is None:
        return None
    name = stem(Path(file))
    if numbered and (number := _NUMBERED.fullmatch(name)):
        return number["case"], number["channel"], True
    for channel in names:
        if named := re.fullmatch(rf"(?P<case>.+)[-_]{re.escape(channel)}", name, re.IGNORECASE):
            return named["case"], sequence(channel), False
    return None


def _of_files(name: str, files: dict[str, Candidate], needed: Sequence[str]) -> Candidate:
    if files.keys() == set(needed):
        parts = [files[channel] for channel in needed]
        return replace(compose(parts), name=safe_name(name)) if len(parts) > 1 else parts[0]
    parts = [files[channel] for channel in sorted(files)]
    found = ", ".join(part.path.name for part in parts)
    error = InputError(f"case {name} has {found}; needed is one file each of {', '.join(needed)}", code="channels")
    return replace(_case(parts, refused=error), name=safe_name(name))


def from_study(candidates: Iterable[Candidate], rules: Sequence[ChannelConfig]) -> list[Candidate]:
    """Make the series of a study that fit a model's channels one case, named like the first channel's series.

    A study where a channel has no series is left as it is, and so are series without a study UID.

    Parameters
    ----------
    candidates
        Images that were found, a series each; files are left as they are.
    rules
        Rules for the series that fit each channel. With one channel alone, all is left as it is.

    Returns
    -------
    list of Candidate
        The series that became channels are only in their case's `parts`. A case isn't usable where several series fit
        one channel or one fits several (code ``channels``), where a series isn't usable itself, or where one can't be
        put onto the first one's grid (see `compose`).
    """
    result = list(candidates)
    if len(rules) < 2:
        return result
    studies: dict[str, list[Candidate]] = defaultdict(list)
    for candidate in result:
        if candidate.kind == "dicom" and candidate.study_uid and candidate.channels == 1:
            studies[candidate.study_uid].append(candidate)
    for series in studies.values():
        fitting = [[candidate for candidate in series if _fits(candidate, rule)] for rule in rules]
        if all(fitting):
            case = _of_series(fitting, rules)
            taken = {id(part) for part in case.parts}
            result = [candidate for candidate in result if id(candidate) not in taken] + [case]
    return result


def _fits(candidate: Candidate, rule: ChannelConfig) -> bool:
    texts = ((rule.description, candidate.description), (rule.sequence, candidate.sequence))
    known = candidate.modality is None or not rule.modalities or candidate.modality in rule.modalities
    return known and all(pattern is None or re.search(pattern, text, re.IGNORECASE) for pattern, text in texts)


def _of_series(fitting: Sequence[Sequence[Candidate]], rules: Sequence[ChannelConfig]) -> Candidate:
    """Case of the one series that fits each channel; those that can't be used count where no other fits."""
    chosen = [[found for found in each if _loadable(found)] or each for each in fitting]
    parts = list({id(found): found for each in chosen for found in each}.values())
    several = next((index for index, each in enumerate(chosen) if len(each) > 1), None)
    if several is None and len(parts) == len(rules):
        return compose(parts)
    if several is None:
        fits = f"{chosen[0][0].name} fits several channels" if len(parts) == 1 else "a series fits several channels"
    else:
        fits = f"several series fit channel {rules[several].name}: {_names(chosen[several])}"
    error = InputError(
        f"{fits}; name one series for each of {', '.join(rule.name for rule in rules)}, in this order, with --series",
        code="channels",
    )
    return replace(_case(parts, refused=error), channels=len(rules))


def _loadable(candidate: Candidate) -> bool:
    return candidate.usable or candidate.code == "tilted"


def _names(candidates: Iterable[Candidate]) -> str:
    return ", ".join(candidate.name for candidate in candidates)


def compose(parts: Sequence[Candidate]) -> Candidate:
    """Make one case of images of one channel each, in the order of the channels.

    Returns
    -------
    Candidate
        Named like the first image, on its grid. Not usable where an image isn't, for its reason; with code ``channels``
        where one holds several itself; ``mixed-frame`` where a series on another grid is in another frame of reference,
        and ``grid-mismatch`` where it states none, covers less than `COVERED_SHARE` of the grid, or is a file.
    """
    first = parts[0]
    notes = [f"channels: {_names(parts)}"] if first.kind == "dicom" else []
    notes += first.notes
    refused = None
    try:
        for part in parts:
            _check_alone(part)
        for part in parts[1:]:
            notes += [f"{_called(part)}: {note}" for note in (*_check_place(first, part), *part.notes)]
        for part in parts:
            if not part.usable:
                raise refusal(f"{_called(part)}: {part.reason}", code=part.code or "")
    except RefusalError as error:
        refused = error
    return _case(parts, tuple(notes), refused)


def _case(parts: Sequence[Candidate], notes: tuple[str, ...] = (), refused: RefusalError | None = None) -> Candidate:
    return replace(
        parts[0],
        parts=tuple(parts),
        reader=read,
        files=tuple(path for part in parts for path in part.files),
        channels=len(parts),
        usable=refused is None,
        reason=refused.reason if refused else None,
        code=refused.code if refused else None,
        notes=notes,
    )


def _called(part: Candidate) -> str:
    """What to call a channel: not by its files' names where it is a series, which may be a patient's."""
    return part.name if part.kind == "dicom" else part.path.name


def _check_alone(part: Candidate) -> None:
    """Refuse an image that can't be a channel. A tilt can be mended: the other channels' places are looked at first."""
    if not _loadable(part):
        raise refusal(f"{_called(part)}: {part.reason}", code=part.code or "")
    if part.channels != 1:
        raise InputError(f"{_called(part)} holds {part.channels} channels itself; give one a file", code="channels")


def _check_place(first: Candidate, part: Candidate) -> tuple[str, ...]:
    """Refuse an image that can't be put onto the first one's grid; else what to note about it."""
    assert first.geometry is not None  # a loadable candidate has one
    assert part.geometry is not None
    frames = (first.frame_of_reference_uid, part.frame_of_reference_uid)
    difference = first.geometry.difference(part.geometry)
    if difference is None:
        differ = all(frames) and frames[0] != frames[1]
        return ("another frame of reference, but the same grid voxel by voxel: taken as the same",) if differ else ()
    off = f"{_called(part)} doesn't lie on the grid of {_called(first)} ({difference})"
    if part.kind != "dicom" or first.kind != "dicom":
        raise GeometryError(f"{off}; resample it first", code="grid-mismatch")
    if not all(frames):
        raise GeometryError(
            f"{off}, and without a frame of reference it can't be put there; register and resample it first",
            code="grid-mismatch",
        )
    if frames[0] != frames[1]:
        raise GeometryError(
            f"{off} and is in another frame of reference; register and resample it first", code="mixed-frame"
        )
    share = _covered(part.geometry, first.geometry)
    if share < COVERED_SHARE:
        raise GeometryError(f"{off} and covers {share:.0%} of it; needed are {COVERED_SHARE:.0%}", code="grid-mismatch")
    rest = "" if share == 1 else ", the rest has its lowest value"
    return (f"resampled onto the grid of {first.name}, of which it covers {share:.0%}{rest}",)


def _covered(geometry: Geometry, grid: Geometry) -> float:
    """Share of `grid`'s box that lies in `geometry`'s, by points spread evenly over it."""
    along = [(np.arange(_LOOKS) + 0.5) / _LOOKS * size - 0.5 for size in grid.shape]
    points = np.stack(np.meshgrid(*along, indexing="ij"), axis=-1)
    places = geometry.world_to_voxel(grid.voxel_to_world(points))
    # Points on the very edge, where two grids share one, must not fall to either side by rounding.
    inside = (places > -0.5 - 1e-6) & (places < np.array(geometry.shape) - 0.5 + 1e-6)
    return float(inside.all(axis=-1).mean())


def read(candidate: Candidate) -> Volume:
    """Voxels of a case with several channels.

    A channel that lies elsewhere is interpolated linearly onto the first one's grid, in world coordinates; what it
    doesn't cover has its lowest value. Series with a tilt are put onto straight slices first: `Candidate.load`
    refuses the case where that isn't allowed.

    Parameters
    ----------
    candidate
        A candidate with `parts`.

    Returns
    -------
    Volume
        [c, i, j, k] on the first channel's grid, with the first channel's source; its hash is of all files.

    Raises
    ------
    RefusalError
        A channel turns out to be damaged; the message names it.
    """
    volumes = []
    for part in candidate.parts:
        try:
            volumes.append(part.load(resample_tilt=True))
        except RefusalError as error:
            raise refusal(f"{_called(part)}: {error.reason}", code=error.code, path=candidate.path) from error
    grid = volumes[0].geometry
    digests = "\n".join(volume.source.sha256 for volume in volumes)
    source = replace(
        volumes[0].source,
        name=candidate.name,
        sha256=hashlib.sha256(digests.encode()).hexdigest(),
        notes=candidate.notes,
    )
    return Volume(np.stack([_placed(volume, grid) for volume in volumes]), grid, source)


def _placed(volume: Volume, grid: Geometry) -> Voxels:
    """Voxels [i, j, k] of `volume` on `grid`."""
    if volume.geometry.same_grid(grid):
        return volume.array
    # Imported here, since it takes torch along.
    from volseg.resample import resampled

    return resampled(volume.array, volume.geometry, grid, order=1, fill=float(volume.array.min()))
