"""From Detectron2's ``EventStorage`` to the loggers."""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Sequence
from contextlib import ExitStack
from typing import Any

import numpy as np
import torch
from detectron2.utils.events import get_event_storage
from numpy.typing import NDArray

from d2tune.engine.hooks.base import Hook
from d2tune.engine.logbook import Logbook
from d2tune.loggers import Logger, RunInfo
from d2tune.loggers.base import LoggedImage

logger = logging.getLogger(__name__)


class FeedLoggers(Hook):
    """Starts the loggers, gives them what is new in the ``EventStorage`` of the training, and finishes them.

    Scalars and images that a model or a hook puts into the storage (``put_scalar``, ``put_image``) reach all loggers.
    Histograms are dropped with a warning: no logger takes them, and the storage would keep all of them.

    Args:
        loggers: Each gets everything.
        run: What they may know of the run.
        period: Iterations between two looks into the storage; there is one after the last iteration in any case.
        logbook: Has charts, galleries and files; None where there are none.
    """

    def __init__(self, loggers: Sequence[Logger], run: RunInfo, *, period: int, logbook: Logbook | None = None) -> None:
        self._logbook = logbook or Logbook(takes_galleries=False)
        self._loggers = loggers
        self._run = run
        self._period = period
        self._started: list[Logger] = []
        self._finishing = ExitStack()
        self._logged = -1

    def before_train(self) -> None:
        for one in self._loggers:
            one.start(self._run)
            self._started.append(one)
            self._finishing.callback(one.finish)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self._feed()

    def after_train(self) -> None:
        with self._finishing:
            self._feed()

    def _feed(self) -> None:
        storage = get_event_storage()
        names: dict[int, list[str]] = defaultdict(list)
        for name, (_, iteration) in storage.latest().items():
            if iteration > self._logged:
                names[iteration].append(name)
        self._logged = max(names, default=self._logged)
        images: dict[int, dict[str, LoggedImage]] = defaultdict(dict)
        for iteration, name, image in _taken_images(storage):
            images[iteration][name] = image
        scores, charts, files = self._logbook.take()
        for iteration, shown in charts.items():
            images[iteration].update(shown)
        _drop_histograms(storage)
        smoothed = {size: storage.latest_with_smoothing_hint(size) for size in {one.window for one in self._started}}
        for iteration in sorted({*names, *scores, *images, *files}):
            for one in self._started:
                values = smoothed[one.window]
                scalars = {name: float(values[name][0]) for name in names[iteration]}
                if one.takes_evaluations:
                    scalars |= scores.get(iteration, {})
                if scalars:
                    one.log(scalars, iteration=iteration)
                if iteration in images:
                    one.log_images(images[iteration], iteration=iteration)
                for file in files.get(iteration, ()):
                    one.log_file(file, iteration=iteration)


def _taken_images(storage: Any) -> list[tuple[int, str, NDArray[np.uint8]]]:
    """Iteration, name and pixels of the images of the storage, which keeps all of them and is emptied."""
    images = [(iteration, name, _rgb(image)) for name, image, iteration in storage._vis_data]
    storage.clear_images()
    return images


def _drop_histograms(storage: Any) -> None:
    if storage._histograms:
        names = ", ".join(sorted({str(histogram["tag"]) for histogram in storage._histograms}))
        logger.warning("histograms are not logged: %s", names)
        storage.clear_histograms()


def _rgb(image: torch.Tensor | NDArray[Any]) -> NDArray[np.uint8]:
    """``(3, H, W)`` of 8 bits, or of floats from 0 to 1, as ``(H, W, 3)`` of 8 bits."""
    pixels = np.asarray(image.detach().cpu() if isinstance(image, torch.Tensor) else image)
    if pixels.dtype != np.uint8:
        pixels = (pixels * 255).clip(0, 255)
    return np.ascontiguousarray(pixels.transpose(1, 2, 0).astype(np.uint8))
