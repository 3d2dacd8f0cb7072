"""What happens around a training step besides the step itself."""

from __future__ import annotations

import copy
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from detectron2.engine import HookBase
from detectron2.utils import comm
from detectron2.utils.events import EventWriter, get_event_storage
from torch import nn

from d2tune.modeling import checkpoint


class WeightAverage(HookBase):
    """An exponential moving average of the weights, which is what gets evaluated and kept.

    The decay grows as ``(1 + t) / (10 + t)`` up to ``decay``, so that early averages are not those of the
    initial weights (as in TensorFlow's ``ExponentialMovingAverage`` with ``num_updates``).

    Args:
        model: The model that is trained.
        decay: Largest share of the old average that is kept at each step.
    """

    def __init__(self, model: nn.Module, *, decay: float) -> None:
        self._model = model
        self._decay = decay
        self._average = {key: value.detach().clone() for key, value in self._floats()}

    def _floats(self) -> Iterator[tuple[str, torch.Tensor]]:
        return ((key, value) for key, value in self._model.state_dict().items() if value.is_floating_point())

    def after_step(self) -> None:
        step = self.trainer.iter
        decay = min(self._decay, (1 + step) / (10 + step))
        keys, values = zip(*self._floats(), strict=True)
        with torch.no_grad():
            torch._foreach_lerp_([self._average[key] for key in keys], list(values), 1 - decay)

    @contextmanager
    def averaged(self) -> Iterator[None]:
        """Inside, the model has the averaged weights."""
        own = {key: value.detach().clone() for key, value in self._floats()}
        self._put(self._average)
        try:
            yield
        finally:
            self._put(own)

    def _put(self, values: dict[str, torch.Tensor]) -> None:
        with torch.no_grad():
            for key, value in self._floats():
                value.copy_(values[key])

    def state_dict(self) -> dict[str, Any]:
        """The averages by name."""
        return {key: value.cpu() for key, value in self._average.items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Take up the averages of an earlier start."""
        for key, value in self._average.items():
            value.copy_(state[key])


class EvaluateAndKeepBest(HookBase):
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
        """Go on from the best so far."""
        self.best, self.best_iteration = state["best"], state["best_iteration"]


class SaveLast(HookBase):
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


class StopOnSignal(HookBase):
    """Lets Ctrl-C and SIGTERM end training after the step under way, so that nothing of it is lost."""

    def __init__(self) -> None:
        self._asked = False
        self._earlier: dict[int, Any] = {}

    def before_train(self) -> None:
        if threading.current_thread() is threading.main_thread():
            for number in (signal.SIGINT, signal.SIGTERM):
                self._earlier[number] = signal.signal(number, self._ask)

    def _ask(self, number: int, frame: object) -> None:
        self._asked = True
        signal.signal(number, self._earlier[number])

    def after_step(self) -> None:
        if self._stop_wanted() and self.trainer.completed < self.trainer.max_iter:
            raise StoppedError(self.trainer.completed)

    def _stop_wanted(self) -> bool:
        """Whether any process was asked to stop, so that all of them stop after the same step."""
        return any(comm.all_gather(self._asked)) if comm.get_world_size() > 1 else self._asked

    def after_train(self) -> None:
        for number, handler in self._earlier.items():
            signal.signal(number, handler)


class StoppedError(Exception):
    """Training was asked to stop; ``args[0]`` iterations are completed."""


class ProgressWriter(EventWriter):
    """One line now and then: iteration, loss, learning rate, time per iteration, time left.

    Args:
        max_iter: Iterations of the whole run.
        stream: Where the lines go.
    """

    def __init__(self, max_iter: int, *, stream: Any = None) -> None:
        self._max_iter = max_iter
        self._stream = stream or sys.stdout
        self._written = -1

    def write(self) -> None:
        """Write the line for the current iteration."""
        storage = get_event_storage()
        done = storage.iter + 1
        latest = storage.latest_with_smoothing_hint(20)
        if done <= self._written or done > self._max_iter or "total_loss" not in latest:
            return
        self._written = done
        width = len(str(self._max_iter))
        line = f"  {done:{width}d}/{self._max_iter}  loss {latest['total_loss'][0]:.3f}  lr {latest['lr'][0]:.2g}"
        if "time" in latest:
            step_s = storage.history("time").avg(20)
            line += f"  {step_s:.2f} s/it  {duration((self._max_iter - done) * step_s)} left"
        print(line, file=self._stream, flush=True)


def duration(seconds: float) -> str:
    """``75`` seconds as ``1 min 15 s``."""
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60:02d} s"
    return f"{whole // 3600} h {whole % 3600 // 60:02d} min"


def detached(value: Any) -> Any:
    """A deep copy of a state dict with its tensors on the CPU."""
    if isinstance(value, torch.Tensor):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: detached(one) for key, one in value.items()}
    if isinstance(value, (list, tuple)):
        return type(value)(detached(one) for one in value)
    return copy.deepcopy(value)
