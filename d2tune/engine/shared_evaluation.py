"""Evaluations that all processes of a training do together, with the bits of one process that does them alone."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager, nullcontext
from typing import Any

from detectron2.utils import comm
from torch import distributed, nn

from d2tune.engine.hooks.base import Hook
from d2tune.engine.hooks.keep_best import evaluation_due
from d2tune.engine.hooks.weight_average import WeightAverage
from d2tune.engine.plan import TrainingPlan
from d2tune.engine.validation_loss import ValidationLoss
from d2tune.errors import DataError
from d2tune.evaluation.evaluator import Evaluator
from d2tune.tasks import task_of
from d2tune.timing import StageTimes

_EVALUATE, _RESCORE, _DONE = "evaluate", "rescore", "done"
"""What the first process asks the others for."""


class SharedEvaluation:
    """Predicts on the validation split and computes its loss, each process for its batches of images.

    The first process calls `evaluate` and `rescore` inside of `leading`, while the others are in `assist`. Alone, a
    process does everything itself.

    Args:
        plan: The run's decisions.
        model: The model in training, not wrapped.
        average: Whose averaged weights are evaluated, or None for the model's own.

    Attributes:
        evaluator: Of the validation split.
    """

    def __init__(self, plan: TrainingPlan, model: nn.Module, *, average: WeightAverage | None) -> None:
        task, val = task_of(plan.project), plan.splits.val
        self.evaluator: Evaluator[Any] = task.evaluator(val, plan.cfg, plan.project)
        self._model = model
        self._average = average
        self._predictor = task.predictor(model, plan.cfg, plan.project, val.categories)
        self._loss = ValidationLoss(plan, model) if plan.project.train.validation_loss else None

    def weights(self) -> Any:
        """Inside, the model has the weights that are evaluated."""
        return nullcontext() if self._average is None else self._average.averaged()

    def evaluate(self, times: StageTimes) -> tuple[list[Any], dict[str, float]]:
        """The predictions of all images, and the validation losses.

        Raises:
            DataError: An image cannot be read.
        """
        self._ask(_EVALUATE)
        return self._evaluate(times)

    def rescore(self, times: StageTimes) -> list[Any]:
        """The predictions of all images with the present weights of the first process.

        Raises:
            DataError: An image cannot be read.
        """
        self._ask(_RESCORE)
        self._send_weights()
        return self._predict(times)

    @contextmanager
    def leading(self) -> Iterator[None]:
        """Inside, the other processes assist the first one."""
        yield
        self._ask(_DONE)

    def assist(self) -> None:
        """Do what the first process asks for until it is done."""
        while (wanted := comm.all_gather("")[0]) != _DONE:
            if wanted == _EVALUATE:
                self._evaluate(StageTimes())
            else:
                own = {name: value.clone() for name, value in self._model.state_dict().items()}
                self._send_weights()
                self._predict(StageTimes())
                self._model.load_state_dict(own)

    def _ask(self, what: str) -> None:
        if comm.get_world_size() > 1:
            comm.all_gather(what)

    def _send_weights(self) -> None:
        if comm.get_world_size() > 1:
            for value in self._model.state_dict().values():
                distributed.broadcast(value, src=0)

    def _evaluate(self, times: StageTimes) -> tuple[list[Any], dict[str, float]]:
        with self.weights():
            return self._predict(times), {} if self._loss is None else self._loss.measure()

    def _predict(self, times: StageTimes) -> list[Any]:
        """The predictions of all images in the first process; nothing in the others."""
        if comm.get_world_size() == 1:
            return self.evaluator.predict(self._predictor, times=times)
        rank, world = comm.get_rank(), comm.get_world_size()
        mine, predicted = self.evaluator.shard(self._predictor, rank, world), []
        failure: DataError | None = None
        try:
            show = None if rank == 0 else False
            predicted = self.evaluator.predict(self._predictor, times=times, only=mine, show_progress=show)
        except DataError as error:
            failure = error
        gathered = comm.gather((mine, predicted, failure))
        merged: dict[int, Any] = {}
        for indices, predictions, unreadable in gathered:
            if unreadable is not None:
                raise unreadable
            merged |= dict(zip(indices, predictions, strict=True))
        return [merged[index] for index in sorted(merged)]


class Assist(Hook):
    """Lets a process other than the first one do its share of each evaluation.

    Args:
        shared: The evaluation.
        period: Iterations between evaluations.
        is_rechecked: Whether the first process scores the best weights of an earlier start.
    """

    saves_unfinished = True

    def __init__(self, shared: SharedEvaluation, *, period: int, is_rechecked: bool) -> None:
        self._assist: Callable[[], None] = shared.assist
        self._period = period
        self._is_rechecked = is_rechecked

    def before_train(self) -> None:
        if self._is_rechecked:
            self._assist()

    def after_step(self) -> None:
        if evaluation_due(self.trainer.iter + 1, period=self._period, last=self.trainer.max_iter):
            self._assist()

    def after_last_step(self) -> None:
        self._assist()
