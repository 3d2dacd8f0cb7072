"""Score thresholds, and how well scores are calibrated as probabilities.

The input is the detections of one class, matched to ground truth at IoU 0.5. A match does not depend on detections of
lower score, so that the matches above a threshold are the same without the detections below it. Scores and thresholds
are between 0 and 1, precision, recall, F1 and calibration errors between 0 and 100.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.metric import Metric, ratio


@dataclass(frozen=True, slots=True)
class PrecisionRecall:
    """Precision, recall and F1 of the detections of a score or more, for each of T different scores.

    Attributes:
        thresholds: ``(T,)``, falling.
        precision: ``(T,)``.
        recall: ``(T,)``, NaN without ground truth.
        f1: ``(T,)``, ``2 TP / (detections + ground truth)``.
        n_gt: Instances of ground truth.
    """

    thresholds: NDArray[np.float64]
    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    f1: NDArray[np.float64]
    n_gt: int


@dataclass(frozen=True, slots=True)
class OperatingPoint:
    """A score threshold with its precision, recall and F1, or the reason why there is none.

    Attributes:
        threshold: Detections of this score or more are kept.
        precision: Share of them that match an instance.
        recall: Share of the instances that are detected.
        f1: Harmonic mean of both.
        reason: Why there is no threshold; the other attributes are None then.
    """

    threshold: float | None
    precision: float | None = None
    recall: float | None = None
    f1: float | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class CalibrationBin:
    """Detections with scores in one range.

    Attributes:
        low: Lower end, excluded, except of the first range.
        high: Upper end, included.
        count: Number of detections.
        score: Their mean score, or None without detections.
        precision: Share of them that match, or None without detections.
    """

    low: float
    high: float
    count: int
    score: float | None
    precision: float | None


@dataclass(frozen=True, slots=True)
class Calibration:
    """The agreement of scores and shares of matches.

    Attributes:
        bins: Ranges of scores of equal width from 0 to 1.
        expected_error: Expected calibration error: the mean over detections of the distance between mean score and
            share of matches in their bin (Guo et al., "On Calibration of Modern Neural Networks", ICML 2017), in
            points from 0 to 100. Detections below a detector's score threshold are not included.
    """

    bins: tuple[CalibrationBin, ...]
    expected_error: Metric


def precision_recall(
    scores: NDArray[np.float64], matched: NDArray[np.bool_], ignored: NDArray[np.bool_], n_gt: int
) -> PrecisionRecall:
    """The curve of one class, or of the detections of all classes together.

    Args:
        scores: ``(N,)``, in any order.
        matched: ``(N,)``, whether each matches an instance.
        ignored: ``(N,)``, whether each is ignored, as on a crowd.
        n_gt: Instances of ground truth that count.
    """
    order = np.argsort(-scores[~ignored], kind="stable")
    falling, right = np.asarray(scores[~ignored][order], np.float64), matched[~ignored][order]
    last = np.append(falling[1:] != falling[:-1], True)[: len(falling)]  # equal scores pass a threshold together
    true, kept = np.cumsum(right)[last], np.arange(1, len(falling) + 1)[last]
    return PrecisionRecall(
        falling[last], 100 * true / kept, 100 * ratio(true, np.float64(n_gt)), 200 * true / (kept + n_gt), n_gt
    )


def best_f1(curve: PrecisionRecall) -> OperatingPoint:
    """The threshold with the highest F1; of several, the highest threshold."""
    reason = _why_none(curve)
    return OperatingPoint(None, reason=reason) if reason else _point(curve, int(np.argmax(curve.f1)))


def for_precision(curve: PrecisionRecall, precision: float) -> OperatingPoint:
    """The lowest threshold, and so the highest recall, with at least this precision (from 0 to 100)."""
    reason = _why_none(curve)
    if reason:
        return OperatingPoint(None, reason=reason)
    reached = np.flatnonzero(curve.precision >= precision)
    if not reached.size:
        highest = curve.precision.max()
        return OperatingPoint(
            None, reason=f"no threshold reaches a precision of {precision:g}; the highest is {highest:.1f}"
        )
    return _point(curve, int(reached[-1]))


def calibration(
    scores: NDArray[np.float64], matched: NDArray[np.bool_], ignored: NDArray[np.bool_], *, bins: int = 10
) -> Calibration:
    """The agreement of scores and shares of matches.

    Args:
        scores: ``(N,)``, from 0 to 1.
        matched: ``(N,)``, whether each detection matches an instance.
        ignored: ``(N,)``, whether each is ignored.
        bins: Number of ranges of scores.
    """
    counted, right = np.asarray(scores[~ignored], np.float64), matched[~ignored]
    edges = np.linspace(0, 1, bins + 1)
    places = np.clip(np.searchsorted(edges, counted, side="left") - 1, 0, bins - 1)
    counts = np.bincount(places, minlength=bins)
    mean_scores = ratio(np.bincount(places, weights=counted, minlength=bins), counts)
    shares = ratio(np.bincount(places, weights=right, minlength=bins), counts)
    rows = tuple(
        CalibrationBin(
            float(edges[index]),
            float(edges[index + 1]),
            int(count),
            float(mean_scores[index]) if count else None,
            float(100 * shares[index]) if count else None,
        )
        for index, count in enumerate(counts)
    )
    if not len(counted):
        return Calibration(rows, Metric(None, "no detection"))
    filled = counts > 0
    error = np.sum(counts[filled] * np.abs(mean_scores[filled] - shares[filled])) / len(counted)
    return Calibration(rows, Metric(float(100 * error)))


def _why_none(curve: PrecisionRecall) -> str | None:
    if curve.n_gt == 0:
        return "no ground truth"
    if not len(curve.thresholds):
        return "no detection"
    return None if curve.f1.any() else "no detection matches an instance"


def _point(curve: PrecisionRecall, index: int) -> OperatingPoint:
    return OperatingPoint(
        float(curve.thresholds[index]),
        float(curve.precision[index]),
        float(curve.recall[index]),
        float(curve.f1[index]),
    )
