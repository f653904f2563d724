"""Synthetic images: sides, labels, resolution and intensities are what they are said to be."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import volseg
from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.config import AugmentationConfig, Recipe, SynthesisConfig
from volseg.datasets.cases import load_dataset
from volseg.errors import InputError, RecipeError, UsageError
from volseg.labels.read import load_label_map
from volseg.training.cache import CaseCache
from volseg.training.checkpoint import LAST, load_checkpoint, save_checkpoint
from volseg.training.loop import Trainer
from volseg.training.pack import pack_run
from volseg.training.run import Budget, train_fold
from volseg.training.sampling import Place
from volseg.training.synthesis.artefacts import distorted
from volseg.training.synthesis.image import Synthesis, interpolated, nearest
from volseg.training.synthesis.intensities import draw_intensities
from volseg.training.synthesis.label_map import LabelMap
from volseg.training.synthesis.maps import map_case
from volseg.training.synthesis.mixture import MixedPatches, MixedSampler
from volseg.training.synthesis.resolution import scanned, thick_slices
from volseg.training.synthesis.view import cut_view
from volseg.training.synthesis.whole import synthetic_scan
from volseg.training.trained_on import describe_training

GEOMETRY: dict[str, Any] = {name: 0.0 for name in AugmentationConfig.model_fields if name.endswith("_probability")}
#: 7 and 8 are one structure, left and right; 5 is on no side and trained as nothing, 3 is around it.
STRUCTURES = [
    {"value": 0, "tissue": 0},
    {"value": 3, "tissue": 4},
    {"value": 5, "tissue": 1},
    {"value": 7, "label": 1, "mirror": 8, "tissue": 2},
    {"value": 8, "label": 2, "mirror": 7, "tissue": 3},
]
PLAIN: dict[str, Any] = {
    "structures": STRUCTURES,
    **{name: 0.0 for name in SynthesisConfig.model_fields if name.endswith("_probability")},
    "spread_range": [0.0, 0.0],
    "blur_mm": [0.0, 0.0],
    "gamma_strength": 0.0,
    "scan_scale": [1.0, 1.0],
    "scan_shift": 0.0,
}


def recipe_of(
    geometry: dict[str, Any] | None = None, window: tuple[int, int, int] = (8, 8, 8), **changes: Any
) -> Recipe:
    return tiny_recipe(
        window=window,
        spacing_mm=(2.0, 2.0, 2.0),
        intensity={"scheme": "none"},
        mirroring={"axes": []},
        training={
            "augmentation": {**GEOMETRY, "flip_axes": [], "swapped_labels": [[1, 2]], **(geometry or {})},
            "synthesis": {**PLAIN, **changes},
        },
    )


def synthesis_of(recipe: Recipe) -> Synthesis:
    assert recipe.training.synthesis is not None
    return Synthesis(recipe, recipe.training.synthesis)


def config_of(**changes: Any) -> SynthesisConfig:
    return SynthesisConfig.model_validate({**PLAIN, **changes})


def sided(spacing_mm: tuple[float, float, float] = (2.0, 2.0, 2.0)) -> LabelMap:
    """8x8x8: 7 in the first slabs of D, 8 in the last one, 5 in a corner between them."""
    labels = torch.zeros((8, 8, 8), dtype=torch.uint8)
    labels[0:3], labels[7], labels[4:6, 0:2, 0:2] = 3, 4, 2
    return LabelMap("sided", labels, spacing_mm, {1: torch.tensor([[1, 4, 4]]), 2: torch.tensor([[7, 4, 4]])})


def made(recipe: Recipe, seed: int = 0, label_map: LabelMap | None = None) -> tuple[Tensor, Tensor]:
    place = Place(label_map or sided(), (0, 0, 0))
    return synthesis_of(recipe)(place, np.random.default_rng(seed))


def test_without_a_change_the_labels_are_the_maps() -> None:
    _, labels = made(recipe_of())
    expected = np.zeros((8, 8, 8), int)
    expected[0:3], expected[7] = 1, 2
    np.testing.assert_array_equal(labels[0].numpy(), expected)


def test_an_image_has_one_value_a_tissue() -> None:
    image, _ = made(recipe_of())
    index = sided().labels_DHW.numpy()
    values = [np.unique(image[0].numpy()[index == number]) for number in (0, 2, 3, 4)]
    assert [len(found) for found in values] == [1, 1, 1, 1]
    assert len({float(found[0]) for found in values}) == 4


def test_a_flip_exchanges_the_sides() -> None:
    """What was in three slabs at one end is in three at the other, and is the other side's structure there."""
    flipped = [made(recipe_of({"flip_axes": [0]}), seed)[1][0].numpy() for seed in range(8)]
    plain = np.zeros((8, 8, 8), int)
    plain[0:3], plain[7] = 1, 2
    turned = np.zeros((8, 8, 8), int)
    turned[5:8], turned[0] = 2, 1
    seen = {"plain" if np.array_equal(each, plain) else "turned" for each in flipped}
    assert seen == {"plain", "turned"}
    assert all(np.array_equal(each, plain) or np.array_equal(each, turned) for each in flipped)


