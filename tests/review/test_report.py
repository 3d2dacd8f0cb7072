"""``d2tune report`` on runs that are whole, damaged, old or foreign."""

from __future__ import annotations

import html
import json
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import d2tune
from d2tune import files
from d2tune.baseline.result import BaselineResult, BaselineRow, write_baseline
from d2tune.cli import main
from d2tune.errors import D2TuneError, DataError, RunError
from d2tune.metrics.metric import Metric
from d2tune.project.traits import TaskName
from d2tune.run_folder import RunFolder
from d2tune.run_lock import locked
from tests.review.world import DETECTIONS, coco_results, make_run

Runs = Callable[[TaskName], Path]
OLD = Path(__file__).resolve().parents[1] / "old_runs"


def copy_of(run: Path, folder: Path) -> Path:
    shutil.copytree(run, folder)
    return folder


def with_data(run: Path, data: Path, folder: Path) -> tuple[Path, Path]:
    """Copies of a run and of its data, which belong to each other."""
    folder.mkdir()
    moved, images = copy_of(run, folder / "run"), copy_of(data, folder / "data")
    project = RunFolder(moved).project
    project.write_text(project.read_text("utf-8").replace(str(data), str(images)), encoding="utf-8")
    return moved, images


def sections(page: str) -> list[str]:
    return re.findall(r'<section id="(\w+)">', page)


