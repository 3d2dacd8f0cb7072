"""The live view of a training in a terminal."""

from __future__ import annotations

import logging
import re
import sys
import threading
import time
from collections.abc import Callable
from contextlib import ExitStack

from d2tune.engine.hooks.base import Hook
from d2tune.engine.hooks.keep_best import EvaluateAndKeepBest
from d2tune.engine.live.frame import Progress, Scored, frame
from d2tune.metrics.metric import Metric
from d2tune.terminal import Captured, Painter, captured_output, draws_blocks

logger = logging.getLogger(__name__)

REFRESH_S = 1.0
"""Seconds between two frames."""

_BAR = re.compile(r"\|[^|]*\|")
"""The bar in the status of tqdm, which takes a whole line."""

_SMOOTHED = 20
"""Iterations that losses are the median of, and times the mean."""


class LiveView(Hook):
    """Shows bar, losses, metrics, speed and what is done now at the bottom of a terminal.

    In a step it keeps two numbers. A thread reads the others and paints them once a second; the interval of a metric is
    computed behind its evaluation.

    Args:
        project: Name of the project.
        metric_name: Name of the main metric.
        batch_size: Images of an iteration.
        evaluations: The evaluations in training.
        last_metric: The main metric of the last evaluation with its interval, and its iteration; None before.
        memory: Memory that is used and all that there is, in bytes, and whose it is.
        doing: What is done now.
        refresh_s: Seconds between two frames.
    """

    def __init__(
        self,
        *,
        project: str,
        metric_name: str,
        batch_size: int,
        evaluations: EvaluateAndKeepBest,
        last_metric: Callable[[], tuple[Metric, int] | None],
        memory: Callable[[], tuple[int, int, str] | None],
        doing: Callable[[], str],
        refresh_s: float = REFRESH_S,
    ) -> None:
        self._progress = Progress(project, metric_name, 0, batch_size)
        self._evaluations = evaluations
        self._last_metric = last_metric
        self._memory = memory
        self._doing = doing
        self._refresh_s = refresh_s
        self._open = ExitStack()
        self._ended = threading.Event()
        self._thread: threading.Thread | None = None
        self._painter: Painter | None = None
        self._captured: tuple[Captured, ...] = ()
        self._blocks = True
        self._failed = False
        self._began_s = 0.0

    def before_train(self) -> None:
        self._progress.total = self.trainer.max_iter
        self._progress.done = self.trainer.start_iter
        self._began_s = time.perf_counter()
        self._blocks = draws_blocks(sys.stdout)
        self._painter = Painter(sys.stdout)
        self._captured = self._open.enter_context(captured_output(self._painter))
        self._thread = threading.Thread(target=self._repaint, args=(self._painter,), name="live view", daemon=True)
        self._thread.start()

    def after_step(self) -> None:
        progress = self._progress
        total_loss = self.trainer.storage.latest().get("total_loss")
        if total_loss is not None:
            progress.losses.append(total_loss[0])
        if self._evaluations.is_due(self.trainer.iter + 1):
            last = self._last_metric()
            progress.last = None if last is None else Scored(*last)

    def after_train(self) -> None:
        if self._painter is None or self._thread is None:
            return
        self._ended.set()
        self._thread.join()
        with self._open:
            if not self._failed:
                is_whole = self.trainer.completed == self.trainer.max_iter
                self._paint(self._painter, now="done" if is_whole else f"stopped after {self.trainer.completed}")
        self._painter.leave()
        self._painter = None

    def _repaint(self, painter: Painter) -> None:
        """Paint until training ends; an error in it ends the view alone."""
        try:
            while not self._ended.is_set():
                self._paint(painter)
                self._ended.wait(self._refresh_s)
        except Exception:
            self._failed = True
            logger.info("the live view ends with an error", exc_info=True)
            painter.erase()

    def _paint(self, painter: Painter, *, now: str | None = None) -> None:
        self._look()
        self._progress.now = now or self._doing_now()
        painter.paint(frame(self._progress, painter.size[0], blocks=self._blocks))

    def _look(self) -> None:
        """Read the numbers that are not kept in each step, while the training adds to them."""
        progress, storage = self._progress, self.trainer.storage
        progress.done = self.trainer.completed
        progress.elapsed_s = time.perf_counter() - self._began_s
        latest = dict(storage.latest())  # a copy at once: the training adds names
        losses = {name: storage.history(name).median(_SMOOTHED) for name in latest if "loss" in name.partition("/")[0]}
        progress.loss = losses.pop("total_loss", None)
        progress.terms = losses
        progress.rate = latest["lr"][0] if "lr" in latest else None
        if "time" in latest:
            progress.step_s = storage.history("time").avg(_SMOOTHED)
            progress.data_s = storage.history("data_time").avg(_SMOOTHED) if "data_time" in latest else None
            left = (progress.total - progress.done) * progress.step_s
            progress.left_s = left + self._evaluations.seconds_left(progress.done)
        self._look_at_evaluations()
        memory = self._memory()
        if memory is not None:
            progress.memory_bytes, progress.memory_of = memory[:2], memory[2]

    def _look_at_evaluations(self) -> None:
        progress, due = self._progress, self._evaluations.due_after(self._progress.done)
        progress.evaluations_left = len(due)
        progress.next_evaluation = due[0] if due else None
        best, iteration = self._evaluations.best, self._evaluations.best_iteration
        progress.best = None if iteration is None else Scored(Metric(best, "not defined"), iteration)

    def _doing_now(self) -> str:
        if self.trainer.stop_requested:
            return "stopping after this step"
        status = next((stream.status for stream in self._captured if stream.status), "")
        return " ".join(_BAR.sub(" ", status).split()) or self._doing()
