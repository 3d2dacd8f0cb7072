"""Trainings that end before their last iteration because nothing improves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

import d2tune
from d2tune.engine.hooks.early_stop import EarlyStopping, EndTogether
from d2tune.errors import ProjectError, RunError
from d2tune.project import load_project
from d2tune.runs.overview import summarize
from tests.engine.test_tasks import raster_project
from tests.engine.trainers import climbing


def stopping(values: list[float | None], *, patience: int, min_gain: float = 0.0) -> EarlyStopping:
    """Looks at these values, one after each second iteration."""
    left = iter(values)
    return EarlyStopping(
        patience=patience, min_gain=min_gain, is_due=lambda done: done % 2 == 0, value=lambda: next(left)
    )


@pytest.mark.parametrize(
    ("values", "patience", "min_gain", "ends"),
    [
        ([1, 2, 3, 4, 5], 1, 0.0, 10),
        ([1, 2, 2, 3, 4], 1, 0.0, 6),
        ([1, 3, 2, 3, 4], 2, 0.0, 8),
        ([1, 3, 2, 3.5, 3.6], 2, 0.0, 10),
        ([1, 1.4, 1.8, 2.2, 2.6], 2, 0.5, 10),
        ([1, 1.4, 1.5, 2.2, 2.6], 2, 0.5, 6),
        ([None, None, 1, 1, 1], 2, 0.0, 4),
        ([5, None, 6, None, None], 2, 0.0, 10),
    ],
)
def test_when_training_ends(values: list[float | None], patience: int, min_gain: float, ends: int) -> None:
    trainer = climbing(stopping(values, patience=patience, min_gain=min_gain), EndTogether())
    trainer.train(0, 10)
    assert trainer.completed == trainer.max_iter == ends == trainer.model.weight.item()


def test_a_count_goes_on_where_training_is_resumed(capsys: pytest.CaptureFixture[str]) -> None:
    first = climbing(stopping([3, 2], patience=3), EndTogether())
    first.train(0, 4)
    state = first.checkpoint(4)["trainer"]
    second = climbing(stopping([1, 1], patience=3), EndTogether())
    second.completed = 4
    second.load_state_dict(state)
    second.train(4, 20)
    assert second.completed == 8
    assert "3 evaluations without a gain: training ends after 8 of 20 iterations" in capsys.readouterr().out
    ended = climbing(stopping([], patience=3), EndTogether())
    ended.completed = 8
    ended.load_state_dict(second.checkpoint(8)["trainer"])
    ended.train(8, 20)
    assert ended.completed == ended.max_iter == 8


def of(run: Path) -> dict[str, Any]:
    record: dict[str, Any] = json.loads((run / "record.json").read_text("utf-8"))
    return record


@pytest.mark.slow
@pytest.mark.parametrize("metric", [pytest.param("main", marks=pytest.mark.extended), "loss"])
def test_a_run_that_ends_early(metric: str, tmp_path: Path) -> None:
    project = raster_project(tmp_path, iterations=12)
    early = f"{{patience: 2, min_gain: 1000, metric: {metric}}}"
    options: dict[str, Any] = {"output_dir": tmp_path / "run", "num_gpus": 0}
    overrides = ["train.eval_every=2", f"train.early_stopping={early}"]
    result = d2tune.train(project, overrides=overrides, **options)
    finished = of(result.run)["finished"]
    assert finished["iterations"] == 6 and finished["stopped_early"] is True
    assert result.best_iteration <= 6
    assert summarize(result.run).state == "finished"
    with pytest.raises(RunError) as caught:
        d2tune.train(project, overrides=overrides, resume=True, **options)
    line = caught.value.one_line()
    assert (
        "after 6 of 12 iterations, 2 evaluations had been without a gain" in line
        and "train.early_stopping.patience=0" in line
    )
    d2tune.train(
        project, overrides=["train.eval_every=2", f"train.early_stopping={{metric: {metric}}}"], resume=True, **options
    )
    finished = of(result.run)["finished"]
    assert finished["iterations"] == 12 and "stopped_early" not in finished
    lines = [json.loads(line) for line in (result.run / "metrics.jsonl").read_text("utf-8").splitlines()]
    assert [row["iteration"] for row in lines] == list(range(12))


@pytest.mark.slow
def test_a_run_that_had_patience_left_is_trained_longer(tmp_path: Path) -> None:
    project = raster_project(tmp_path, iterations=2)
    options: dict[str, Any] = {"output_dir": tmp_path / "run", "num_gpus": 0}
    patient = ["train.eval_every=1", "train.early_stopping={patience: 2, min_gain: 1000}"]
    d2tune.train(project, overrides=patient, **options)
    longer = [*patient, "train.iterations=4"]
    d2tune.train(project, overrides=longer, resume=True, **options)
    finished = of(tmp_path / "run")["finished"]
    assert (finished["iterations"], finished["stopped_early"]) == (3, True)
    with pytest.raises(RunError, match="after 3 of 4 iterations, 2 evaluations had been without a gain"):
        d2tune.train(project, overrides=longer, resume=True, **options)


def test_a_loss_that_is_not_computed_cannot_end_a_run(tiny_project: Path) -> None:
    overrides = {"train.early_stopping": {"metric": "loss", "patience": 2}, "train.validation_loss": False}
    with pytest.raises(ProjectError) as caught:
        load_project(tiny_project, overrides=overrides)
    assert "early_stopping.metric is loss, which needs validation_loss: true" in caught.value.one_line()
