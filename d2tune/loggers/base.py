"""The four methods of a logger, and what it may know of the run."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from d2tune.run_folder import RunFolder


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that a logger records.

    Attributes:
        project: The project's name.
        folder: The run folder.
        config: The resolved project as plain values.
        first_iteration: Iterations completed before this start: above 0 where a run is resumed. What an earlier start
            logged of this iteration and later ones is logged again.
    """

    project: str
    folder: RunFolder
    config: Mapping[str, Any]
    first_iteration: int


class Logger(ABC):
    """Records the scalars and images of a run.

    ``start`` comes first and ``finish`` last, also where training stops early or fails. Between them ``log`` and
    ``log_images`` come in ascending order of iterations, and each scalar comes once. Iterations count from 0. With
    several GPUs only the first process has loggers; one that is passed to ``d2tune.train`` is pickled on its way there
    and must therefore open files and connections in ``start``, not earlier.

    Attributes:
        window: Noisy scalars, such as losses, are the median of so many iterations; 1 logs the latest value.
    """

    window: ClassVar[int] = 20

    @abstractmethod
    def start(self, run: RunInfo) -> None:
        """Open what records the run; a resumed run is continued.

        Args:
            run: The run.
        """

    @abstractmethod
    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        """Record scalars by name, such as ``total_loss``, ``lr`` or ``val/segm/AP``.

        Args:
            scalars: All new scalars of the iteration.
            iteration: Counts from 0.
        """

    @abstractmethod
    def log_images(self, images: Mapping[str, NDArray[np.uint8]], *, iteration: int) -> None:
        """Record images by name.

        Args:
            images: RGB pixels ``(H, W, 3)``.
            iteration: Counts from 0; images of the finished run have the number of all iterations.
        """

    @abstractmethod
    def finish(self) -> None:
        """Write what is left and close the record."""
