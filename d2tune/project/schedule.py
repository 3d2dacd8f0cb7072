"""How long a project is trained: what it says, or what fits the number of its images."""

from __future__ import annotations

import math
from dataclasses import dataclass

from d2tune.project.schema import Project
from d2tune.project.traits import TaskName
from d2tune.text import counted

EVALUATIONS = 5
"""Evaluations in a run where ``train.eval_every`` is ``auto``."""

LEAST_PASSES = 3
"""Passes over the images below which a run is too short for its data, however many iterations that are."""


@dataclass(frozen=True, slots=True, kw_only=True)
class _Limits:
    """For one task and kind of hardware: passes over the images, and the iterations that they are held between."""

    epochs: int
    least: int
    most: int


_GPU = _Limits(epochs=40, least=600, most=20_000)
_CPU: dict[TaskName, _Limits] = {
    "instance": _Limits(epochs=24, least=260, most=400),
    "semantic": _Limits(epochs=12, least=200, most=400),
    "panoptic": _Limits(epochs=8, least=200, most=400),
    "tracking": _Limits(epochs=200, least=600, most=900),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Length:
    """How long a run is.

    Attributes:
        iterations: Optimizer steps.
        note: Why so many, where the project does not say it; empty otherwise.
        recommended: The least iterations for these data, where there are fewer; None otherwise.
    """

    iterations: int
    note: str = ""
    recommended: int | None = None


def fitting_length(task: TaskName, *, images: int, batch_size: int, on_gpu: bool) -> Length:
    """The iterations that fit the number of images.

    They are a number of passes over the images, but not fewer than a model needs to learn from a few images, and not
    more than a person waits for, unless that were fewer than `LEAST_PASSES` passes.

    Args:
        task: What the project is for.
        images: Images to train on.
        batch_size: Images a step.
        on_gpu: Whether a GPU trains.
    """
    limits = _GPU if on_gpu else _CPU[task]
    wanted = _iterations(limits.epochs, images, batch_size)
    most = max(limits.most, _iterations(LEAST_PASSES, images, batch_size))
    iterations = max(limits.least, min(wanted, most))
    passes = f"{limits.epochs} epochs of {counted(images, 'image')} would be {wanted}"
    if wanted < iterations:
        note = f"{passes}, too few"
    elif wanted > iterations:
        note = f"{passes}, a long time"
    else:
        note = f"{limits.epochs} epochs"
    return Length(iterations=iterations, note=f"chosen by the number of images: {note}")


def planned_length(project: Project, *, images: int, on_gpu: bool) -> Length:
    """The iterations of a project: ``train.iterations``, or those of ``train.epochs``, or those that fit its images.

    Args:
        project: The project.
        images: Images to train on.
        on_gpu: Whether a GPU trains.
    """
    train = project.train
    if train.iterations is None and train.epochs is None:
        return fitting_length(project.task, images=images, batch_size=train.images_per_step, on_gpu=on_gpu)
    iterations = train.iterations or max(1, round((train.epochs or 0) * images / train.images_per_step))
    limits = _GPU if on_gpu else _CPU[project.task]
    least = max(limits.least, _iterations(LEAST_PASSES, images, train.images_per_step))
    return Length(iterations=iterations, recommended=least if iterations < least else None)


def evaluation_period(wanted: str | int, iterations: int) -> int:
    """Iterations between evaluations.

    Args:
        wanted: ``train.eval_every``.
        iterations: Iterations of the run.
    """
    return math.ceil(iterations / EVALUATIONS) if isinstance(wanted, str) else wanted


def evaluations(period: int, iterations: int, *, start: int = 0) -> int:
    """How often is evaluated: every ``period`` iterations, unless the last one is near, and after the last.

    Args:
        period: Iterations between evaluations; 0 evaluates only after the last.
        iterations: Iterations of the run.
        start: Iterations completed before.
    """
    if not period:
        return 1
    due = range((start // period + 1) * period, iterations, period)
    return 1 + sum(iterations - done >= period / 2 for done in due)


def _iterations(epochs: int, images: int, batch_size: int) -> int:
    return math.ceil(epochs * images / batch_size)
