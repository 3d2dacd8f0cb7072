"""What a training step and an evaluation cost on this machine, measured."""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.annotations.model.dataset import Image
from d2tune.engine.memory import Peak
from d2tune.errors import DataError
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.checkpoint import detached
from d2tune.modeling.precision import Precision, autocast_dtype
from d2tune.modeling.weights import StateDict


@dataclass(frozen=True, slots=True)
class Cost:
    """What one training step costs here, measured.

    Attributes:
        step_s: Seconds for forward and backward.
        memory_bytes: Peak memory of the largest step: of the GPU on CUDA, else of the process.
        evaluation_s: Seconds for predicting on the validation split; None where it was not measured.
        evaluation_bytes: Peak memory for an image full of objects, the same way; None where it was not measured.
    """

    step_s: float
    memory_bytes: int
    evaluation_s: float | None = None
    evaluation_bytes: int | None = None


def measure_cost(
    model: nn.Module,
    batch: list[dict[str, Any]],
    cfg: CfgNode,
    precision: Precision,
    *,
    largest: list[dict[str, Any]] | None = None,
) -> Cost:
    """Run a training step on a large batch for its memory, and one on a typical batch for its time.

    The model is left as it was.

    Args:
        model: The model.
        batch: A typical batch.
        cfg: The run's config.
        precision: Of the forward pass.
        largest: The batch that takes most memory; None takes the typical one.
    """
    seconds, memory_bytes = try_steps(model, [batch if largest is None else largest, batch], cfg, precision)
    return Cost(seconds[-1], memory_bytes)


def try_steps(
    model: nn.Module,
    batches: Sequence[list[dict[str, Any]]],
    cfg: CfgNode,
    precision: Precision,
    *,
    update: Callable[[], object] | None = None,
) -> tuple[list[float], int]:
    """Run the forward and backward pass of training steps; the model is left as it was.

    Args:
        model: The model.
        batches: The samples of each step.
        cfg: The run's config.
        precision: Of the forward pass.
        update: Called after each backward pass, and timed with it; None changes no weights.

    Returns:
        The seconds of each step, and the peak memory in bytes; see `Cost`.
    """
    before = detached(model.state_dict())
    cuda = cfg.MODEL.DEVICE == "cuda"
    model.train()
    peak = Peak(cfg.MODEL.DEVICE)
    seconds = []
    try:
        with torch.random.fork_rng(), EventStorage():
            for samples in batches:
                start = time.perf_counter()
                with torch.autocast("cuda", dtype=autocast_dtype(precision), enabled=cuda and precision != "float32"):
                    losses = model(samples)
                sum(losses.values()).backward()
                if update is not None:
                    update()
                if cuda:
                    torch.cuda.synchronize()
                seconds.append(time.perf_counter() - start)
    finally:
        model.zero_grad(set_to_none=True)
        _put_back(model, before)
    return seconds, peak.bytes


def _put_back(model: nn.Module, before: StateDict) -> None:
    """Put the tensors of a model back, as those of its present version."""
    versioned = OrderedDict(before)
    versioned._metadata = model.state_dict()._metadata  # type: ignore[attr-defined]
    model.load_state_dict(versioned)


def measure_evaluation(
    predictor: Predictor[Any, Any], images: Sequence[Image], *, in_windows: bool, is_warm: bool = False
) -> float | None:
    """Time the prediction on one image of a split, and return the seconds that the whole split takes.

    Args:
        predictor: Of the model in training, which is left as it was.
        images: The images of the split.
        in_windows: Whether images keep their size, so that the time of an image grows with its pixels.
        is_warm: Whether the predictor has just been used.

    Returns:
        None where the image cannot be read, which the evaluation itself reports.
    """
    by_size = sorted(images, key=pixels_of)
    chosen = by_size[0 if in_windows else len(by_size) // 2]
    if chosen.path is None:
        return None
    share: float = len(images)
    if in_windows:
        share = sum(map(pixels_of, images)) / max(1, pixels_of(chosen))
    with torch.random.fork_rng():
        try:
            if not is_warm:
                predictor.batch([chosen.path])
            start = time.perf_counter()
            predictor.batch([chosen.path])
        except DataError:
            return None
    return (time.perf_counter() - start) * share


def pixels_of(image: Image) -> int:
    """The number of pixels of an image."""
    return image.width_px * image.height_px
