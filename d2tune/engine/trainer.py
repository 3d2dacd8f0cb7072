"""The training loop: Detectron2's, with precision, seeds by iteration, and checkpoints that go on exactly."""

from __future__ import annotations

import logging
import math
import operator
import time
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import reduce
from typing import Any

import torch
from detectron2.engine import HookBase, SimpleTrainer
from detectron2.engine.hooks import LRScheduler
from detectron2.utils import comm
from detectron2.utils.events import EventStorage
from torch import nn

from d2tune.engine.divergence import (
    HINT,
    DivergenceError,
    DivergenceGuard,
    add_images,
    check_weights,
    is_divergence,
    step_error,
    unchanged_statistics,
)
from d2tune.errors import DataError, RunError
from d2tune.modeling import checkpoint
from d2tune.modeling.precision import Precision, autocast_dtype
from d2tune.modeling.reading import first_not_finite
from d2tune.modeling.together import divided_batch
from d2tune.text import reason_of

logger = logging.getLogger(__name__)


_SMOOTHED = 20
"""Iterations that the medians of losses in logs go over, at most."""

_CLOCKS = ("time", "data_time", "eval_time", "eta_seconds")
"""Scalars of the clock, which no run repeats."""


class StoppedError(Exception):
    """Training was stopped on request; ``args[0]`` iterations are completed. A hook raises it after a step."""


class StoppedAtOnceError(StoppedError):
    """Training was stopped in an evaluation, before which everything was saved; the evaluation will be repeated."""


