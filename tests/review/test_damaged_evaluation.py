"""A single invalid value in the files of a run costs what it is about, one line, and nothing else."""

from __future__ import annotations

import copy
import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import d2tune
from d2tune.cli import main
from d2tune.project.traits import TaskName
from d2tune.review.cleaned import cleaned
from tests.review.test_report import plain, sections

Runs = Callable[[TaskName], Path]


def changed(content: Any, place: str, value: Any) -> Any:
    """A copy with a value at a place such as ``classes.0.name``; ``...`` removes it."""
    whole = copy.deepcopy(content)
    inner = whole
    *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    for step in steps:
        inner = inner[step]
    if value is ...:
        del inner[last]
    else:
        inner[last] = value
    return whole


@pytest.mark.parametrize(
    ("task", "place", "value", "named"),
    [
        ("instance", "metrics.segm.AP.high", None, "metrics.segm.AP.high"),
        ("instance", "metrics.segm.AP.value", {}, "metrics.segm.AP.value"),
        ("instance", "metrics.bbox.ARs.low", "x", "metrics.bbox.ARs.low"),
        ("instance", "metrics.segm.AP.value", float("nan"), "metrics.segm.AP.value"),
        ("instance", "analysis.errors.errors.both.dAP.value", "", "analysis.errors.errors.both.dAP.value"),
        ("instance", "classes.0.found", None, "classes.0.found"),
        ("semantic", "classes.1.name", 7, "classes.1.name"),
        ("semantic", "metrics.semantic.mIoU.value", {"value": "x"}, "metrics.semantic.mIoU.value"),
        ("semantic", "images", {"a": 1}, "images"),
        ("panoptic", "metrics.panoptic.PQ", ..., "evaluation lacks what this version of d2tune reads ('PQ')"),
        ("panoptic", "classes.2.fp", ..., "evaluation lacks what this version of d2tune reads ('fp')"),
    ],
)
def test_an_invalid_value_of_the_evaluation(
    run_of: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], task: TaskName, place: str, value: Any, named: str
) -> None:
    run = shutil.copytree(run_of(task), tmp_path / "run")
    file = run / "evaluation.json"
    file.write_text(json.dumps(changed(json.loads(file.read_text("utf-8")), place, value)), encoding="utf-8")
    result = d2tune.write_report(run)
    assert any(line.startswith(f"{file}: ") and named in line for line in result.problems)
    page = result.path.read_text(encoding="utf-8")
    assert all(line in plain(page) for line in result.problems)
    assert [name for name in ("curves", "data", "timings", "repeat") if name not in sections(page)] == []
    assert main(["runs", str(run)]) == 0 and "1 run (1 finished)" in capsys.readouterr().out


def test_what_is_valid_stays_as_it_is() -> None:
    metric = {"value": 40.0, "low": 30.0, "high": 50.5, "reason": None}
    undefined = {"value": None, "low": None, "high": None, "reason": "no objects"}
    rows = [{"name": "car", "found": 3, "metrics": {"IoU": metric}}]
    content = {"images": 3, "metrics": {"segm": {"AP": metric, "APs": undefined}}, "classes": rows, "confusion": [[1]]}
    assert cleaned(content) == (content, "")
    shown, line = cleaned(content | {"classes": [*rows, {"name": "bus", "found": -1, "metrics": {}}]})
    assert shown["classes"] == rows and "confusion" not in shown, "its rows would have the names of other classes"
    assert line == "1 value cannot be shown, such as classes.1.found, which is -1"


def test_predictions_of_images_with_names_of_another_type(run_of: Runs, tmp_path: Path) -> None:
    run = shutil.copytree(run_of("semantic"), tmp_path / "run")
    table = json.loads((run / "predicted_images.json").read_text("utf-8"))
    table["images"][2]["file_name"] = {"name": "x"}
    (run / "predicted_images.json").write_text(json.dumps(table), encoding="utf-8")
    (line,) = d2tune.write_report(run).problems
    assert "the predictions are of other images" in line


def test_a_time_that_is_not_a_number(run_of: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = shutil.copytree(run_of("instance"), tmp_path / "run")
    record = json.loads((run / "record.json").read_text("utf-8"))
    (run / "record.json").write_text(json.dumps(changed(record, "durations.training_s", float("nan"))))
    assert main(["runs", str(run)]) == 0
    assert "durations.training_s" in capsys.readouterr().out
