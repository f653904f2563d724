"""What the training benchmarks make of their results."""

from __future__ import annotations

import argparse
import json
import struct
from pathlib import Path

import pytest

from benchmarks.training import cross_validation, curves
from benchmarks.training._curves import Curves, Point, curves_table, draw, reached
from benchmarks.training._results import RESULTS, FoldResult, folds_table, read_folds, sha256, step_seconds, write_fold
from benchmarks.training.curves import Bench
from benchmarks.training.step import steps_table
from benchmarks.training.tables import PAGE, filled, sections
from tests.helpers.tiny import blob_case, tiny_recipe, write_dataset
from volseg.config import load_recipe
from volseg.datasets.cases import load_dataset
from volseg.evaluation.scores import LabelScore
from volseg.training import loop
from volseg.training.heldout import CaseScores, FoldScores, read_scores
from volseg.training.run import Budget, train_fold
from volseg.training.usage import Usage


def case(name: str, one: float, two: float) -> CaseScores:
    def label(value: int, dice: float) -> LabelScore:
        return LabelScore(
            value=value,
            name=f"label {value}",
            state="scored",
            dice=dice,
            iou=0.5,
            accuracy=0.9,
            hd95_mm=1.0,
            nsd=0.9,
            predicted_ml=1.0,
            reference_ml=1.0,
        )

    return CaseScores(case=name, labels=(label(1, one), label(2, two)), largest_component=(one, two))


def fold(number: int, *cases: CaseScores) -> FoldResult:
    return FoldResult(
        machine="a machine",
        threads=2,
        precision="fp32",
        minutes=30.0,
        recipe_sha256="0123456789abcdef",
        fold=number,
        training_cases=2,
        steps=400,
        step_s=0.25,
        usage=Usage(wall_seconds=100.0, cpu_seconds=150.0),
        command_s=120.0,
        uninterrupted=number == 0,
        load_before=0.5,
        load_after=2.0,
        last_dice=0.875,
        scores=FoldScores(step=300, cases=cases),
    )


TWO = (fold(0, case("a", 0.9, 0.8), case("b", 0.8, 0.6)), fold(1, case("c", 0.7, 0.4)))


def cells(table: str, first: str) -> list[str]:
    """Cells of the row that begins so."""
    (row,) = [line for line in table.splitlines() if line.startswith(f"| {first} |")]
    return [cell.strip() for cell in row.strip("|").split("|")]


def test_the_table_has_each_fold_and_all_cases() -> None:
    table = folds_table(TWO)
    # All: (0.9 + 0.8 + 0.7) / 3, (0.8 + 0.6 + 0.4) / 3, and the mean of 0.85, 0.7 and 0.55.
    assert cells(table, "label 1")[1:4] == ["0.8500", "0.7000", "0.8000"]
    assert cells(table, "label 2")[1:4] == ["0.7000", "0.4000", "0.6000"]
    assert cells(table, "mean of labels")[1:4] == ["0.7750", "0.5500", "0.7000"]
    assert cells(table, "mean of labels")[-1] == "3"
    low, high = cells(table, "mean of labels")[4].split(" to ")
    assert 0.55 <= float(low) < 0.7 < float(high) <= 0.85
    # 150 of 200 seconds of two threads.
    assert cells(table, "0") == ["0", "2", "400", "300", "0.8750", "0.250", "2.0", "75%", "0.5"]
    assert cells(table, "1")[6] == "2.0 (last part)"
    assert "`0123456789ab`" in table


def test_a_result_reads_back(tmp_path: Path) -> None:
    for result in reversed(TWO):
        write_fold(tmp_path, result)
    assert tuple(read_folds(tmp_path)) == TWO
    lines = (tmp_path / "fold_0.json").read_text().splitlines()
    assert [line for line in lines if '"case": "b"' in line and '"label 2"' in line]


def test_seconds_a_step_leave_validations_out() -> None:
    rows = [
        {"step": "10", "seconds": "5.0", "dice": ""},
        {"step": "20", "seconds": "16.0", "dice": "0.5"},
        {"step": "30", "seconds": "20.0", "dice": ""},
        {"step": "40", "seconds": "29.0", "dice": ""},
    ]
    assert step_seconds(rows) == 0.5  # of 0.5, 0.4 and 0.9
    assert step_seconds(rows[1:2]) == 0.8


