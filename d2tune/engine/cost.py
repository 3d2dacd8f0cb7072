"""What a training step and an evaluation cost on this machine, measured."""

from __future__ import annotations

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import psutil
import torch
from detectron2.config import CfgNode
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.annotations.model.dataset import Image
from d2tune.errors import DataError
from d2tune.inference.predictors.base import Predictor
from d2tune.modeling.checkpoint import detached
from d2tune.modeling.precision import Precision, autocast_dtype


@dataclass(frozen=True, slots=True)
class Cost:
    """What one training step costs here, measured.

    Attributes:
        step_s: Seconds for forward and backward.
        memory_bytes: Peak memory: of the GPU on CUDA, else of the process.
        evaluation_s: Seconds for predicting on the validation split; None where it was not measured.
    """

    step_s: float
    memory_bytes: int
    evaluation_s: float | None = None


def measure_cost(model: nn.Module, batch: list[dict[str, Any]], cfg: CfgNode, precision: Precision) -> Cost:
    """Time a training step on a real batch; the model is left as it was."""
    before = detached(model.state_dict())
    cuda = cfg.MODEL.DEVICE == "cuda"
    model.train()
    if cuda:
        torch.cuda.reset_peak_memory_stats()
    seconds = []
    with torch.random.fork_rng(), EventStorage():
        for _ in range(2):
            start = time.perf_counter()
            with torch.autocast("cuda", dtype=autocast_dtype(precision), enabled=cuda and precision != "float32"):
                losses = model(batch)
            sum(losses.values()).backward()
            if cuda:
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
    model.zero_grad(set_to_none=True)
    model.load_state_dict(before)
    return Cost(seconds[-1], torch.cuda.max_memory_allocated() if cuda else peak_process_bytes())


def measure_evaluation(predictor: Predictor[Any, Any], images: Sequence[Image], *, in_windows: bool) -> float | None:
    """Time the prediction on one image of a split, and return the seconds that the whole split takes.

    Args:
        predictor: Of the model in training, which is left as it was.
        images: The images of the split.
        in_windows: Whether images keep their size, so that the time of an image grows with its pixels.

    Returns:
        None where the image cannot be read, which the evaluation itself reports.
    """
    by_size = sorted(images, key=_pixels)
    chosen = by_size[0 if in_windows else len(by_size) // 2]
    if chosen.path is None:
        return None
    share: float = len(images)
    if in_windows:
        share = sum(_pixels(image) for image in images) / max(1, _pixels(chosen))
    with torch.random.fork_rng():
        try:
            predictor.batch([chosen.path])
            start = time.perf_counter()
            predictor.batch([chosen.path])
        except DataError:
            return None
    return (time.perf_counter() - start) * share


def _pixels(image: Image) -> int:
    return image.width_px * image.height_px


def peak_process_bytes() -> int:
    """The most memory that this process has had so far, in bytes."""
    try:
        import resource
    except ImportError:  # Windows
        memory = psutil.Process().memory_info()
        return int(getattr(memory, "peak_wset", memory.rss))
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024
