"""What training and evaluation ask of a task: predict a part, score it fast or in full, keep and draw predictions."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol, TypeVar

from detectron2.config import CfgNode

from d2tune.annotations.model.dataset import Dataset
from d2tune.evaluation.map_metrics import MapMetrics
from d2tune.inference.loop import StageTimes
from d2tune.metrics.coco.results import KINDS, Kind
from d2tune.metrics.coco.summary import InstanceMetrics
from d2tune.project import Project

Predictions = TypeVar("Predictions")
"""A task's predictions on a split, as the task keeps them in memory."""

Metrics = InstanceMetrics | MapMetrics


@dataclass(frozen=True, slots=True)
class Quick:
    """The figures of an evaluation in training.

    Attributes:
        value: The one by which the best weights are chosen, higher is better; None where there is none.
        line: All that fits on a line.
        scalars: For the logs, by name.
    """

    value: float | None
    line: str
    scalars: dict[str, float]


@dataclass(frozen=True, slots=True)
class Scoring:
    """How an evaluation in full is done.

    Attributes:
        split: Name of the data in the reason for a missing value.
        kinds: Of an instance task: what to score.
        times: Takes the time of scoring.
    """

    split: str = "the data"
    kinds: Sequence[Kind] = KINDS
    times: StageTimes = field(default_factory=StageTimes)


class Outcome(Protocol):
    """An evaluation in full."""

    @property
    def metrics(self) -> Metrics: ...

    @property
    def headline(self) -> str:
        """The figure that counts, by name: ``mask AP 56.1``."""

    def write(self, folder: Path, *, bound: Mapping[str, Any], times: StageTimes | None) -> None:
        """Write ``evaluation.json`` and ``plots``."""


class Evaluator(Protocol[Predictions]):
    """Everything that depends on the task when a model is evaluated on one part of the data."""

    def predict(
        self,
        model: Any,
        *,
        times: StageTimes | None = None,
        batch_size: int | None = None,
        show_progress: bool | None = None,
    ) -> Predictions:
        """Run the model on the part."""

    def quick(self, found: Predictions) -> Quick:
        """Score without intervals and analysis."""

    def evaluate(self, found: Predictions, scoring: Scoring) -> Outcome:
        """Score with everything that takes its time."""

    def save(self, found: Predictions, folder: Path) -> str:
        """Write the predictions into a folder, replacing earlier ones, and give their `digest`."""

    def digest(self, folder: Path) -> str:
        """The SHA-256 of the predictions in a folder.

        Raises:
            OSError: They are not there.
        """

    def load(self, folder: Path) -> Predictions:
        """Read what `save` wrote."""

    def draw(self, path: Path, found: Predictions, *, title: str, subtitle: str) -> None:
        """Draw ground truth beside prediction for up to 16 images into one PNG."""


def evaluator_of(dataset: Dataset, cfg: CfgNode, project: Project) -> Evaluator[Any]:
    """The evaluator of a project's task on one part of its data.

    Args:
        dataset: The part, with its ground truth.
        cfg: The run's config.
        project: Its task, and how its images are read.
    """
    if project.task == "instance":
        from d2tune.evaluation.instance import InstanceEvaluator

        return InstanceEvaluator(dataset, cfg)
    if project.task == "semantic":
        from d2tune.evaluation.semantic import SemanticEvaluator

        return SemanticEvaluator(dataset, cfg, project)
    from d2tune.evaluation.panoptic import PanopticEvaluator

    return PanopticEvaluator(dataset, cfg)