def test_folds_run_once_and_only_for_one_recipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ran: list[int] = []

    def train(_data: Path, recipe: Path, _run: Path, number: int, minutes: float, _steps: int | None) -> FoldResult:
        ran.append(number)
        changes = {"recipe_sha256": sha256(recipe), "minutes": minutes}
        return fold(number, case(f"case_{number}", 0.9, 0.8)).model_copy(update=changes)

    def call(*more: str) -> None:
        given = ["cross_validation", "data", "-o", str(tmp_path / "out"), "--results", str(tmp_path / "results")]
        monkeypatch.setattr("sys.argv", [*given, "--recipe", str(recipe), *more])
        cross_validation.main()

    monkeypatch.setattr(cross_validation, "train_fold", train)
    recipe = tmp_path / "recipe.yaml"
    hippocampus = Path(__file__).parents[2] / "pipelines" / "hippocampus.yaml"
    recipe.write_bytes(hippocampus.read_bytes())
    call("--folds", "1")
    assert ran == [1]
    call()
    assert ran == [1, 0, 2, 3, 4]
    assert cells((tmp_path / "results" / "table.md").read_text(), "mean of labels")[-1] == "5"
    assert (tmp_path / "results" / "recipe.yaml").read_bytes() == recipe.read_bytes()
    with pytest.raises(SystemExit, match=r"results: has results of another recipe .*fold 0, 1, 2, 3, 4"):
        call("--minutes", "8")
    recipe.write_bytes(hippocampus.read_bytes() + b"\n")
    with pytest.raises(SystemExit, match="another recipe"):
        call()
    assert len(ran) == 5


def test_a_slower_machines_steps_are_trained_in_fp32(tmp_path: Path) -> None:
    planned = RESULTS / "cross_validation" / "recipe.yaml"
    recipe, copy = load_recipe(planned), load_recipe(cross_validation.as_slower(planned, tmp_path))
    assert (recipe.training.precision, copy.training.precision) == ("auto", "fp32")
    training = copy.training.model_copy(update={"precision": "auto"})
    assert copy.model_copy(update={"training": training}) == recipe


@pytest.mark.parametrize(("last", "mean"), [(0.865, "0.8700"), (None, "0.8750")])
def test_the_last_validations_have_a_mean(last: float | None, mean: str) -> None:
    assert cells(folds_table([TWO[0], TWO[1].model_copy(update={"last_dice": last})]), "mean")[4] == mean


def test_a_given_number_of_steps_is_said() -> None:
    assert cells(folds_table([TWO[0].model_copy(update={"steps_given": 400})]), "0")[2] == "400 (given)"


def point(tool: str, kind: str, planned: float, minutes: float, dice: float, *, mirrored: bool = True) -> Point:
    return Point.model_validate(
        {
            "tool": tool,
            "kind": kind,
            "planned_minutes": planned,
            "minutes": minutes,
            "steps": 10,
            "mirrored": mirrored,
            "load_before": 0.1,
            "dice": dice,
            "interval": (dice - 0.01, dice + 0.01),
            "labels": {"Anterior": dice + 0.01, "Posterior": dice - 0.01},
        }
    )


CURVES = Curves(
    machine="a machine",
    fold=0,
    points=(
        point("nnunetv2", "along a run", 30, 10, 0.5, mirrored=False),
        point("nnunetv2", "along a run", 30, 10, 0.55),
        point("nnunetv2", "own schedule", 30, 30, 0.7, mirrored=False),
        point("nnunetv2", "own schedule", 30, 30, 0.75),
        point("volseg", "along a run", 30, 15, 0.87),
        point("volseg", "own schedule", 4, 4, 0.879),
        point("volseg", "own schedule", 6, 6.1, 0.8801),
        point("volseg", "own schedule", 30, 29.5, 0.89),
    ),
)


def test_lines_are_of_one_kind_of_run_each() -> None:
    found = {name: [p.minutes for p in points] for name, points in CURVES.series().items()}
    assert found == {
        "nnunetv2, one run of 30 minutes, mirrored": [10, 30],
        "nnunetv2, one run of 30 minutes, not mirrored": [10, 30],
        "volseg, a run for each time": [4, 6.1, 29.5],
        "volseg, one run of 30 minutes": [15, 29.5],
    }


def test_a_goal_is_reached_at_a_point() -> None:
    table = curves_table(CURVES)
    assert cells(table, "volseg, a run for each time")[1] == "6.1"
    assert cells(table, "volseg, one run of 30 minutes")[1] == "29.5"
    assert cells(table, "nnunetv2, one run of 30 minutes, mirrored")[1] == "not in 30.0"
    assert reached(CURVES.points[4:5], 0.87) == "15.0"


def test_the_picture_is_a_png_of_every_line() -> None:
    data = draw(CURVES)
    assert data[:8] == b"\x89PNG\r\n\x1a\n"
    assert struct.unpack(">II", data[16:24]) == (960, 600)
    assert data != draw(CURVES.model_copy(update={"points": CURVES.points[2:]}))


def test_points_of_another_fold_are_not_mixed(tmp_path: Path) -> None:
    dataset = tmp_path / "dataset"
    dataset.mkdir()
    (dataset / "dataset.json").write_text('{"labels": {"0": "background", "1": "Anterior"}}')

    def bench(number: int) -> Bench:
        given = argparse.Namespace(
            dataset=dataset, output=tmp_path / "out", results=tmp_path / "results", fold=number, recipe=None
        )
        return Bench(given)

    first = bench(0)
    first.keep([CURVES.points[-1]])
    again = bench(0)
    assert again.curves.points == (CURVES.points[-1],)
    assert again.has("volseg", "own schedule", 30)
    assert not again.has("nnunetv2", "own schedule", 30)
    with pytest.raises(SystemExit, match="another fold"):
        bench(1)


