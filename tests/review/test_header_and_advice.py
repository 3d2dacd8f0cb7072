"""What a reader of a report sees first: where the run is from, how mistakes are counted, what to do next."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import d2tune
from d2tune.cli import main
from d2tune.project.traits import TaskName
from d2tune.run_folder import RunFolder
from tests.review.test_report import plain
from tests.review.world import BETTER, make_data, make_run

Runs = Callable[[TaskName], Path]


def page_of(*runs: Path, folder: Path) -> str:
    return d2tune.write_report(*runs, out=folder / "page.html").path.read_text(encoding="utf-8")


def test_the_header_names_no_folder_of_the_machine(run_of: Runs, tmp_path: Path) -> None:
    run = run_of("panoptic")
    page = page_of(run, folder=tmp_path)
    assert f'<p class="origin mono"><bdi>{run.parent.name}/{run.name}</bdi>' in page
    assert str(run.parent) not in page
    copied = Path(shutil.copytree(run, tmp_path / "runs" / "crossing" / "one"))
    assert '<p class="origin mono"><bdi>runs/crossing/one</bdi>' in page_of(copied, folder=tmp_path)


ASSEMBLED = {"folds": {}, "sentence": "one, mirrored too is better than one on the 30 images of 3 folds: +2.0 points."}


def test_an_assembled_run_is_reported_as_one(
    run_of: Runs, tmp_path: Path, caplog: pytest.LogCaptureFixture, capsys: pytest.CaptureFixture[str]
) -> None:
    run = run_of("instance")
    assembled = Path(shutil.copytree(run, tmp_path / "final"))
    RunFolder(assembled).update_record({"assembled": ASSEMBLED})
    (assembled / "metrics.jsonl").unlink(missing_ok=True)
    high = "was assembled, and all its validation images helped to choose it: its metrics are a little high."
    line = f"{high} Proven: {ASSEMBLED['sentence']}"
    page = plain(page_of(run, assembled, folder=tmp_path))
    assert f"the run {line}" in page and "no metrics were logged" not in page
    caplog.clear()
    d2tune.compare(run, assembled)
    assert [record.message for record in caplog.records] == [f"{assembled}: {line}"]
    assert main(["info", str(assembled)]) == 0
    assert f"assembled:      {ASSEMBLED['sentence']}" in capsys.readouterr().out
    RunFolder(assembled).update_record({"assembled": {"sentence": "."}})
    assert "and half of its validation images" in plain(page_of(assembled, folder=tmp_path))


@pytest.mark.parametrize(("task", "is_there"), [("instance", True), ("semantic", False)])
def test_how_mistakes_are_counted(run_of: Runs, tmp_path: Path, task: TaskName, is_there: bool) -> None:
    """The table of costs is at all scores, the thumbnails are not."""
    words = "Counted from score 0.5 on, at IoU 0.5: the numbers differ from those of the table."
    assert (words in plain(page_of(run_of(task), folder=tmp_path))) == is_there


@pytest.mark.parametrize(
    ("counts", "advice"),
    [
        # of 100 pixels predicted as car, 60 are car, 30 bus and 10 ground
        ([[70, 30, 0, 0], [0, 60, 0, 0], [5, 10, 900, 0]], "30 % of the pixels predicted as car are annotated as bus."),
        ([[70, 10, 0, 0], [0, 90, 0, 0], [5, 0, 900, 0]], ""),
        ([[70, 0, 0, 0], [30, 0, 0, 0], [0, 0, 900, 0]], "30 % of the pixels predicted as bus are annotated as car."),
        ([[0, 0, 0, 70], [0, 0, 0, 30], [0, 0, 0, 900]], ""),
    ],
)
def test_classes_of_label_maps_that_are_mixed_up(
    run_of: Runs, tmp_path: Path, counts: list[list[int]], advice: str
) -> None:
    run = Path(shutil.copytree(run_of("semantic"), tmp_path / "run"))
    evaluation = json.loads((run / "evaluation.json").read_text("utf-8"))
    (run / "evaluation.json").write_text(json.dumps(evaluation | {"confusion": counts}), encoding="utf-8")
    text = plain(page_of(run, folder=tmp_path))
    assert advice in text and ("of the pixels predicted as" in text) == bool(advice)


@pytest.mark.slow
def test_two_runs_on_two_images(tmp_path: Path) -> None:
    """Too few images for thirds, and for a comparison."""
    data = make_data(tmp_path / "data", images=2)
    run = make_run(tmp_path / "b", data, "instance", BETTER)
    other = make_run(tmp_path / "a", data, "instance")
    result = d2tune.write_report(run, other, out=tmp_path / "page.html")
    text = plain(result.path.read_text(encoding="utf-8"))
    assert "All, the worst first" in text and "Median" not in text
    assert "not compared" in text and "not distinguishable" not in text
    assert result.sentence.endswith("No comparison: 2 images are too few, at least 6 are needed.")
    assert result.sentence.startswith("b has the highest mask AP, 100.0") and "; a has " in result.sentence
