"""The recipe is strict: what it doesn't know it names, and every field explains itself."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from volseg import config
from volseg.config import NetworkConfig, Recipe, Section, load_recipe, recipe_from_dict
from volseg.errors import RecipeError, UsageError
from volseg.geometry import ORIENTATIONS
from volseg.volume import ANATOMICAL_STRUCTURE, Code, Label

MINIMAL: dict[str, Any] = {
    "name": "hippocampus",
    "channels": [{"name": "T1", "modalities": ["MRI"]}],
    "labels": [
        {"value": 1, "name": "Anterior", "colour": [255, 0, 0]},
        {"value": 2, "name": "Posterior", "colour": [0, 255, 0]},
    ],
    "window": [40, 56, 48],
}


def changed(*path: str | int, to: Any) -> dict[str, Any]:
    """`MINIMAL` with one value put in at `path`."""

    def put(content: Any, path: tuple[str | int, ...]) -> Any:
        if not path:
            return to
        key, rest = path[0], path[1:]
        if isinstance(content, list):
            return [put(item, rest) if index == key else item for index, item in enumerate(content)]
        return {**content, key: put(content.get(key, {}), rest)}

    result: dict[str, Any] = put(MINIMAL, path)
    return result


def sections(base: type[Section] = Section) -> Iterator[type[Section]]:
    for section in base.__subclasses__():
        yield section
        yield from sections(section)


def test_minimal_recipe_gets_the_defaults() -> None:
    recipe = recipe_from_dict(MINIMAL, "r.yaml")
    assert recipe.window == (40, 56, 48)
    assert recipe.orientation == "RAS"
    assert recipe.spacing_mm is None
    assert recipe.channels[0].modalities == ("MR",)
    assert recipe.outputs == 3
    assert recipe.network.stage_kernels == ((3, 3, 3),) * 4
    assert recipe.network.stage_strides == ((1, 1, 1), (2, 2, 2), (2, 2, 2), (2, 2, 2))


def test_sigmoid_has_no_output_for_the_background() -> None:
    assert recipe_from_dict(changed("output", to="sigmoid"), "r.yaml").outputs == 2


@pytest.mark.parametrize("section", list(sections()), ids=lambda section: section.__name__)
def test_every_field_explains_itself(section: type[Section]) -> None:
    assert section.__doc__
    assert [name for name, field in section.model_fields.items() if not field.description] == []


def test_sections_are_found() -> None:
    assert {Recipe, NetworkConfig, config.TrainingConfig, config.AugmentationConfig} <= set(sections())


@pytest.mark.parametrize(
    ("path", "named"),
    [
        (("windwo",), "windwo: no such key"),
        (("network", "feature"), "network.feature: no such key"),
        (("training", "augmentation", "flips"), "training.augmentation.flips: no such key"),
        (("labels", 1, "color"), "labels.1.color: no such key"),
        (("channels", 0, "modality"), "channels.0.modality: no such key"),
        (("intensity", "percentiles"), "intensity.percentiles: no such key"),
    ],
)
def test_a_misspelt_key_is_named(path: tuple[str | int, ...], named: str) -> None:
    with pytest.raises(RecipeError, match=f"^r.yaml: {named}$"):
        recipe_from_dict(changed(*path, to=1), "r.yaml")


@pytest.mark.parametrize(
    ("path", "value", "named"),
    [
        (("name",), "a/b", "name: .*'a/b'"),
        (("name",), "../x", "name: "),
        (("orientation",), "RAX", "orientation: .*RAX"),
        (("orientation",), "RRS", "orientation: "),
        (("window",), [40, 56], "window"),
        (("window",), [40, 56, 0], r"window.2: .*\(got 0\)"),
        (("spacing_mm",), [1.0, -1.0, 1.0], r"spacing_mm.1: .*\(got -1.0\)"),
        (("tile_step",), 0, "tile_step: "),
        (("tile_step",), 1.5, "tile_step: "),
        (("channels",), [], "channels: "),
        (("channels", 0, "description"), "(T1", r"description: .*not a regular expression: .*\(got '\(T1'\)"),
        (("channels", 0, "sequence"), "*", "channels.0.sequence: .*not a regular expression"),
        (("channels", 0, "sequence"), "", "channels.0.sequence: "),
        (("labels",), [], "labels: "),
        (("labels", 0, "value"), 0, "labels.0.value: "),
        (("labels", 0, "value"), 65536, "labels.0.value: "),
        (("labels", 0, "value"), 2, "label values .2, 2. are not different"),
        (("labels", 0, "value"), 3, "label values .3, 2. are not ascending, as a softmax output needs them"),
        (("labels", 0, "colour"), [256, 0, 0], "labels.0.colour.0: "),
        (("labels", 0, "name"), "Posterior", "label names .* are not different"),
        (("intensity", "clip"), [100, -100], "intensity.clip: .*smaller number comes first"),
        (("intensity", "clip_percentiles"), [0.9, 0.1], "clip_percentiles: .*smaller number comes first"),
        (("training", "augmentation", "scaling_range"), [0, 1.4], r"scaling_range.0: .*\(got 0\)"),
        (("training", "augmentation", "gamma_range"), [1.5, 0.7], "gamma_range: .*smaller number comes first"),
        (("training", "augmentation", "flip_axes"), [1, 1], "flip_axes: .*an axis is named twice"),
        (("mirroring", "axes"), [0, 0], "mirroring.axes: .*an axis is named twice"),
        (("labels", 0, "members"), [1, 2], "overlapping regions: they need output: sigmoid"),
        (("output",), "argmax", "output: .*'softmax' or 'sigmoid'.*got 'argmax'"),
        (("intensity", "std"), 0, "intensity.std: "),
        (("intensity", "clip_percentiles"), [0.5, 99.5], "clip_percentiles.1: "),
        (("intensity", "scheme"), "median", "intensity.scheme: "),
        (("network", "features"), [], "network.features: "),
        (("network", "features"), [16, 0], "network.features.1: "),
        (("network", "kernels"), [[3, 3, 3]], "kernels has 1 entries and features has 4"),
        (("network", "kernels"), [[3, 3, 3]] * 3 + [[3, 2, 3]], "kernels must be odd"),
        (("network", "strides"), [[1, 1, 1], [2, 2, 2]], "strides has 2 entries and features has 4"),
        (("network", "strides"), [[2, 2, 2]] * 4, "first stage's stride must be 1x1x1"),
        (("network",), {"normalisation": "group", "features": [12]}, "can't be split into 8 groups"),
        (("network", "dropout"), 1.0, "network.dropout: "),
        (("postprocess",), [{"label": 3}], "postprocess names the labels .3.; labels are .1, 2."),
        (("mirroring", "axes"), [1], "must be among those that training flips"),
        (("mirroring", "axes"), [3], "mirroring.axes.0: "),
        (("resampling",), {"scheme": "image"}, "resampling: .*scheme image needs image_order 1"),
        (("training", "steps"), 0, "training.steps: "),
        (("training", "folds"), 1, "training.folds: "),
        (("training", "augmentation", "rotation_probability"), 1.1, "rotation_probability: "),
        (("training", "augmentation", "rotation_degrees"), 181, "rotation_degrees.0: "),
        (("training", "learning_rate"), "fast", "training.learning_rate: .*got 'fast'"),
    ],
)
def test_a_wrong_value_is_named(path: tuple[str | int, ...], value: Any, named: str) -> None:
    with pytest.raises(RecipeError, match=named) as caught:
        recipe_from_dict(changed(*path, to=value), "r.yaml")
    assert isinstance(caught.value, UsageError)
    assert str(caught.value).startswith("r.yaml: ")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("missing", ["name", "channels", "labels", "window"])
def test_a_missing_key_is_named(missing: str) -> None:
    with pytest.raises(RecipeError, match=f"r.yaml: {missing}: Field required"):
        recipe_from_dict({key: value for key, value in MINIMAL.items() if key != missing}, "r.yaml")


def test_every_problem_is_named_at_once() -> None:
    with pytest.raises(RecipeError, match=r"window.2: .*; nmae: no such key"):
        recipe_from_dict({**changed("window", to=[1, 1, -1]), "nmae": 1}, "r.yaml")


def test_mirroring_what_training_flips() -> None:
    content = {
        **MINIMAL,
        "mirroring": {"axes": [0], "use": True},
        "training": {"augmentation": {"flip_axes": [0, 2]}},
    }
    assert recipe_from_dict(content, "r.yaml").mirroring.axes == (0,)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "SAR", "stored-KJI"])
def test_orientations(orientation: str) -> None:
    assert recipe_from_dict(changed("orientation", to=orientation), "r.yaml").orientation == orientation


def test_recipes_cannot_be_changed() -> None:
    recipe = recipe_from_dict(MINIMAL, "r.yaml")
    with pytest.raises(ValidationError, match="frozen"):
        recipe.name = "other"  # type: ignore[misc]


def test_label_table() -> None:
    body = {"value": "4958002", "meaning": "Amygdala"}
    content = changed("labels", 0, "code", to=body)
    first, second = recipe_from_dict(content, "r.yaml").label_table()
    assert first == Label(
        value=1, name="Anterior", colour=(255, 0, 0), code=Code(value="4958002", scheme="SCT", meaning="Amygdala")
    )
    assert second.code is None
    assert second.category == ANATOMICAL_STRUCTURE


def test_a_category_of_ones_own() -> None:
    content = changed(
        "labels", 0, "category", to={"value": "49755003", "meaning": "Morphologically Abnormal Structure"}
    )
    label = recipe_from_dict(content, "r.yaml").label_table()[0]
    assert label.category == Code(value="49755003", scheme="SCT", meaning="Morphologically Abnormal Structure")


triples = st.tuples(*[st.integers(1, 4)] * 3)


@given(
    window=st.tuples(*[st.integers(1, 300)] * 3),
    spacing_mm=st.none() | st.tuples(*[st.floats(0.01, 100)] * 3),
    strides=st.lists(triples, max_size=4),
    clip=st.none() | st.tuples(st.floats(-2000, 0), st.floats(1, 3000)),
    orientation=st.sampled_from([*ORIENTATIONS, config.STORED_KJI]),
    learning_rate=st.floats(1e-9, 1),
)
def test_json_and_yaml_give_the_recipe_back(
    window: tuple[int, int, int],
    spacing_mm: tuple[float, float, float] | None,
    strides: list[tuple[int, int, int]],
    clip: tuple[float, float] | None,
    orientation: str,
    learning_rate: float,
) -> None:
    recipe = Recipe.model_validate(
        {
            **MINIMAL,
            "window": window,
            "spacing_mm": spacing_mm,
            "network": {"features": [8] * (len(strides) + 1), "strides": [(1, 1, 1), *strides]},
            "intensity": {"clip": clip},
            "orientation": orientation,
            "training": {"learning_rate": learning_rate},
        }
    )
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipe_from_dict(yaml.safe_load(yaml.safe_dump(recipe.model_dump(mode="json"))), "r.yaml") == recipe


def test_load_recipe(tmp_path: Path) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(MINIMAL), encoding="utf-8")
    assert load_recipe(path) == recipe_from_dict(MINIMAL, "elsewhere")


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        (b"name: [unclosed", "not a YAML file: while parsing"),
        (b"\xff\xfe\x00\x01", "not a YAML file: "),
        (b"", "not a recipe: expected keys and values, found NoneType"),
        (b"- a\n- b\n", "not a recipe: expected keys and values, found list"),
        (b"just words", "not a recipe: expected keys and values, found str"),
        (b"name: !!python/object/apply:os.getcwd []", "not a YAML file: could not determine a constructor"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, content: bytes, problem: str) -> None:
    path = tmp_path / "recipe.yaml"
    path.write_bytes(content)
    with pytest.raises(RecipeError) as caught:
        load_recipe(path)
    assert str(caught.value).startswith(f"{path}: {problem}")
    assert "\n" not in str(caught.value)


def test_a_recipe_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"recipe\.yaml: no such recipe"):
        load_recipe(tmp_path / "recipe.yaml")


def test_a_folder_is_no_recipe(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"not a YAML file: .*directory"):
        load_recipe(tmp_path)
