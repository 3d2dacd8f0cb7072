"""Evaluation during training."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from d2tune.engine.hooks.base import Hook


class EvaluateAndKeepBest(Hook):
    """Evaluates every ``period`` iterations and after the last, and calls ``keep`` when the score is the best so far.

    Args:
        period: Iterations between evaluations; 0 evaluates only after the last.
        evaluate: Returns the score, higher is better, or None where there is none.
        keep: Called with the iteration and the score of a new best.
    """

    def __init__(
        self, *, period: int, evaluate: Callable[[int], float | None], keep: Callable[[int, float | None], None]
    ) -> None:
        self._period = period
        self._evaluate = evaluate
        self._keep = keep
        self.best: float | None = None
        self.best_iteration: int | None = None

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        due = self._period > 0 and done % self._period == 0
        last = done == self.trainer.max_iter
        close_to_end = self.trainer.max_iter - done < self._period / 2
        if last or (due and not close_to_end):
            self._run(done)

    def _run(self, done: int) -> None:
        value = self._evaluate(done)
        if self.best is None or (value is not None and value > self.best):
            self.best, self.best_iteration = value, done
            self._keep(done, value)

    def state_dict(self) -> dict[str, Any]:
        """The best so far."""
        return {"best": self.best, "best_iteration": self.best_iteration}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from the best so far."""
        self.best, self.best_iteration = state["best"], state["best_iteration"]
