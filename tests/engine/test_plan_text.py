"""What the plan says of the length, the evaluations and the time of a run."""

from __future__ import annotations

import random
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2tune.engine.cost import Cost, measure_evaluation
from d2tune.engine.plan import TrainingPlan, make_plan
from d2tune.engine.plan_text import plan_text
from d2tune.engine.process import seeded_model
from d2tune.project import evaluations, load_project
from d2tune.tasks import task_of


def planned(project: Path, words: dict[str, object]) -> TrainingPlan:
    overrides = {"train.iterations": None, "train.eval_every": "auto"} | words
    return make_plan(load_project(project, overrides=overrides), num_gpus=0, sample=False)[0]


def text_of(plan: TrainingPlan, cost: Cost | None = None, *, start: int = 0) -> str:
    return plan_text(plan, folder=Path("run"), report=None, cost=cost, start=start)


def test_the_reason_for_a_length_is_on_the_line_of_the_schedule(tiny_project: Path) -> None:
    text = text_of(planned(tiny_project, {"train.batch_size": 4}))
    reason = "chosen by the number of images: 24 epochs of 16 images would be 96, too few"
    assert f"260 iterations of 4 images (65.0 epochs; {reason})" in text
    assert "warning" not in text


@pytest.mark.parametrize("words", [{"train.iterations": 96}, {"train.epochs": 24}])
def test_a_run_that_is_too_short_for_its_data(tiny_project: Path, words: dict[str, object]) -> None:
    text = text_of(planned(tiny_project, words | {"train.batch_size": 4}))
    assert "96 iterations of 4 images (24.0 epochs), " in text
    assert "warning: 96 iterations (24.0 epochs) are too few for 16 images; 260 or more are recommended" in text
    assert "train.iterations=260" in text


def test_a_run_that_goes_on_with_another_is_not_too_short(tiny_project: Path, tmp_path: Path) -> None:
    plan = planned(tiny_project, {"train.iterations": 12})
    (tmp_path / "record.json").write_text('{"continues": "runs/mine/one"}', encoding="utf-8")
    assert "too few" not in plan_text(plan, folder=tmp_path, report=None, cost=None, start=0)


def test_a_run_of_one_iteration_and_one_image_a_step(tiny_project: Path) -> None:
    text = text_of(planned(tiny_project, {"train.iterations": 1, "train.batch_size": 1}))
    assert "1 iterations of 1 image (" not in text and "1 iteration of 1 image (" in text
    assert "warning: 1 iteration (0.1 epochs) is too few" in text


def test_a_training_that_cannot_end_early(tiny_project: Path) -> None:
    words = {"train.iterations": 260, "train.batch_size": 4}
    late = "warning: this training cannot end early: 5 evaluations are too few for a patience of 4; train.eval_every=43"
    assert late in text_of(planned(tiny_project, words | {"train.early_stopping.patience": 4}))
    for enough in ({"train.early_stopping.patience": 3}, {"train.early_stopping.patience": 4, "train.eval_every": 43}):
        assert "warning" not in text_of(planned(tiny_project, words | enough))


def test_the_estimate_includes_evaluations(tiny_project: Path) -> None:
    plan = planned(tiny_project, {"train.iterations": 260})
    text = text_of(plan, Cost(0.5, 2**30, 12.0))
    assert "3 min 10 s for 260 steps at 0.50 s and 5 evaluations of 4 images at 12 s (measured), 1.0 GiB" in text
    resumed = text_of(plan, Cost(0.5, 2**30, 12.0), start=208)
    assert "38 s for 52 steps at 0.50 s and 1 evaluation of 4 images at 12 s (measured)" in resumed
    assert "2 min 10 s for 260 steps at 0.50 s (measured), evaluations not counted" in text_of(plan, Cost(0.5, 2**30))


@pytest.mark.parametrize(
    ("period", "iterations", "start", "expected"),
    [(52, 260, 0, 5), (0, 260, 0, 1), (2, 8, 0, 4), (3, 8, 0, 3), (100, 140, 0, 1), (100, 150, 0, 2), (52, 260, 60, 4)],
)
def test_how_often_is_evaluated(period: int, iterations: int, start: int, expected: int) -> None:
    assert evaluations(period, iterations, start=start) == expected


def test_a_measured_evaluation_changes_neither_weights_nor_random_numbers(tiny_project: Path) -> None:
    plan = planned(tiny_project, {"train.iterations": 4})
    model, _ = seeded_model(plan, None, device="cpu")
    model.train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    states = random.getstate(), str(np.random.get_state())
    val = plan.splits.val
    predictor = task_of(plan.project).predictor(model, plan.cfg, plan.project, val.categories)
    began = time.perf_counter()
    seconds = measure_evaluation(predictor, val.images, in_windows=False)
    assert seconds is not None and 0 < seconds < 4 * (time.perf_counter() - began)
    assert torch.rand(1) == expected and states == (random.getstate(), str(np.random.get_state()))
    assert model.training
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_time_of_windows_grows_with_the_pixels(tiny_project: Path, tmp_path: Path) -> None:
    plan = planned(tiny_project, {"train.iterations": 4})
    image = plan.splits.val.images[0]
    small, large = tmp_path / "small.png", tmp_path / "missing.png"
    Image.new("RGB", (10, 10)).save(small)
    images = [
        replace(image, path=small, width_px=10, height_px=10),
        replace(image, path=large, width_px=100, height_px=100),
    ]

    class Slow:
        """Takes 10 ms for an image."""

        def batch(self, paths: list[Path]) -> None:
            assert paths == [small]
            time.sleep(0.01)

    seconds = measure_evaluation(Slow(), images, in_windows=True)  # type: ignore[arg-type]
    assert seconds is not None and 1.0 < seconds < 3.0  # 101 times as many pixels


def test_an_image_that_cannot_be_read_is_not_timed(tiny_project: Path, tmp_path: Path) -> None:
    plan = planned(tiny_project, {"train.iterations": 4})
    model, _ = seeded_model(plan, None, device="cpu")
    val = plan.splits.val
    predictor = task_of(plan.project).predictor(model, plan.cfg, plan.project, val.categories)
    images = [replace(val.images[0], path=tmp_path / "missing.png")]
    assert measure_evaluation(predictor, images, in_windows=False) is None
    assert measure_evaluation(predictor, [replace(val.images[0], path=None)], in_windows=False) is None