def test_a_flip_exchanges_the_sides_in_the_image_too() -> None:
    """In a contrast whose left is bright and right dark, left is the bright one whichever way the head is turned."""
    priors = [[0, 0, 0, 0], [80, 0, 0, 0], [40, 0, 0, 0], [200, 0, 0, 0], [120, 0, 0, 0]]
    structures = [{**each, "kind": number} for number, each in enumerate(STRUCTURES)]
    contrast = {"name": "known", "weight": 1.0, "priors": priors}
    recipe = recipe_of({"flip_axes": [0]}, structures=structures, contrasts=[contrast], free_weight=0.0)
    for seed in range(6):
        image, labels = made(recipe, seed)
        assert float(image[0][labels[0] == 1].unique()) == pytest.approx(200 / 200)
        assert float(image[0][labels[0] == 2].unique()) == pytest.approx(120 / 200)


def test_a_flip_along_another_axis_leaves_the_sides() -> None:
    for seed in range(4):
        _, labels = made(recipe_of({"flip_axes": [1, 2]}), seed)
        assert (labels[0, 0:3] == 1).all()
        assert (labels[0, 7] == 2).all()


def test_a_map_of_finer_voxels_keeps_its_millimetres() -> None:
    """A map of 1 mm on a grid of 2 mm: voxel n of the window is the middle of voxels 2n and 2n + 1."""
    fine = torch.zeros((16, 16, 16), dtype=torch.uint8)
    fine[0:6], fine[14:16] = 3, 4
    _, labels = made(recipe_of(), label_map=LabelMap("fine", fine, (1.0, 1.0, 1.0), {}))
    expected = np.zeros((8, 8, 8), int)
    expected[0:3], expected[7] = 1, 2
    np.testing.assert_array_equal(labels[0].numpy(), expected)


def test_tissues_that_share_a_voxel_share_its_value() -> None:
    """At the middle between a voxel of 10 and one of 30 the mean is 20, the spread that between both."""
    part = torch.tensor([0, 1], dtype=torch.uint8).reshape(2, 1, 1)
    at = torch.tensor([[0.0, 0, 0], [0.5, 0, 0], [0.75, 0, 0], [1.0, 0, 0]]).reshape(4, 1, 1, 3)
    mean, spread = interpolated(torch.tensor([[10.0, 30.0], [2.0, 4.0]]), part, at)
    torch.testing.assert_close(mean.flatten(), torch.tensor([10.0, 20.0, 25.0, 30.0]))
    torch.testing.assert_close(spread.flatten(), torch.tensor([2.0, 3.0, 3.5, 4.0]))


def test_what_is_beyond_a_map_is_background() -> None:
    part = torch.full((2, 2, 2), 3, dtype=torch.uint8)
    at = torch.tensor([[-0.6, 0, 0], [1.6, 1, 1], [1.4, 1, 1]]).reshape(3, 1, 1, 3)
    assert nearest(part, at).flatten().tolist() == [0, 0, 3]


@given(st.integers(0, 2**31), st.integers(0, 2**31))
def test_the_same_seed_makes_the_same_image_and_another_another(first: int, second: int) -> None:
    recipe = recipe_of(
        {"rotation_probability": 1.0}, spread_range=[5.0, 20.0], noise_probability=1.0, cut_probability=0.5
    )
    image, labels = made(recipe, first)
    again, labels_again = made(recipe, first)
    assert torch.equal(image, again)
    assert torch.equal(labels, labels_again)
    assert first == second or not torch.equal(image, made(recipe, second)[0])


