"""The part of Detectron2's config that says how weights are changed: the optimizer, and its rates as time goes on."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

from detectron2.config import CfgNode

from d2tune.errors import ProjectError
from d2tune.project import Project, Train, planned_length

REFERENCE_BATCH = 16
"""The batch size for which a preset's ``SOLVER.BASE_LR`` is set."""

_USUAL_RATES = {"SGD": (0.02, 0.0001), "ADAMW": (0.0001, 0.05)}
"""Learning rate and weight decay at the reference batch, for presets whose own optimizer is the other: those of
Detectron2's schedules on COCO, and of Mask2Former (Cheng et al. 2022, arXiv 2112.01527)."""

_USUAL_STEPS = (2 / 3, 8 / 9)
"""Shares of Detectron2's schedules on COCO: 60,000 and 80,000 of 90,000 iterations."""


def set_schedule(cfg: CfgNode, project: Project, *, images: int, scratch: bool) -> None:
    """Set the section ``SOLVER`` of a config that has the values of its preset.

    Args:
        cfg: The config.
        project: The project. Of its raw keys, that of the optimizer counts, of which others follow.
        images: Number of training images.
        scratch: Whether no pretrained weights are loaded; the warm-up is then longer.
    """
    train = project.train
    kind = project.detectron2.get("SOLVER.OPTIMIZER", train.optimizer)
    _set_optimizer(cfg, train, kind.upper() if isinstance(kind, str) else "AUTO")
    iterations = planned_length(project, images=images, on_gpu=cfg.MODEL.DEVICE == "cuda").iterations
    _set_rates(cfg, train, iterations, scratch=scratch)
    cfg.SOLVER.CLIP_GRADIENTS.ENABLED = True
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_TYPE = "full_model"
    cfg.SOLVER.CLIP_GRADIENTS.CLIP_VALUE = 5.0
    cfg.SOLVER.CLIP_GRADIENTS.NORM_TYPE = 2.0
    cfg.SEED = train.seed


def _set_optimizer(cfg: CfgNode, train: Train, kind: str) -> None:
    """Set the optimizer with its learning rate for the batch and its decays."""
    solver = cfg.SOLVER
    if kind in _USUAL_RATES and kind != solver.OPTIMIZER:
        solver.OPTIMIZER = kind
        solver.BASE_LR, solver.WEIGHT_DECAY = _USUAL_RATES[kind]
    share = train.images_per_step / REFERENCE_BATCH
    scale = math.sqrt(share) if solver.OPTIMIZER == "ADAMW" else share
    solver.IMS_PER_BATCH = train.images_per_step
    solver.BASE_LR = solver.BASE_LR * scale if train.learning_rate == "auto" else train.learning_rate
    if train.weight_decay != "auto":
        solver.WEIGHT_DECAY = float(train.weight_decay)
    if train.ema_decay != "auto":
        solver.EMA_DECAY = float(train.ema_decay)


def _set_rates(cfg: CfgNode, train: Train, iterations: int, *, scratch: bool) -> None:
    """Set how the learning rate rises and falls."""
    solver = cfg.SOLVER
    solver.MAX_ITER = iterations
    solver.LR_SCHEDULER_NAME = "WarmupCosineLR" if train.schedule == "cosine" else "WarmupMultiStepLR"
    shares = (train.steps or _USUAL_STEPS) if train.schedule == "step" else ()
    solver.STEPS = tuple(sorted({min(max(1, round(share * iterations)), iterations) for share in shares}))
    solver.WARMUP_FACTOR = 0.01
    if train.warmup == "auto":
        usual = min(1000, max(1, iterations // (8 if scratch else 20)))
        solver.WARMUP_ITERS = min(usual, *solver.STEPS) if solver.STEPS else usual
    else:
        solver.WARMUP_ITERS = train.warmup


_RANGES: Mapping[str, tuple[Callable[[float], bool], str]] = {
    "SOLVER.BASE_LR": (lambda value: 0 < value < math.inf, "a number above 0"),
    "SOLVER.WARMUP_ITERS": (lambda value: value >= 0, "0 or more"),
    "SOLVER.WARMUP_FACTOR": (lambda value: 0 <= value <= 1, "a number from 0 to 1"),
    "SOLVER.GAMMA": (lambda value: 0 < value <= 1, "a number above 0, at most 1"),
    "SOLVER.MOMENTUM": (lambda value: 0 <= value < 1, "a number from 0 and below 1"),
    "SOLVER.WEIGHT_DECAY": (lambda value: 0 <= value < math.inf, "a number of 0 or more"),
    "SOLVER.EMA_DECAY": (lambda value: 0 <= value < 1, "a number from 0 and below 1"),
    "SOLVER.CLIP_GRADIENTS.CLIP_VALUE": (lambda value: value > 0, "a number above 0"),
}
"""What raw keys may be, of which the project's own keys are checked when the file is read."""


def check_schedule(cfg: CfgNode, project: Project) -> None:
    """Refuse rates that no training can have, and a schedule that contradicts itself.

    Args:
        cfg: The config, with the raw keys of the project.
        project: The project. As long as it has a budget, its iterations are not known.

    Raises:
        ProjectError: Says which key.
    """
    solver, train, raw = cfg.SOLVER, project.train, project.detectron2
    solver.OPTIMIZER = solver.OPTIMIZER.upper()
    for key in raw.keys() & _RANGES.keys():
        is_valid, expected = _RANGES[key]
        value: Any = cfg
        for name in key.split("."):
            value = value[name]
        if not is_valid(value):
            raise ProjectError("the value is out of its range", place=key, found=repr(raw[key]), expected=expected)
    if train.budget is not None:
        return
    place = "SOLVER.WARMUP_ITERS" if "SOLVER.WARMUP_ITERS" in raw else "train.warmup"
    if place in raw or train.warmup != "auto":
        given = f"{solver.WARMUP_ITERS} iterations"
        if solver.WARMUP_ITERS >= solver.MAX_ITER:
            expected = f"less than the iterations of the training, {solver.MAX_ITER}"
            raise ProjectError("the learning rate would rise to the end", place=place, found=given, expected=expected)
        if solver.STEPS and solver.STEPS[0] < solver.WARMUP_ITERS:
            message = "the learning rate would fall before it has risen"
            expected = f"at most the iterations before the first step, {solver.STEPS[0]}"
            raise ProjectError(message, place=place, found=given, expected=expected)
