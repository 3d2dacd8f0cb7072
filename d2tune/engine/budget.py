"""The training that fits into ``train.budget``: its sizes by timed steps, its length by the pre-flight."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from statistics import fmean
from typing import Any

import numpy as np
from torch import nn

from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.data.batches import TrainingBatches
from d2tune.data.sources import raster_options
from d2tune.engine.assembly import loading_processes, training_batches, training_split
from d2tune.engine.cost import try_steps
from d2tune.engine.optimizer import build_optimizer, clip_norm, within
from d2tune.engine.plan import ChosenBudget, Replan, TrainingPlan
from d2tune.engine.preflight import Samples, preflight
from d2tune.engine.process import seeded_model
from d2tune.engine.validation_loss import MOST_IMAGES
from d2tune.errors import ProjectError
from d2tune.modeling.device import speed_up
from d2tune.modeling.folding import fold_frozen_norms
from d2tune.modeling.weights import StateDict
from d2tune.project.budget import (
    EVALUATION_SHARE,
    LEAST_STEPS,
    SHORT_JITTER,
    Material,
    candidates_px,
    enough_steps,
    fitting_sizes,
    fitting_steps,
    mean_factor,
    raised,
    seconds_for,
)
from d2tune.project.schedule import EVALUATIONS
from d2tune.project.values import time_text
from d2tune.text import counted, duration

BACKBONE = "backbone.bottom_up"
"""The parameters that are frozen where time is very short: those of the backbone below a feature pyramid."""

CLOSING_S = 4.0
"""Seconds of what comes after the last evaluation: scores with their intervals, plots, drawings and files."""

CLOSING_EVALUATIONS = 0.3
"""And the time of an evaluation, so many times."""

LOSS_SHARE = 0.5
"""The time of the loss on a validation image, relative to that of a step on one image."""

DETECTIONS_SHARE = 0.4
"""Share of the time for detections that is left once a model is trained: a new one detects as many as it can."""

STEPS_SHARE = 0.85
"""Share of the time that is taken to be for steps while sizes are chosen."""

MOST_TIMED, LEAST_TIMED, TIMED_SHARE = 12, 3, 0.04
"""Steps that are timed in the end: as many as take a share of the budget, but between so many."""

BESIDES = 1.06
"""The time of a step in training, where averages, logs and checkpoints come with it, relative to one that is timed."""

GROWTH = 1.06
"""The mean time of a step relative to one of the first: the better a model proposes, the more masks a step has."""

_SECOND_SIZE = 1.3


@dataclass(frozen=True, slots=True)
class Budget:
    """Chooses what a project with ``train.budget`` does not set.

    Attributes:
        began_s: When the training was started, by the clock.
        clock: Returns seconds.
    """

    began_s: float
    clock: Callable[[], float] = time.perf_counter

    def sizes(self, plan: TrainingPlan, state: StateDict | None, replan: Replan) -> TrainingPlan:
        """The plan with the image size, the jitter and the frozen parts that fit, as far as the project sets none.

        Images that keep their size, and squares of a set size, leave nothing to choose.

        Args:
            plan: With any sizes.
            state: The pretrained weights.
            replan: Makes the plan with other keys of ``train``.
        """
        project, train = plan.project, plan.project.train
        seconds = train.budget or 0.0
        chosen = ChosenBudget(seconds=seconds, values={}, reasons={})
        if train.image_size == "original" or train.patch_size is not None or raster_options(project) is not None:
            return replace(plan, budget=chosen)
        given = train.model_fields_set
        material = material_of(plan)
        sizes = [(train.image_size, 0.0)] if "image_size" in given else candidates_px(material)
        jitter = train.scale_jitter if "scale_jitter" in given else None
        model = _ready_model(plan, state)
        fitting = fitting_sizes(
            material,
            sizes=sizes,
            jitter=jitter,
            step_s=_timed_at(plan, replan, model, material, [size_px for size_px, _ in sizes], jitter),
            seconds=STEPS_SHARE * (seconds - self._passed_s()),
            enough=enough_steps(material, batch_size=train.images_per_step, on_gpu=plan.cfg.MODEL.DEVICE == "cuda"),
            is_pretrained=state is not None and any(_is_of_backbone(name) for name, _ in model.named_parameters()),
        )
        values: dict[str, Any] = {"image_size": fitting.image_px, "scale_jitter": fitting.jitter}
        values |= {"freeze": (BACKBONE,)} if fitting.freezes else {}
        values = {key: value for key, value in values.items() if key not in given}
        reasons = {key: fitting.reasons[key] for key in values}
        return replace(replan(plan, values), budget=replace(chosen, values=values, reasons=reasons))

    def length(self, plan: TrainingPlan, state: StateDict | None, replan: Replan) -> TrainingPlan:
        """The plan with the iterations that fit, and with fewer evaluations where they would take much of the time.

        The pre-flight is run for it.

        Args:
            plan: With its sizes and its batch size.
            state: The pretrained weights.
            replan: Makes the plan with other keys of ``train``.

        Raises:
            ProjectError: Not even `LEAST_STEPS` steps fit.
            MachineError: A step or an evaluation does not fit into memory.
        """
        train, chosen = plan.project.train, plan.budget
        assert chosen is not None
        before_s = self._passed_s()
        model = _ready_model(plan, state)
        building_s = self._passed_s() - before_s  # it will be built once more
        samples, batches = training_split(plan), training_batches(plan, start=0)
        cost = preflight(plan, model, samples, batches, doing=lambda _: None)
        count = min(MOST_TIMED, max(LEAST_TIMED, round(TIMED_SHARE * chosen.seconds / cost.step_s)))
        step_s = GROWTH * _step_s(plan, model, samples, batches, count=count)
        evaluation_s = _evaluation_s(plan, cost.evaluation_s or 0.0, step_s)
        closing_s = CLOSING_S + CLOSING_EVALUATIONS * evaluation_s
        del model
        before_s = self._passed_s() + building_s
        steps = fitting_steps(
            material_of(plan),
            batch_size=train.images_per_step,
            step_s=step_s,
            evaluation_s=evaluation_s,
            closing_s=closing_s,
            seconds=chosen.seconds - before_s,
            period=None if train.eval_every == "auto" else train.eval_every,
        )
        if steps.iterations < LEAST_STEPS:
            least_s = seconds_for(
                LEAST_STEPS, step_s=step_s, evaluation_s=evaluation_s, closing_s=closing_s, before_s=before_s
            )
            raise _too_short(chosen.seconds, before_s, max(0, steps.iterations), step_s, least_s)
        values: dict[str, Any] = {"iterations": steps.iterations}
        reasons = {"iterations": steps.reason}
        if train.eval_every == "auto" and steps.evaluations < EVALUATIONS:
            values["eval_every"] = math.ceil(steps.iterations / steps.evaluations) if steps.evaluations > 1 else 0
            reasons["eval_every"] = f"more evaluations would take over {EVALUATION_SHARE:.0%} of the time"
        expected_s = before_s + steps.iterations * step_s + steps.evaluations * evaluation_s + closing_s
        return replace(
            replan(plan, values | {"budget": None}),
            cost=replace(cost, step_s=step_s, evaluation_s=cost.evaluation_s and evaluation_s),
            budget=replace(
                chosen,
                values=values | dict(chosen.values),
                reasons=reasons | dict(chosen.reasons),
                step_s=step_s,
                evaluation_s=evaluation_s,
                expected_s=expected_s,
            ),
        )

    def _passed_s(self) -> float:
        return self.clock() - self.began_s


def material_of(plan: TrainingPlan) -> Material:
    """What of the training split decides about sizes and steps."""
    train = plan.splits.train
    shares = object_shares(train)
    return Material(
        task=plan.project.task,
        images=len(train.images),
        objects=len(shares),
        short_side_px=round(float(np.median([min(image.width_px, image.height_px) for image in train.images]))),
        object_share=_low_quartile(shares),
        width_share=_low_quartile(width_shares(train)),
    )


def object_shares(dataset: Dataset) -> list[float]:
    """The size across of each object, the root of its area, relative to the short side of its image."""
    return _shares(dataset, lambda one: math.sqrt(one.area_px2))


def width_shares(dataset: Dataset) -> list[float]:
    """The same, but at most twice the width of an object, which is its area by the longest side of its box.

    They differ for objects that are more than four times as long as wide, such as cracks.
    """
    return _shares(dataset, lambda one: min(math.sqrt(one.area_px2), 2 * one.area_px2 / max(one.bbox_xywh[2:])))


def _shares(dataset: Dataset, size_px: Callable[[Instance], float]) -> list[float]:
    short_px = {image.id: min(image.width_px, image.height_px) for image in dataset.images}
    return [
        size_px(instance) / short_px[instance.image_id]
        for instance in dataset.instances
        if not instance.iscrowd and instance.area_px2 > 0
    ]


def _low_quartile(shares: Sequence[float]) -> float | None:
    return float(np.quantile(shares, 0.25)) if shares else None


def _ready_model(plan: TrainingPlan, state: StateDict | None) -> nn.Module:
    """The model as it is trained."""
    model, _ = seeded_model(plan, state, device=plan.cfg.MODEL.DEVICE)
    speed_up(model, device=plan.cfg.MODEL.DEVICE, precision=plan.precision)
    fold_frozen_norms(model)
    return model


def _is_of_backbone(name: str) -> bool:
    return within(name, BACKBONE)


def _timed_at(
    plan: TrainingPlan,
    replan: Replan,
    model: nn.Module,
    material: Material,
    sizes_px: Sequence[int],
    jitter: tuple[float, float] | None,
) -> Callable[[float], float]:
    """Seconds of a step by the root mean square of the short sides, from steps at one or two image sizes.

    A step has a part that is the same for all sizes and one that grows with the pixels.
    """
    small_px = sizes_px[0]
    second_px = next((size_px for size_px in sizes_px if size_px >= _SECOND_SIZE * small_px), None)
    points: list[tuple[float, float]] = []
    for size_px in (small_px, second_px):
        if size_px is None:
            continue
        low, high = jitter or raised(material, size_px, SHORT_JITTER)
        sized = replan(plan, {"image_size": size_px, "scale_jitter": (low, high)})
        batches = training_batches(sized, start=0)
        step_s = _step_s(sized, model, training_split(sized), batches, count=2)
        points.append(((size_px * mean_factor(low, high)) ** 2, step_s))
    if len(points) == 1:
        return lambda side_px: points[0][1] * side_px**2 / points[0][0]
    (small, fast_s), (large, slow_s) = points
    slope = max(0.0, slow_s - fast_s) / (large - small)
    return lambda side_px: max(0.5 * fast_s, fast_s + slope * (side_px**2 - small))


def _step_s(plan: TrainingPlan, model: nn.Module, samples: Samples, batches: TrainingBatches, *, count: int) -> float:
    """The mean seconds of a step with its data and the update of the weights; the model is left as it was.

    Args:
        plan: The plan.
        model: The model.
        samples: The training split.
        batches: Keys of its samples.
        count: Steps that are run; the first one, with what is done once, does not count.
    """
    optimizer = build_optimizer(plan.cfg, model, factors=plan.project.train.learning_rate_factors)
    norm = clip_norm(plan.cfg)
    times = plan.project.train.accumulate

    def update() -> None:
        if norm is not None:
            nn.utils.clip_grad_norm_(model.parameters(), norm)
        optimizer.step()
        optimizer.zero_grad()

    read: list[list[dict[str, Any]]] = []
    loading_s: list[float] = []
    for number in range(count):
        keys = batches.typical(number)
        keys = keys[: len(keys) // times]
        for key in keys:  # images are decoded once, and then come from a cache
            samples[key]
        began_s = time.perf_counter()
        read.append([samples[key] for key in keys])
        loading_s.append(time.perf_counter() - began_s)
    taken_s, _ = try_steps(model, read, plan.cfg, plan.precision, update=update)
    processes = loading_processes(plan)
    data_s, compute_s = times * fmean(loading_s), times * fmean(taken_s[1:])
    return BESIDES * (compute_s + data_s if not processes else max(compute_s, data_s / processes))


def _evaluation_s(plan: TrainingPlan, prediction_s: float, step_s: float) -> float:
    """Seconds of an evaluation with a trained model, and with the loss on the validation split.

    Args:
        plan: The plan.
        prediction_s: Seconds for predicting on the validation split with the model as it is before training.
        step_s: Seconds of a step.
    """
    train = plan.project.train
    network_s = LOSS_SHARE * step_s / train.images_per_step
    images = len(plan.splits.val.images)
    if plan.project.traits.has_objects:
        without_s = min(prediction_s, images * network_s)
        prediction_s = without_s + DETECTIONS_SHARE * (prediction_s - without_s)
    in_loss = MOST_IMAGES if plan.cfg.INPUT.PATCH_PX else min(MOST_IMAGES, images)
    return prediction_s + (in_loss * network_s if train.validation_loss else 0.0)


def _too_short(seconds: float, before_s: float, steps: int, step_s: float, least_s: float) -> ProjectError:
    return ProjectError(
        "the time is too short for a training",
        place="train.budget",
        found=f"{time_text(seconds)}, of which {duration(before_s)} go before the first step; "
        f"{counted(steps, 'step')} of {step_s:.2f} s would fit besides an evaluation",
        expected=f"{duration(math.ceil(1.1 * least_s))} or more, for {LEAST_STEPS} steps",
    )
