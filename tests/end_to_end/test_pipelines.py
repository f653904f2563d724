"""Every recipe of `pipelines/`, from a dataset in its own layout to a mask: the real commands, a smaller network.

Datasets are real where there are real ones, and made otherwise. Nothing is said of how well a recipe segments.
"""

from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
import yaml
from numpy.testing import assert_array_equal

from tests.conftest import ROOT
from tests.helpers.command import Command
from tests.helpers.tiny import Array, changed, write_nifti
from volseg.config import Recipe, load_recipe
from volseg.loaders import load
from volseg.models.folder import TrainedOn, read_model
from volseg.network.unet import UNet, check_window
from volseg.planning.cost import Machine, cost
from volseg.planning.fingerprint import take_fingerprint
from volseg.planning.plan import Plan, make_plan
from volseg.planning.shapes import topology
from volseg.training import loop, run

pytestmark = pytest.mark.slow

PIPELINES = ROOT / "pipelines"
NAMES = sorted(path.stem for path in PIPELINES.glob("*.yaml"))
#: Names of the recipes that have a model, and tests of their own.
BUNDLED = ["hippocampus", "brain"]
#: Names of those that this page is about.
OURS = [name for name in NAMES if name not in BUNDLED]
#: Bytes of the GPUs that nnU-Net's own settings are made for, and more than twice as many.
GPU = 24 * 10**9