def plain(page: str) -> str:
    """The words of a page."""
    body = re.sub(r"<(style|script)>.*?</\1>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


EVERYTHING = ["next", "curves", "classes", "errors", "images", "data", "timings", "repeat"]


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_a_run_of_each_task(run_of: Runs, tmp_path: Path, task: TaskName) -> None:
    result = d2tune.write_report(run_of(task), out=tmp_path / "page.html")
    page = result.path.read_text(encoding="utf-8")
    assert result.problems == () and result.size_bytes == result.path.stat().st_size
    assert [name for name in EVERYTHING if name not in sections(page)] == []
    assert result.sentence in plain(page)
    mistakes = re.findall(r'<li data-kind="([^"]*)"', page)
    assert len(mistakes) == {"instance": 7, "semantic": 6, "panoptic": 6}[task]
    assert page.count('type="range"') == 6
    assert "d2tune train &#39;projects/my crossing.yaml&#39;" in page, "the command, to be pasted into a shell"
    evaluation = json.loads((run_of(task) / "evaluation.json").read_text("utf-8"))
    for key in ("data_sha256", "weights_sha256", "config_sha256", "predictions_sha256"):
        assert evaluation[key] in page
    assert "13 min" in page, "754 s of training"
    assert "No near-duplicates among 12 images of both splits" in page
    assert not re.search(r"https?:|@import|url\(", re.sub(r"data:image/jpeg;base64,[^\"]*", "", page))


def test_the_page_has_the_metrics_of_the_evaluation(run_of: Runs, tmp_path: Path) -> None:
    page = plain(d2tune.write_report(run_of("instance"), out=tmp_path / "page.html").path.read_text(encoding="utf-8"))
    evaluation = json.loads((run_of("instance") / "evaluation.json").read_text("utf-8"))
    main_metric = evaluation["metrics"]["segm"]["AP"]
    assert f"{main_metric['value']:.1f}" in page
    assert f"{main_metric['low']:.1f} to {main_metric['high']:.1f}" in page
    assert "9 of 12 objects detected" in page and "4 false alarms" in page
    assert "Best: 40.0 at iteration 40; evaluated 2 times." in page
    assert "It was still improving at the end" in page and "train.iterations=80" in page


def test_two_runs_and_another_model_side_by_side(run_of: Runs, better: Path, tmp_path: Path) -> None:
    file = tmp_path / "yolo.json"
    file.write_text(json.dumps(coco_results()), encoding="utf-8")
    out = tmp_path / "page.html"
    result = d2tune.write_report(run_of("instance"), better, predictions={"yolo": file}, out=out)
    page = result.path.read_text(encoding="utf-8")
    assert result.problems == ()
    assert [name for name in [*EVERYTHING, "runs", "differences"] if name not in sections(page)] == []
    compared = d2tune.compare(run_of("instance"), better).metrics["segm AP"]
    words = f"a difference of {compared.difference:.1f} points"
    assert result.sentence.startswith("better ") and (words in result.sentence or "cannot be" in result.sentence)
    text = plain(page)
    assert f"{compared.difference:+.1f} ({compared.interval.low:+.1f} to {compared.interval.high:+.1f})" in text
    # the same detections give the same metrics, wherever they come from
    values = re.findall(
        r'<td class="n" data-order="([\d.]+)">', page[page.index('id="runs"') : page.index('id="curves"')]
    )
    assert len(values) == 3 and float(values[0]) == float(values[2]) < float(values[1]) == pytest.approx(100)
    rows = re.findall(
        r"<bdi>val/(\d+).jpg</bdi></th><td[^>]*>([\d.]+)</td><td[^>]*>([\d.]+)</td><td[^>]*>([\d.]+)", page
    )
    qualities = {number: (best, first, other) for number, best, first, other in rows}
    assert qualities["001"] == ("100.0",) * 3 and qualities["003"] == ("100.0", "50.0", "50.0") and len(rows) == 6
    pairs = re.findall(r'id="pair-(\d)"', page)
    assert pairs[0] in ("3", "5") and "1" not in pairs, "the first image is right in both"


def test_a_run_without_an_evaluation(run_of: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    (run / "evaluation.json").unlink()
    assert main(["report", str(run)]) == 0
    printed = capsys.readouterr()
    line = f"{run}: the run has no evaluation. Run `d2tune eval {run}`."
    assert line in printed.err and str(run / "report.html") in printed.out
    page = (run / "report.html").read_text(encoding="utf-8")
    assert line in plain(page)
    assert sections(page) == ["curves", "data", "timings", "repeat"]


def test_a_run_that_is_still_training(run_of: Runs, tmp_path: Path) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    (run / "evaluation.json").unlink()
    with locked(run):
        result = d2tune.write_report(run)
    (problem,) = result.problems
    assert problem.endswith("It still runs and is evaluated at its end; make the report again then.")
    page = plain(result.path.read_text(encoding="utf-8"))
    assert "running starting" in page and "Curves" in page


@pytest.mark.parametrize("content", ["{", "[]", '{"project": "crossing"}', ""])
def test_a_damaged_record(run_of: Runs, tmp_path: Path, content: str) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    (run / "record.json").write_text(content, encoding="utf-8")
    result = d2tune.write_report(run)
    assert len(result.problems) == 1 and result.problems[0].startswith(f"{run / 'record.json'}: ")
    page = result.path.read_text(encoding="utf-8")
    assert result.problems[0] in plain(page)
    assert [name for name in ("next", "curves", "classes", "errors", "repeat") if name not in sections(page)] == []
    assert "9 of 12" in plain(page)


@pytest.mark.parametrize("name", ["project.yaml", "detectron2.yaml", "predictions.json", "metrics.jsonl"])
def test_another_damaged_file(run_of: Runs, tmp_path: Path, name: str) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    (run / name).write_text("[", encoding="utf-8")
    result = d2tune.write_report(run)
    assert len(result.problems) == 1 and result.problems[0].startswith(str(run))
    page = result.path.read_text(encoding="utf-8")
    assert result.problems[0] in plain(page)
    assert ("curves" in sections(page)) == (name != "metrics.jsonl") and "classes" in sections(page)
    assert ("images" in sections(page)) == (name == "metrics.jsonl")


def test_an_image_that_is_damaged(run_of: Runs, crossing: Path, tmp_path: Path) -> None:
    run, data = with_data(run_of("instance"), crossing, tmp_path / "copy")
    photo = data / "val" / "003.jpg"
    content = photo.read_bytes()
    photo.write_bytes(content[:400] + bytes(len(content) - 400))
    page = d2tune.write_report(run).path.read_text(encoding="utf-8")
    assert "images" not in sections(page) or "cannot be opened" in plain(page)
    assert "classes" in sections(page)


def test_a_record_with_values_of_other_types(run_of: Runs, tmp_path: Path) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    record = json.loads((run / "record.json").read_text("utf-8"))
    record |= {"data": {"train_instances": 3, "train_images": "many"}, "durations": "long", "command": 5, "best": []}
    (run / "record.json").write_text(json.dumps(record), encoding="utf-8")
    result = d2tune.write_report(run)
    assert len(result.problems) == 1 and "record.json" in result.problems[0]
    assert "classes" in sections(result.path.read_text(encoding="utf-8"))


@pytest.mark.parametrize("task", ["instance", "semantic"])
def test_a_run_of_an_older_version(tmp_path: Path, task: TaskName) -> None:
    run = copy_of(OLD / task, tmp_path / task)
    result = d2tune.write_report(run)
    page = result.path.read_text(encoding="utf-8")
    assert result.problems, "its data are not where they were"
    assert all(line in plain(page) for line in result.problems)
    assert "classes" in sections(page) and result.sentence


def test_an_evaluation_that_lacks_entries(run_of: Runs, tmp_path: Path) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    evaluation = json.loads((run / "evaluation.json").read_text("utf-8"))
    (run / "evaluation.json").write_text(json.dumps({"task": "instance", "schema": 1}), encoding="utf-8")
    problems = d2tune.write_report(run).problems
    assert any("the evaluation lacks" in line and "d2tune eval" in line for line in problems)
    del evaluation["analysis"]["sizes"][0]["AP"]
    (run / "evaluation.json").write_text(json.dumps(evaluation), encoding="utf-8")
    result = d2tune.write_report(run)
    assert any(line.startswith("the charts of classes cannot be shown") for line in result.problems)
    assert "images" in sections(result.path.read_text(encoding="utf-8"))


def test_predictions_of_other_images(run_of: Runs, tmp_path: Path) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    table = json.loads((run / "predicted_images.json").read_text("utf-8"))
    table["images"][2]["file_name"] = "val/other.jpg"
    (run / "predicted_images.json").write_text(json.dumps(table), encoding="utf-8")
    result = d2tune.write_report(run)
    assert len(result.problems) == 1 and "the predictions are of other images" in result.problems[0]
    names = sections(result.path.read_text(encoding="utf-8"))
    assert "images" not in names and [name for name in ("curves", "classes", "errors") if name not in names] == []


def test_changed_data(run_of: Runs, crossing: Path, tmp_path: Path) -> None:
    run, data = with_data(run_of("instance"), crossing, tmp_path / "copy")
    assert d2tune.write_report(run).problems == ()
    (data / "val" / "001.jpg").write_bytes((data / "val" / "002.jpg").read_bytes())
    result = d2tune.write_report(run)
    assert len(result.problems) == 1 and "the data changed after the evaluation" in result.problems[0]


@pytest.mark.parametrize("task", ["instance", "semantic", "panoptic"])
def test_training_images_that_are_gone_leave_the_validation_images(
    run_of: Runs, crossing: Path, tmp_path: Path, task: TaskName
) -> None:
    run, data = with_data(run_of(task), crossing, tmp_path / "copy")
    shutil.rmtree(data / "train")
    result = d2tune.write_report(run)
    names = sections(result.path.read_text(encoding="utf-8"))
    assert [name for name in EVERYTHING if name not in names] == []
    assert len(result.problems) == 1 and "train" in result.problems[0]


def test_predictions_without_the_file_that_lists_their_images(run_of: Runs, tmp_path: Path) -> None:
    run = copy_of(run_of("instance"), tmp_path / "run")
    (run / "predicted_images.json").unlink()
    result = d2tune.write_report(run)
    assert result.problems == () and "images" in sections(result.path.read_text(encoding="utf-8"))
    rows = json.loads((run / "predictions.json").read_text("utf-8"))
    evaluation = json.loads((run / "evaluation.json").read_text("utf-8"))
    for change, reason in (
        ({"file_name": "val/other.jpg"}, "are of other images; found 'val/other.jpg'"),
        ({"image_id": 77}, "or are damaged: 77 is not known"),
    ):
        (run / "predictions.json").write_text(json.dumps([rows[0] | change, *rows[1:]]), encoding="utf-8")
        digest = files.sha256_file(run / "predictions.json")
        (run / "evaluation.json").write_text(json.dumps(evaluation | {"predictions_sha256": digest}), encoding="utf-8")
        (problem,) = d2tune.write_report(run).problems
        assert str(run / "predictions.json") in problem and reason in problem


OTHER = {"file_name": "elsewhere.jpg", "id": 1, "width": 120, "height": 80}


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ([row | {"image_id": 99} for row in coco_results()], "image"),
        ({"images": [OTHER], "annotations": coco_results([DETECTIONS[0]])}, "elsewhere.jpg"),
        ("text", "not a COCO results file"),
        ([], "no prediction is of an image of the run"),
        ([row | {"score": float("nan")} for row in coco_results()], "result 1 of 13: the score is not a finite number"),
    ],
)
def test_other_predictions_that_do_not_belong(run_of: Runs, tmp_path: Path, content: object, reason: str) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps(content), encoding="utf-8")
    result = d2tune.write_report(run_of("instance"), predictions={"other": file}, out=tmp_path / "page.html")
    assert any(reason in line and "other.json" in line for line in result.problems)
    page = result.path.read_text(encoding="utf-8")
    assert [name for name in EVERYTHING if name not in sections(page)] == []


