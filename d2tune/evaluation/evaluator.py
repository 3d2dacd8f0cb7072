"""Evaluating one split of the data: predict it, score it fast or completely, keep and draw the predictions."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

from d2tune.annotations.model.dataset import Dataset
from d2tune.data.image_reader import Pixels
from d2tune.errors import DataError
from d2tune.evaluation.comparison import ComparedSide
from d2tune.evaluation.summaries import Metrics
from d2tune.inference.predictors.base import Predictor
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.timing import StageTimes

Prediction = TypeVar("Prediction")
"""The prediction on one image, as the evaluator of a task keeps it in memory."""


@dataclass(frozen=True, slots=True)
class Quick:
    """The metrics of an evaluation in training.

    Attributes:
        value: The main metric, higher is better; None where it cannot be computed.
        line: The most important values on one line.
        scalars: All values by name, for the logs.
    """

    value: float | None
    line: str
    scalars: dict[str, float]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How a complete evaluation is done.

    Attributes:
        split: Name of the data in the reason for a missing value.
        kinds: Of an instance task: what to score.
        times: Takes the time of scoring.
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
            folder: Where they go.
            bound: Hashes and names of what produced it.
            times: Where the time went.
        """


class Evaluator(ABC, Generic[Prediction]):
    """Everything that depends on the task when a model is evaluated on one split of the data.

    Args:
        dataset: The split with its ground truth, its background painted.
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
    ) -> list[Prediction]:
        """The predictions on the images of the split, in their order.

        Args:
            predictor: The predictor of the task.
            times: Takes the time of each stage.
            batch_size: Images, or windows, per forward pass.
            show_progress: Whether to draw a progress bar; None draws one on a terminal.

        Raises:
            DataError: An image cannot be read.
        """
        predictions: list[Prediction] = []
        for prediction in predictor.stream(
            self._dataset.images,
            convert=self._kept,
            description="evaluating",
            batch_size=batch_size,
            show_progress=show_progress,
            times=times,
        ):
            if isinstance(prediction, DataError):
                raise prediction
            predictions.append(prediction)
        return predictions

    @abstractmethod
    def _kept(self, index: int, result: Any, pixels: Pixels | None) -> Prediction:
        """What is kept in memory of the result on an image."""

    @abstractmethod
    def quick(self, predictions: Sequence[Prediction]) -> Quick:
        """Score without intervals and analysis."""

    @abstractmethod
    def evaluate(self, predictions: Sequence[Prediction], scoring: Scoring) -> Outcome:
        """Score with intervals, analysis and everything else that takes time."""

    @abstractmethod
    def side(self, predictions: Sequence[Prediction], *, name: str, truth_sha256: str) -> ComparedSide:
        """The predictions as one side of a comparison; see `comparison`."""

    @abstractmethod
    def save(self, predictions: Sequence[Prediction], folder: Path) -> str:
        """Write the predictions into a folder, replacing earlier ones, and give their `digest`."""

    @abstractmethod
    def digest(self, folder: Path) -> str:
        """The SHA-256 of the predictions in a folder.

        Raises:
            OSError: They are not there.
        """

    @abstractmethod
    def load(self, folder: Path) -> list[Prediction]:
        """Read what `save` wrote."""

    @abstractmethod
    def draw(self, path: Path, predictions: Sequence[Prediction], *, title: str, subtitle: str) -> None:
        """Draw ground truth beside prediction for up to 16 images into one PNG."""
