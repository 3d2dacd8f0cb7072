"""Trainings that are killed, and go on: forked from a process with one thread.

Run as a program with a project, a folder and the places where runs are killed, it leaves a run for each of them beside
``straight``, which nothing interrupted.
"""

from __future__ import annotations

import os
import signal
import sys
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase

import d2tune
from d2tune.engine import validation
from d2tune.modeling import checkpoint

OVERRIDES = (
    "train.iterations=20",
    "train.accumulate=2",
    "train.workers=1",
    "train.eval_every=3",
    "train.early_stopping.patience=2",
    "train.early_stopping.min_gain=1000",
    "SOLVER.EMA_DECAY=0.9",
    "SOLVER.WARMUP_ITERS=5",
)
"""The metric of the first evaluation is the best, so that training ends after the third one, 9 iterations."""


class Kill(HookBase):
    """Kills its process before the step ``at``, as the system does where memory runs out."""

    def __init__(self, at: int) -> None:
        self._at = at

    def before_step(self) -> None:
        if self.trainer.iter == self._at:
            os.kill(os.getpid(), signal.SIGKILL)


def train(project: Path, run: Path, **options: Any) -> None:
    d2tune.train(project, output_dir=run, overrides=OVERRIDES, num_gpus=0, **options)


def killed_before_steps(project: Path, run: Path) -> None:
    """Killed in the warm-up, and again between two evaluations: each time a step is lost that is trained again."""
    assert forked(lambda: train(project, run, hooks=[Kill(4)])) == -signal.SIGKILL
    assert forked(lambda: train(project, run, resume=True, hooks=[Kill(8)])) == -signal.SIGKILL


def killed_in_an_evaluation(project: Path, run: Path) -> None:
    """Killed when the second evaluation has its predictions, and nothing of it is kept."""

    def work() -> None:
        original = validation.Validation._run

        def evaluate(self: Any, iteration: int) -> Any:
            value = original(self, iteration)
            if iteration == 6:
                os.kill(os.getpid(), signal.SIGKILL)
            return value

        validation.Validation._run = evaluate  # type: ignore[method-assign]
        train(project, run)

    assert forked(work) == -signal.SIGKILL


def killed_in_a_save(project: Path, run: Path) -> None:
    """Killed when the checkpoint behind the second evaluation is written by half."""

    def work() -> None:
        original, count = checkpoint.save, 0

        def save(path: Path, content: dict[str, Any], *, keep: Path | None = None) -> None:
            nonlocal count
            count += path.name == "last.pth"
            if count == 4:
                os.fsync = lambda handle: os.kill(os.getpid(), signal.SIGKILL)  # type: ignore[assignment]
            original(path, content, keep=keep)

        checkpoint.save = save
        train(project, run)

    assert forked(work) == -signal.SIGKILL


WAYS: dict[str, Callable[[Path, Path], None]] = {
    "steps": killed_before_steps,
    "evaluation": killed_in_an_evaluation,
    "save": killed_in_a_save,
}


def forked(work: Callable[[], None]) -> int:
    """The exit status of a child that does ``work``: 0, 1 with an error, or the negative number of a signal."""
    pid = os.fork()
    if not pid:
        status = 0
        try:
            work()
        except BaseException:
            traceback.print_exc()
            status = 1
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(status)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def main(project: Path, folder: Path, ways: list[str]) -> None:
    torch.set_num_threads(1)
    assert forked(lambda: train(project, folder / "straight")) == 0
    for way in ways:
        run = folder / way
        WAYS[way](project, run)
        assert forked(lambda run=run: train(project, run, resume=True)) == 0, way  # type: ignore[misc]


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3:])
