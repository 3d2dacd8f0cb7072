"""Trainings in processes of their own that are killed, stopped, started twice, or lose the reader of their output."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from d2tune.runs.overview import summarize
from tests.engine.test_tasks import raster_project
from tests.system.commands import TRAIN_NET, d2tune_here, refused, succeeded, train_net

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("without_plots")]

WORDS = ("--config", "rasters.yaml", "train.eval_every=12", "SOLVER.EMA_DECAY=0.9", "train.workers=1")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("interrupted")
    raster_project(folder, iterations=30)
    return folder


@pytest.fixture(scope="module")
def straight(folder: Path) -> Path:
    """A run that nothing interrupted."""
    succeeded(d2tune_here("train", *WORDS, "--output-dir", "straight", folder=folder))
    return folder / "straight"


def started(folder: Path, *words: str, **options: object) -> subprocess.Popen[str]:
    """A training as the leader of a process group of its own."""
    command = [sys.executable, str(TRAIN_NET), *WORDS, *words]
    chosen = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | options
    return subprocess.Popen(command, cwd=folder, text=True, start_new_session=True, **chosen)  # type: ignore[call-overload,no-any-return]


def wait_for(condition: Callable[[], bool], process: subprocess.Popen[str], *, timeout_s: float = 120) -> None:
    end_s = time.monotonic() + timeout_s
    while not condition():
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < end_s
        time.sleep(0.005)


def lines_of(run: Path) -> list[int]:
    file = run / "metrics.jsonl"
    return [json.loads(line)["iteration"] for line in file.read_text("utf-8").splitlines()] if file.is_file() else []


def assert_same(run: Path, other: Path) -> None:
    for name in ("model_best.pth", "model_final.pth"):
        a, b = (torch.load(one / "checkpoints" / name, weights_only=True)["model"] for one in (run, other))
        assert all(torch.equal(value, b[key]) for key, value in a.items()), name
    metrics = [json.loads((one / "evaluation.json").read_text("utf-8"))["metrics"] for one in (run, other)]
    assert metrics[0] == metrics[1] and lines_of(other) == lines_of(run) == list(range(30))


def steps_of_tensorboard(run: Path) -> list[int]:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    events = EventAccumulator(str(run / "tensorboard"))
    events.Reload()
    return [event.step for event in events.Scalars("total_loss")]


@pytest.mark.parametrize("number", [signal.SIGTERM, pytest.param(signal.SIGHUP, marks=pytest.mark.extended)])
def test_a_signal_to_all_processes_of_a_training_stops_it_like_ctrl_c(
    number: signal.Signals, folder: Path, straight: Path
) -> None:
    """As `timeout`, Slurm and a closed terminal send it, also to the processes that load images."""
    run = folder / f"stopped_{number.name}"
    process = started(folder, "--output-dir", run.name)
    wait_for(lambda: len(lines_of(run)) >= 3, process)
    os.killpg(process.pid, number)
    out, err = process.communicate(timeout=120)
    completed = torch.load(run / "checkpoints" / "last.pth", weights_only=True)["trainer"]["iteration"]
    assert process.returncode == 130 and 3 <= completed < 30
    assert f"Stopped after {completed} iterations" in out and "Traceback" not in err + out
    assert not (run / ".lock").exists()
    stopped = summarize(run)
    assert (stopped.state, stopped.note, stopped.iterations) == ("stopped", "stopped by a signal", completed)
    succeeded(d2tune_here("train", *WORDS, "--output-dir", run.name, "--resume", folder=folder))
    assert_same(straight, run)
    assert summarize(run).state == "finished" and (run / "MODEL_CARD.md").is_file()


@pytest.mark.extended
def test_a_run_that_is_alive_is_not_resumed_and_a_killed_one_is_at_once(folder: Path, straight: Path) -> None:
    run = folder / "alive"
    process = started(folder, "--output-dir", run.name)
    wait_for((run / "checkpoints" / "last.pth").exists, process)
    os.killpg(process.pid, signal.SIGSTOP)
    line = refused(train_net(*WORDS, "--output-dir", run.name, "--resume", folder=folder))
    assert f"alive: the run folder is in use by process {process.pid} on " in line
    process.kill()  # the process that loads images is left behind, and must not hold the lock
    process.wait()
    succeeded(train_net(*WORDS, "--output-dir", run.name, "--resume", folder=folder))
    assert_same(straight, run)


@pytest.mark.extended
def test_a_kill_in_the_end_is_made_good(folder: Path, straight: Path) -> None:
    run = folder / "killed"
    process = started(folder, "--output-dir", run.name)
    wait_for((run / "checkpoints" / "model_final.pth").exists, process)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (run / "contact_sheet.png").exists()
    killed = summarize(run)
    assert killed.state == "failed" and killed.note.endswith("was killed while evaluating the best weights")
    out = succeeded(train_net(*WORDS, "--output-dir", run.name, "--resume", folder=folder))
    assert "after 30 iterations" in out and out.rstrip().splitlines()[-1].startswith("On ")
    assert_same(straight, run)
    assert steps_of_tensorboard(run) == list(range(30))
    line = refused(train_net(*WORDS, "--output-dir", run.name, "--resume", folder=folder))
    assert "the run is complete with 30 iterations" in line
    assert not list(run.rglob(".*.tmp"))


@pytest.mark.extended
def test_a_reader_that_goes_away_stops_nothing(folder: Path, straight: Path) -> None:
    process = started(folder, "--output-dir", "unread")
    assert process.stdout is not None and process.stderr is not None
    process.stdout.readline()
    process.stdout.close()
    process.stderr.close()
    assert process.wait(timeout=300) == 0
    assert_same(straight, folder / "unread")
