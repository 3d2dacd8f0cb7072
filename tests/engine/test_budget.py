"""Trainings that fit into a time: what is chosen is in the record, in the run's project, and in a resumed run."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

import d2tune
from d2tune.engine import budget
from d2tune.engine.as_begun import as_begun
from d2tune.engine.budget import Budget, material_of, object_shares, width_shares
from d2tune.engine.cost import Cost
from d2tune.engine.plan import TrainingPlan, make_plan
from d2tune.engine.plan_text import plan_text
from d2tune.engine.run_start import new_run_of
from d2tune.errors import ProjectError, RunError
from d2tune.project import load_project
from d2tune.project.schema import Train
from tests.engine.test_tasks import raster_project


@pytest.fixture
def on_a_known_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which a step takes 1 s at a mean short side of 100 px, and predicting on the split takes 20 s."""

    def step_s(plan: TrainingPlan, *_: object, **__: object) -> float:
        low, high = map(float, plan.cfg.INPUT.MIN_SIZE_TRAIN)
        return (low * low + low * high + high * high) / 3 / 100**2

    monkeypatch.setattr(budget, "_step_s", step_s)
    monkeypatch.setattr(budget, "preflight", lambda *_, **__: Cost(9.0, 2**30, 20.0, 2**30))


def planned(project: Path, *, passed_s: float = 0.0, **train: object) -> TrainingPlan:
    """The plan where so many seconds have passed since the training was started, and no more pass."""
    overrides = {"train.iterations": None, "train.eval_every": "auto"} | {f"train.{key}": train[key] for key in train}
    stopped = Budget(0.0, clock=lambda: passed_s)
    return make_plan(load_project(project, overrides=overrides), num_gpus=0, sample=False, budget=stopped)[0]


@pytest.mark.usefixtures("on_a_known_machine")
def test_what_is_chosen_and_why_is_in_the_plan(tiny_project: Path) -> None:
    """The project sets an image size of 96 px, and has 4 validation images; 16 images want 260 steps.

    From 58 to 115 px the mean square is 7753 px: a step on 2 images takes 0.7753 s, and 260 fit into 85 % of 300 s. In
    a trained model it takes 1.06 times that, 0.8218 s, of which the network takes 0.2055 s an image. Predicting on 4
    images takes 0.8218 s and 0.4 times the rest of 20 s, 8.493 s, an evaluation with the loss 9.315 s, and the end
    6.795 s. Of 96 % of 300 s, 281.21 s remain, of which five evaluations are less than a fifth:
    (281.21 - 46.58) / 0.8218 = 285.5 steps.
    """
    plan = planned(tiny_project, budget="300 s")
    chosen = plan.budget
    assert chosen is not None and set(chosen.values) == {"iterations", "scale_jitter"}
    assert chosen.values["scale_jitter"] == (0.6, 1.2) and tuple(plan.cfg.INPUT.MIN_SIZE_TRAIN) == (58, 115)
    assert chosen.step_s == pytest.approx(0.8218, abs=1e-4) and chosen.evaluation_s == pytest.approx(9.315, abs=1e-3)
    steps = chosen.values["iterations"]
    assert steps == 285
    assert plan.project.train.iterations == plan.cfg.SOLVER.MAX_ITER == steps and plan.project.train.budget is None
    assert chosen.expected_s == pytest.approx(285 * 0.8218 + 5 * 9.315 + 6.795, abs=0.1)
    text = plan_text(plan, folder=Path("run"), report=None, cost=plan.cost, start=0)
    assert "budget       5 min, of which 4 min 4" in text
    assert f"{' ' * 13}iterations {steps}: as many as fit, at 0.82 s each, with 5 evaluations at 9.3 s" in text
    assert f"{' ' * 13}scale_jitter [0.6, 1.2]: the usual sizes, for which there is time" in text
    assert "warning" not in text
    short = with_iterations(plan, 200)
    # 60 steps more are 49.3 s, and 337.3 s are 96 % of 351.4 s
    wanted = '260 or more are recommended: train.budget="6 min"'
    assert wanted in plan_text(short, folder=Path("run"), report=None, cost=None, start=0)


def with_iterations(plan: TrainingPlan, iterations: int) -> TrainingPlan:
    cfg = plan.cfg.clone()
    cfg.defrost()
    cfg.SOLVER.MAX_ITER = iterations
    return replace(plan, cfg=cfg, loaded=plan.loaded.with_train({"iterations": iterations}))


@pytest.mark.usefixtures("on_a_known_machine")
def test_the_time_that_has_passed_counts(tiny_project: Path) -> None:
    """Of 300 s, 100 s have passed. In 85 % of the rest 260 steps of 0.7753 s do not fit, so that images are smaller.

    A step at 48 to 96 px takes 1.06 times 0.5376 s, an evaluation 8.912 s and the end 6.674 s. Of 185.33 s, five
    evaluations would be more than a fifth: (185.33 - 35.65) / 0.5699 = 262.6 steps with four of them.
    """
    late = planned(tiny_project, budget="300 s", passed_s=100).budget
    assert late is not None and late.values["scale_jitter"] == (0.5, 1.0)
    assert (late.values["iterations"], late.values["eval_every"]) == (262, 66)
    with pytest.raises(ProjectError) as caught:
        planned(tiny_project, budget="300 s", passed_s=290)
    # 10 steps, an evaluation and the end take 21.285 s, which are 96 % of 22.17 s; and a tenth more of the whole
    assert caught.value.one_line() == (
        "train.budget: the time is too short for a training; found 5 min, of which 4 min 50 s go before the first "
        "step; 0 steps of 0.57 s would fit besides an evaluation; expected 5 min 44 s or more, for 10 steps"
    )


