"""The checkpoint that a run is resumed from."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from d2tune.engine.hooks.base import Hook
from d2tune.modeling import checkpoint


class SaveLast(Hook):
    """Writes the checkpoint to resume from.

    It is written every ``period`` iterations, after an evaluation, after the last iteration, and when training ends
    early with a state to go on from. A state whose loss has exploded is not written.

    Args:
        path: The file.
        period: Iterations between writes.
        keep: Where the checkpoint that is replaced is kept.
        on_save: Called after each write.
    """

    def __init__(
        self, path: Path, *, period: int, keep: Path | None = None, on_save: Callable[[], None] | None = None
    ) -> None:
        self._path = path
        self._keep = keep
        self._period = period
        self._on_save = on_save

    def after_step(self) -> None:
        done = self.trainer.iter + 1
        if done % self._period == 0 or done == self.trainer.max_iter or not self.trainer.saved_whole:
            self._save(done)

    def after_train(self) -> None:
        if self.trainer.resumable:
            self._save(self.trainer.completed)

    def _save(self, completed: int) -> None:
        trainer = self.trainer
        if (trainer.saved == completed and trainer.saved_whole) or trainer.guard.suspicious:
            return
        checkpoint.save(self._path, trainer.checkpoint(completed), keep=self._keep)
        trainer.saved, trainer.saved_whole = completed, True
        if self._on_save is not None:
            self._on_save()


class SaveBeforeEvaluation(Hook):
    """Writes the checkpoint to resume from before an evaluation, which a run that is resumed from it repeats.

    It is registered before the hooks that are repeated.

    Args:
        path: The file.
        is_due: Whether an evaluation follows the iteration, by the number of iterations completed.
    """

    saves_unfinished = True

    def __init__(self, path: Path, *, is_due: Callable[[int], bool]) -> None:
        self._path = path
        self._is_due = is_due

    def after_step(self) -> None:
        trainer, done = self.trainer, self.trainer.iter + 1
        if self._is_due(done) and trainer.saved < done and not trainer.guard.suspicious:
            checkpoint.save(self._path, trainer.checkpoint(done, is_finished=False))
            trainer.saved, trainer.saved_whole = done, False
