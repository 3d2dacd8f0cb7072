"""Ending a training early without losing a step."""

from __future__ import annotations

import signal
import threading
import time
from typing import Any

from detectron2.utils import comm

from d2tune.engine.hooks.base import Hook
from d2tune.engine.trainer import StoppedAtOnceError, StoppedError

_ECHO_S = 0.2
"""A signal that comes again within this time is the same one: `timeout` sends its signal twice."""


def stop_signals() -> list[signal.Signals]:
    """Ctrl-C, SIGTERM and SIGHUP, where the system has them; a SIGHUP that ``nohup`` has disabled stays so."""
    names = ("SIGINT", "SIGTERM", "SIGHUP")
    numbers = [signal.Signals[name] for name in names if hasattr(signal, name)]
    return [one for one in numbers if one.name != "SIGHUP" or signal.getsignal(one) != signal.SIG_IGN]


class StopOnSignal(Hook):
    """Lets Ctrl-C, SIGTERM and SIGHUP end training after the current step, so that nothing of it is lost.

    An evaluation, before which everything is saved, ends at once. The same signal once more acts as without this
    hook.
    """

    def __init__(self) -> None:
        self._earlier: dict[int, Any] = {}
        self._came_s: dict[int, float] = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in stop_signals():
                self._earlier[number] = signal.signal(number, self._request)

    def _request(self, number: int, frame: object) -> None:
        now_s = time.monotonic()
        if now_s - self._came_s.setdefault(number, now_s) > _ECHO_S:
            signal.signal(number, self._earlier[number])
            signal.raise_signal(number)
            return
        self.trainer.stop_requested = True
        if self.trainer.stops_at_once:
            self.trainer.stops_at_once = False
            raise StoppedAtOnceError(self.trainer.completed)

    def after_step(self) -> None:
        if self._any_requested() and self.trainer.completed < self.trainer.max_iter:
            raise StoppedError(self.trainer.completed)

    def _any_requested(self) -> bool:
        """Whether any process has received a signal, so that all of them stop after the same step."""
        requested = self.trainer.stop_requested
        return any(comm.all_gather(requested)) if comm.get_world_size() > 1 else requested

    def after_train(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)