@pytest.fixture
def short(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> argparse.Namespace:
    """A dataset and a recipe, and `volseg train` replaced by four steps in this process."""
    data = write_dataset(tmp_path / "data", {f"case_{n}": blob_case(n) for n in range(4)})
    content = json.loads((data / "dataset.json").read_text())
    labels = {"0": "background", "1": "Anterior hippocampus", "2": "Posterior hippocampus"}
    (data / "dataset.json").write_text(json.dumps({**content, "labels": labels}))
    training = {"batch_size": 1, "validations": 2, "folds": 2}
    recipe = tmp_path / "recipe.yaml"
    recipe.write_text(tiny_recipe(window=[8, 8, 8], training=training).model_dump_json())

    def volseg(command: str, recipe: Path, *options: str | Path) -> None:
        assert command == "train"
        named = dict(zip(options[0::2], options[1::2], strict=False))
        assert named["--minutes"] == "0.5"
        run, number, budget = Path(named["-o"]), int(str(named["--fold"])), Budget(steps=4)
        cases = load_dataset(Path(named["--data"]))
        train_fold(load_recipe(recipe), cases, run, number, budget, resume=True, report=lambda *_: None)

    monkeypatch.setattr(loop, "REPORTS", 4)
    monkeypatch.setattr(loop, "draw_curves", lambda *_: None)
    for module in (cross_validation, curves):
        monkeypatch.setattr(module, "volseg", volseg)
    where = {"output": tmp_path / "out", "results": tmp_path / "results", "fold": 1}
    return argparse.Namespace(dataset=data, recipe=recipe, **where)


def test_a_fold_is_read_from_its_run(short: argparse.Namespace) -> None:
    made = cross_validation.train_fold(short.dataset, short.recipe, short.output, 1, 0.5, None)
    assert (made.fold, made.steps, made.training_cases, made.uninterrupted) == (1, 4, 2, True)
    assert made.scores == read_scores(short.output)[1]
    assert len(made.scores.cases) == 2
    assert made.last_dice is not None
    assert made.usage.wall_seconds <= made.command_s + 0.1
    again = cross_validation.train_fold(short.dataset, short.recipe, short.output, 1, 0.5, None)
    assert not again.uninterrupted
    assert again.scores == made.scores


def test_a_run_gives_its_end_and_its_validations(short: argparse.Namespace) -> None:
    bench = Bench(short)
    bench.volseg(0.5, along=True)
    along, end = bench.curves.points
    assert (along.kind, along.steps, end.kind, end.steps) == ("along a run", 2, "own schedule", 4)
    assert 0 < along.minutes <= end.minutes
    # Both by volseg.evaluation: from the masks on disk, and in the process that trained.
    cases = read_scores(short.output / "volseg_0.5" / "run")[1].cases
    assert end.dice == pytest.approx(sum(case.dice or 0.0 for case in cases) / len(cases))
    assert end.labels.keys() == along.labels.keys() == {"Anterior hippocampus", "Posterior hippocampus"}
    kept = (short.results / "curves.json").read_bytes()
    Bench(short).volseg(0.5, along=True)
    assert (short.results / "curves.json").read_bytes() == kept


def test_the_ratio_is_the_median_of_the_rounds_own() -> None:
    def round_of(theirs: float, ours: float) -> dict[str, dict[str, float]]:
        return {
            "nnunetv2": {"wall_s": theirs, "cpu_s": 2 * theirs, "mib": 300},
            "volseg": {"wall_s": ours, "cpu_s": ours, "mib": 200},
        }

    rounds = [round_of(4.0, 2.0), round_of(9.0, 3.0), round_of(5.0, 5.0)]
    tasks = {"hippocampus": {"rounds": rounds, "feeding": {"share": 0.05}}, "CT": {"rounds": rounds, "feeding": None}}
    about = {"device": "cpu", "machine": "a machine", "threads": 2, "steps": 5, "load_before": 0.0}
    table = steps_table({**about, "tasks": tasks})
    wanted = ["0.200", "0.333", "2.00 (1.00 to 3.00)", "4.00", "300", "200"]
    assert cells(table, "hippocampus")[1:] == [*wanted, "5.0%"]
    assert cells(table, "CT")[1:] == [*wanted, "-"]


def test_a_page_is_filled_between_its_markers() -> None:
    page = "before\n<!-- a -->\nold\n<!-- end -->\nbetween\n<!-- b -->\n<!-- end -->\nafter\n"
    once = filled(page, {"a": "A \\1", "b": "B"})
    assert once == ("before\n<!-- a -->\n\nA \\1\n\n<!-- end -->\nbetween\n<!-- b -->\n\nB\n\n<!-- end -->\nafter\n")
    assert filled(once, {"a": "A \\1", "b": "B"}) == once
    with pytest.raises(ValueError, match="<!-- c -->"):
        filled(page, {"c": "C"})


def test_the_page_has_the_committed_results() -> None:
    page = PAGE.read_text(encoding="utf-8")
    assert page == filled(page, sections(RESULTS)), "run: python -m benchmarks.training.tables"
