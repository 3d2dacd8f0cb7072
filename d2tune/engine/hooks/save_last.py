"""The checkpoint that a run is resumed from."""

from __future__ import annotations

from pathlib import Path

from d2tune.engine.hooks.base import Hook
from d2tune.modeling import checkpoint


class SaveLast(Hook):
    """Writes the checkpoint to resume from: every ``period`` iterations, after the last, and when interrupted.

    Args:
        path: The file.
        period: Iterations between writes.
    """

    def __init__(self, path: Path, *, period: int) -> None:
        self._path = path
        self._period = period
        self._saved = -1

    def after_step(self) -> None:
        if (self.trainer.iter + 1) % self._period == 0:
            self._save(self.trainer.iter + 1)

    def after_train(self) -> None:
        if self.trainer.resumable:
            self._save(self.trainer.completed)

    def _save(self, completed: int) -> None:
        if completed > self._saved:
            checkpoint.save(self._path, self.trainer.checkpoint(completed))
            self._saved = completed
