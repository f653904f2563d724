"""Which engine it is, and what is said where it can't be the one that was asked for."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from tests.helpers.batch import segment
from tests.helpers.tiny import scan, tiny_recipe, untrained_model, write_nifti
from volseg.errors import UsageError
from volseg.geometry import Geometry
from volseg.inference import Model, Options
from volseg.inference.engines import Engine, choice, openvino
from volseg.inference.engines.choice import engine_name, make_engine
from volseg.network.unet import UNet
from volseg.volume import Volume


@pytest.fixture
def absent(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO as if it weren't installed."""
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "openvino" else find(name))
    monkeypatch.setitem(sys.modules, "openvino", None)
    openvino.library.cache_clear()


@pytest.fixture
def broken(monkeypatch: pytest.MonkeyPatch) -> None:
    """OpenVINO as if it couldn't compile any network."""

    class Core:
        def compile_model(self, *_: object) -> None:
            raise RuntimeError("Check 'false' failed:\nno such\n  operation")

    monkeypatch.setattr(openvino, "_core", Core)


def bf16(monkeypatch: pytest.MonkeyPatch, *, native: bool) -> None:
    monkeypatch.setattr(choice, "native_bf16", lambda: native)


def made(engine: Any) -> Engine:
    recipe = tiny_recipe()
    return make_engine(UNet.from_recipe(recipe), recipe, engine, "auto", "cpu", leave_head=False)


@pytest.mark.parametrize("native", [False, True])
def test_auto_is_openvino_on_a_cpu_where_it_can_do_what_is_asked(monkeypatch: pytest.MonkeyPatch, native: bool) -> None:
    bf16(monkeypatch, native=native)
    assert engine_name("auto", "fp32", "cpu") == "openvino"
    assert engine_name("auto", "bf16", "cpu") == ("openvino" if native else "torch")
    assert engine_name("auto", "fp32", "cuda") == "torch"
    assert engine_name("auto", "fp32", "mps") == "torch"
    assert engine_name("torch", "fp32", "cpu") == "torch"


def test_emulated_bf16_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = tiny_recipe()
    for native in (False, True):
        bf16(monkeypatch, native=native)
        engine = make_engine(UNet.from_recipe(recipe), recipe, "torch", "bf16", "cpu", leave_head=False)
        assert (engine.note or "").startswith("" if native else "bf16 is emulated")
        assert (engine.note is None) == native


def test_openvino_is_refused_where_it_cant_do_what_is_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UsageError, match="not on cuda: give --device cpu"):
        engine_name("openvino", "fp32", "cuda")
    bf16(monkeypatch, native=False)
    with pytest.raises(UsageError, match="doesn't compute in bf16: give --precision fp32"):
        engine_name("openvino", "bf16", "cpu")
    bf16(monkeypatch, native=True)
    assert engine_name("openvino", "bf16", "cpu") == "openvino"


@pytest.mark.usefixtures("absent")
def test_without_openvino_auto_is_torch_and_openvino_is_refused() -> None:
    found = made("auto")
    assert (found.name, found.precision, found.note) == ("torch", "fp32", None)
    with pytest.raises(UsageError, match=r"isn't installed: pip install 'volseg\[openvino\]'"):
        made("openvino")


@pytest.mark.usefixtures("broken")
def test_a_network_that_openvino_cant_compile_is_torchs_and_it_is_said() -> None:
    found = made("auto")
    assert found.name == "torch"
    assert found.note == (
        "torch instead: OpenVINO can't run this network: RuntimeError: Check 'false' failed: no such operation"
    )
    with pytest.raises(UsageError, match=r"can't run this network: RuntimeError: .*; give --engine torch"):
        made("openvino")


def test_an_installation_that_cant_be_loaded_is_as_good_as_none(monkeypatch: pytest.MonkeyPatch) -> None:
    def library() -> None:
        raise ImportError("libopenvino.so: no such file")

    monkeypatch.setattr(openvino, "library", library)
    found = made("auto")
    assert (found.name, found.note) == (
        "torch",
        "torch instead: OpenVINO can't run this network: ImportError: libopenvino.so: no such file",
    )


def test_the_engines_label_the_same_voxels(tmp_path: Path) -> None:
    model = Model(untrained_model(tmp_path / "model"))
    array = scan()
    volume = Volume(array, Geometry((35, 51, 32), np.eye(4)))
    masks = [model.predict(volume, engine=name).array for name in ("torch", "openvino")]
    assert len(set(masks[0].ravel().tolist())) > 1
    assert (masks[0] != masks[1]).mean() < 1e-3


def result(tmp_path: Path, engine: Any) -> dict[str, Any]:
    write_nifti(tmp_path / "in" / "scan.nii.gz", scan())
    model = Model(untrained_model(tmp_path / "model"))
    (found,) = segment(tmp_path / "in", tmp_path / "out", model, options=Options(engine=engine))
    return found


@pytest.mark.parametrize("engine", ["torch", "openvino"])
def test_the_result_names_what_ran(tmp_path: Path, engine: str) -> None:
    found = result(tmp_path, engine)
    assert (found["engine"], found["precision"], found["options"]["engine"]) == (engine, "fp32", engine)


@pytest.mark.usefixtures("absent")
def test_all_works_without_openvino(tmp_path: Path) -> None:
    found = result(tmp_path, "auto")
    assert (found["status"], found["engine"], found["precision"]) == ("done", "torch", "fp32")
    assert [flag for flag in found["flags"] if flag.startswith("engine")] == []


@pytest.mark.usefixtures("broken")
def test_the_result_says_that_one_stood_in_for_another(tmp_path: Path) -> None:
    found = result(tmp_path, "auto")
    assert (found["status"], found["engine"]) == ("done", "torch")
    assert [flag for flag in found["flags"] if flag.startswith("engine: torch instead: OpenVINO can't")] != []


@pytest.mark.usefixtures("broken")
def test_nothing_is_written_where_the_engine_that_was_asked_for_cant_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="give --engine torch"):
        result(tmp_path, "openvino")
    assert not (tmp_path / "out").exists()
