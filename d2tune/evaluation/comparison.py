"""Comparison of two sets of predictions on the same images by a paired bootstrap over the images."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from functools import partial
from typing import TYPE_CHECKING, Any

from d2tune.errors import DataError, RunError
from d2tune.metrics.bootstrap import Comparison, Statistic, Weights, paired_comparisons
from d2tune.metrics.coco.resampling import resample
from d2tune.metrics.coco.results import KIND_NAMES, KINDS, InstanceResult, Kind
from d2tune.metrics.coco.scorer import score_coco
from d2tune.metrics.coco.summary import REPLICATES, replicates_for
from d2tune.report.tables import format_table

if TYPE_CHECKING:
    from d2tune.metrics.mask_tracking import MaskTrackScorer
    from d2tune.metrics.panoptic import PanopticScorer
    from d2tune.metrics.semantic import SemanticScorer

_SHOWN = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR100")


@dataclass(frozen=True, slots=True)
class RunComparison:
    """The comparison of B with A on the same images.

    Attributes:
        a: Path of A as given.
        b: Path of B as given.
        images: Number of images.
        metrics: The comparison of each metric, such as ``segm AP``.
        verdict: The result of the main metric in a sentence.
        main: Key of the main metric in ``metrics``.
    """

    a: str
    b: str
    images: int
    metrics: dict[str, Comparison]
    verdict: str
    main: str

    @property
    def main_name(self) -> str:
        """Name of the main metric, such as ``mask AP``."""
        return _shown_name(self.main)

    def to_json(self) -> dict[str, Any]:
        """The content of ``comparison.json``."""
        return {
            "schema": 1,
            "a": self.a,
            "b": self.b,
            "images": self.images,
            "verdict": self.verdict,
            "figures": {name: asdict(comparison) for name, comparison in self.metrics.items()},
        }

    def table(self) -> str:
        """A table with a row for each metric."""
        rows = [
            [
                _shown_name(name),
                _number(row.value_a),
                _number(row.value_b),
                _number(row.difference, signed=True),
                "-" if row.interval.low is None else f"{row.interval.low:+.1f} to {row.interval.high:+.1f}",
                "-" if row.probability_b_better is None else f"{100 * row.probability_b_better:.0f} %",
            ]
            for name, row in self.metrics.items()
            if row.value_a is not None or row.value_b is not None
        ]
        return format_table(rows, header=["metric", "A", "B", "B - A", "95 % interval", "B better in"])


def _shown_name(name: str) -> str:
    """``mask AP`` for ``segm AP``, and ``mIoU`` for ``semantic mIoU``."""
    kind, metric = name.split()
    known = {str(key): word for key, word in KIND_NAMES.items()}
    return f"{known[kind]} {metric}" if kind in known else metric


def _number(value: float | None, *, signed: bool = False) -> str:
    return "-" if value is None else f"{value:+.1f}" if signed else f"{value:.1f}"


@dataclass(frozen=True)
class ComparedSide(ABC):
    """A set of predictions with its ground truth.

    Attributes:
        name: Its path as given.
        truth_sha256: Hash of the ground truth.
    """

    name: str
    truth_sha256: str

    def compare(self, b: ComparedSide) -> RunComparison:
        """Compare side ``b`` with this side (A).

        Raises:
            RunError: The tasks differ.
            DataError: There are no images to compare on.
        """
        if type(self) is not type(b) or self.task != b.task:
            raise RunError("runs of different tasks cannot be compared", file=b.name, found=b.task, expected=self.task)
        return self._compared(b)

    @property
    @abstractmethod
    def task(self) -> str:
        """Name of the task."""

    @abstractmethod
    def main_statistic(self) -> Statistic:
        """The main metric as a function of the weights of the images, in their order."""

    @abstractmethod
    def _compared(self, b: Any) -> RunComparison:
        """The comparison with a side of the same class."""


@dataclass(frozen=True)
class InstanceSide(ComparedSide):
    """Instance predictions.

    Attributes:
        truth: A COCO instances dict.
        results: Rows in COCO's results format.
        kinds: The kinds of metrics that can be computed.
    """

    truth: Mapping[str, Any]
    results: list[dict[str, Any]]
    kinds: tuple[Kind, ...]

    @property
    def task(self) -> str:
        """``instance``."""
        return "instance"

    def main_statistic(self) -> Statistic:
        """Mask AP; box AP where there are no masks."""
        kind: Kind = "segm" if "segm" in self.kinds else "bbox"
        records = score_coco(dict(self.truth), self.results, kinds=(kind,)).kinds[kind].records
        return lambda weights: resample(records, weights).overall["AP"]

    def _compared(self, b: InstanceSide) -> RunComparison:
        kinds: tuple[Kind, ...] = KINDS if self.kinds == b.kinds == KINDS else ("bbox",)
        if not self.truth.get("images"):
            raise DataError("there are no images to compare on", file=self.name)
        result_a, result_b = (score_coco(dict(side.truth), side.results, kinds=kinds) for side in (self, b))
        metrics: dict[str, Comparison] = {}
        for kind in kinds:
            compared = paired_comparisons(
                partial(_statistics, result_a, kind),
                partial(_statistics, result_b, kind),
                len(result_a.image_ids),
                replicates=min(replicates_for(result) for result in (result_a, result_b)),
            )
            metrics |= {f"{kind} {name}": compared[name] for name in _SHOWN}
        main = "segm AP" if "segm" in kinds else "bbox AP"
        verdict = f"{_shown_name(main)}: {metrics[main].verdict}"
        return RunComparison(self.name, b.name, len(result_a.image_ids), metrics, verdict, main)


def _statistics(result: InstanceResult, kind: Kind, weights: Weights) -> dict[str, Any]:
    values = resample(result.kinds[kind].records, weights).overall
    return {name: values[name] for name in _SHOWN}


@dataclass(frozen=True)
class MapSide(ComparedSide):
    """Label maps, panoptic predictions or followed objects.

    Attributes:
        scorer: A scorer with all images added.
        task_name: Name of the task.
        main_name: Name of the main metric.
    """

    scorer: SemanticScorer | PanopticScorer | MaskTrackScorer
    task_name: str
    main_name: str

    @property
    def task(self) -> str:
        """The name of the task."""
        return self.task_name

    def main_statistic(self) -> Statistic:
        """The metric named ``main_name``."""
        return lambda weights: self.scorer.resample(weights)[self.main_name]

    def _compared(self, b: MapSide) -> RunComparison:
        compared = paired_comparisons(
            self.scorer.resample, b.scorer.resample, self.scorer.images, replicates=REPLICATES
        )
        metrics = {f"{self.task} {name}": comparison for name, comparison in compared.items()}
        verdict = f"{self.main_name}: {compared[self.main_name].verdict}"
        return RunComparison(self.name, b.name, self.scorer.images, metrics, verdict, f"{self.task} {self.main_name}")
