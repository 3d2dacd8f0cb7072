"""The metrics of label maps and panoptic predictions as table, JSON and plots."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Self

import numpy as np
from numpy.typing import NDArray

from d2tune import files
from d2tune.evaluation.outcome import SCHEMA
from d2tune.metrics import bootstrap
from d2tune.metrics.coco.summary import REPLICATES
from d2tune.metrics.metric import Metric, with_interval
from d2tune.report.tables import format_table
from d2tune.timing import StageTimes

if TYPE_CHECKING:
    from d2tune.report.plots import bar_plots


@dataclass(frozen=True)
class MapMetrics(ABC):
    """The metrics of a set of label maps or panoptic predictions.

    Attributes:
        images: Number of images.
        metrics: The metrics of `SemanticResult` or `PanopticResult`; for data of a competition also its metric, times
            100, under the name of the competition.
        classes: The results of each class, with ``name`` and ``metrics``, in the order of the ids.
        replicates: Bootstrap replicates of the intervals; 0 without intervals.
    """

    task: ClassVar[str]
    """Name of the task, as in evaluation.json."""
    main_name: ClassVar[str]
    """Name of the metric by which the best weights are chosen."""
    class_metric: ClassVar[str]
    """Name of the metric of a class that is plotted and logged."""

    images: int
    metrics: dict[str, Metric]
    classes: tuple[dict[str, Any], ...]
    replicates: int

    @property
    def main(self) -> Metric:
        """The metric by which the best weights are chosen: mIoU or PQ."""
        return self.metrics[self.main_name]

    @property
    def headline(self) -> str:
        """The main metric with its name: ``mIoU 81.3``."""
        return f"{self.main_name} {self.main}"

    def to_json(self) -> dict[str, Any]:
        """The part of ``evaluation.json`` with ``metrics.semantic.mIoU`` etc., each ``{value, low, high, reason}``."""
        plain: dict[str, Any] = {
            "images": self.images,
            "metrics": {self.task: {name: metric.to_json() for name, metric in self.metrics.items()}},
            "classes": [
                row | {"metrics": {name: metric.to_json() for name, metric in row["metrics"].items()}}
                for row in self.classes
            ],
        }
        return plain | self._more_json() | {"replicates": self.replicates}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> Self:
        """The metrics that ``to_json`` wrote."""
        metrics = {name: Metric(**metric) for name, metric in plain["metrics"][cls.task].items()}
        classes = tuple(
            row | {"metrics": {name: Metric(**metric) for name, metric in row["metrics"].items()}}
            for row in plain["classes"]
        )
        return cls(plain["images"], metrics, classes, plain["replicates"], **cls._more_fields(plain))

    @property
    def table(self) -> str:
        """A table with a row for each class, and a table of the metrics with their intervals."""
        header, rows = self._class_rows()
        values = [[name, with_interval(metric)] for name, metric in self.metrics.items()]
        span = f"value (95 % interval over {counted_images(self.images)})" if self.replicates else "value"
        return "\n".join([format_table(rows, header=header), "", format_table(values, header=["metric", span])])

    @property
    def scalars(self) -> dict[str, float]:
        """All values by name, such as ``semantic/mIoU`` and ``semantic/IoU-road``, for the loggers."""
        overall = {
            f"{self.task}/{name}": metric.value for name, metric in self.metrics.items() if metric.value is not None
        }
        by_class = {row["name"]: row["metrics"][self.class_metric].value for row in self.classes}
        prefix = f"{self.task}/{self.class_metric}"
        return overall | {f"{prefix}-{name}": value for name, value in by_class.items() if value is not None}

    def bars(self) -> list[bar_plots.Bar]:
        """A bar for the plotted metric of each class."""
        from d2tune.report.plots import bar_plots

        plotted = [(row["name"], row["metrics"][self.class_metric]) for row in self.classes]
        return [bar_plots.Bar(name, metric.value, reason=metric.reason) for name, metric in plotted]

    @abstractmethod
    def short_line(self) -> str:
        """The most important values on a line."""

    @abstractmethod
    def plain_summary(self, images: str) -> str:
        """The correct part of the predictions in plain words.

        Args:
            images: The images in words, such as "13 validation images".
        """

    @abstractmethod
    def write_plots(self, folder: Path) -> None:
        """Write each plot as a PNG."""

    @abstractmethod
    def _class_rows(self) -> tuple[list[str], list[list[str]]]:
        """Header and rows of the table of classes."""

    def _more_json(self) -> dict[str, Any]:
        return {}

    @classmethod
    def _more_fields(cls, plain: Mapping[str, Any]) -> dict[str, Any]:
        return {}


@dataclass(frozen=True, slots=True)
class MapOutcome:
    """A complete evaluation of label maps or panoptic predictions."""

    metrics: MapMetrics

    @property
    def headline(self) -> str:
        """The main metric with its name: ``mIoU 81.3``."""
        return self.metrics.headline

    def write(self, folder: Path, *, bound: Mapping[str, Any], times: StageTimes | None) -> None:
        """Write ``evaluation.json`` and ``plots``; see `evaluator.Outcome`."""
        metrics = self.metrics
        content = {"schema": SCHEMA, "task": metrics.task, **bound, **metrics.to_json()}
        content["times"] = None if times is None else times.to_json()
        files.write_json(folder / "evaluation.json", content)
        metrics.write_plots(folder / "plots")


def spanned_main(metrics: MapMetrics, scorer: Any) -> Metric:
    """The main metric with its 95 % interval.

    Args:
        metrics: The metrics without intervals.
        scorer: The scorer that they are from.
    """
    return with_spans({metrics.main_name: metrics.main}, scorer.resample, scorer.images)[metrics.main_name]


def map_sentence(metrics: MapMetrics) -> str:
    """A sentence with the main metric and the number of images."""
    images = counted_images(metrics.images)
    if metrics.main.value is None:
        return f"No {metrics.main_name} can be computed on {images}: {metrics.main.reason}."
    return f"{metrics.main_name} on {images}: {with_interval(metrics.main)}."


def counted_images(images: int) -> str:
    """``1 image`` or ``13 images``."""
    return f"{images} image{'' if images == 1 else 's'}"


def plain_rows(classes: Any) -> tuple[dict[str, Any], ...]:
    """The dataclass rows of a scorer's result as dicts."""
    return tuple({name: getattr(row, name) for name in row.__dataclass_fields__} for row in classes)


def with_spans(
    metrics: dict[str, Metric], resample: Callable[[Any], dict[str, NDArray[np.float64]]], images: int
) -> dict[str, Metric]:
    """The metrics with their 95 % bootstrap intervals over the images.

    Args:
        metrics: The metrics without intervals.
        resample: Gives the metrics for weights of the images; see `bootstrap.intervals`.
        images: Number of images.
    """
    spans = bootstrap.intervals(resample, images, replicates=REPLICATES)
    return {
        name: metric if metric.value is None else replace(metric, low=spans[name].low, high=spans[name].high)
        for name, metric in metrics.items()
    }