@given(st.integers(0, 10**6))
def test_every_part_together_gives_finite_images_and_known_labels(seed: int) -> None:
    everything: dict[str, Any] = {name: 1.0 for name in PLAIN if name.endswith("_probability")}
    geometry = {
        "rotation_probability": 1.0,
        "scaling_probability": 1.0,
        "elastic_probability": 1.0,
        "flip_axes": [0, 1, 2],
    }
    recipe = recipe_of(geometry, **everything, blur_mm=[0.3, 1.0], spread_range=[0.0, 25.0], gamma_strength=0.3)
    image, labels = made(recipe, seed)
    assert image.shape == labels.shape == (1, 8, 8, 8)
    assert torch.isfinite(image).all()
    assert set(labels.unique().tolist()) <= {0, 1, 2}


@given(st.integers(4, 60), st.floats(1.0, 5.0), st.floats(0.0, 1.0))
def test_thick_slices_keep_what_is_constant(size: int, thickness: float, phase: float) -> None:
    rows = thick_slices(size, thickness, phase).sum(1)
    torch.testing.assert_close(rows, torch.ones(size), atol=1e-4, rtol=0)


def test_thick_slices_blur_a_thin_plate_as_much_as_they_are_thick() -> None:
    """A plate one voxel thin in slices of 4 voxels: its height falls to about the voxel's share of the profile."""
    plate = torch.zeros(41)
    plate[20] = 1
    seen = thick_slices(41, 4.0, 0.0) @ plate  # a slice's centre is at 0, 4, ..., 20
    sigma = 4 / 2.355
    share = 1 / np.exp(-(np.arange(-20, 21) ** 2) / (2 * sigma**2)).sum()
    assert float(seen.max()) == pytest.approx(share, rel=1e-3)
    # Linear between the slices' centres: halfway down after two voxels, on the slope to the next slice.
    neighbour = share * np.exp(-(4**2) / (2 * sigma**2))
    assert float(seen[22]) == pytest.approx((share + neighbour) / 2, rel=1e-2)


def test_only_the_thick_axis_is_blurred() -> None:
    """Alternating planes along each axis: those across the axis of thick slices are gone, the others are left."""
    config = config_of(thick_probability=1.0, thickness_mm=[8.0, 8.0])
    waves = []
    for axis in range(3):
        wave = (torch.arange(24) % 2).float().reshape([-1 if other == axis else 1 for other in range(3)])
        seen = scanned(wave.expand(24, 24, 24).contiguous(), (2.0, 2.0, 2.0), config, np.random.default_rng(1))
        waves.append(float(seen.std()))
    assert sorted(wave > 0.3 for wave in waves) == [False, True, True]


def test_a_known_contrast_is_drawn_about_its_priors() -> None:
    structures = [{**each, "kind": min(number, 1)} for number, each in enumerate(STRUCTURES)]
    contrast = {"name": "T1", "weight": 1.0, "priors": [[5, 0, 1, 0], [100, 10, 8, 2]]}
    config = config_of(structures=structures, contrasts=[contrast], free_weight=0.0)
    drawn = torch.stack([draw_intensities(config, np.random.default_rng(seed)) for seed in range(400)])
    assert drawn[:, 0, 0].unique().tolist() == [5.0]
    assert float(drawn[:, 0, 2].mean()) == pytest.approx(100, abs=2)
    assert float(drawn[:, 0, 2].std()) == pytest.approx(10, abs=1.5)
    # Structures of one kind look alike in one image.
    assert torch.equal(drawn[:, :, 1], drawn[:, :, 4])


def test_what_a_contrast_does_not_know_is_drawn_freely() -> None:
    structures = [{**each, "kind": min(number, 1)} for number, each in enumerate(STRUCTURES)]
    contrast = {"name": "T2", "weight": 1.0, "priors": [[5, 0, 1, 0], None]}
    config = config_of(structures=structures, contrasts=[contrast], free_weight=0.0, mean_range=[50.0, 60.0])
    drawn = draw_intensities(config, np.random.default_rng(0))
    assert ((drawn[0, 1:] >= 50) & (drawn[0, 1:] <= 60)).all()
    assert len(drawn[0, 1:].unique()) == 4


