"""The loss on the validation split, which Detectron2's models compute in training mode only."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import numpy as np
import torch
from detectron2.config import CfgNode
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.data.augmentation.options import without_augmentation
from d2tune.data.batches import SampleKey
from d2tune.engine.plan import TrainingPlan
from d2tune.modeling.precision import autocast_dtype
from d2tune.tasks import task_of
from d2tune.tasks.base import Samples

MOST_IMAGES = 32
"""Images of the validation split whose loss is computed, spread evenly over it."""

_CACHE_BYTES = 256 << 20


class ValidationLoss:
    """The mean of the training losses over images of the validation split.

    The model is in training mode without gradients; norms use their running statistics and nothing is dropped out.
    Images have one size and are not augmented, and all that is drawn at random (anchors, regions and points that a
    loss is sampled at, mirrored images, patches) is the same in each evaluation, so that two values of a run, or of two
    runs on the same split, differ by their weights alone. The random numbers of the training go on as if nothing had
    happened.

    Args:
        plan: The run's decisions.
        model: The model in training, not wrapped.
    """

    def __init__(self, plan: TrainingPlan, model: nn.Module) -> None:
        self._plan = plan
        self._model = model
        self._samples: Samples | None = None

    def measure(self) -> dict[str, float]:
        """The mean of each term, and of their sum as ``total_loss``.

        Raises:
            DataError: An image cannot be read.
        """
        cfg = self._plan.cfg
        measured: dict[int, dict[str, float]] = {}
        keys = validation_keys(cfg, images=len(self._plan.splits.val.images))
        device = "cuda" if cfg.MODEL.DEVICE == "cuda" else "cpu"
        mixed = device == "cuda" and self._plan.precision != "float32"
        with _own_random_numbers(device), _training_mode(self._model), torch.no_grad(), EventStorage():
            for number, key in own_share(keys):
                sample = self._read()[key]
                torch.manual_seed(key.seed)
                with torch.autocast(device, dtype=autocast_dtype(self._plan.precision), enabled=mixed):
                    losses = self._model([sample])
                measured[number] = {name: float(value) for name, value in losses.items()}
        sums: dict[str, float] = {}
        for _, losses in sorted(merged(measured).items()):
            for name, value in losses.items():
                sums[name] = sums.get(name, 0.0) + value
        means = {name: value / len(keys) for name, value in sums.items()}
        return means | {"total_loss": sum(means.values())}

    def _read(self) -> Samples:
        """The samples of the split, which are made when they are needed for the first time."""
        if self._samples is None:
            task, val = task_of(self._plan.project), self._plan.splits.val
            cfg = without_augmentation(self._plan.cfg)
            self._samples = task.training_samples(
                val, task.label_files(val), cfg, self._plan.project, cache_bytes=_CACHE_BYTES
            )
        return self._samples


def own_share(keys: Sequence[SampleKey]) -> list[tuple[int, SampleKey]]:
    """The samples of this process with their numbers; alone, it has all of them."""
    return list(enumerate(keys))[comm.get_rank() :: comm.get_world_size()]


def merged(measured: dict[int, dict[str, float]]) -> dict[int, dict[str, float]]:
    """The losses of the samples of all processes."""
    if comm.get_world_size() == 1:
        return measured
    return {number: losses for share in comm.all_gather(measured) for number, losses in share.items()}


def validation_keys(cfg: CfgNode, *, images: int) -> list[SampleKey]:
    """The samples whose loss is computed: images spread evenly, or patches that take turns over the images.

    The short side is that of evaluations, or the nearest one that training has, so that no sample takes more memory
    than those of training.

    Args:
        cfg: The run's config.
        images: Images of the validation split.
    """
    low, high = cfg.INPUT.MIN_SIZE_TRAIN
    side_px = min(max(cfg.INPUT.MIN_SIZE_TEST, low), high)
    if cfg.INPUT.PATCH_PX:
        chosen = [place % images for place in range(MOST_IMAGES)]
    else:
        count = min(MOST_IMAGES, images)
        chosen = [place * images // count for place in range(count)]
    return [SampleKey(index, side_px, seed) for seed, index in enumerate(chosen)]


@contextmanager
def _training_mode(model: nn.Module) -> Iterator[None]:
    """Inside, the model is in training mode, but its norms use their running statistics and nothing is dropped."""
    before = {module: module.training for module in model.modules()}
    model.train()
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._NormBase | nn.modules.dropout._DropoutNd):
            module.eval()
    try:
        yield
    finally:
        for module, is_training in before.items():
            module.training = is_training


@contextmanager
def _own_random_numbers(device: str) -> Iterator[None]:
    """Inside, random numbers may be drawn and seeded; those outside do not notice."""
    of_numpy = np.random.get_state()
    devices = [torch.cuda.current_device()] if device == "cuda" else []
    with torch.random.fork_rng(devices=devices):
        try:
            yield
        finally:
            np.random.set_state(of_numpy)
