"""Evaluation during training."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from d2tune.engine.hooks.base import Hook


def evaluation_due(done: int, *, period: int, last: int) -> bool:
    """Whether an evaluation follows an iteration.

    Args:
        done: Iterations completed.
        period: Iterations between evaluations; 0 evaluates only after the last.
        last: The last iteration.
    """
    return done == last or (period > 0 and done % period == 0 and last - done >= period / 2)


class EvaluateAndKeepBest(Hook):
    """Evaluates every ``period`` iterations and after the last, and calls ``keep`` when the score is the best so far.

    Args:
        period: Iterations between evaluations; 0 evaluates only after the last.
        evaluate: Returns the score, higher is better, or None where there is none.
        keep: Called with the iteration and the score of a new best.
        recheck: Called with the best score of an earlier start when training goes on; returns it as it is now.
        expected_s: Seconds that an evaluation is expected to take; None where that is unknown.
    """

    def __init__(
        self,
        *,
        period: int,
        evaluate: Callable[[int], float | None],
        keep: Callable[[int, float | None], None],
        recheck: Callable[[float | None], float | None] | None = None,
        expected_s: float | None = None,
    ) -> None:
        self._period = period
        self._evaluate = evaluate
        self._keep = keep
        self._recheck = recheck
        self._last_s = expected_s
        self.best: float | None = None
        self.best_iteration: int | None = None

    def is_due(self, done: int) -> bool:
        """Whether an evaluation follows the iteration after which ``done`` are completed."""
        return evaluation_due(done, period=self._period, last=self.trainer.max_iter)

    def seconds_left(self, done: int) -> float:
        """Seconds that the evaluations after ``done`` iterations take, as long as the last one or as expected."""
        return (self._last_s or 0.0) * len(self.due_after(done))

    def due_after(self, done: int) -> list[int]:
        """The iterations after which the evaluations come that follow ``done`` iterations."""
        period, last = self._period, self.trainer.max_iter
        later = range(done - done % period + period, last, period) if period else range(0)
        return [*filter(self.is_due, later), *([last] if done < last else [])]

    def before_train(self) -> None:
        if self._recheck is not None and self.best_iteration is not None:
            self.best = self._recheck(self.best)

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if not self.is_due(done):
            return
        began_s = time.perf_counter()
        with self.trainer.stoppable_at_once():
            value = self._evaluate(done)
        self._last_s = time.perf_counter() - began_s
        self.trainer.storage.put_scalar("eval_time", self._last_s, smoothing_hint=False)
        if self.best is None or (value is not None and value > self.best):
            self.best, self.best_iteration = value, done
            self._keep(done, value)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_iteration": self.best_iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the best so far."""
        self.best, self.best_iteration = state["best"], state["best_iteration"]
