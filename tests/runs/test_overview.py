"""The list of all runs, and the removal of old ones, on folders that are written by hand."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from d2tune import run_lock
from d2tune.annotations.io.output_record import PREDICTIONS
from d2tune.annotations.io.outputs import write_output
from d2tune.cli import main
from d2tune.errors import D2TuneError, ProjectError
from d2tune.runs.overview import RunSummary, list_runs, summarize
from d2tune.runs.overview_table import arranged, runs_table
from d2tune.runs.removal import age_s, remove_old
from tests.terminals import Terminal

ROOT = Path(__file__).parents[2]
OLD_RUNS = ROOT / "tests" / "old_runs"


def make(
    name: str = "p/a",
    *,
    ap: float | None = 40.0,
    days_ago: float = 0.0,
    state: str = "finished",
    val: str = "b" * 64,
    weights: str = "detectron2://a.pkl",
) -> Path:
    """A run folder below ``runs`` in the working folder."""
    run = Path("runs") / name
    (run / "checkpoints").mkdir(parents=True)
    moment = (datetime.now().astimezone() - timedelta(days=days_ago)).isoformat()
    record: dict[str, Any] = {
        "d2tune_record": 1,
        "project": run.parent.name,
        "preset": "pointrend_r50_fpn",
        "started": moment,
        "task": "instance",
        "classes": ["x"],
        "data": {"train_sha256": "a" * 64, "val_sha256": val},
        "weights": {"line": "", "source": weights, "from_scratch": False, "rgb_resnet": False},
        "machine": {"precision": "float32"},
        "input": {},
        "durations": {"training_s": 75.0},
        "finished": {"iterations": 100, "time": moment} if state == "finished" else None,
    }
    if state in ("stopped", "failed"):
        record["ended"] = {"state": state, "reason": f"because it {state}", "time": moment}
    (run / "record.json").write_text(json.dumps(record), "utf-8")
    (run / "detectron2.yaml").write_text("SOLVER:\n  MAX_ITER: 200\n", "utf-8")
    (run / "checkpoints" / "model_best.pth").write_bytes(b"0123456789")
    if ap is not None and state == "finished":
        segm = {"AP": {"value": ap, "low": ap - 5, "high": ap + 5, "reason": None}}
        content = {"schema": 2, "task": "instance", "run": "", "data": None, "metrics": {"segm": segm}}
        names = ("data_sha256", "weights", "weights_sha256", "config_sha256", "predictions_sha256")
        (run / "evaluation.json").write_text(json.dumps(content | dict.fromkeys(names, "")), "utf-8")
    elif ap is not None:
        rows = [{"iteration": 49, "time": 0.5}, {"iteration": 99, "val/segm/AP": ap}, {"iteration": 119, "time": 0.5}]
        rows.insert(2, {"iteration": 109, "val/segm/AP": ap - 1})
        text = "".join(json.dumps(row) + "\n" for row in rows)
        (run / "metrics.jsonl").write_text(text + '{"iteration": 120, "ti', "utf-8")
    return run


@pytest.fixture(autouse=True)
def working_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def by_name() -> dict[str, RunSummary]:
    return {run.path.as_posix().removeprefix("runs/"): run for run in list_runs()}


def test_states_and_values_come_from_the_files() -> None:
    make("p/good", ap=41.0, days_ago=3)
    make("p/worse", ap=40.0, days_ago=2)
    make("p/same", ap=41.0, days_ago=4)
    make("p/other_data", ap=10.0, val="c" * 64)
    make("p/stopped", ap=38.0, state="stopped")
    make("q/failed", ap=None, state="failed")
    runs = by_name()
    good = runs["p/good"]
    assert (good.state, good.metric_name, good.metric.value, good.metric.low) == ("finished", "mask AP", 41.0, 36.0)
    assert (good.iterations, good.training_s, good.val_sha256) == (100, 75.0, "b" * 64)
    assert good.size_bytes == sum(path.stat().st_size for path in good.path.rglob("*") if path.is_file())
    assert [name for name, run in runs.items() if run.is_best] == ["p/other_data", "p/good"], "each on its own data"
    stopped = runs["p/stopped"]
    assert (stopped.state, stopped.note, stopped.iterations) == ("stopped", "because it stopped", 120)
    assert (stopped.metric.value, stopped.metric.low, stopped.best_iteration) == (38.0, None, 100)
    assert (runs["q/failed"].state, runs["q/failed"].metric) == ("failed", None)
    assert [run.path.name for run in list_runs()][-3:] == ["worse", "good", "same"], "the newest is first"


HOLD = """
import sys
from pathlib import Path
from d2tune.run_lock import locked, note
with locked(Path(sys.argv[1])):
    note(Path(sys.argv[1]), "evaluating after 100 iterations")
    print("held", flush=True)
    sys.stdin.readline()