def test_objects_are_measured_relative_to_their_image(tiny_project: Path) -> None:
    plan, _ = make_plan(load_project(tiny_project), num_gpus=0, sample=False)
    dataset = plan.splits.train
    image = next(image for image in dataset.images if image.id == dataset.instances[0].image_id)
    side_px = 0.25 * min(image.width_px, image.height_px)
    square = replace(dataset.instances[0], area_px2=side_px**2)
    crowd = replace(square, iscrowd=True)
    assert object_shares(replace(dataset, instances=(square, crowd))) == pytest.approx([0.25])
    box_xywh = (0.0, 0.0, side_px, side_px)
    thin = replace(square, area_px2=side_px**2 / 16, bbox_xywh=box_xywh)  # as long as the square, a sixteenth as wide
    both = replace(dataset, instances=(replace(square, bbox_xywh=box_xywh), thin))
    assert object_shares(both) == pytest.approx([0.25, 0.25 / 4])
    assert width_shares(both) == pytest.approx([0.25, 2 * 0.25 / 16])
    material = material_of(plan)
    assert (material.images, material.objects) == (16, sum(dataset.counts().values()))


def test_several_processes_need_a_length(tiny_project: Path) -> None:
    loaded = load_project(tiny_project, overrides={"train.budget": "20 min"})
    with pytest.raises(ProjectError, match="for one process; found 2 processes"):
        make_plan(loaded, num_gpus=2, sample=False)


@pytest.mark.usefixtures("on_a_known_machine")
def test_a_resumed_run_keeps_what_was_chosen(tiny_project: Path, tmp_path: Path) -> None:
    plan = planned(tiny_project, budget="300 s", passed_s=100)
    chosen = plan.budget
    assert chosen is not None
    with new_run_of(plan, tmp_path / "run") as folder:
        pass
    record = folder.read_record()["budget"]
    assert record["seconds"] == 300 and record["step_s"] == chosen.step_s
    assert (
        record["values"] == dict(chosen.values) | {"scale_jitter": [0.5, 1.0]} and record["reasons"] == chosen.reasons
    )
    began = load_project(folder.project).project.train
    assert (began.budget, began.iterations) == (None, chosen.values["iterations"])
    assert (began.scale_jitter, began.eval_every) == ((0.5, 1.0), chosen.values["eval_every"])

    def again(**train: object) -> Train:
        overrides = {"train.iterations": None, "train.eval_every": "auto"} | {
            f"train.{key}": train[key] for key in train
        }
        return as_begun(load_project(tiny_project, overrides=overrides), folder).project.train

    same = again(budget="5 min")
    assert (same.budget, same.iterations, same.scale_jitter) == (None, began.iterations, (0.5, 1.0))
    assert again().iterations == began.iterations  # the project has no length any more
    longer = again(iterations=1000)
    assert (longer.iterations, longer.scale_jitter) == (1000, (0.5, 1.0))
    with pytest.raises(RunError) as caught:
        again(budget="10 min")
    assert "train.budget changed since this run began; found 10 min; expected 5 min" in caught.value.one_line()
    assert f"train.iterations={2 * (began.iterations or 0)}" in caught.value.one_line()


def test_a_run_that_began_without_a_time_gets_none(tiny_project: Path, tmp_path: Path) -> None:
    plan, _ = make_plan(load_project(tiny_project), num_gpus=0, sample=False)
    with new_run_of(plan, tmp_path / "run") as folder:
        pass
    assert as_begun(plan.loaded, folder) == plan.loaded
    with pytest.raises(RunError, match=r"train\.budget changed since this run began.*; found 5 min; expected none"):
        as_begun(load_project(tiny_project, overrides={"train.budget": "5 min"}), folder)


@pytest.mark.extended
def test_a_training_by_time_is_that_of_its_numbers(tmp_path: Path, balloon_sample: Path) -> None:
    """All is measured; the weights are those of a training whose project has the numbers that were chosen."""
    project = tmp_path / "timed.yaml"
    project.write_text(
        f"data: {{root: {balloon_sample}, sample: null}}\nclasses: [balloon]\nweights: scratch\n"
        "model: {preset: pointrend_mobilenet_v2_fpn}\ntrain: {batch_size: 2, precision: float32, budget: 60 s}\n"
        "detectron2: {TEST.DETECTIONS_PER_IMAGE: 5}\n"
    )
    first = d2tune.train(project, output_dir=tmp_path / "first", num_gpus=0, sample=False).run
    budget = json.loads((first / "record.json").read_text("utf-8"))["budget"]
    chosen = budget["values"]
    assert 20 < budget["expected_s"] <= 60
    assert chosen["image_size"] <= 384 and chosen["iterations"] >= 10
    second = d2tune.train(first / "project.yaml", output_dir=tmp_path / "second", num_gpus=0, sample=False).run
    one, other = (
        torch.load(run / "checkpoints/model_final.pth", weights_only=True)["model"] for run in (first, second)
    )
    assert all(torch.equal(value, other[name]) for name, value in one.items())
    with pytest.raises(RunError, match=f"the run is complete with {chosen['iterations']} iterations"):
        d2tune.train(project, output_dir=first, resume=True, num_gpus=0, sample=False)


def test_images_that_keep_their_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing but the length is chosen for rasters, whose training is on squares."""
    monkeypatch.setattr(budget, "_step_s", lambda *_, **__: 1.0)
    monkeypatch.setattr(budget, "preflight", lambda *_, **__: Cost(1.0, 2**30, 1.0, 2**30))
    plan = planned(raster_project(tmp_path), budget="300 s")
    assert plan.budget is not None and list(plan.budget.values) == ["iterations"]