@pytest.fixture
def volseg(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """The command, without pictures, which take longer than a small network."""
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    monkeypatch.setattr(run, "write_report", lambda *_: None)
    monkeypatch.setattr(run, "write_worst", lambda *_: None)
    return Command(monkeypatch, capsys)


def shrunk(name: str, path: Path, window: tuple[int, int, int], **changes: Any) -> Path:
    """The recipe with the first three stages of its network, narrow ones, and a window that suits a small scan."""
    content = load_recipe(PIPELINES / f"{name}.yaml").model_dump(mode="json")
    network = {key: content["network"][key][:3] for key in ("kernels", "strides")}
    network["features"] = [4, 6, 8]
    small = {"window": list(window), "network": network, "training": {"validations": 1, "folds": 2}}
    path.write_text(yaml.safe_dump(changed(changed(content, small), changes)))
    return path


def trained(volseg: Command, recipe: Path, data: Path, folder: Path, *options: object) -> TrainedOn:
    """Train two steps, make a model of them, and say what it knows of its data."""
    done = volseg("train", recipe, "--data", data, "-o", folder / "run", "--steps", 2, *options)
    assert done.code == 0, done.err
    done = volseg("model", "pack", folder / "run", "-o", folder / "model")
    assert done.code == 0, done.err
    return read_model(folder / "model").manifest.trained_on


def predicted(
    volseg: Command, source: Path, folder: Path, model: Path | None = None
) -> tuple[dict[str, Any], nibabel.Nifti1Image]:
    """The one case that fits the model: its result, and its mask."""
    model = model or folder / "model"
    done = volseg("predict", source, "-o", folder / "out", "--model", model, "--engine", "torch", "--no-tta")
    assert done.code == 0, done.err
    results = [json.loads(path.read_text()) for path in (folder / "out").glob("*/result.json")]
    (result,) = (result for result in results if result["status"] in ("done", "empty"))
    return result, nibabel.load(folder / "out" / result["case"] / "mask.nii.gz")


def planned(data: Path) -> Plan:
    """A plan for the dataset; its recipe has been through the checks of every recipe."""
    return make_plan(take_fingerprint(data), Machine(2, bf16=False), minutes=1.0)


def check_mask(mask: nibabel.Nifti1Image, like: nibabel.Nifti1Image, recipe: Path, result: dict[str, Any]) -> None:
    """The mask lies on the scan's grid, and says what the recipe's labels are."""
    assert mask.shape == like.shape
    assert np.abs(mask.affine - like.affine).max() <= 1e-4
    labels = load_recipe(recipe).label_table()
    assert set(np.unique(np.asarray(mask.dataobj)).tolist()) <= {0, *(label.value for label in labels)}
    assert [(each["value"], each["name"]) for each in result["labels"]] == [(n.value, n.name) for n in labels]


# Full size


@pytest.fixture(params=NAMES)
def recipe(request: pytest.FixtureRequest) -> Recipe:
    return load_recipe(PIPELINES / f"{request.param}.yaml")


def test_a_window_goes_through_the_network_at_full_size(recipe: Recipe) -> None:
    """On torch's meta device: shapes and parameters without a computation."""
    check_window(recipe.window, recipe.network)
    with torch.device("meta"):
        network = UNet.from_recipe(recipe)
    outputs = network.supervised(torch.empty(1, len(recipe.channels), *recipe.window, device="meta"))
    assert outputs[0].shape == (1, recipe.outputs, *recipe.window)
    assert len(outputs) == recipe.network.supervised
    counted = cost(recipe.network, len(recipe.channels), recipe.outputs, recipe.window)
    assert counted.parameters == sum(parameter.numel() for parameter in network.parameters())
    assert counted.step_bytes(recipe.training.batch_size) < GPU


@pytest.mark.parametrize("name", OURS)
def test_stages_are_those_of_the_planner_s_rules(name: str) -> None:
    recipe = load_recipe(PIPELINES / f"{name}.yaml")
    assert recipe.spacing_mm is not None
    found = topology(recipe.window, recipe.spacing_mm)
    assert (found.window, found.strides, found.kernels) == (
        recipe.window,
        recipe.network.stage_strides,
        recipe.network.stage_kernels,
    )


def test_every_recipe_is_in_the_readme_with_what_it_costs() -> None:
    """A step's operations and memory as the planner estimates them."""
    text = (PIPELINES / "README.md").read_text(encoding="utf-8")
    assert re.findall(r"^\| \[(\w+)\.yaml\]\(\1\.yaml\)", text, re.MULTILINE) == [*BUNDLED, *OURS]
    rows = re.findall(r"^\| (\w+) \| ([\d.]+) \| ([\d.]+) \|$", text, re.MULTILINE)
    assert [row[0] for row in rows] == OURS
    for name, operations, size in rows:
        recipe = load_recipe(PIPELINES / f"{name}.yaml")
        found = cost(recipe.network, len(recipe.channels), recipe.outputs, recipe.window)
        batch = recipe.training.batch_size
        assert float(operations) == pytest.approx(found.step_operations(batch) / 1e12, rel=0.06), name
        assert float(size) == pytest.approx(found.step_bytes(batch) / 1e9, rel=0.06), name


def test_every_label_has_a_code(recipe: Recipe) -> None:
    assert all(label.code is not None for label in recipe.labels)
    # FreeSurfer paints both sides of a structure alike.
    looks = {(label.colour, label.modifier) for label in recipe.labels}
    assert len(looks) == len(recipe.labels)


# CT organs


def totalsegmentator(shared_data: Path, folder: Path) -> Array:
    """A real CT in two halves, its mask written as TotalSegmentator's data set is; returns the mask of both [i, j, k].

    A third scan is for a test, and no image at all: whoever reads it fails.
    """
    ct = nibabel.load(shared_data / "ct" / "example_ct_sm.nii.gz")
    mask = nibabel.load(shared_data / "ct" / "example_seg.nii.gz")
    image, labels = np.asarray(ct.dataobj)[:, 20:84], np.asarray(mask.dataobj)[:, 20:84]
    recipe = load_recipe(PIPELINES / "ct_organs.yaml")
    names = {label.value: label.name for label in recipe.labels} | {86: "autochthon_left", 87: "autochthon_right"}
    for name, half in {"s0000": slice(0, 61), "s0001": slice(61, 122)}.items():
        write_nifti(folder / name / "ct.nii.gz", image[half], ct.affine)
        for value, structure in names.items():
            one = (labels[half] == value).astype(np.uint8)
            write_nifti(folder / name / "segmentations" / f"{structure}.nii.gz", one, ct.affine)
    (folder / "s0002" / "segmentations").mkdir(parents=True)
    (folder / "s0002" / "ct.nii.gz").write_bytes(b"none")
    (folder / "meta.csv").write_text("image_id;age;split\ns0000;60;train\ns0001;50;val\ns0002;70;test\n")
    return labels


def test_ct_organs(shared_data: Path, tmp_path: Path, volseg: Command) -> None:
    labels = totalsegmentator(shared_data, tmp_path / "data")
    recipe = shrunk("ct_organs", tmp_path / "recipe.yaml", (32, 32, 32), spacing_mm=[3.0] * 3)
    about = trained(volseg, recipe, tmp_path / "data", tmp_path)
    assert about.cases == ("s0000", "s0001")
    assert about.volumes_ml is not None
    liver = sorted(float((labels[half] == 5).sum()) * 0.027 for half in (slice(0, 61), slice(61, 122)))
    assert about.volumes_ml["liver"] == pytest.approx(liver, abs=1e-3)
    assert about.volumes_ml["prostate"] == (0.0, 0.0)
    scan = tmp_path / "data" / "s0001"
    result, mask = predicted(volseg, scan, tmp_path)
    check_mask(mask, nibabel.load(scan / "ct.nii.gz"), recipe, result)
    assert [path.name for path in (tmp_path / "out").glob("*/")] == ["ct"]


def test_the_plan_for_ct_organs(shared_data: Path, tmp_path: Path) -> None:
    labels = totalsegmentator(shared_data, tmp_path)
    found = planned(tmp_path).recipe
    ours = load_recipe(PIPELINES / "ct_organs.yaml")
    occurring = {label.name for label in ours.labels if (labels == label.value).any()}
    assert {label.name for label in found.labels} == occurring | {"autochthon_left", "autochthon_right"}
    assert (found.channels[0].name, found.channels[0].modalities) == ("CT", ("CT",))
    assert (found.intensity.scheme, found.spacing_mm) == ("fixed", (3.0, 3.0, 3.0))
    assert found.training.augmentation.flip_axes == ()


# Brain tumour

NOW, THEN = ("t1n", "t1c", "t2w", "t2f"), ("t1", "t1ce", "t2", "flair")


def tumour(seed: int, enhancing: int) -> tuple[list[Array], Array]:
    """Four sequences of a head without its skull, each of a brightness of its own, and nested parts of a tumour."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((26, 30, 22), np.uint8)
    i, j, k = (int(n) for n in rng.integers(4, 8, 3))
    mask[i : i + 12, j : j + 12, k : k + 9] = 2
    mask[i + 2 : i + 10, j + 2 : j + 10, k + 2 : k + 7] = enhancing
    mask[i + 4 : i + 8, j + 4 : j + 8, k + 3 : k + 6] = 1
    images = []
    for number in range(4):
        image = np.zeros(mask.shape, np.int16)
        image[2:-2, 2:-2, 2:-2] = 200 * (number + 1) + rng.integers(-20, 21, (22, 26, 18))
        images.append((image + 20 * mask * (image > 0)).astype(np.int16))
    return images, mask


#: BraTS' own: both axes within slices are reversed.
SRI24 = np.array([[-1, 0, 0, 0], [0, -1, 0, 239], [0, 0, 1, 0], [0, 0, 0, 1.0]])


def brats(folder: Path, name: str, seed: int, *, now: bool = True) -> Path:
    images, mask = tumour(seed, enhancing=3 if now else 4)
    mark, kinds = ("-", NOW) if now else ("_", THEN)
    for kind, array in zip((*kinds, "seg"), (*images, mask), strict=True):
        write_nifti(folder / name / f"{name}{mark}{kind}.nii.gz", array, SRI24)
    return folder / name


def test_brain_tumour(tmp_path: Path, volseg: Command) -> None:
    """Two visits of one patient, and one of another: the visits are held out together."""
    visits = [f"BraTS-GLI-0000{number}" for number in ("0-000", "0-001", "1-000")]
    for seed, name in enumerate(visits):
        brats(tmp_path / "data", name, seed)
    recipe = shrunk("brain_tumour", tmp_path / "recipe.yaml", (16, 16, 16))
    about = trained(volseg, recipe, tmp_path / "data", tmp_path, "--fold", 0)
    folds = json.loads((tmp_path / "run" / "splits.json").read_text())["folds"]
    assert sorted(map(tuple, folds)) == [tuple(visits[:2]), (visits[2],)]
    # Medians of the 0.5th percentile are 0, the 99.5th that of each sequence's brightness: T1n, T1c, T2w, T2f.
    assert [round(high / 200) for _, high in about.intensity] == [1, 2, 3, 4]
    assert about.volumes_ml is not None
    # Without the parts inside: 12 x 12 x 9 less 8 x 8 x 5, 4 x 4 x 3, and 8 x 8 x 5 less that.
    assert {name: span[0] for name, span in about.volumes_ml.items()} == pytest.approx(
        {"Oedema": 0.976, "Necrotic core": 0.048, "Enhancing tumour": 0.272}
    )
    for number, kind in enumerate(NOW):
        shutil.copy(
            tmp_path / "data" / visits[2] / f"{visits[2]}-{kind}.nii.gz",
            _made(tmp_path / "scans") / f"x_{number:04d}.nii.gz",
        )
    result, mask = predicted(volseg, tmp_path / "scans", tmp_path)
    check_mask(mask, nibabel.load(tmp_path / "scans" / "x_0000.nii.gz"), recipe, result)
    # The dataset's own folder holds the same scan under BraTS' names.
    again, same = predicted(volseg, tmp_path / "data" / visits[2], tmp_path / "again", tmp_path / "model")
    assert again["case"] == visits[2]
    assert_array_equal(np.asarray(same.dataobj), np.asarray(mask.dataobj))


def _made(folder: Path) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    return folder


def test_labels_of_2021_are_refused_by_the_recipe_of_2023(tmp_path: Path, volseg: Command) -> None:
    """The enhancing tumour was 4 then, and 4 is another thing now: nothing is guessed."""
    brats(tmp_path / "data", "BraTS2021_00000", 0, now=False)
    recipe = shrunk("brain_tumour", tmp_path / "recipe.yaml", (16, 16, 16))
    done = volseg("train", recipe, "--data", tmp_path / "data", "-o", tmp_path / "run", "--steps", 1)
    assert done.code == 1
    assert "BraTS2021_00000_seg.nii.gz: holds the label values [4]" in done.err
    # What the recipe's comment says to do.
    content = yaml.safe_load(recipe.read_text())
    for label in content["labels"]:
        label["value"] = 4 if label["value"] == 3 else label["value"]
        label["members"] = [4 if member == 3 else member for member in label["members"]]
    recipe.write_text(yaml.safe_dump(content))
    about = trained(volseg, recipe, tmp_path / "data", tmp_path)
    assert about.volumes_ml is not None
    assert about.volumes_ml["Enhancing tumour"] == pytest.approx((0.272, 0.272))


@pytest.mark.parametrize(("name", "values"), [("BraTS-GLI-00000-000", [1, 2, 3]), ("BraTS2021_00000", [1, 2, 4])])
def test_the_plan_for_brain_tumours(tmp_path: Path, name: str, values: list[int]) -> None:
    brats(tmp_path, name, 0, now=values[2] == 3)
    found = planned(tmp_path).recipe
    assert [channel.name for channel in found.channels] == ["t1n", "t1c", "t2w", "t2f"]
    assert [label.value for label in found.labels] == values
    assert [label.name for label in found.labels] == ["Necrotic core", "Oedema", "Enhancing tumour"]


# Thick slices


def study(shared_data: Path, folder: Path) -> Path:
    """A CSV of two real series of one study, with a made label on their grid."""
    series = shared_data / "dicom" / "study1"
    volume = load(series / "12-T1post-05670")
    label = np.zeros(volume.geometry.shape, np.uint8)
    label[200:280, 180:260, 9:13] = 1
    write_nifti(folder / "label.nii.gz", label, volume.geometry.affine)
    images = f"{series / '12-T1post-05670'},{series / '36459-FLAIRreg-76244'}"
    (folder / "table.csv").write_text(f"case,image_0,image_1,label,patient\na,{images},label.nii.gz,p1\n")
    return folder / "table.csv"


def test_anisotropic_mr(shared_data: Path, tmp_path: Path, volseg: Command) -> None:
    """Prediction finds the two series among the study's five by their descriptions."""
    table = study(shared_data, tmp_path)
    recipe = shrunk("anisotropic_mr", tmp_path / "recipe.yaml", (8, 32, 32), spacing_mm=[6.5, 3.4, 3.4])
    assert load_recipe(recipe).network.strides == ((1, 1, 1), (1, 2, 2), (1, 2, 2))
    about = trained(volseg, recipe, table, tmp_path)
    assert about.cases == ("a",)
    assert about.volumes_ml is not None
    assert about.volumes_ml["Enhancing tumour"] == pytest.approx((80 * 80 * 4 * 6.5 * 0.4297**2 / 1000,) * 2, rel=1e-3)
    result, mask = predicted(volseg, shared_data / "dicom" / "study1", tmp_path)
    assert result["case"].startswith("MR-12-T1post-")
    assert "mask.seg.dcm" in result["files"]
    check_mask(mask, nibabel.load(tmp_path / "label.nii.gz"), recipe, result)


def test_the_plan_for_thick_slices(shared_data: Path, tmp_path: Path) -> None:
    """The planner makes the slices' axis the first too, and keeps it apart as the recipe does."""
    found, ours = planned(study(shared_data, tmp_path)).recipe, load_recipe(PIPELINES / "anisotropic_mr.yaml")
    assert found.spacing_mm is not None
    assert found.spacing_mm[0] == pytest.approx(6.5)
    assert (found.orientation, found.resampling) == (ours.orientation, ours.resampling)
    assert found.network.stage_kernels[0] == ours.network.kernels[0] == (1, 3, 3)
    assert found.network.stage_strides[1] == ours.network.strides[1] == (1, 2, 2)
    assert found.training.augmentation.rotation_degrees[1:] == ours.training.augmentation.rotation_degrees[1:]


# Lesions


def lesions(folder: Path) -> Path:
    """The WMH challenge's folders, listed in a CSV: small lesions, and another pathology beside them."""
    rows = []
    for seed in range(2):
        rng = np.random.default_rng(seed)
        mask = np.zeros((40, 44, 14), np.uint8)
        for i, j, k in rng.integers((6, 6, 2), (30, 34, 12), (6, 3)):
            mask[i : i + 2, j : j + 3, k] = 1
        mask[20:28, 36:42, 4:8] = 2
        scan = folder / "Utrecht" / str(seed)
        for name, sign in (("FLAIR", 1), ("T1", -1)):
            image = 300 + sign * 100 * (mask == 1) + rng.normal(0, 10, mask.shape)
            write_nifti(scan / "pre" / f"{name}.nii.gz", image.astype(np.float32), np.diag([0.96, 0.96, 3, 1]))
        write_nifti(scan / "wmh.nii.gz", mask, np.diag([0.96, 0.96, 3, 1]))
        where = f"Utrecht/{seed}"
        rows.append(f"Utrecht_{seed},{where}/pre/FLAIR.nii.gz,{where}/pre/T1.nii.gz,{where}/wmh.nii.gz")
    (folder / "table.csv").write_text("case,image_0,image_1,label\n" + "\n".join(rows) + "\n")
    return folder / "table.csv"


def test_lesion(tmp_path: Path, volseg: Command) -> None:
    table = lesions(tmp_path)
    recipe = shrunk("lesion", tmp_path / "recipe.yaml", (8, 16, 16))
    about = trained(volseg, recipe, table, tmp_path, "--fold", 1)
    assert len(about.cases) == 1
    masks = [np.asarray(nibabel.load(tmp_path / "Utrecht" / str(n) / "wmh.nii.gz").dataobj) for n in range(2)]
    sizes = [float((mask == 1).sum()) * 0.96**2 * 3 / 1000 for mask in masks]
    assert about.volumes_ml is not None
    # What isn't judged belongs to no label.
    assert about.volumes_ml["White matter lesion"][0] == pytest.approx(sizes[int(about.cases[0][-1])], abs=1e-4)
    for number, name in enumerate(("FLAIR", "T1")):
        source = tmp_path / "Utrecht" / "0" / "pre" / f"{name}.nii.gz"
        shutil.copy(source, _made(tmp_path / "scans") / f"x_{number:04d}.nii.gz")
    result, mask = predicted(volseg, tmp_path / "scans", tmp_path)
    check_mask(mask, nibabel.load(tmp_path / "scans" / "x_0000.nii.gz"), recipe, result)


def test_the_plan_for_lesions(tmp_path: Path) -> None:
    """A CSV doesn't say that 2 isn't judged, nor what 1 is called: both are the recipe's."""
    found = planned(lesions(tmp_path)).recipe
    assert [label.name for label in found.labels] == ["label 1", "label 2"]
    assert len(found.channels) == 2