def test_other_predictions_beside_a_run_of_another_task(run_of: Runs, tmp_path: Path) -> None:
    file = tmp_path / "other.json"
    file.write_text(json.dumps(coco_results()), encoding="utf-8")
    result = d2tune.write_report(run_of("semantic"), predictions={"other": file}, out=tmp_path / "page.html")
    assert any("are reported for instance runs, and this is a semantic run" in line for line in result.problems)


def test_runs_on_other_data_or_of_other_tasks_are_not_compared(run_of: Runs, crossing: Path, tmp_path: Path) -> None:
    data = copy_of(crossing, tmp_path / "data")
    (data / "val" / "001.jpg").write_bytes((data / "val" / "002.jpg").read_bytes())
    other = make_run(tmp_path / "other", data, "instance")
    out = tmp_path / "page.html"
    result = d2tune.write_report(run_of("instance"), other, run_of("semantic"), out=out)
    assert any("was evaluated on other data" in line for line in result.problems)
    assert "images" in sections(out.read_text(encoding="utf-8"))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["nowhere"], "is not a run folder"),
        (["{run}", "{run}"], "a run is given twice"),
        (["{run}", "--images", "2"], "--images"),
        (["{run}", "--predictions", "file.json"], "the predictions need a name"),
        (["{run}", "--predictions", "a=missing.json"], "the file of predictions does not exist"),
        (["{run}", "--predictions", "a=b", "--predictions", "a=c"], "the same name"),
        (["{run}", "--out", "{foreign}"], "not a page of d2tune report"),
        (["{run}", "--out", "{folder}"], "must be a file"),
    ],
)
def test_mistakes_on_the_command_line(
    run_of: Runs, tmp_path: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    foreign = tmp_path / "index.html"
    foreign.write_text("<html>mine</html>", encoding="utf-8")
    places = {"run": run_of("instance"), "foreign": foreign, "folder": tmp_path}
    assert main(["report", *(word.format(**places) for word in words)]) == 1
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and message in lines[0]
    assert foreign.read_text(encoding="utf-8") == "<html>mine</html>"


def test_an_earlier_report_is_replaced(run_of: Runs, tmp_path: Path) -> None:
    out = tmp_path / "page.html"
    d2tune.write_report(run_of("instance"), out=out)
    before = out.stat().st_ino
    d2tune.write_report(run_of("instance"), out=out, images=3)
    assert out.read_text(encoding="utf-8").count('type="range"') == 3 and out.stat().st_ino != before


def test_what_comes_from_files_is_escaped(run_of: Runs, tmp_path: Path) -> None:
    evil = "</script><script>alert(1)</script>\"'\u202e"
    run = copy_of(run_of("instance"), tmp_path / "run")
    record = json.loads((run / "record.json").read_text("utf-8"))
    (run / "record.json").write_text(json.dumps(record | {"command": [evil, evil], "project": evil, "seed": evil}))
    rows = json.loads((run / "evaluation.json").read_text("utf-8"))
    rows["classes"][0]["name"] = evil
    (run / "evaluation.json").write_text(json.dumps(rows), encoding="utf-8")
    page = d2tune.write_report(run, out=tmp_path / "page.html").path.read_text(encoding="utf-8")
    assert page.count("<script") == 1 and page.count("</script>") == 1
    assert "\u202e" not in page and "alert(1)" in page


def test_a_run_elsewhere_and_by_name(run_of: Runs, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A project file stands for its latest run, and a moved run still has its images."""
    (tmp_path / "runs" / "crossing").mkdir(parents=True)
    run = copy_of(run_of("instance"), tmp_path / "runs" / "crossing" / "one")
    project = tmp_path / "crossing.yaml"
    shutil.copy(RunFolder(run).project, project)
    monkeypatch.chdir(tmp_path)
    assert d2tune.write_report("crossing.yaml").path == Path("runs/crossing/one/report.html")
    moved = run.rename(tmp_path / "moved")
    result = d2tune.write_report(moved, out=tmp_path / "page.html")
    assert result.problems == ()
    assert "images" in sections(result.path.read_text(encoding="utf-8"))


def test_a_package_is_refused(tmp_path: Path) -> None:
    (tmp_path / "package.json").write_text("{}", encoding="utf-8")
    with pytest.raises(D2TuneError, match="package"):
        d2tune.write_report(tmp_path)
    with pytest.raises(RunError, match="no run is given"):
        d2tune.write_report()
    with pytest.raises(DataError):
        d2tune.write_report(tmp_path, out=tmp_path)


def test_classical_methods_are_rows_beside_the_run(run_of: Runs, tmp_path: Path) -> None:
    run = copy_of(run_of("semantic"), tmp_path / "crossing")
    data_sha256 = json.loads((run / "evaluation.json").read_text("utf-8"))["data_sha256"]
    low, high = Metric(31.5, low=22.0, high=41.0), Metric(99.0, low=98.0, high=99.5)
    rows = tuple(BaselineRow(name, name, "k 0.2", value, 1.0, {}) for name, value in (("Sauvola", high), ("Otsu", low)))
    write_baseline(BaselineResult(run.parent / "baseline", "mIoU", 6, data_sha256, rows))
    result = d2tune.write_report(run, out=tmp_path / "page.html")
    page = result.path.read_text(encoding="utf-8")
    assert result.problems == () and "classical" in sections(page)
    table = plain(page.split('<section id="classical">')[1].split("</section>")[0])
    assert table.index("Sauvola") < table.index(run.name) < table.index("Otsu")
    assert re.search(r"31\.5\s*22 to 41", table)

    write_baseline(BaselineResult(run.parent / "baseline", "mIoU", 6, "0" * 64, rows))
    changed = d2tune.write_report(run, out=tmp_path / "page.html")
    assert "is of other data than the evaluation of the run" in changed.problems[0]
    assert "classical" not in sections(changed.path.read_text(encoding="utf-8"))