"""


def test_a_running_one_is_known_by_its_lock_and_a_killed_one_by_what_it_left() -> None:
    run = make(ap=38.0, state="running")
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        for _ in range(2):  # looking at the lock does not free it
            summary = summarize(run)
            assert (summary.state, summary.note) == ("running", "evaluating after 100 iterations")
        assert summary.left_s == 80 * 0.5 and summary.training_s is not None and summary.training_s < 60
        assert "120/200 (60 %)" in runs_table([summary]) and "iterations, 40 s left" in runs_table([summary])
        process.send_signal(signal.SIGKILL)
    killed = summarize(run)
    assert killed.state == "failed" and killed.note.startswith(f"process {process.pid} on ")
    assert killed.note.endswith(" was killed while evaluating after 100 iterations")


def test_the_process_that_trains_can_list_its_own_run() -> None:
    run = make(ap=None, state="running")
    with run_lock.locked(run):
        assert summarize(run).note == "starting"
        with run_lock.doing(run, "evaluating"):
            assert summarize(run).note == "evaluating"
        assert summarize(run).note == "starting"
        code = f"from d2tune.run_lock import *; from pathlib import Path; print(holder_of(Path({str(run)!r})).pid)"
        other = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
        assert int(other.stdout) == os.getpid(), "it has the lock still"
    assert summarize(run).state == "failed" and run_lock.note(run, "x") == ""


DAMAGED = {
    "empty": (b"", "the file is empty"),
    "cut": (b'{"d2tune_record": 1, "proj', "cannot be read"),
    "list": (b"[]", "is not a JSON object"),
    "nested": (b"[" * 100_000, "cannot be read"),
    "later": (b'{"d2tune_record": 99, "project": "p"}', "written by a later version"),
    "keys": (b'{"d2tune_record": 1, "project": "p", "data": 3}', "the entry is missing"),
}


@pytest.mark.parametrize(("content", "problem"), DAMAGED.values(), ids=DAMAGED)
def test_a_damaged_record_is_a_line(content: bytes, problem: str, capsys: pytest.CaptureFixture[str]) -> None:
    make("p/good")
    (make("p/bad") / "record.json").write_bytes(content)
    (make("p/missing") / "record.json").unlink()
    runs = by_name()
    assert runs["p/bad"].state == "damaged" and problem in runs["p/bad"].note
    assert runs["p/bad"].note.startswith("record.json: ") and runs["p/missing"].note == "record.json is missing"
    assert runs["p/good"].state == "finished"
    assert main(["runs"]) == 0
    shown = capsys.readouterr().out
    assert problem in shown and "3 runs (1 finished, 2 damaged)" in shown


@pytest.mark.parametrize(
    ("content", "note"),
    [
        (None, "evaluation.json is missing"),
        (b"{}", "evaluation.json: task: the entry is missing"),
        (b"\xff", "evaluation.json: the evaluation cannot be read"),
    ],
)
def test_a_damaged_evaluation_is_a_note(content: bytes | None, note: str) -> None:
    run = make()
    if content is None:
        (run / "evaluation.json").unlink()
    else:
        (run / "evaluation.json").write_bytes(content)
    assert summarize(run).note.startswith(note) and summarize(run).metric is None


def test_odd_values_of_a_record_are_ignored() -> None:
    run = make()
    content = json.loads((run / "record.json").read_bytes())
    odd = {"started": 5, "durations": None, "finished": {"iterations": 3, "time": "yesterday"}, "best": None}
    (run / "record.json").write_text(json.dumps(content | odd | {"ended": ["x"], "resumed": 3}), "utf-8")
    (run / "metrics.jsonl").write_text('3\n{"iteration": "x"}\nnull\n[1]\n{"iteration": 7}\n', "utf-8")
    summary = summarize(run)
    assert (summary.state, summary.iterations, summary.started) == ("finished", 8, None)
    assert runs_table([summary]).count("\n") == 4


def test_a_line_about_the_finished_run_is_not_an_iteration_more() -> None:
    """Results of the end are logged under the number of all iterations, which counts from 0."""
    run = make(ap=38.0, state="stopped")
    with (run / "metrics.jsonl").open("a", encoding="utf-8") as stream:
        stream.write('\n{"iteration": 200, "val/segm/AP": 37.0}\n')
    assert summarize(run).iterations == 200


def test_runs_of_an_earlier_version() -> None:
    for name, metric in (("instance", "mask AP"), ("semantic", "mIoU")):
        evaluation = json.loads((OLD_RUNS / name / "evaluation.json").read_bytes())
        kind, key = {"mask AP": ("segm", "AP"), "mIoU": ("semantic", "mIoU")}[metric]
        summary = summarize(OLD_RUNS / name)
        assert (summary.state, summary.note, summary.metric_name) == ("finished", "", metric)
        assert summary.metric is not None and summary.metric.value == evaluation["metrics"][kind][key]["value"]


def test_order_and_filters() -> None:
    make("p/low", ap=10.0, days_ago=1)
    make("p/high", ap=30.0, days_ago=3, val="c" * 64)
    make("p/none", ap=None, days_ago=2, state="stopped")
    runs = list_runs()

    def names(**options: Any) -> list[str]:
        return [run.name for run in arranged(runs, **options)]

    assert names() == ["low", "none", "high"]
    assert names(sort="metric") == ["high", "low", "none"]
    assert names(sort="metric", reverse=True) == ["none", "low", "high"]
    assert names(sort="state")[-1] == "none" and names(sort="state", reverse=True)[0] == "none"
    assert names(states=["stopped"]) == ["none"] and names(data="CCC") == ["high"]
    assert names(data="a", last=1) == ["low"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("runs missing", "missing: the project has no runs; expected a project with runs, or a folder. Projects with"),
        ("runs pp", "Did you mean 'p'?"),
        ("runs --sort metrc", "--sort: is not valid; found metrc; expected started, metric"),
        ("runs --state done", "--state: is not valid; found done; expected running, finished"),
        ("runs --last 0", "--last: must be 1 or more; found 0"),
        ("runs --watch 0", "--watch: must be between 0.2 and 86400; found 0"),
        ("runs a b", "one project can be named; found a b"),
        ("runs --older-than 3d", "--older-than goes with rm. Use `d2tune runs rm"),
        ("runs rm", "--older-than is missing; expected an age such as 12h, 30d or 2w"),
        ("runs rm --older-than soon", "--older-than: is not valid; found 'soon'; expected a number of hours"),
        ("runs rm --older-than 3d --sort size", "--sort does not go with rm. Remove it."),
        ("runs rm --older-than 3d --watch", "--watch does not go with rm"),
    ],
)
def test_mistakes_are_a_line(words: str, message: str, capsys: pytest.CaptureFixture[str]) -> None:
    make()
    assert main(words.split()) == 1
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_without_a_folder_of_runs(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["runs"]) == 1
    assert "runs: there are no runs: the folder does not exist. Train a project" in capsys.readouterr().err
    Path("runs").mkdir()
    assert main(["runs"]) == 0 and "0 runs" in capsys.readouterr().out


def test_json_has_everything(capsys: pytest.CaptureFixture[str]) -> None:
    make(ap=41.0)
    Path("p.yaml").write_text("name: p\ndata: {root: x}\nclasses: [x]\n", "utf-8")
    for project in ("p", "p.yaml", "runs/p", "runs/p/a"):
        assert main(["runs", project, "--json"]) == 0
        (row,) = json.loads(capsys.readouterr().out)
        assert (row["path"], row["metric"]["low"], row["is_best"]) == (str(Path("runs/p/a")), 36.0, True)
        assert datetime.fromisoformat(row["started"]).tzinfo is not None


def test_a_narrow_terminal_gets_fewer_columns() -> None:
    make("p/a" + "b" * 20)
    make("p/c", state="failed", ap=None)
    runs = list_runs()
    wide = runs_table(runs)
    for width in range(92, 200):
        table = runs_table(runs, width=width).partition("\n\n")[0]
        assert max(map(len, table.splitlines())) <= width, width
    assert "train data" in wide and "train data" not in runs_table(runs, width=120)
    assert "because it failed" in wide


def test_names_have_no_control_characters() -> None:
    make("p/x\x1b[2Jy")
    assert r"x\x1b[2Jy" in runs_table(list_runs()) and "\x1b" not in runs_table(list_runs())


@pytest.mark.parametrize(("text", "seconds"), [("12h", 43_200), ("1.5 d", 129_600), ("2W", 1_209_600)])
def test_ages(text: str, seconds: float) -> None:
    assert age_s(text) == seconds
    with pytest.raises(ProjectError):
        age_s(f"-{text}")


def test_old_runs_are_removed_after_a_dry_run(capsys: pytest.CaptureFixture[str]) -> None:
    make("p/best", ap=50.0, days_ago=40)
    make("p/old", ap=40.0, days_ago=40)
    make("p/young", ap=40.0, days_ago=20)
    make("q/only", ap=None, days_ago=40, state="failed")
    make("q/older", ap=None, days_ago=50, state="failed")
    assert main(["runs", "rm", "--older-than", "30d"]) == 0
    dry = capsys.readouterr().out
    assert "nothing was removed yet. Add --yes" in dry and dry.count("would be removed") == 3
    assert len(list_runs()) == 5
    assert main(["runs", "rm", "p", "--older-than", "30d", "--yes"]) == 0
    assert "kept: the best of its project" in capsys.readouterr().out
    assert sorted(by_name()) == ["p/best", "p/young", "q/older", "q/only"]
    assert main(["runs", "rm", "--older-than", "30d", "--yes", "--json"]) == 0
    kept = {Path(row["path"]).name: row["kept"] for row in json.loads(capsys.readouterr().out)["runs"]}
    assert kept == {
        "best": "the best of its project",
        "only": "the newest of a project without a metric",
        "older": None,
    }
    assert sorted(path.name for path in Path("runs/q").iterdir()) == ["only"]


def reasons(age: str = "1d") -> dict[str, str | None]:
    return {one.run.name: one.kept for one in remove_old(age).candidates}


def test_what_others_point_to_is_kept() -> None:
    make("p/best", ap=90.0, days_ago=9)
    for name in ("start", "loop", "linked", "named", "chained", "free"):
        make(f"p/{name}", ap=1.0, days_ago=9)
    make("p/next", ap=2.0, weights=str(Path("runs/p/start/checkpoints/model_best.pth").resolve()))
    Path("labels").mkdir()
    Path("runs/label_loops").mkdir()
    loop = {"label_loop": 1, "rounds": [{"number": 1, "model": str(Path("runs/p/loop").resolve())}]}
    Path("runs/label_loops/label_loop.json").write_text(json.dumps(loop), "utf-8")
    Path("runs/p/latest").symlink_to("linked", target_is_directory=True)
    Path("projects").mkdir()
    Path("projects/more.yaml").write_text("weights: ../runs/p/named/checkpoints/model_best.pth\n", "utf-8")
    Path("runs/p/chained/own.txt").symlink_to("record.json")
    kept = reasons()
    assert kept["start"] == f"{Path('runs/p/next')} points to it"
    assert kept["loop"] == f"{Path('runs/label_loops/label_loop.json')} points to it"
    assert kept["linked"] == f"{Path('runs/p/latest')} points to it"
    assert kept["named"] == f"{Path('projects/more.yaml')} points to it"
    assert kept["free"] is None and kept["best"] == "the best of its project"


def test_running_damaged_and_edited_runs_are_kept() -> None:
    make("p/best", ap=90.0, days_ago=9)
    for name in ("busy", "bad", "notes", "corrected", "predicted", "card"):
        make(f"p/{name}", ap=1.0, days_ago=9)
    Path("runs/p/bad/record.json").write_bytes(b"{")
    os.utime("runs/p/bad/record.json", (0, 0))
    Path("runs/p/notes/notes.txt").write_text("mine", "utf-8")
    Path("runs/p/card/MODEL_CARD.md").write_text("mine", "utf-8")
    for name in ("corrected", "predicted"):
        folder = Path("runs/p") / name / "predictions"
        folder.mkdir()
        write_output(folder / "a.json", b"{}", kind=PREDICTIONS)
    Path("runs/p/corrected/predictions/a.json").write_text('{"corrected": 1}', "utf-8")
    with run_lock.locked(Path("runs/p/busy")):
        kept = reasons()
    assert kept["busy"] == "it runs" and kept["predicted"] is None
    assert kept["bad"] is not None and kept["bad"].startswith("its value is not known: record.json")
    assert kept["notes"] == "1 file not written by d2tune, or changed since, such as notes.txt"
    assert kept["corrected"] is not None and kept["corrected"].endswith(f"such as {Path('predictions/a.json')}")
    assert kept["card"] is not None and kept["card"].endswith("such as MODEL_CARD.md")


def test_a_run_that_starts_meanwhile_is_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    """Between the list and the removal another process resumes the run."""
    make("p/best", ap=90.0, days_ago=9)
    run = make("p/a", ap=1.0, days_ago=9)
    command = [sys.executable, "-c", HOLD, str(run)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None and process.stdout.readline() == "held\n"
        monkeypatch.setattr("d2tune.runs.overview.holder_of", lambda folder: None)
        (candidate,) = [one for one in remove_old("1d", remove=True).candidates if one.run.name == "a"]
        assert candidate.kept is not None and candidate.kept.startswith("cannot be removed: the run folder is in use")
        process.communicate("\n")
    assert run.is_dir()


def test_the_best_with_weights_is_kept_where_the_best_has_lost_its_own() -> None:
    make("p/best", ap=90.0, days_ago=9)
    make("p/second", ap=80.0, days_ago=9)
    make("p/third", ap=70.0, days_ago=9)
    Path("runs/p/best/checkpoints/model_best.pth").unlink()
    assert reasons() == {
        "best": "the best of its project",
        "second": "the best of its project",
        "third": None,
    }


def test_watching_repaints_until_it_is_stopped() -> None:
    run = make(ap=38.0, state="stopped")
    terminal = Terminal(columns=120, rows=20)
    environment = os.environ | {"TERM": "xterm-256color", "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "d2tune", "runs", "--watch", "0.2"]
    watching = subprocess.Popen(command, stdout=terminal.stream, stderr=terminal.stream, env=environment)

    def until(what: str) -> None:
        began_s = time.monotonic()
        while not any(what in line for line in terminal.lines):
            assert time.monotonic() - began_s < 60, terminal.lines
            terminal.read(0.1)

    until("1 run (1 stopped)")
    shutil.copytree(run, run.with_name("b"))
    until("2 runs (2 stopped)")
    assert sum("runs/p/a" in line for line in terminal.lines) == 1
    watching.send_signal(signal.SIGINT)
    assert watching.wait(60) == 0
    assert len([line for line in terminal.lines if line]) == 5, "header, rule, two runs and their number"
    terminal.close()


def test_the_function_of_python() -> None:
    from d2tune import api

    make()
    assert [run.name for run in api.runs()] == ["a"]
    with pytest.raises(D2TuneError, match="the path is empty"):
        api.runs("")
    assert not api.remove_runs("1d").candidates
