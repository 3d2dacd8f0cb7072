"""What an evaluation of label images or panoptic predictions found out: figures with intervals, table and plots."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from d2tune import files
from d2tune.evaluation.outcome import SCHEMA
from d2tune.inference.loop import StageTimes
from d2tune.metrics import bootstrap
from d2tune.metrics.coco.summary import REPLICATES
from d2tune.metrics.metric import Metric, with_interval
from d2tune.metrics.panoptic import PanopticScorer
from d2tune.metrics.semantic import SemanticScorer
from d2tune.report.plots import bar_plots, confusion_plot
from d2tune.report.tables import format_table

MapTask = Literal["semantic", "panoptic"]

MAIN_METRIC: dict[MapTask, str] = {"semantic": "mIoU", "panoptic": "PQ"}
"""The figure that counts, and by which the best weights are chosen."""


@dataclass(frozen=True, slots=True)
class MapMetrics:
    """The figures of a set of label images or panoptic predictions.

    Attributes:
        task: ``semantic`` or ``panoptic``.
        images: Images evaluated.
        metrics: Those of `SemanticResult` or `PanopticResult`; and of data of a competition, by its name, the figure
            that ranks there, times 100.
        classes: What each class scored, with ``name`` and ``metrics``, in the order of the ids.
        confusion: Of a semantic task, pixels ``(K, K + 1)`` as in `SemanticResult`.
        replicates: Draws behind the intervals; 0 where there are none.
    """

    task: MapTask
    images: int
    metrics: dict[str, Metric]
    classes: tuple[dict[str, Any], ...]
    confusion: tuple[tuple[int, ...], ...] = ()
    replicates: int = 0

    @property
    def main(self) -> Metric:
        """The figure that counts: mIoU or PQ."""
        return self.metrics[MAIN_METRIC[self.task]]

    @property
    def headline(self) -> str:
        """The figure that counts, by name: ``mIoU 81.3``."""
        return f"{MAIN_METRIC[self.task]} {self.main}"

    def to_json(self) -> dict[str, Any]:
        """A plain dict with ``metrics.semantic.mIoU`` and so on, each ``{value, low, high, reason}``."""
        plain: dict[str, Any] = {
            "images": self.images,
            "metrics": {self.task: {name: one.to_json() for name, one in self.metrics.items()}},
            "classes": [
                row | {"metrics": {name: one.to_json() for name, one in row["metrics"].items()}} for row in self.classes
            ],
        }
        if self.task == "semantic":
            plain["confusion"] = [list(row) for row in self.confusion]
        return plain | {"replicates": self.replicates}

    @classmethod
    def from_json(cls, plain: Mapping[str, Any]) -> MapMetrics:
        """What ``to_json`` wrote, with the ``task`` beside it."""
        task: MapTask = plain["task"]
        metrics = {name: Metric(**one) for name, one in plain["metrics"][task].items()}
        classes = tuple(
            row | {"metrics": {name: Metric(**one) for name, one in row["metrics"].items()}} for row in plain["classes"]
        )
        confusion = tuple(tuple(row) for row in plain.get("confusion", ()))
        return cls(task, plain["images"], metrics, classes, confusion, plain["replicates"])

    @property
    def table(self) -> str:
        """A row for each class, and the figures with their intervals."""
        header, rows = _semantic_rows(self.classes) if self.task == "semantic" else _panoptic_rows(self.classes)
        figures = [[name, with_interval(one)] for name, one in self.metrics.items()]
        span = f"value (95 % interval over {_counted(self.images)})" if self.replicates else "value"
        return "\n".join([format_table(rows, header=header), "", format_table(figures, header=["figure", span])])


def map_metrics(scorer: SemanticScorer | PanopticScorer, *, intervals: bool) -> MapMetrics:
    """The figures of everything a scorer was given.

    Args:
        scorer: With its images added.
        intervals: Whether each figure gets its 95 % bootstrap interval over the images.
    """
    result = scorer.result()
    metrics = _spanned(result.metrics, scorer.resample, scorer.images) if intervals else result.metrics
    rows = []
    for row in result.classes:
        plain = {name: getattr(row, name) for name in row.__dataclass_fields__}
        rows.append(plain)
    confusion = getattr(result, "confusion", np.zeros((0, 0), np.int64)).tolist()
    task: MapTask = "semantic" if isinstance(scorer, SemanticScorer) else "panoptic"
    return MapMetrics(
        task,
        result.images,
        metrics,
        tuple(rows),
        tuple(tuple(row) for row in confusion),
        REPLICATES if intervals else 0,
    )


def write_map_outcome(
    folder: Path, metrics: MapMetrics, *, bound: Mapping[str, Any], times: StageTimes | None = None
) -> None:
    """Write ``evaluation.json`` and, for label images, the folder ``plots``.

    Args:
        folder: Where they go.
        metrics: What is written.
        bound: Hashes and names of what produced it.
        times: Where the time went.
    """
    content = {"schema": SCHEMA, "task": metrics.task, **bound, **metrics.to_json()}
    content["times"] = None if times is None else times.to_json()
    files.write_json(folder / "evaluation.json", content)
    if metrics.task == "semantic":
        _plot_semantic(folder / "plots", metrics)
    else:
        _plot_panoptic(folder / "plots", metrics)


def map_sentence(metrics: MapMetrics) -> str:
    """The figure that counts, on how many images, in a sentence."""
    name, one = MAIN_METRIC[metrics.task], metrics.main
    on = _counted(metrics.images)
    if one.value is None:
        return f"No {name} can be computed on {on}: {one.reason}."
    return f"{name} on {on}: {with_interval(one)}."


def _counted(images: int) -> str:
    return f"{images} image{'' if images == 1 else 's'}"


def _spanned(
    metrics: dict[str, Metric], resample: Callable[[Any], dict[str, NDArray[np.float64]]], images: int
) -> dict[str, Metric]:
    """The figures with their intervals."""
    spans = bootstrap.intervals(resample, images, replicates=REPLICATES)
    return {
        name: one if one.value is None else replace(one, low=spans[name].low, high=spans[name].high)
        for name, one in metrics.items()
    }


def _semantic_rows(classes: tuple[dict[str, Any], ...]) -> tuple[list[str], list[list[str]]]:
    header = ["class", "pixels", *classes[0]["metrics"]]
    return header, [[row["name"], str(row["pixels"]), *map(str, row["metrics"].values())] for row in classes]


def _panoptic_rows(classes: tuple[dict[str, Any], ...]) -> tuple[list[str], list[list[str]]]:
    header = ["class", "kind", "right", "false", "missed", "PQ", "SQ", "RQ"]
    rows = [
        [row["name"], "thing" if row["isthing"] else "stuff", str(row["tp"]), str(row["fp"]), str(row["fn"])]
        + [str(row["metrics"][name]) for name in ("PQ", "SQ", "RQ")]
        for row in classes
        if row["tp"] + row["fp"] + row["fn"]
    ]
    return header, rows


def _bars(metrics: MapMetrics, figure: str) -> list[bar_plots.Bar]:
    return [
        bar_plots.Bar(row["name"], row["metrics"][figure].value, reason=row["metrics"][figure].reason)
        for row in metrics.classes
    ]


def _plot_semantic(folder: Path, metrics: MapMetrics) -> None:
    subtitle = _counted(metrics.images)
    bars = _bars(metrics, "IoU")
    bar_plots.write_class_figure(folder / "class_iou.png", bars, mean=metrics.main.value, subtitle=subtitle)
    counts = np.array(metrics.confusion, dtype=np.int64)
    square = np.vstack([counts, np.zeros((1, counts.shape[1]), np.int64)])
    names = [row["name"] for row in metrics.classes]
    confusion_plot.write_confusion(folder / "confusion.png", square, names, subtitle=f"pixels of {subtitle}")


def _plot_panoptic(folder: Path, metrics: MapMetrics) -> None:
    subtitle = _counted(metrics.images)
    bars = [bar for bar in _bars(metrics, "PQ") if bar.value is not None]
    if not bars:
        return
    bar_plots.write_class_figure(
        folder / "class_pq.png", bars, mean=metrics.main.value, subtitle=subtitle, figure_name="PQ"
    )
