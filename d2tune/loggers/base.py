"""The five methods of a logger, what it may know of the run, and what it is given besides scalars."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.loggers.exhibits import Chart, Gallery
from d2tune.run_folder import RunFolder

LoggedImage = NDArray[np.uint8] | Chart | Gallery
"""RGB pixels ``(H, W, 3)``, a chart or a gallery; each ``as_pixels`` draws."""

_FROM_RECORD = ("task", "classes", "seed", "machine", "versions", "data", "weights", "input", "command")


@dataclass(frozen=True, slots=True)
class RunInfo:
    """The run that a logger records.

    Attributes:
        project: The project's name.
        folder: The run folder.
        config: The resolved project as plain values.
        first_iteration: Iterations completed before this start: above 0 where a run is resumed. What an earlier start
            logged of this iteration and later ones is logged again.
        group: The runs that belong together, such as the folds of a split or a sweep; None for none.
    """

    project: str
    folder: RunFolder
    config: Mapping[str, Any]
    first_iteration: int
    group: str | None = None

    def settings(self) -> dict[str, Any]:
        """The resolved project, and under ``record`` the hardware, versions, hashes of the data and weights."""
        record = self.folder.record_entries()
        return {**self.config, "record": {key: record[key] for key in _FROM_RECORD if key in record}}


@dataclass(frozen=True, slots=True)
class LoggedFile:
    """A file of the run for its loggers.

    Attributes:
        path: The file, which stays where it is.
        name: Its name in all loggers, such as ``model_best``.
        kind: ``model``, ``evaluation`` or another noun.
        aliases: Other names of this version, such as ``best``.
        metadata: What is noted with it.
    """

    path: Path
    name: str
    kind: str
    aliases: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=dict)


class Logger(ABC):
    """Records the scalars, images and files of a run.

    ``start`` comes first and ``finish`` last, also where training stops early or fails. Between them the other methods
    come in ascending order of iterations, and each scalar comes once. Iterations count from 0. With several GPUs only
    the first process has loggers; one that is passed to ``d2tune.train`` is pickled on its way there and must therefore
    open files and connections in ``start``, not earlier.

    Attributes:
        window: Noisy scalars, such as losses, are the median of so many iterations; 1 logs the latest value.
        takes_evaluations: Whether it gets the metrics of the finished run with their intervals, which are in
            ``evaluation.json`` too.
        takes_galleries: Whether validation images with their masks are prepared for it at each evaluation.
    """

    window: int = 20
    takes_evaluations: bool = True
    takes_galleries: bool = False

    @abstractmethod
    def start(self, run: RunInfo) -> None:
        """Open what records the run; a resumed run is continued.

        Args:
            run: The run.
        """

    @abstractmethod
    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        """Record scalars by name, such as ``total_loss``, ``lr``, ``val/segm/AP`` or ``evaluation/segm/AP``.

        Args:
            scalars: All new scalars of the iteration.
            iteration: Counts from 0.
        """

    @abstractmethod
    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        """Record images by name.

        Args:
            images: RGB pixels ``(H, W, 3)``; charts and galleries, which have numbers and masks too, where training has
                any. ``exhibits.as_pixels`` makes pixels of each.
            iteration: Counts from 0; images of the finished run have the number of all iterations.
        """

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:  # noqa: B027  # a logger may keep no files
        """Record a file; does nothing unless a logger keeps files.

        Args:
            file: The file, which is there at least until `finish` returns.
            iteration: Counts from 0; files of the finished run have the number of all iterations.
        """

    @abstractmethod
    def finish(self) -> None:
        """Write what is left and close the record."""


def flat(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings by dotted names; lists, and empty dicts, stay as they are."""
    plain: dict[str, Any] = {}
    for key, value in values.items():
        name = f"{prefix}{key}"
        plain |= flat(value, f"{name}.") if isinstance(value, Mapping) and value else {name: value}
    return plain
