"""All loggers record the same training, which fails and is resumed, with real files."""

from __future__ import annotations

import json
import statistics
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from detectron2.engine import HookBase
from detectron2.utils.events import get_event_storage

from d2tune.engine.hooks.feed_loggers import FeedLoggers
from d2tune.engine.logbook import Logbook
from d2tune.loggers import Logger, RunInfo
from d2tune.loggers.base import LoggedFile
from d2tune.loggers.exhibits import Chart, Gallery
from d2tune.loggers.json_lines import JsonLines
from d2tune.loggers.mlflow import Mlflow
from d2tune.loggers.tensorboard import TensorBoard
from d2tune.loggers.trackio import Trackio
from d2tune.loggers.wandb import Wandb
from d2tune.report.labeled_image import LabeledPrediction, encode_labels, labeled_image
from d2tune.run_folder import RunFolder
from tests.engine.trainers import Climbing, trainer_of
from tests.loggers.read_back import (
    Record,
    read_json_lines,
    read_mlflow,
    read_tensorboard,
    read_trackio,
    read_wandb,
)

CASES = [
    (JsonLines, read_json_lines),
    (TensorBoard, read_tensorboard),
    (Wandb, read_wandb),
    (Mlflow, read_mlflow),
    (Trackio, read_trackio),
]
FORGETFUL = (JsonLines, TensorBoard)
"""Those that remove what an earlier start has logged of iterations that are trained again; the others keep it."""
ITERATIONS, SAVED, FAILED = 10, 4, 6
SHEET = np.random.default_rng(0).integers(0, 256, (3, 40, 60), dtype=np.uint8)


class Scores(HookBase):
    """What evaluation and a model's own images leave in the storage; fails in one iteration."""

    def __init__(self, fail_at: int | None = None) -> None:
        self._fail_at = fail_at

    def after_step(self) -> None:
        iteration, storage = self.trainer.iter, get_event_storage()
        if iteration % 5 == 4:
            storage.put_scalar("val/score", 10 + iteration, smoothing_hint=False)
        if iteration == 7:
            storage.put_image("input", torch.full((3, 8, 6), 0.5))
        if iteration == self._fail_at:
            raise RuntimeError("a power cut")

    def after_train(self) -> None:
        if self.trainer.resumable:
            get_event_storage().put_image("sheet", SHEET)


class Losses(HookBase):
    """Notes the loss of each step: minus the weight before it."""

    def __init__(self) -> None:
        self.values: list[float] = []

    def before_step(self) -> None:
        self.values.append(-self.trainer.model.weight.item())


def run_info(folder: Path, *, first_iteration: int) -> RunInfo:
    return RunInfo("circles", RunFolder(folder), {"train": {"iterations": ITERATIONS}}, first_iteration)


def train(folder: Path, *loggers: Logger, start: int = 0, fail_at: int | None = None) -> list[float]:
    """Train from ``start`` on and return the losses."""
    losses = Losses()
    feed = FeedLoggers(loggers, run_info(folder, first_iteration=start), period=3)
    trainer = trainer_of(Climbing(), losses, Scores(fail_at), feed, start=start)
    try:
        trainer.train(start, ITERATIONS)
    except RuntimeError:
        assert fail_at is not None
    return losses.values


