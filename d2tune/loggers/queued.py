"""A logger in a thread of its own, so that a slow or lost connection neither slows training nor ends it."""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Mapping
from functools import partial

from d2tune.loggers.base import LoggedFile, LoggedImage, Logger, RunInfo
from d2tune.text import reason_of

logger = logging.getLogger(__name__)

MOST_WAITING = 512
"""Calls that wait at most; further ones are dropped and counted."""

FINISH_S = 60.0
"""Seconds that a training waits at its end for what was not logged yet."""


class Queued(Logger):
    """Calls another logger from a thread, in order; what it raises is a warning, after which it is called no more.

    ``start`` is called directly, and therefore must return in time. The queue is bounded: while the logger hangs, the
    latest calls are dropped, and a warning says how many.

    Args:
        logger: The logger.
        name: Its name in warnings.
        most_waiting: Size of the queue.
        finish_s: How long ``finish`` waits.
    """

    def __init__(
        self, logger: Logger, *, name: str, most_waiting: int = MOST_WAITING, finish_s: float = FINISH_S
    ) -> None:
        self._logger = logger
        self._name = name
        self._finish_s = finish_s
        self._waiting: queue.Queue[Callable[[], None]] = queue.Queue(most_waiting)
        self._thread: threading.Thread | None = None
        self._dropped = 0
        self._failed = False
        self._ending = threading.Event()
        self.window = logger.window
        self.takes_evaluations = logger.takes_evaluations
        self.takes_galleries = logger.takes_galleries

    def start(self, run: RunInfo) -> None:
        """Start the logger and its thread."""
        self._call(partial(self._logger.start, run))
        if not self._failed:
            self._thread = threading.Thread(target=self._work, name=f"d2tune-{self._name}", daemon=True)
            self._thread.start()

    def log(self, scalars: Mapping[str, float], *, iteration: int) -> None:
        """Queue the call."""
        self._put(partial(self._logger.log, dict(scalars), iteration=iteration))

    def log_images(self, images: Mapping[str, LoggedImage], *, iteration: int) -> None:
        """Queue the call."""
        self._put(partial(self._logger.log_images, dict(images), iteration=iteration))

    def log_file(self, file: LoggedFile, *, iteration: int) -> None:
        """Queue the call."""
        self._put(partial(self._logger.log_file, file, iteration=iteration))

    def finish(self) -> None:
        """Wait until everything is logged, but not longer than ``finish_s``."""
        if self._thread is None:
            return
        self._ending.set()
        self._thread.join(self._finish_s)
        left = self._waiting.qsize()
        if self._thread.is_alive():
            logger.warning(
                "%s did not finish within %g s: %d calls were not logged; training is not affected",
                self._name,
                self._finish_s,
                left + self._dropped,
            )
        elif self._dropped:
            logger.warning("%s was too slow: %d calls were not logged", self._name, self._dropped)

    def _put(self, call: Callable[[], None]) -> None:
        if self._failed or self._thread is None:
            return
        try:
            self._waiting.put_nowait(call)
        except queue.Full:
            self._dropped += 1
            if self._dropped == 1:
                logger.warning("%s does not keep up: calls are dropped until it does", self._name)

    def _work(self) -> None:
        while not (self._ending.is_set() and self._waiting.empty()):
            try:
                call = self._waiting.get(timeout=0.1)
            except queue.Empty:
                continue
            if not self._failed:
                self._call(call)
        self._call(self._logger.finish)

    def _call(self, call: Callable[[], None]) -> None:
        try:
            call()
        except Exception as error:
            logger.debug("%s", self._name, exc_info=True)
            if not self._failed:
                logger.warning("%s stopped logging, training goes on: %s", self._name, reason_of(error))
            self._failed = True
