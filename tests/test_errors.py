from __future__ import annotations

from pathlib import Path

import pytest

from volseg.errors import (
    CODES,
    CancelledError,
    ExportError,
    GeometryError,
    InputError,
    ModelError,
    RecipeError,
    RefusalError,
    TrainingError,
    UsageError,
    VolsegError,
)


def test_the_tree_is_as_drawn() -> None:
    bases = {
        UsageError: VolsegError,
        RecipeError: UsageError,
        ModelError: UsageError,
        RefusalError: VolsegError,
        InputError: RefusalError,
        GeometryError: RefusalError,
        ExportError: VolsegError,
        TrainingError: VolsegError,
        CancelledError: VolsegError,
    }
    for kind, base in bases.items():
        assert issubclass(kind, base), kind
    assert not issubclass(RefusalError, UsageError)
    assert not issubclass(ExportError, RefusalError)


@pytest.mark.parametrize("kind", [RefusalError, InputError, GeometryError, ExportError])
def test_a_coded_error_names_the_file_and_keeps_its_parts(kind: type[RefusalError] | type[ExportError]) -> None:
    error = kind("a gap of 5 mm", code="missing-slice", path=Path("study/series"))
    assert str(error) == "study/series: a gap of 5 mm"
    assert (error.code, error.reason, error.path) == ("missing-slice", "a gap of 5 mm", Path("study/series"))


def test_without_a_path_the_message_is_the_reason() -> None:
    error = InputError("nothing here", code="no-image")
    assert (str(error), error.path) == ("nothing here", None)


def test_a_code_that_isn_t_listed_is_a_mistake_of_ours() -> None:
    with pytest.raises(ValueError, match="unknown code 'gap'; one of no-image, unreadable"):
        GeometryError("a gap", code="gap")


def test_codes_are_words_with_a_sentence() -> None:
    for code, meaning in CODES.items():
        assert code == code.lower().replace(" ", "-")
        assert meaning
        assert not meaning.endswith(".")


def test_a_message_is_one_line_whatever_it_quotes() -> None:
    error = InputError("in the frame 1.2\r\n\x1b[2J3", code="unreadable")
    assert (error.reason, str(error)) == ("in the frame 1.2 [2J3", "in the frame 1.2 [2J3")