def test_a_stripped_head_shows_what_is_trained_and_the_fluid_around_it() -> None:
    labels = torch.tensor([0, 1, 2, 3], dtype=torch.uint8).reshape(4, 1, 1).expand(4, 8, 8).contiguous()
    whole = LabelMap("rows", labels, (2.0, 2.0, 2.0), {})
    for kept, lit in ((0.0, [False, False, False, True]), (1.0, [False, False, True, True])):
        recipe = recipe_of(
            window=(4, 8, 8),
            stripped_probability=1.0,
            kept_fluid_probability=kept,
            fluid=[5],
            mean_range=[100.0, 200.0],
        )
        image, _ = made(recipe, 1, whole)
        assert [bool((row > 0).all()) for row in image[0]] == lit


def test_beyond_the_field_of_view_there_is_neither_image_nor_label() -> None:
    recipe = recipe_of(cut_probability=1.0, cut_share=0.5, mean_range=[100.0, 200.0], scan_shift=0.3)
    assert recipe.training.synthesis is not None
    label_map = LabelMap("full", torch.full((8, 8, 8), 3, dtype=torch.uint8), (2.0, 2.0, 2.0), {})
    views = []
    for seed in range(6):
        _, labels = made(recipe, seed, label_map)
        inside = (labels[0] == 1).nonzero()
        low, high = inside.amin(0), inside.amax(0) + 1
        assert len(inside) == int((high - low).prod())  # a box
        views.append(int((high - low).prod()))
    assert min(views) < 512


@given(st.integers(0, 10**6))
def test_a_field_of_view_is_never_empty(seed: int) -> None:
    view = cut_view((5, 8, 13), config_of(cut_probability=1.0, cut_share=0.5), np.random.default_rng(seed))
    assert all(part.stop > part.start for part in view)


def test_ghosts_are_copies_at_a_distance() -> None:
    image = torch.zeros((16, 16, 16))
    image[8, 8, 8] = 1
    seen = distorted(
        image, (2.0, 2.0, 2.0), config_of(ghost_probability=1.0, ghost_strength=0.5), np.random.default_rng(2)
    )
    bright = (seen > 0).nonzero() - 8
    assert len(bright) in (2, 3)
    assert (bright != 0).any(1).sum() in (1, 2)
    assert ((bright != 0).sum(1) <= 1).all()


def write_map(path: Path, array: np.ndarray, affine: np.ndarray) -> Path:
    nib.save(nib.Nifti1Image(array.astype(np.uint16), affine), path)
    return path


def test_however_a_map_is_stored_left_is_left(tmp_path: Path) -> None:
    """The same head, stored as RAS and as LIA: training sees one array."""
    array = np.zeros((6, 7, 8), int)
    array[1, 1:5, 2:6], array[4, 2:4, 2:6] = 7, 8  # 7 at small x, which is left in RAS
    ras = np.diag([1.0, 1.0, 1.0, 1.0])
    lia = np.array([[-1.0, 0, 0, 5], [0, 0, 1, 0], [0, -1, 0, 7], [0, 0, 0, 1]])
    # LIA: first axis to the left, second down, third forward.
    turned = array[::-1].transpose(0, 2, 1)[:, ::-1]
    recipe = recipe_of()
    assert recipe.training.synthesis is not None
    seen = []
    for name, stored, affine in (("ras", array, ras), ("lia", turned, lia)):
        path = write_map(tmp_path / f"{name}.nii.gz", stored, affine)
        (tmp_path / f"{name}.csv").write_text(f"label\n{path.name}\n")
        (case,) = load_dataset(tmp_path / f"{name}.csv")
        seen.append(map_case(case, recipe, recipe.training.synthesis))
    first, second = (case.label_map for case in seen)
    assert first is not None
    assert second is not None
    assert torch.equal(first.labels_DHW, second.labels_DHW)
    # All of it is kept: windows beside a head hold air, in prediction too.
    assert tuple(first.labels_DHW.shape) == (6, 7, 8)
    assert (first.labels_DHW[1, 1:5, 2:6] == 3).all()
    assert first.labels_DHW[4].unique().tolist() == [0, 4]


def test_a_value_that_no_structure_has_is_refused(tmp_path: Path) -> None:
    path = write_map(tmp_path / "a.nii.gz", np.full((3, 3, 3), 9), np.eye(4))
    recipe = recipe_of()
    assert recipe.training.synthesis is not None
    (tmp_path / "maps.csv").write_text(f"label\n{path.name}\n")
    (case,) = load_dataset(tmp_path / "maps.csv")
    with pytest.raises(InputError, match=r"values \[9\]"):
        map_case(case, recipe, recipe.training.synthesis)


