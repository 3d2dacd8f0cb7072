"""Progress on the terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable
from typing import TextIO

from detectron2.utils.events import get_event_storage

from d2tune.engine.hooks.base import Hook
from d2tune.text import duration


class PrintProgress(Hook):
    """Prints a line now and then: iteration, loss, learning rate, time per iteration, time left.

    Args:
        period: Iterations between lines; the last iteration has one in any case.
        stream: Where the lines go; None is the standard output.
        evaluations_s: Seconds that the evaluations after a number of iterations take; they are part of the time left.
    """

    def __init__(
        self, *, period: int, stream: TextIO | None = None, evaluations_s: Callable[[int], float] | None = None
    ) -> None:
        self._period = period
        self._stream = stream
        self._evaluations_s = evaluations_s
        self._printed = -1

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter:
            self._print()

    def after_train(self) -> None:
        self._print()

    def _print(self) -> None:
        storage, total = get_event_storage(), self.trainer.max_iter
        done = storage.iter + 1
        latest = storage.latest_with_smoothing_hint(20)
        if done <= self._printed or done > total or "total_loss" not in latest:
            return
        self._printed = done
        line = f"  {done:{len(str(total))}d}/{total}  loss {latest['total_loss'][0]:.3f}  lr {latest['lr'][0]:.2g}"
        if "time" in latest:
            step_s = storage.history("time").avg(20)
            left_s = (total - done) * step_s + (0.0 if self._evaluations_s is None else self._evaluations_s(done))
            line += f"  {step_s:.2f} s/it  {duration(left_s)} left"
        print(line, file=self._stream or sys.stdout, flush=True)