class Trainer(SimpleTrainer):  # type: ignore[misc]  # Detectron2 has no types
    """Trains ``model``; all random numbers of a step follow from the seed and the iteration.

    Hooks have Detectron2's five events and one more, each in the order in which they were registered:
    ``before_train``; then in each iteration ``before_step``, ``after_backward`` and ``after_step``; ``after_last_step``
    where all iterations are completed; at the end ``after_train``.

    Args:
        model: A Detectron2 model, possibly wrapped for distributed training.
        data_loader: Gives batches in Detectron2's format, beginning at the iteration that training begins at.
        optimizer: As built by ``build_optimizer``.
        precision: ``bfloat16`` and ``float16`` run the whole forward pass under autocast on CUDA; with ``float16`` the
            loss is scaled.
        device: ``cpu`` or ``cuda``.
        seed: Seed of the run.
        clip_norm: Largest norm of the gradient of the whole model; None does not clip it.
        accumulate: Parts that a batch is divided into, whose gradients are computed one after the other and averaged.
        skips: Whether a step whose losses or gradients are not finite is skipped instead of ending training.

    Attributes:
        completed: Iterations completed, those before a resume included.
        resumable: Whether all that belongs to these iterations is done, so that training can be resumed from here.
        saved: Iterations in the last checkpoint.
        saved_whole: Whether that checkpoint was written when all hooks had done their part of its last iteration.
        stop_requested: Whether a signal has asked this process to stop.
        stops_at_once: Whether a signal ends training now; see `stoppable_at_once`.
        unfinished: The scalars of the last completed iteration, where a resumed run has to repeat its evaluation.
        ends_early: Whether a hook asks this process to end training as if this step had been the last.
        guard: Ends training where its loss explodes.
    """

    model: nn.Module
    optimizer: torch.optim.Optimizer
    iter: int
    max_iter: int
    storage: EventStorage
    _hooks: list[HookBase]

    def __init__(
        self,
        model: nn.Module,
        data_loader: Iterable[list[dict[str, Any]]],
        optimizer: torch.optim.Optimizer,
        *,
        precision: Precision,
        device: str,
        seed: int,
        clip_norm: float | None,
        accumulate: int = 1,
        skips: bool = False,
    ) -> None:
        super().__init__(model, data_loader, optimizer)
        self._skips = skips
        self._unscaled = False
        self._dtype = autocast_dtype(precision)
        self._autocast = precision != "float32" and device == "cuda"
        self._scaler = torch.GradScaler(device, enabled=precision == "float16")
        self._device = device
        self._seed = seed
        self._clip_norm = clip_norm
        self._accumulate = accumulate
        self.completed = 0
        self.resumable = False
        self.saved = 0
        self.saved_whole = True
        self.stop_requested = False
        self.stops_at_once = False
        self.ends_early = False
        self.unfinished: dict[str, Any] | None = None
        self._history: dict[str, list[list[float]]] = {}
        self.guard = DivergenceGuard()

    def train(self, start_iter: int, max_iter: int) -> None:
        """Train from iteration ``start_iter`` until ``max_iter`` iterations are completed.

        The hooks' ``after_train`` is called in any case; of several errors the first one is raised.

        Raises:
            StoppedError: A hook stopped training.
            RunError: Training has diverged, or an image cannot be read.
        """
        self.iter = self.start_iter = start_iter
        self.max_iter = max_iter
        failure: BaseException | None = None
        with EventStorage(start_iter) as self.storage:
            self._restore_history()
            try:
                self.before_train()
                self._run_iterations()
            except BaseException as error:
                if not isinstance(error, StoppedError):
                    logger.info("training ends with an error", exc_info=True)
                failure = error
            self.storage.iter = self.iter
            for hook in self._hooks:
                try:
                    hook.after_train()
                except BaseException as error:
                    logger.info("%s ends with an error", type(hook).__qualname__, exc_info=True)
                    failure = failure or error
        if failure is not None:
            raise failure

    def _run_iterations(self) -> None:
        self._finish_iteration()
        for iteration in range(self.start_iter, self.max_iter):
            self.iter = iteration
            self.before_step()
            self.run_step()
            self.after_step()
            if self.completed >= self.max_iter:  # a hook may have ended training earlier
                break
        self.iter = self.storage.iter = self.max_iter
        for hook in self._hooks:
            if hasattr(hook, "after_last_step"):
                hook.after_last_step()

    def _restore_history(self) -> None:
        """Give the storage the last scalars of an earlier start, so that medians in logs go on."""
        for name, values in self._history.items():
            history = self.storage.histories()[name]
            for value, iteration in values:
                history.update(value, iteration)
        self._history = {}

    def _finish_iteration(self) -> None:
        """Repeat what comes after the checkpoint of an iteration that was saved before its evaluation."""
        if self.unfinished is None:
            return
        self.iter = self.storage.iter = self.start_iter - 1
        for name, (value, is_smooth) in self.unfinished.items():
            self.storage.put_scalar(name, value, smoothing_hint=is_smooth)
        self.unfinished = None
        saved = next(number for number, hook in enumerate(self._hooks) if getattr(hook, "saves_unfinished", False))
        self._after_step(self._hooks[saved:])

    def run_step(self) -> None:
        """One step: forward, backward, update.

        Raises:
            DataError: An image cannot be read; the state is that after the last step.
            DivergenceError: The losses, the gradients or the weights are not finite, or the loss has exploded.
        """
        start = time.perf_counter()
        data = next_batch(self._data_loader_iter)
        data_time_s = time.perf_counter() - start
        self.resumable = False
        own: nn.Module = getattr(self.model, "module", self.model)
        try:
            with unchanged_statistics(own) if self._skips else nullcontext() as keep:
                self._compute(data, data_time_s)
                if keep is not None:
                    keep()
        except DivergenceError as error:
            add_images(error, own if comm.get_world_size() == 1 else None, data)
            if not (self._skips and error.of_step):
                raise error from error.__cause__
            self._skip(error)
            return
        self.guard.skipped = 0
        self._scaler.step(self.optimizer)
        self._scaler.update()

    def _compute(self, data: list[dict[str, Any]], data_time_s: float) -> None:
        """Compute and check the losses and the gradients of a step.

        Raises:
            DivergenceError: They are not finite, or the loss has exploded.
        """
        torch.manual_seed(self._seed * 1_000_003 + self.iter)
        self._unscaled = False
        losses = self._backward(data)
        if self._scaler.is_enabled():
            self._scaler.unscale_(self.optimizer)
            self._unscaled = True
        self.after_backward()
        self._write_losses(losses, data_time_s)
        self._clip_gradients()

    def _skip(self, error: DivergenceError) -> None:
        """Leave the weights and the optimizer as they are, and say why.

        Raises:
            DivergenceError: Too many steps in a row were skipped, or the weights are not finite.
        """
        check_weights(self.model, iteration=self.iter)
        self.guard.skip(error)
        self.optimizer.zero_grad()
        if self._unscaled:
            self._scaler.update()
        if comm.is_main_process():
            logger.warning("the step is skipped: %s", error.message)

    def _backward(self, data: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        """Compute the gradients of a batch, in parts where they are accumulated; returns the mean of the losses."""
        self.optimizer.zero_grad()
        size = math.ceil(len(data) / self._accumulate)
        divided = [data[at : at + size] for at in range(0, len(data), size)]
        sums: dict[str, torch.Tensor] = {}
        for number, samples in enumerate(divided, start=1):
            with self._gradients_kept_here() if number < len(divided) else nullcontext():
                losses = {name: value * (len(samples) / len(data)) for name, value in self._losses(samples).items()}
                self._scaler.scale(reduce(operator.add, losses.values())).backward()  # type: ignore[no-untyped-call]
            for name, value in losses.items():
                sums[name] = sums[name] + value.detach() if name in sums else value.detach()
        return sums

    def _gradients_kept_here(self) -> AbstractContextManager[None]:
        """Inside, gradients are not averaged over processes, which is done once, with those of the last part."""
        no_sync: Callable[[], AbstractContextManager[None]] = getattr(self.model, "no_sync", nullcontext)
        return no_sync()

    def _losses(self, data: list[dict[str, Any]]) -> dict[str, torch.Tensor]:
        try:
            with divided_batch(), torch.autocast(self._device, dtype=self._dtype, enabled=self._autocast):
                losses: dict[str, torch.Tensor] = self.model(data)
        except Exception as error:
            if not is_divergence(error) and first_not_finite(self.model.state_dict()) is None:
                raise
            reason = reason_of(error)
            message = f"training has diverged at iteration {self.iter}: {reason}"
            if comm.get_world_size() > 1:  # the other processes wait for the gradients of this one
                raise DivergenceError(message, hint=HINT) from error
            raise step_error(message) from error
        return losses

    def _write_losses(self, losses: dict[str, torch.Tensor], data_time_s: float) -> None:
        """Put the losses into the storage, and check them."""
        values = {name: float(value.detach()) for name, value in losses.items()}
        self._agree_to_skip(values)
        self.guard.check(self.iter, values)
        try:
            self._write_metrics(losses, data_time_s)
        except FloatingPointError:  # in another process
            raise step_error(f"training has diverged: the loss is not finite at iteration {self.iter}") from None

    def _agree_to_skip(self, losses: dict[str, float]) -> None:
        """Where steps are skipped, skip one in all processes in which the loss of any is not finite.

        Raises:
            DivergenceError: That of another process is not finite.
        """
        if not self._skips or comm.get_world_size() == 1:
            return
        finite = math.isfinite(sum(losses.values()))
        all_finite = all(comm.all_gather(finite))
        if finite and not all_finite:
            raise step_error(f"the loss of another process is not finite at iteration {self.iter}")

    def _clip_gradients(self) -> None:
        """Clip the gradients, and check that they are finite; those that were scaled too much are left to the scaler.

        Raises:
            DivergenceError: They are not finite.
        """
        if self._clip_norm is None:
            return
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self._clip_norm)
        if not self._scaler.is_enabled() and not bool(torch.isfinite(norm)):
            raise step_error(f"training has diverged: the gradients are not finite at iteration {self.iter}")

    def after_backward(self) -> None:
        """Hooks between the backward pass and the update; Detectron2 0.6 has no such event."""
        for hook in self._hooks:
            if hasattr(hook, "after_backward"):
                hook.after_backward()

    def after_step(self) -> None:
        """Hooks; training can be resumed from here only when all of them succeed."""
        self.completed = self.iter + 1
        self._after_step(self._hooks)

    def _after_step(self, hooks: Sequence[HookBase]) -> None:
        try:
            for hook in hooks:
                hook.after_step()
        except StoppedAtOnceError:
            raise
        except StoppedError:
            self.resumable = True
            raise
        self.resumable = True

    @contextmanager
    def stoppable_at_once(self) -> Iterator[None]:
        """Inside, a signal ends training at once, if a checkpoint has all completed iterations.

        Raises:
            StoppedAtOnceError: A signal came, before or inside.
        """
        may_stop = self.saved == self.completed and comm.get_world_size() == 1
        if may_stop and self.stop_requested:
            raise StoppedAtOnceError(self.completed)
        self.stops_at_once = may_stop
        try:
            yield
        finally:
            self.stops_at_once = False

    def state_dict(self) -> dict[str, Any]:
        """The iteration, the optimizer's state, and that of each hook that has one.

        Hooks are named by their class, the second one of a class ``Name#2`` and so on. Detectron2 itself keeps only
        the state of the first.
        """
        states = {name: hook.state_dict() for name, hook in self._named_hooks()}
        state = {
            "iteration": self.iter,
            "optimizer": self.optimizer.state_dict(),
            "hooks": {name: state for name, state in states.items() if state},
            "first_loss": self.guard.first_loss,
            "skipped": self.guard.skipped,
        }
        return state | ({"scaler": self._scaler.state_dict()} if self._scaler.is_enabled() else {})

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Continue from what `state_dict` returned; a hook without a state in it begins anew.

        Raises:
            RunError: It is the state of another training.
        """
        try:
            self._load_state(state)
        except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
            reason = f"{type(error).__name__}: {reason_of(error)}"
            hint = "Start a new run without --resume."
            raise RunError(f"the checkpoint does not fit this training: {reason}", hint=hint) from error

    def _load_state(self, state: dict[str, Any]) -> None:
        self.iter = state["iteration"]
        self.optimizer.load_state_dict(state["optimizer"])
        self.guard.first_loss = state.get("first_loss")
        self.guard.skipped = state.get("skipped", 0)
        self.unfinished = state.get("unfinished")
        self._history = state.get("history", {})
        if self._scaler.is_enabled() and "scaler" in state:
            self._scaler.load_state_dict(state["scaler"])
        hooks = dict(self._named_hooks())
        for name, hook_state in state.get("hooks", {}).items():
            if name in hooks:
                hooks[name].load_state_dict(hook_state)
            elif comm.is_main_process():
                logger.warning("the checkpoint has the state of a hook that this training does not have: %s", name)
        for hook in hooks.values():
            if isinstance(hook, LRScheduler):  # a longer training has other rates than those of the optimizer's state
                for group, rate in zip(self.optimizer.param_groups, hook.scheduler.get_lr(), strict=True):
                    group["lr"] = rate

    def _named_hooks(self) -> Iterator[tuple[str, HookBase]]:
        count: Counter[str] = Counter()
        for hook in self._hooks:
            name = type(hook).__qualname__
            count[name] += 1
            yield name if count[name] == 1 else f"{name}#{count[name]}", hook

    def checkpoint(self, completed: int, *, is_finished: bool = True) -> dict[str, Any]:
        """Everything needed to resume after ``completed`` iterations.

        Args:
            completed: Iterations completed.
            is_finished: Whether the hooks of the last one have done everything; otherwise the evaluation and the hooks
                behind it are repeated where training is resumed.

        Raises:
            DivergenceError: The weights are not finite.
        """
        model: nn.Module = getattr(self.model, "module", self.model)
        check_weights(model, iteration=completed)
        trainer = checkpoint.detached(self.state_dict()) | {"iteration": completed}
        trainer["history"] = self._latest_history(before=completed if is_finished else completed - 1)
        if not is_finished:
            hints = self.storage.smoothing_hints()
            latest = self.storage.latest().items()
            current = {name: value for name, (value, iteration) in latest if iteration == self.iter}
            trainer["unfinished"] = {name: (float(value), bool(hints[name])) for name, value in current.items()}
        return {"model": checkpoint.plain_state(model), "trainer": trainer}

    def _latest_history(self, *, before: int) -> dict[str, list[list[float]]]:
        """The last values of each scalar with their iterations, which are below ``before``."""
        storage = getattr(self, "storage", None)
        histories = {} if storage is None else storage.histories()
        values = {
            name: [[float(value), iteration] for value, iteration in buffer.values() if iteration < before]
            for name, buffer in histories.items()
            if name not in _CLOCKS
        }
        return {name: some[-_SMOOTHED:] for name, some in sorted(values.items()) if some}

    def close(self) -> None:
        """End the processes that load images."""
        close = getattr(self._data_loader_iter, "_shutdown_workers", None)
        if close is not None:
            close()


def next_batch(batches: Iterator[list[dict[str, Any]]]) -> list[dict[str, Any]]:
    """The next batch.

    Raises:
        DataError: An image cannot be read.
        RunError: A process that loads images was killed.
    """
    try:
        data = next(batches)
    except RuntimeError as error:
        if "DataLoader worker" not in str(error):
            raise
        raise RunError(
            "a process that loads images was killed, most often because memory ran out",
            place="train.workers",
            hint="Set fewer train.workers (0 loads images in the training process), then go on with --resume.",
        ) from error
    for sample in data:
        if isinstance(sample, DataError):
            raise sample
    return data
