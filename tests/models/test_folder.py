"""The model folder: written whole, read back bit for bit, and never used when it was changed."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest
import torch

from tests.helpers.tiny import TRAINED_ON, model_of, threshold_model, threshold_weights, tiny_recipe, untrained_model
from volseg.errors import ModelError, UsageError
from volseg.inference import Model, Options, Segmenter, load_model
from volseg.models import bundled_models, model_path
from volseg.models.folder import read_model, weight_file, write_model
from volseg.network.unet import UNet


def test_round_trip(tmp_path: Path) -> None:
    recipe = tiny_recipe()
    states = {fold: UNet.from_recipe(recipe).state_dict() for fold in ("0", "1")}
    written = write_model(tmp_path / "m", recipe, TRAINED_ON, states, card="# Card\n", metrics={"dice": 0.5})
    read = read_model(tmp_path / "m")
    assert (read.manifest.recipe, read.manifest.trained_on) == (recipe, TRAINED_ON)
    assert read.sha256 == written.sha256 == hashlib.sha256((tmp_path / "m" / "model.json").read_bytes()).hexdigest()
    for fold, state in states.items():
        loaded = read.weights(fold)
        assert loaded.keys() == state.keys()
        assert all(torch.equal(loaded[name], value) for name, value in state.items())
        content = weight_file(tmp_path / "m", fold).read_bytes()
        assert read.manifest.weights[fold] == hashlib.sha256(content).hexdigest()
    assert (tmp_path / "m" / "CARD.md").read_text() == "# Card\n"
    assert json.loads((tmp_path / "m" / "metrics.json").read_text()) == {"dice": 0.5}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["m"]


def test_the_same_content_has_the_same_hash(tmp_path: Path) -> None:
    assert untrained_model(tmp_path / "a").sha256 == untrained_model(tmp_path / "b").sha256
    assert untrained_model(tmp_path / "a2", tile_step=0.25).sha256 != read_model(tmp_path / "a").sha256


def test_a_changed_weight_is_refused_by_name(tmp_path: Path) -> None:
    folder = threshold_model(tmp_path / "m")
    file = weight_file(tmp_path / "m", "all")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(ModelError, match=r"fold_all\.safetensors: the weights were changed"):
        folder.weights("all")
    file.unlink()
    with pytest.raises(ModelError, match=r"fold_all\.safetensors: the weights can't be read"):
        folder.weights("all")


def test_a_changed_manifest_is_another_model(tmp_path: Path) -> None:
    folder = threshold_model(tmp_path / "m")
    file = tmp_path / "m" / "model.json"
    file.write_text(file.read_text().replace('"tile_step": 0.5', '"tile_step": 0.6'))
    assert read_model(tmp_path / "m").sha256 != folder.sha256


def edited(folder: Path, *, section: str | None = None, **changes: object) -> Path:
    content = json.loads((folder / "model.json").read_text())
    (content if section is None else content[section]).update(changes)
    (folder / "model.json").write_text(json.dumps(content))
    return folder


@pytest.mark.parametrize(
    ("section", "changes", "problem"),
    [
        (None, {"licence": "none"}, "licence: no such key"),
        ("recipe", {"windwo": [8, 8, 8]}, r"recipe\.windwo: no such key"),
        ("trained_on", {"steps": "many"}, r"trained_on\.steps: .*many"),
        (None, {"weights": {}}, "weights: "),
        (None, {"format": 2}, "format: "),
    ],
)
def test_a_manifest_with_an_odd_entry_is_refused(
    tmp_path: Path, section: str | None, changes: dict[str, object], problem: str
) -> None:
    threshold_model(tmp_path / "m")
    with pytest.raises(ModelError, match=rf"m/model\.json: .*{problem}") as caught:
        read_model(edited(tmp_path / "m", section=section, **changes))
    assert "\n" not in str(caught.value)


def test_no_model_there(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"not a model folder: it has no model\.json"):
        read_model(tmp_path)
    (tmp_path / "model.json").write_bytes(b"\xff{")
    with pytest.raises(ModelError, match=r"model\.json: "):
        read_model(tmp_path)
    with pytest.raises(ModelError, match="nowhere: neither a model folder nor a bundled model; bundled: ") as caught:
        model_path("nowhere")
    assert all(name in str(caught.value) for name in bundled_models())


def test_a_folder_that_exists_is_not_overwritten(tmp_path: Path) -> None:
    before = threshold_model(tmp_path / "m")
    with pytest.raises(ModelError, match="exists already"):
        untrained_model(tmp_path / "m")
    assert read_model(tmp_path / "m").sha256 == before.sha256


def test_nothing_is_left_of_a_model_that_couldn_t_be_written(tmp_path: Path) -> None:
    with pytest.raises(TypeError):
        write_model(
            tmp_path / "m", tiny_recipe(), TRAINED_ON, {"all": threshold_weights()}, card="", metrics={"odd": object()}
        )
    assert list(tmp_path.iterdir()) == []


def test_weights_of_another_network_are_refused(tmp_path: Path) -> None:
    model = Model(model_of(tmp_path / "m", tiny_recipe(), {"all": threshold_weights()}))
    with pytest.raises(ModelError, match="fold all aren't those of the network"):
        Segmenter(model)


def test_folds_are_chosen_by_name(tmp_path: Path) -> None:
    threshold_model(tmp_path / "m", folds=("0", "1", "2"))
    model = load_model(tmp_path / "m")
    assert Segmenter(model).folds == ("0", "1", "2")
    assert len(Segmenter(model, Options(folds=("2", "0"))).engines) == 2
    with pytest.raises(UsageError, match="no fold 3; it has 0, 1, 2"):
        Segmenter(model, Options(folds=("0", "3")))


def test_loading_runs_nothing_from_the_folder(tmp_path: Path) -> None:
    """A pickle in the place of the weights is refused before it is read, also where the manifest names it."""
    threshold_model(tmp_path / "m")
    file = weight_file(tmp_path / "m", "all")
    file.write_bytes(b"cos\nabort\n(tR.")
    edited(tmp_path / "m", weights={"all": hashlib.sha256(file.read_bytes()).hexdigest()})
    with pytest.raises(ModelError, match="not a safetensors file"):
        read_model(tmp_path / "m").weights("all")
