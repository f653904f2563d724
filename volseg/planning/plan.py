"""From a dataset's fingerprint to a complete recipe, with the reason for each choice."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import Any

import numpy as np

from volseg.config import Recipe, recipe_from_dict
from volseg.labels.canvas import any_colour
from volseg.planning.cost import Machine
from volseg.planning.fingerprint import Fingerprint
from volseg.planning.intensity import channel_choices
from volseg.planning.size import Limits, Needs, Size, choose_size
from volseg.planning.written import Choice, content, printable, text

#: The orientation that has an axis first, so that thick slices are those along D.
_FIRST = {"R": "RAS", "A": "ARS", "S": "SAR"}
#: Spacings are one where the coarsest is less than this many times the finest.
NEARLY_EQUAL = 1.05
#: Share of the time that steps may take: reading cases and writing checkpoints take some.
FOR_STEPS = 0.9
#: Mirrored passes are on by default where the median case has no more windows: they double them.
FEW_WINDOWS = 8
FOLDS = 5


@dataclass(frozen=True)
class Plan:
    """A recipe, and what it costs.

    Attributes
    ----------
    recipe
        The recipe that `text` is parsed to.
    choices
        Its keys, with reasons.
    head
        Paragraphs of comment above them: the dataset, its notes, the estimates.
    size
        Spacing, window, width and batch, with the counts that estimates are made of.
    limits
        Limits that it was planned for.
    notes
        Notes that the user should know.
    """

    recipe: Recipe
    choices: tuple[Choice, ...]
    head: tuple[str, ...]
    size: Size
    limits: Limits
    notes: tuple[str, ...]

    @property
    def step_s(self) -> float:
        """Seconds of a step, as counted."""
        return self.size.step_s(self.limits.machine)

    def measured(self, step_s: float) -> str:
        """A sentence on a measured step, and what it means for the time that was asked for."""
        steps = int(self.limits.minutes * 60 * FOR_STEPS / step_s)
        slow = f" That is {step_s / self.step_s:.0f} times the estimate: give it more --minutes."
        return (
            f"Measured on this machine, the network alone on noise: {step_s:.2f} s a step,"
            f" {steps} steps in {self.limits.minutes:g} minutes; volseg train measures again, with patches."
            f"{slow if step_s > 2 * self.step_s else ''}"
        )

    def yaml(self, *more: str) -> str:
        """The recipe as YAML; `more` are paragraphs that end its head."""
        return text(self.choices, (*self.head, *more))


def make_plan(fingerprint: Fingerprint, machine: Machine, *, minutes: float = 30.0, memory: int = 8 * 10**9) -> Plan:
    """Choose a recipe for a dataset; the same dataset, machine and limits give the same recipe.

    Parameters
    ----------
    fingerprint
        Fingerprint of the dataset.
    machine
        The machine that is to train.
    minutes
        Wall time of one model.
    memory
        Bytes that training may hold.

    Raises
    ------
    RefusalError
        The dataset has cases that can't be used, or no label.
    """
    fingerprint.check()
    orientation, why = _orientation(fingerprint)
    cropped = float(np.median([case.content_share for case in fingerprint.cases])) < 0.75
    channels, intensities, cropped = channel_choices(fingerprint, cropped)
    needs = _needs(fingerprint, orientation, cropped)
    limits = Limits(machine, minutes, memory)
    size = choose_size(needs, limits)
    sections = (
        *_identity(fingerprint),
        channels,
        *_labels(fingerprint),
        Choice("orientation", orientation, why),
        *_grid(size),
        *intensities,
        *_resampling(fingerprint, size),
        _network(size, limits),
        _mirroring(fingerprint, orientation, size),
        Choice(
            "postprocess",
            [],
            "Left to cross-validation: whether removing all but a label's largest part helps is known only of masks of"
            " cases that weren't trained on.",
        ),
        _training(fingerprint, orientation, size, limits),
    )
    recipe = recipe_from_dict(content(sections), "plan")
    notes = (*fingerprint.notes, *_warnings(size, limits))
    return Plan(recipe, sections, tuple(_head(fingerprint, size, limits, notes)), size, limits, notes)


def _axes(orientation: str) -> list[int]:
    """Of each tensor axis, which of R, A, S it is."""
    return ["RAS".index(letter) for letter in orientation]


def _orientation(fingerprint: Fingerprint) -> tuple[str, str]:
    spacing = np.median([case.spacing_mm for case in fingerprint.cases], axis=0)
    found = [case.orientation for case in fingerprint.cases]
    stored = ", ".join(f"{name} ({found.count(name)})" for name in sorted(set(found)))
    if max(spacing) < NEARLY_EQUAL * min(spacing):
        return "RAS", f"Files are stored as {stored}; all are turned to this one. No axis is coarser than the others."
    letter = "RAS"[int(np.argmax(spacing))]
    shown = " x ".join(f"{mm:.4g}" for mm in spacing)
    return _FIRST[letter], (
        f"Files are stored as {stored}; all are turned to this one. D is the axis with the largest spacing (median"
        f" {shown} mm along R, A, S)."
    )


def _needs(fingerprint: Fingerprint, orientation: str, cropped: bool) -> Needs:
    order = _axes(orientation)

    def turned(triple: Any) -> Any:
        return tuple(triple[axis] for axis in order)

    cases = fingerprint.cases
    medians = [float(np.median(fingerprint.volumes_ml(region))) for region in fingerprint.regions]
    return Needs(
        spacings_mm=[turned(case.spacing_mm) for case in cases],
        shapes=[turned(case.content if cropped else case.shape) for case in cases],
        stored_voxels=sum(math.prod(case.shape) for case in cases),
        labelled_ml=sum(sum(case.voxels.values()) * case.voxel_ml for case in cases),
        smallest_ml=min(medians),
        channels=len(fingerprint.intensities),
        outputs=len(fingerprint.regions) + (not fingerprint.naming.overlapping),
    )


def _identity(fingerprint: Fingerprint) -> tuple[Choice, ...]:
    naming = fingerprint.naming
    name = re.sub(r"[^A-Za-z0-9_.-]+", "-", naming.name).strip("-._").lower() or "dataset"
    described = printable(naming.description) or f"{', '.join(region.name for region in fingerprint.regions)}"
    return Choice("name", name), Choice("version", "1.0"), Choice("description", printable(described)[:300])


def _labels(fingerprint: Fingerprint) -> tuple[Choice, ...]:
    overlapping = fingerprint.naming.overlapping
    rows = []
    for region in fingerprint.regions:
        row = {"value": region.value, "name": printable(region.name), "colour": list(any_colour(region.value))}
        rows.append({**row, "members": list(region.members)} if overlapping else row)
    touching = [f"{one}-{other} in {cases}" for (one, other), cases in fingerprint.touching.items()][:6]
    sides = f" Values side by side, with the number of cases: {', '.join(touching)}." if touching else ""
    output = (
        Choice("output", "sigmoid", "The dataset's labels are regions that overlap: each has an output of its own.")
        if overlapping
        else Choice("output", "softmax", f"A voxel has one label.{sides}")
    )
    return (
        Choice(
            "labels",
            rows,
            "Values and names are the dataset's, colours generated. No SNOMED CT codes: a plan can't know them; without"
            " them DICOM SEG files get private ones. docs/recipe.md says how to add code, category and modifier.",
        ),
        output,
    )


def _grid(size: Size) -> tuple[Choice, ...]:
    if size.coarse_axis is not None:
        why = f"Median of the cases; along the coarse axis {'DHW'[size.coarse_axis]} the 10th percentile, as nnU-Net."
    else:
        why = "Median of the cases' spacings, as nnU-Net."
    if size.spacing_mm != size.native_mm:
        native = " x ".join(f"{mm:.4g}" for mm in size.native_mm)
        why = (
            f"Coarser than the cases' median of {native} mm, so that a window that fits time and memory sees more of a"
            " case at once (nnU-Net's low-resolution rule); no further than the smallest label allows."
        )
    window = size.topology.window
    median = " x ".join(map(str, size.median))
    return (
        Choice("spacing_mm", list(size.spacing_mm), why),
        Choice(
            "window",
            list(window),
            f"The median case at this spacing is {median}; the window holds {100 * size.share:.0f} % of it. Rounded up"
            f" to multiples of {' x '.join(map(str, size.topology.multiple))}, which the strides need.",
        ),
    )


def _resampling(fingerprint: Fingerprint, size: Size) -> tuple[Choice, ...]:
    spacings = [*(case.spacing_mm for case in fingerprint.cases), size.spacing_mm]
    thick = sum(max(mm) > 3 * min(mm) for mm in spacings)
    if not thick:
        return ()
    why = "Slices more than three times as thick as their voxels are wide: interpolated within slices only, as nnU-Net."
    return (Choice("resampling", (Choice("separate_axis", "auto", why),)),)


def _network(size: Size, limits: Limits) -> Choice:
    found = size.topology
    plain = all(step == (2, 2, 2) for step in found.strides[1:]) and all(k == (3, 3, 3) for k in found.kernels)
    why = (
        f"{len(found.strides)} stages: an axis is halved while it has 8 voxels and isn't twice as coarse as the finest."
        f" The widest of 32, 24, 16 and 8 first features whose steps fit {limits.minutes:g} minutes"
        f" ({limits.steps:.0f} steps) and {limits.memory / 1e9:g} GB; nnU-Net has 32, and hours of a GPU."
    )
    choices = [Choice("features", list(size.features), why)]
    if not plain:
        choices += [
            Choice("strides", [list(step) for step in found.strides], "Thick slices are halved once the others are."),
            Choice("kernels", [list(k) for k in found.kernels], "No convolution across slices that lie far apart."),
        ]
    choices.append(Choice("deep_supervision", len(size.features) > 2, "Lower stages learn sooner."))
    return Choice("network", tuple(choices))


def _flips(fingerprint: Fingerprint, orientation: str) -> tuple[Choice, ...]:
    """Flips in training, and the labels that change places in them."""
    axis = orientation.index("R")
    along = f"Along {'DHW'[axis]}, left to right"
    if not fingerprint.pairs:
        return (Choice("flip_axes", [axis], f"{along}: no label tells the sides apart, so a mirror is another case."),)
    named = "; ".join(f"{p.names[0]} and {p.names[1]} (by {p.found_by})" for p in fingerprint.pairs[:4])
    if 2 * len(fingerprint.pairs) < len(fingerprint.regions) or fingerprint.naming.overlapping:
        why = f"None: a mirror would exchange left and right, which some labels tell apart and others don't: {named}."
        return (Choice("flip_axes", [], why),)
    return (
        Choice("flip_axes", [axis], f"{along}: every label has its counterpart, and the two change places."),
        Choice("swapped_labels", [list(pair.values) for pair in fingerprint.pairs], f"Pairs: {named}."),
    )


def _mirroring(fingerprint: Fingerprint, orientation: str, size: Size) -> Choice:
    # The passes of a prediction can't exchange labels as training does.
    axes = [] if fingerprint.pairs else [orientation.index("R")]
    why = "None: labels tell left from right." if fingerprint.pairs else ""
    per_axis = [
        1 + max(0, math.ceil((m - n) / (n / 2))) for m, n in zip(size.median, size.topology.window, strict=True)
    ]
    use = bool(axes) and math.prod(per_axis) <= FEW_WINDOWS
    if axes:
        cheap = "few enough to pass twice" if use else "too many to pass twice unless asked to (--tta)"
        count = math.prod(per_axis)
        why = f"As training flips. The median case has {count} window{'s' if count > 1 else ''}, {cheap}."
    return Choice("mirroring", (Choice("axes", axes, why), Choice("use", use)))


def _training(fingerprint: Fingerprint, orientation: str, size: Size, limits: Limits) -> Choice:
    augmentation = [*_flips(fingerprint, orientation)]
    if size.coarse_axis is not None:
        degrees = [15.0 if axis == size.coarse_axis else 0.0 for axis in range(3)]
        augmentation.append(Choice("rotation_degrees", degrees, "Within slices only, since they are thick."))
    steps = max(100, int(limits.minutes * 60 * FOR_STEPS / size.step_s(limits.machine)) // 100 * 100)
    patches = "1, so that many steps fit; more where time, memory and the number of cases allow."
    count = len(fingerprint.cases)
    ignored = fingerprint.naming.ignored
    unjudged = [] if ignored is None else [Choice("ignored_label", ignored, "The dataset's label called ignore.")]
    return Choice(
        "training",
        (
            *unjudged,
            Choice("steps", steps, f"What fits {limits.minutes:g} minutes by the estimate; --minutes measures."),
            Choice("batch_size", size.batch, patches),
            Choice("optimiser", "muon", "These seven are what pipelines/hippocampus.yaml was measured with."),
            Choice("momentum", 0.95),
            Choice("learning_rate", 0.005),
            Choice("weight_decay", 0.01),
            Choice("schedule", "cosine"),
            Choice("ema_decay", 0.99),
            Choice("foreground_fraction", 0.5),
            Choice("validations", 4, "Each predicts every case held out."),
            Choice("folds", max(2, min(FOLDS, count)), f"{FOLDS}, or as many as there are cases ({count})."),
            Choice("augmentation", tuple(augmentation), "What isn't here is as docs/recipe.md says."),
        ),
    )


def _warnings(size: Size, limits: Limits) -> list[str]:
    if size.fits:
        return []
    return [
        f"even the smallest network doesn't fit: a step is estimated at {size.step_s(limits.machine):.1f} s and"
        f" {size.cost.step_bytes(size.batch) / 1e9:.1f} GB; give it more --minutes or --memory"
    ]


def _head(fingerprint: Fingerprint, size: Size, limits: Limits, notes: tuple[str, ...]) -> list[str]:
    machine = limits.machine
    cases = fingerprint.cases
    shapes, spacings = _span([case.shape for case in cases]), _span([case.spacing_mm for case in cases])
    volumes = []
    for region in fingerprint.regions:
        found = fingerprint.volumes_ml(region)
        volumes.append(f"{region.name} {np.median(found):.3g} ml in {len(found)}")
    step_s, held = size.step_s(machine), size.cost.step_bytes(size.batch)
    return [
        f"Planned by volseg from {len(cases)} labelled cases for {limits.minutes:g} minutes a model and"
        f" {limits.memory / 1e9:g} GB of memory. Rules: docs/plan.md.",
        f"Cases: {shapes} voxels of {spacings} mm along R, A, S. Labels (median"
        f" volume, cases): {'; '.join(volumes[:20])}{' and others' if len(volumes) > 20 else ''}.",
        *(f"Note: {note}." for note in notes),
        f"Estimated, not measured: {size.cost.step_operations(size.batch) / 1e9:.0f} billion operations a step at"
        f" {machine.operations_per_s / 1e9:.0f} billion a second ({machine.threads} threads,"
        f" {'bf16' if machine.bf16 else 'fp32'}), and {size.batch * size.cost.logits / 1e6:.0f} million output values,"
        f" are {step_s:.2f} s; memory {held / 1e9:.1f} GB, and"
        f" {size.cases_bytes / 1e9:.1f} GB of disk for the prepared cases.",
    ]


def _span(rows: list[Any]) -> str:
    """Smallest to largest of each axis."""
    table = np.array(rows)
    low, high = (" x ".join(f"{n:.4g}" for n in bound) for bound in (table.min(0), table.max(0)))
    return low if low == high else f"{low} to {high}"
