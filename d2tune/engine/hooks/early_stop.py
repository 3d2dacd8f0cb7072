"""Ending a training that no longer improves."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from detectron2.utils import comm

from d2tune.engine.hooks.base import Hook
from d2tune.text import counted


class EarlyStopping(Hook):
    """Asks for the end of training after evaluations without a gain; `EndTogether` ends it.

    It comes after the evaluation and before the checkpoint of the same iteration.

    Args:
        patience: Evaluations in a row without a gain.
        min_gain: What a value must be above the best one by, to count as a gain.
        is_due: Whether an evaluation follows the iteration, by the number of iterations completed.
        value: The value of the last evaluation, higher is better; None where there is none.
    """

    def __init__(
        self, *, patience: int, min_gain: float, is_due: Callable[[int], bool], value: Callable[[], float | None]
    ) -> None:
        self._patience = patience
        self._min_gain = min_gain
        self._is_due = is_due
        self._value = value
        self._best: float | None = None
        self._without_gain = 0

    def before_train(self) -> None:
        self.trainer.ends_early = self._without_gain >= self._patience

    def after_step(self) -> None:
        trainer, done = self.trainer, self.trainer.iter + 1
        if not self._is_due(done):
            return
        value = self._value()
        if value is not None and (self._best is None or value > self._best + self._min_gain):
            self._best, self._without_gain = value, 0
        else:
            self._without_gain += 1
        if self._without_gain >= self._patience and done < trainer.max_iter:
            trainer.ends_early = True
            gain = f"a gain above {self._min_gain:g}" if self._min_gain else "a gain"
            evaluations = counted(self._patience, "evaluation")
            print(f"  {evaluations} without {gain}: training ends after {done} of {trainer.max_iter} iterations")

    def state_dict(self) -> dict[str, Any]:
        """The best value, and the evaluations since then."""
        return {"best": self._best, "without_gain": self._without_gain}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue to count."""
        self._best, self._without_gain = state["best"], state["without_gain"]


class EndTogether(Hook):
    """Ends training in all processes after the step in which one of them asked for it, as if it had been the last."""

    def before_train(self) -> None:
        self.after_step()

    def after_step(self) -> None:
        trainer = self.trainer
        ends = any(comm.all_gather(trainer.ends_early)) if comm.get_world_size() > 1 else trainer.ends_early
        if ends and trainer.completed:
            trainer.max_iter = trainer.completed
