"""The base class of evaluators: predictions of a split are made, scored, saved and drawn."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.evaluation.comparison import ComparedSide
from d2tune.evaluation.images.base import Images
from d2tune.evaluation.summaries import Metrics
from d2tune.inference.predictors.base import Predictor
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.metrics.metric import Metric
from d2tune.timing import StageTimes

Prediction = TypeVar("Prediction")
"""The prediction of an image, as the evaluator of a task keeps it in memory."""


@dataclass(frozen=True, slots=True)
class Quick:
    """The metrics of an evaluation in training.

    Attributes:
        value: The main metric, for which higher is better; None if it cannot be computed.
        line: The most important values on a line.
        scalars: All values by name, for the loggers.
        spanned: Gives the main metric with its 95 % interval, which takes its time.
    """

    value: float | None
    line: str
    scalars: dict[str, float]
    spanned: Callable[[], Metric]


@dataclass(frozen=True, slots=True)
class Scoring:
    """The options of a complete evaluation.

    Attributes:
        split: Name of the data in the reason for a missing value.
        kinds: For instance tasks, the kinds of metrics.
        times: Receives the time of scoring.
    """

    split: str = "the data"
    kinds: Sequence[Kind] = KINDS
    times: StageTimes = field(default_factory=StageTimes)


class Outcome(Protocol):
    """A complete evaluation."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def headline(self) -> str:
        """The main metric with its name: ``mask AP 56.1``."""

    def write(self, folder: Path, *, bound: Mapping[str, Any], times: StageTimes | None) -> None:
        """Write ``evaluation.json`` and ``plots``.

        Args:
            folder: The output folder.
            bound: Paths and hashes of the run, its weights, config, data and predictions.
            times: The time of each stage.
        """


class Evaluator(ABC, Generic[Prediction]):
    """Evaluates the predictions of a task on a split.

    Args:
        dataset: The split with its ground truth and its background.
    """

    def __init__(self, dataset: Dataset) -> None:
        self._dataset = dataset

    def predict(
        self,
        predictor: Predictor[Any, Any],
        *,
        times: StageTimes | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
        only: Collection[int] | None = None,
    ) -> list[Prediction]:
        """Predict on the images of the split, in their order.

        Args:
            predictor: The predictor of the task.
            times: Receives the time of each stage.
            batch_size: Images, or windows, per forward pass.
            show_progress: Whether to show a progress bar; None shows it on a terminal.
            only: Indices of the images that are predicted on, a `shard`; None takes all.

        Raises:
            DataError: An image cannot be read.
        """
        done = () if only is None else set(range(len(self._dataset.images))).difference(only)
        predictions: list[Prediction] = []
        for prediction in predictor.stream(
            self._dataset.images,
            convert=self._kept,
            description="evaluating",
            batch_size=batch_size,
            show_progress=show_progress,
            times=times,
            done=done,
        ):
            if isinstance(prediction, DataError):
                raise prediction
            predictions.append(prediction)
        return predictions

    def shard(self, predictor: Predictor[Any, Any], number: int, shards: int) -> list[int]:
        """The indices, ascending, of the images that one of several processes predicts on.

        Images that share a forward pass stay together, so that predictions have the bits of those of one process.

        Args:
            predictor: The predictor of the task.
            number: Of the process, from 0.
            shards: Number of processes.
        """
        batches = list(predictor.batches(self._dataset.images))
        return sorted(index for batch in batches[number::shards] for index in batch)

    def keep(self, results: Iterable[Any]) -> list[Prediction]:
        """What `predict` returns, of results that were made without a predictor.

        Args:
            results: The result of each image of the split, in their order.
        """
        return [self._kept(index, result, None) for index, result in enumerate(results)]

    def of_others(self, predictions: Sequence[Prediction]) -> list[Prediction]:
        """The predictions of the same images in another dataset, where they may have other ids.

        Args:
            predictions: In the order of the images of this dataset.
        """
        return list(predictions)

    @abstractmethod
    def _kept(self, index: int, result: Any, pixels: Pixels | None) -> Prediction:
        """The part of the result of an image that is kept in memory."""

    @abstractmethod
    def quick(self, predictions: Sequence[Prediction]) -> Quick:
        """Compute the metrics without intervals and analysis."""

    @abstractmethod
    def evaluate(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        """Compute the metrics with intervals and analysis."""

    @abstractmethod
    def side(self, predictions: Sequence[Prediction], *, name: str, truth_sha256: str) -> ComparedSide:
        """The predictions as a side of a comparison.

        Args:
            predictions: The predictions of all images.
            name: Path of the run or evaluation as given.
            truth_sha256: Hash of the ground truth.
        """

    @abstractmethod
    def images(self, predictions: Sequence[Prediction]) -> Images:
        """What is right and wrong on each image."""

    @abstractmethod
    def save(self, predictions: Sequence[Prediction], folder: Path) -> str:
        """Write the predictions to a folder, replacing earlier ones; returns their `digest`."""

    @abstractmethod
    def files(self, folder: Path) -> list[Path]:
        """The files that `save` writes to a folder, but for the list of images."""

    @abstractmethod
    def digest(self, folder: Path) -> str:
        """The SHA-256 of the predictions in a folder.

        Raises:
            OSError: A file of the predictions is missing.
        """

    @abstractmethod
    def load(self, folder: Path) -> list[Prediction]:
        """Read the predictions that `save` wrote."""

    @abstractmethod
    def draw(self, path: Path, predictions: Sequence[Prediction], *, title: str, subtitle: str) -> None:
        """Write a PNG with ground truth beside predictions for up to 16 images."""
