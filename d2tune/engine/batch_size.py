"""The batch size that fits into memory, for ``train.batch_size: auto``."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from d2tune.engine.assembly import training_batches, training_split
from d2tune.engine.cost import try_steps
from d2tune.engine.memory import free_bytes, is_out_of_memory, refusing_more, used_bytes
from d2tune.engine.plan import ChosenBatch, TrainingPlan
from d2tune.engine.preflight import held_bytes, largest_keys, training_stage
from d2tune.engine.process import seeded_model
from d2tune.errors import MachineError
from d2tune.modeling.device import speed_up
from d2tune.modeling.folding import fold_frozen_norms
from d2tune.modeling.weights import StateDict
from d2tune.text import counted, in_bytes

MOST_ON_CPU = 4
"""Where no GPU trains, the time of a step grows with its images, so that more of them gain nothing."""

MOST_ON_GPU = 16
"""Images that the learning rates of the presets were chosen for."""

SHARE = 0.8
"""Share of the free memory that a step may take; the rest is for what differs between steps."""

SMALLER = "Set a smaller train.image_size, or a smaller model.preset."


def fitting_batch(plan: TrainingPlan, state: StateDict | None) -> ChosenBatch:
    """The largest of 1, 2, 4, 8, 16 images whose step takes no more than `SHARE` of the free memory.

    It is at most `MOST_ON_GPU` or `MOST_ON_CPU` times ``train.accumulate``, and at most the number of training images.
    Steps of 1, 2, ... images, the largest of the training split, are run until one takes too much,
    or would do so by what the two before took.

    Args:
        plan: With any batch size.
        state: The pretrained weights.

    Raises:
        MachineError: Not even one image fits.
        DataError: An image cannot be read.
    """
    device = plan.cfg.MODEL.DEVICE
    model, _ = seeded_model(plan, state, device=device)
    speed_up(model, device=device, precision=plan.precision)
    fold_frozen_norms(model)
    free = free_bytes(device)
    trial = _Trial(plan, model, allowed=int(SHARE * free) - held_bytes(plan, model)[1])
    times = plan.project.train.accumulate
    most = MOST_ON_GPU if device == "cuda" else MOST_ON_CPU
    taken: dict[int, int] = {}
    reason = f"more than {counted(most * times, 'image')} would gain nothing"
    for size in _sizes(most=max(1, most)):
        if size > 1 and size * times > len(plan.splits.train.images):
            reason = f"there are {counted(len(plan.splits.train.images), 'image')} to train on"
            break
        step = trial.bytes_of(size, taken)
        if step is None:
            reason = (
                f"a step of {counted(size * times, 'image')} would take more than {in_bytes(trial.allowed)} of memory"
            )
            break
        taken[size] = step
    if not taken:
        raise MachineError(
            f"the memory does not suffice for {training_stage(plan, trial.keys(1))}",
            found=f"{in_bytes(free)} free",
            hint=SMALLER,
        )
    sizes = {size * times: step for size, step in taken.items()}
    return ChosenBatch(size=max(sizes), reason=reason, step_bytes=sizes, free_bytes=free)


def _sizes(*, most: int) -> Iterator[int]:
    size = 1
    while size <= most:
        yield size
        size *= 2


@dataclass
class _Trial:
    """Steps of several sizes with a model.

    Attributes:
        plan: The plan.
        model: The model.
        allowed: Bytes that a step may take.
    """

    plan: TrainingPlan
    model: nn.Module
    allowed: int

    def __post_init__(self) -> None:
        self._samples = training_split(self.plan)
        self._batches = training_batches(self.plan, start=0)
        self._used = used_bytes(self.plan.cfg.MODEL.DEVICE)

    def keys(self, size: int) -> list[Any]:
        """The keys of the largest samples."""
        return largest_keys(self.plan, self._batches, count=size)

    def bytes_of(self, size: int, taken: dict[int, int]) -> int | None:
        """Memory that a step of ``size`` images takes; None if it is more than is allowed."""
        if len(taken) > 1:
            (small, low), (large, high) = list(taken.items())[-2:]
            if high + (size - large) * max(0, high - low) / (large - small) > self.allowed:
                return None
        device = self.plan.cfg.MODEL.DEVICE
        try:
            with refusing_more(device):
                batch = [self._samples[key] for key in self.keys(size)]
                _, peak = try_steps(self.model, [batch], self.plan.cfg, self.plan.precision)
        except Exception as error:
            if not is_out_of_memory(error):
                raise
            if device == "cuda":
                torch.cuda.empty_cache()
            return None
        step = max(0, peak - self._used)
        return step if step <= self.allowed else None