def test_a_recipe_without_a_synthesis_needs_images(tmp_path: Path) -> None:
    write_map(tmp_path / "a.nii.gz", np.full((3, 3, 3), 7), np.eye(4))
    (tmp_path / "maps.csv").write_text("label\na.nii.gz\n")
    (case,) = load_dataset(tmp_path / "maps.csv")
    with pytest.raises(UsageError, match="a has no image"):
        CaseCache(tmp_path / "cache", tiny_recipe()).get(case)


def test_the_reference_of_a_map_has_the_labels_values(tmp_path: Path) -> None:
    array = np.array([0, 3, 5, 7, 8]).reshape(5, 1, 1) * np.ones((5, 4, 4), int)
    write_map(tmp_path / "a.nii.gz", array, np.eye(4))
    (tmp_path / "maps.csv").write_text("label\na.nii.gz\n")
    (case,) = load_dataset(tmp_path / "maps.csv")
    found = CaseCache(tmp_path / "cache", recipe_of()).get(case)
    assert found.reference.array[:, 0, 0].tolist() == [0, 0, 0, 1, 2]
    assert load_label_map(case.label).array[:, 0, 0].tolist() == [0, 3, 5, 7, 8]


def test_places_are_of_maps_alone_where_no_case_has_an_image(tmp_path: Path) -> None:
    array = np.zeros((12, 12, 12), int)
    array[2:5], array[8:10] = 7, 8
    write_map(tmp_path / "a.nii.gz", array, np.eye(4))
    (tmp_path / "maps.csv").write_text("label\na.nii.gz\n")
    (case,) = load_dataset(tmp_path / "maps.csv")
    recipe = recipe_of()
    sampler = MixedSampler([CaseCache(tmp_path / "cache", recipe).get(case)], recipe, 0.0)
    assert isinstance(sampler(np.random.default_rng(0)).case, LabelMap)


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"structures": STRUCTURES[1:]}, "no structure has the value 0"),
        ({"structures": [*STRUCTURES, STRUCTURES[3]]}, "name a value twice"),
        ({"structures": [*STRUCTURES[:4], {**STRUCTURES[4], "mirror": 5}]}, "mirror"),
        ({"structures": [*STRUCTURES[:4], {**STRUCTURES[4], "label": 1}]}, "swapped_labels doesn't pair"),
        ({"structures": [*STRUCTURES, {"value": 20, "label": 9, "tissue": 1}]}, r"names the labels \[9\]"),
        ({"fluid": [77]}, r"fluid names the values \[77\]"),
        ({"free_weight": 0.0}, "no contrast is ever drawn"),
        ({"contrasts": [{"name": "T1", "weight": 1.0, "priors": []}]}, "contrast T1 has no prior"),
    ],
)
def test_a_synthesis_that_cannot_be_meant_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(RecipeError, match=problem):
        recipe_of(**changes)


def test_a_whole_scan_lies_on_its_maps_grid(tmp_path: Path) -> None:
    """Stored as LIA: where the map has a structure the scan has its value, voxel for voxel."""
    array = np.zeros((6, 7, 8), int)
    array[1, 1:5, 2:6], array[4, 2:4, 2:6] = 7, 8
    affine = np.array([[-1.0, 0, 0, 5], [0, 0, 1, 0], [0, -1, 0, 7], [0, 0, 0, 1]])
    labels = load_label_map(write_map(tmp_path / "a.nii.gz", array, affine))
    scan = synthetic_scan(labels, recipe_of(), config_of(), np.random.default_rng(0))
    np.testing.assert_allclose(scan.geometry.affine, affine)
    values = [np.unique(scan.array[array == value]) for value in (0, 7, 8)]
    assert [len(found) for found in values] == [1, 1, 1]
    assert len(np.unique(np.concatenate(values))) == 3


def test_what_a_model_was_trained_on_is_what_its_images_stand_for(tmp_path: Path) -> None:
    """The maps are of 1 mm; scans of 5 mm aren't refused, as the network saw such."""
    array = np.zeros((6, 6, 6), int)
    array[2:4], array[4:5] = 7, 8
    write_map(tmp_path / "a.nii.gz", array, np.eye(4))
    (tmp_path / "maps.csv").write_text("label\na.nii.gz\n")
    (case,) = load_dataset(tmp_path / "maps.csv")
    recipe = recipe_of(scan_spacing_mm=[0.5, 6.0], scan_extent_mm=[80.0, 250.0])
    found = describe_training([CaseCache(tmp_path, recipe).get(case)], 7, 1.0, recipe.training.synthesis)
    assert found.spacing_mm == ((0.5, 6.0),) * 3
    assert found.extent_mm == ((80.0, 250.0),) * 3
    assert found.volumes_ml == {"Anterior hippocampus": (0.072, 0.072), "Posterior hippocampus": (0.036, 0.036)}