@pytest.fixture(scope="session", autouse=True)
def trackio_folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """trackio reads the place of its database once in a process."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TRACKIO_DIR", str(tmp_path_factory.mktemp("trackio")))
        yield


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    path = tmp_path / "runs" / "circles" / "first"
    RunFolder(path).update_record({"project": "circles"})
    return path


@pytest.mark.parametrize(("logger", "read"), CASES, ids=[logger.__name__ for logger, _ in CASES])
def test_a_training_that_fails_and_is_resumed(
    logger: type[Logger], read: Callable[[Path], Record], folder: Path
) -> None:
    first = train(folder, logger(), fail_at=FAILED)
    assert len(first) == FAILED + 1
    second = train(folder, logger(), start=SAVED)
    record = read(folder)

    def loss(losses: list[float], count: int) -> float:
        return statistics.median(losses[:count]) if logger.window > 1 else losses[count - 1]

    # of the first start iteration 2 and, for loggers that can forget, not 5 and 6, which come after the checkpoint
    expected = {2: loss(first, 3), 5: loss(second, 2), 8: loss(second, 5), 9: loss(second, 6)}
    if logger not in FORGETFUL:
        expected |= {5: loss(first, 6), 6: loss(first, 7)}
    logged = {iteration: row["total_loss"] for iteration, row in record.scalars.items() if "total_loss" in row}
    assert logged == pytest.approx(expected)
    scores = {iteration: row["val/score"] for iteration, row in record.scalars.items() if "val/score" in row}
    assert scores == {4: 14, 9: 19}
    assert {name for row in record.scalars.values() for name in row} == {"total_loss", "data_time", "val/score"}
    if logger is JsonLines:
        assert not record.images
        return
    assert {iteration: list(row) for iteration, row in record.images.items()} == {7: ["input"], ITERATIONS: ["sheet"]}
    assert (record.images[7]["input"] == 127).all() and record.images[7]["input"].shape == (8, 6, 3)
    assert np.array_equal(record.images[ITERATIONS]["sheet"], SHEET.transpose(1, 2, 0))


def gallery() -> Gallery:
    """Two images, gray with a brighter square that is annotated; the prediction of the second is empty."""
    images = []
    for number, name in enumerate(["good.jpg", "bad.jpg"]):
        pixels = np.full((40, 60, 3), 60 + 40 * number, np.uint8)
        truth = np.zeros((40, 60), np.uint8)
        pixels[10:30, 10:40], truth[10:30, 10:40] = 250, 1
        images.append(labeled_image(name, pixels, truth))
    predicted = np.zeros((40, 60), np.uint8)
    empty = encode_labels(predicted, (60, 40))
    predicted[10:30, 10:40] = 1
    good = LabeledPrediction(encode_labels(predicted, (60, 40)), 100.0, 1, 1)
    return Gallery("split", ("cat",), [(images[1], LabeledPrediction(empty, 0.0, 1, 0)), (images[0], good)], images)


PLOT = np.full((30, 50, 3), 200, np.uint8)
CHARTS = {
    "evaluation/classes": Chart("bars", "AP of each class", ("class", "AP"), [("cat", 50.0)], PLOT),
    "evaluation/precision_recall": Chart(
        "curves",
        "precision, recall",
        ("class", "recall", "precision"),
        [("cat", 0.0, 1.0), ("cat", 1.0, 0.5)],
        PLOT,
    ),
    "evaluation/confusion": Chart(
        "matrix", "confusion", ("annotated", "predicted", "count"), [("cat", "cat", 3), ("cat", "background", 1)], PLOT
    ),
}


@pytest.mark.parametrize(("logger", "read"), CASES[1:], ids=[logger.__name__ for logger, _ in CASES[1:]])
def test_charts_galleries_files_and_settings_have_the_same_names(
    logger: type[Logger], read: Callable[[Path], Record], folder: Path
) -> None:
    RunFolder(folder).update_record({"machine": {"cores": 2}, "durations": None})
    (folder / "model_best.pth").write_bytes(b"weights")
    logbook = Logbook(takes_galleries=True)

    class Evaluation(HookBase):
        def after_step(self) -> None:
            if self.trainer.iter == 1:
                logbook.put_scalars({"evaluation/segm/AP below 59 px": 12.5}, iteration=1)
                logbook.put_images({**CHARTS, "predictions": gallery()}, iteration=1)
                file = LoggedFile(folder / "model_best.pth", "model_best", "model", ("best",), {"score": 1.5})
                logbook.put_file(file, iteration=1)

    feed = FeedLoggers([logger()], run_info(folder, first_iteration=0), period=2, logbook=logbook)
    trainer_of(Climbing(), Evaluation(), feed).train(0, 2)
    record = read(folder)
    assert record.scalars[1]["evaluation/segm/AP below 59 px"] == 12.5
    assert set(record.images[1]) == {*CHARTS, "predictions"}
    assert record.files["model_best"] == ["best"]
    assert record.config["train"] == {"iterations": ITERATIONS}
    assert record.config["record"] == {"machine": {"cores": 2}}
    if logger is Wandb:
        return  # which has the numbers and the masks instead, see test_wandb.py
    assert all(np.array_equal(record.images[1][name], PLOT) for name in CHARTS)
    sheet = record.images[1]["predictions"]
    # the worst image comes first, with its annotated mask on the left and nothing on the right
    left, right = sheet[26:306, :420], sheet[26:306, 428:848]
    assert np.ptp(right[100], axis=0).max() > 100 and (right[100] == right[100, :, :1]).all()
    assert (left[100] != left[100, :, :1]).any()


def test_wandb_goes_on_with_its_id_and_knows_the_project(folder: Path) -> None:
    for start in (0, SAVED):
        wandb = Wandb()
        wandb.start(run_info(folder, first_iteration=start))
        wandb.log({"lr": 0.5}, iteration=start)
        wandb.finish()
    first, second = sorted((folder / "wandb").glob("offline-run-*"))
    run_id = RunFolder(folder).record_entries()["wandb_id"]
    assert f"-{run_id}" in first.name and f"-{run_id}" in second.name
    content = next(first.glob("*.wandb")).read_bytes()
    assert b"d2tune-circles" in content and b"iterations" in content


def test_json_lines_are_detectron2s(folder: Path) -> None:
    """The same bytes as its ``JSONWriter`` wrote them, which d2tune used before."""
    from detectron2.engine import hooks
    from detectron2.utils.events import JSONWriter

    folder.mkdir(parents=True, exist_ok=True)
    reference = hooks.PeriodicWriter([JSONWriter(str(folder / "reference.jsonl"))], period=3)
    feed = FeedLoggers([JsonLines()], run_info(folder, first_iteration=0), period=3)
    trainer_of(Climbing(), Scores(), reference, feed).train(0, ITERATIONS)
    ours, theirs = ((folder / name).read_bytes().splitlines() for name in ("metrics.jsonl", "reference.jsonl"))
    assert sorted(ours) == sorted(theirs) and len(ours) == 5
    assert [json.loads(line)["iteration"] for line in ours] == [2, 4, 5, 8, 9]


@pytest.mark.parametrize("ending", ["", "\n", '{"iteration": 1, "lr": 0.', "no JSON\n", "[1]\n"])
def test_json_lines_of_a_resumed_run_keep_what_is_whole_and_earlier(folder: Path, ending: str) -> None:
    early = '{"iteration": 0, "lr": 0.25}\n{"iteration": 1, "lr": 0.5}\n'
    (folder / "metrics.jsonl").write_text(early + '{"iteration": 2, "lr": 0.75}\n' + ending, encoding="utf-8")
    logger = JsonLines()
    logger.start(run_info(folder, first_iteration=2))
    logger.log({"lr": 1.0}, iteration=2)
    logger.finish()
    assert (folder / "metrics.jsonl").read_text("utf-8") == early + '{"iteration": 2, "lr": 1.0}\n'


class Memory(Logger):
    """Notes its calls."""

    def __init__(self, calls: list[Any], *, fail_in: str = "") -> None:
        self._calls = calls
        self._fail_in = fail_in

    def _note(self, *call: Any) -> None:
        self._calls.append(call)
        if call[0] == self._fail_in:
            raise OSError(f"{call[0]} failed")

    def start(self, run: RunInfo) -> None:
        self._note("start", run.project, run.first_iteration)

    def log(self, scalars: Any, *, iteration: int) -> None:
        self._note("log", iteration, scalars["total_loss"])

    def log_images(self, images: Any, *, iteration: int) -> None:
        self._note("log_images", iteration, sorted(images))

    def finish(self) -> None:
        self._note("finish")


class Latest(Memory):
    window = 1


def test_each_logger_has_its_own_window_and_all_have_the_same_calls(tmp_path: Path) -> None:
    median: list[Any] = []
    latest: list[Any] = []
    feed = FeedLoggers([Memory(median), Latest(latest)], run_info(tmp_path, first_iteration=0), period=2)
    trainer_of(Climbing(), feed).train(0, 4)
    assert median == [("start", "circles", 0), ("log", 1, -0.5), ("log", 3, -1.5), ("finish",)]
    assert latest == [("start", "circles", 0), ("log", 1, -1.0), ("log", 3, -3.0), ("finish",)]


@pytest.mark.parametrize(
    ("fail_in", "expected"),
    [("start", ["start"]), ("log", ["start", "log", "finish"]), ("finish", ["start", "log", "finish"])],
)
def test_every_logger_that_was_started_is_finished(tmp_path: Path, fail_in: str, expected: list[str]) -> None:
    failing: list[Any] = []
    others: list[list[Any]] = [[], []]
    loggers = [Memory(others[0]), Memory(failing, fail_in=fail_in), Memory(others[1])]
    feed = FeedLoggers(loggers, run_info(tmp_path, first_iteration=0), period=1)
    with pytest.raises(OSError, match=f"{fail_in} failed"):
        trainer_of(Climbing(), feed).train(0, 1)
    assert [call[0] for call in failing] == expected
    events = [[call[0] for call in calls] for calls in others]
    assert events[0] == (["start", "finish"] if fail_in == "start" else ["start", "log", "finish"])
    assert events[1] == {"start": [], "log": ["start", "finish"], "finish": ["start", "log", "finish"]}[fail_in]


def test_histograms_are_dropped_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    class Weights(HookBase):
        def after_step(self) -> None:
            get_event_storage().put_histogram("weights", torch.rand(5))

    feed = FeedLoggers([JsonLines()], run_info(tmp_path, first_iteration=0), period=2)
    trainer = trainer_of(Climbing(), Weights(), feed)
    trainer.train(0, 4)
    assert caplog.text.count("histograms are not logged: weights") == 2
    assert trainer.storage._histograms == []
