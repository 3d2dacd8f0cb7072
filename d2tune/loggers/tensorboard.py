"""A run's scalars and images as TensorBoard's event files."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.loggers.base import Logger, RunInfo


class TensorBoard(Logger):
    """Writes an event file into ``tensorboard`` of the run folder: ``tensorboard --logdir runs`` shows it.

    A resumed run gets a further file, which makes TensorBoard ignore what an earlier one has of the same iterations.
    """

    _writer: Any

    def start(self, run: RunInfo) -> None:
        from torch.utils.tensorboard import SummaryWriter

        folder = run.folder.path / "tensorboard"
        goes_on = folder.is_dir() and any(folder.iterdir())
        self._writer = SummaryWriter(str(folder), purge_step=run.first_iteration if goes_on else None)

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        for name, value in scalars.items():
            self._writer.add_scalar(name, value, iteration)

    def log_images(self, images: Mapping[str, NDArray[np.uint8]], *, iteration: int) -> None:
        for name, image in images.items():
            self._writer.add_image(name, image, iteration, dataformats="HWC")

    def finish(self) -> None:
        self._writer.close()