def test_a_real_image_is_mixed_in_by_its_share(tmp_path: Path) -> None:
    """Of patches of a case that has an image, about a third are of that image where the share of made ones is 2/3."""
    image, label = blob_case(0)
    write_dataset(tmp_path, {"real": (image, label)})
    structures = [{"value": 0, "tissue": 0}, *({"value": n, "label": n, "tissue": n} for n in (1, 2))]
    recipe = recipe_of({"swapped_labels": []}, structures=structures, share=2 / 3)
    assert recipe.training.synthesis is not None
    (case,) = load_dataset(tmp_path)
    found = CaseCache(tmp_path / "cache", recipe).get(case)
    sampler, patches = MixedSampler([found], recipe, 2 / 3), MixedPatches(recipe, recipe.training.synthesis)
    places = [sampler(np.random.default_rng(seed)) for seed in range(300)]
    real = [place for place in places if not isinstance(place.case, LabelMap)]
    assert 70 <= len(real) <= 130
    for place in (real[0], next(place for place in places if isinstance(place.case, LabelMap))):
        made_image, made_labels = patches(place, np.random.default_rng(0))
        assert made_image.shape == made_labels.shape == (1, 8, 8, 8)


def test_it_trains_from_maps_alone_and_goes_on_where_it_stopped(tmp_path: Path) -> None:
    """Two runs of four steps, one of them in two parts: the same weights to the last bit, and a model that packs."""
    array = np.zeros((12, 12, 12), int)
    array[2:5], array[8:10] = 7, 8
    write_map(tmp_path / "a.nii.gz", array, np.eye(4))
    (tmp_path / "maps.csv").write_text("label\na.nii.gz\n")
    cases, recipe = load_dataset(tmp_path / "maps.csv"), recipe_of(spread_range=[1.0, 9.0])
    report: Any = lambda *_: None  # noqa: E731
    train_fold(recipe, cases, tmp_path / "whole", None, Budget(steps=4), resume=False, report=report)
    case = CaseCache(tmp_path, recipe).get(cases[0])
    (tmp_path / "parts" / "fold_all").mkdir(parents=True)
    trainer = Trainer(recipe, [case], [], tmp_path / "parts" / "fold_all", report)
    trainer.progress.total = 4
    trainer.step(0, 4)
    trainer.progress.step = 1
    save_checkpoint(tmp_path / "parts" / "fold_all" / LAST, trainer.state())
    train_fold(recipe, cases, tmp_path / "parts", None, Budget(steps=4), resume=True, report=report)
    whole, parts = (load_checkpoint(tmp_path / run / "fold_all" / LAST)["network"] for run in ("whole", "parts"))
    assert all(torch.equal(whole[name], parts[name]) for name in whole)
    pack_run(tmp_path / "whole", tmp_path / "model")
    assert set(np.unique(volseg.load_model(tmp_path / "model").predict(scan_of(array)).array)) <= {0, 1, 2}


def test_label_maps_alone_are_no_validation(tmp_path: Path) -> None:
    for name in "abcde":
        write_map(tmp_path / f"{name}.nii.gz", np.full((4, 4, 4), 7), np.eye(4))
    (tmp_path / "maps.csv").write_text("label\n" + "".join(f"{name}.nii.gz\n" for name in "abcde"))
    cases = load_dataset(tmp_path / "maps.csv")
    report: Any = lambda *_: None  # noqa: E731
    with pytest.raises(UsageError, match=r"fold 0 would validate with label maps alone .*held_out"):
        train_fold(recipe_of(), cases, tmp_path / "run", 0, Budget(steps=1), resume=False, report=report)


def scan_of(array: np.ndarray) -> volseg.Volume:
    shape = (array.shape[0], array.shape[1], array.shape[2])
    return volseg.Volume(array.astype(np.float32), volseg.Geometry(shape, np.eye(4)))
