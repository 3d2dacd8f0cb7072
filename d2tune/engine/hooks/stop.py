"""Ending a training early without losing a step."""

from __future__ import annotations

import signal
import threading
from typing import Any

from detectron2.utils import comm

from d2tune.engine.hooks.base import Hook
from d2tune.engine.trainer import StoppedError


class StopOnSignal(Hook):
    """Lets Ctrl-C and SIGTERM end training after the current step, so that nothing of it is lost."""

    def __init__(self) -> None:
        self._requested = False
        self._earlier: dict[int, Any] = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._request)

    def _request(self, number: int, frame: object) -> None:
        self._requested = True
        signal.signal(number, self._earlier[number])

    def after_step(self) -> None:
        if self._any_requested() and self.trainer.completed < self.trainer.max_iter:
            raise StoppedError(self.trainer.completed)

    def _any_requested(self) -> bool:
        """Whether any process has received a signal, so that all of them stop after the same step."""
        return any(comm.all_gather(self._requested)) if comm.get_world_size() > 1 else self._requested

    def after_train(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
