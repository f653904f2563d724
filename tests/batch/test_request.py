"""A request: data, and the same after a way through JSON."""

from __future__ import annotations

import json
from dataclasses import fields
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from volseg.batch.request import Request
from volseg.errors import UsageError
from volseg.inference import Options

NAMES = st.lists(st.text(min_size=1, max_size=8), max_size=3).map(tuple)
REQUESTS = st.fixed_dictionaries(
    {"input": st.just(Path("in")), "output": st.just(Path("out dir")), "model": st.text(min_size=1)},
    optional={
        "series": NAMES,
        "formats": st.none() | st.lists(st.sampled_from(["nifti", "seg"]), max_size=2).map(tuple),
        "tta": st.none() | st.booleans(),
        "tile_step": st.none() | st.floats(0.05, 1),
        "folds": NAMES,
        "labels": st.none() | NAMES,
        "engine": st.sampled_from(["auto", "torch", "openvino"]),
        "precision": st.sampled_from(["auto", "fp32", "bf16"]),
        "memory": st.none() | st.integers(1, 10**12),
        "preview": st.booleans(),
        "resample_tilt": st.booleans(),
    },
)
LEAST: dict[str, Any] = {"input": "in", "output": "out", "model": "m"}


@given(REQUESTS)
def test_it_goes_through_json_both_ways(content: dict[str, Any]) -> None:
    request = Request.of(**content)
    assert Request.from_json(request.to_json()) == request
    # What a page or a script writes by hand is read as well.
    assert Request.from_json(json.dumps(content, default=str)) == request


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"fomats": ["nifti"]}, "fomats: no such key"),
        ({"formats": ["xyz"]}, "no format xyz; formats are nifti, seg"),
        ({"formats": "nifti"}, "formats: "),
        ({"engine": "steam"}, "engine: .*'auto', 'torch' or 'openvino'"),
        ({"tile_step": 0}, "tile_step: .*above 0"),
        ({"tile_step": 1.5}, "tile_step: .*above 0"),
        ({"memory": "much"}, "memory: "),
        ({"model": None}, "model: "),
    ],
)
def test_what_it_cannot_be_is_refused_by_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        Request.of(**LEAST | changes)
    with pytest.raises(UsageError, match=said):
        Request.from_json(json.dumps(LEAST | changes))


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"input": "in"}'])
def test_text_that_is_no_request(text: str) -> None:
    with pytest.raises(UsageError, match="request: "):
        Request.from_json(text)


def test_every_field_says_whether_the_result_depends_on_it() -> None:
    says = {name: field.json_schema_extra for name, field in Request.model_fields.items()}
    depends = {name: extra["affects_result"] for name, extra in says.items() if isinstance(extra, dict)}
    assert set(depends) == set(Request.model_fields)
    assert {name for name, it_does in depends.items() if not it_does} == {
        "input", "output", "model", "series", "memory",
    }  # fmt: skip


def test_every_option_of_the_model_is_one_of_a_request() -> None:
    """A new option can't be left out of what a result says, nor of its reuse."""
    given: dict[str, Any] = {
        "tta": True, "engine": "torch", "precision": "bf16", "folds": ("1",), "device": "cuda", "labels": ("a",),
        "tile_step": 0.25, "coarse_to_fine": True, "probabilities": True, "entropy": True, "memory": 7,
    }  # fmt: skip
    options = Request.of(**LEAST, **given).options()
    differing = {
        field.name for field in fields(Options) if getattr(options, field.name) != getattr(Options(), field.name)
    }
    assert differing == {field.name for field in fields(Options)}
    assert Request.of(**LEAST).options() == Options()
