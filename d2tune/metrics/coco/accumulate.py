"""From matched detections to precision, recall and COCO's twelve metrics.

Matching leaves little: a score, an image, a class and some bits for each detection.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.coco.matching import (
    IOU_THRESHOLDS,
    MAX_DETECTIONS,
    RECALLS,
    AreaRange,
    Bits,
    pack_bits,
    unpack_bits,
)

METRIC_NAMES = ("AP", "AP50", "AP75", "APs", "APm", "APl", "AR1", "AR10", "AR100", "ARs", "ARm", "ARl")
"""COCO's twelve metrics, in pycocotools' order."""


@dataclass(frozen=True, slots=True)
class Records:
    """The result of matching detections of one kind (boxes, masks or boundaries).

    Detections are sorted by class, then by falling score, then by image and by their place in it: the order in which
    pycocotools adds them up. They take 32 bytes each, 48 with more than six area ranges.

    Attributes:
        images: Number of images.
        classes: Number of classes.
        areas: The A area ranges.
        image: ``(N,)``, index of each detection's image, in the order of image ids.
        category: ``(N,)``, index of its class.
        rank: ``(N,)``, its place by score among the detections of its image and class, from 0.
        score: ``(N,)``, float64.
        matched: ``(N, W)``, bits by area range and IoU threshold: it took a ground truth.
        ignored: ``(N, W)``, bits by area range and IoU threshold: it counts neither for nor against the model.
        truth_image: ``(M,)``, index of each ground truth's image.
        truth_category: ``(M,)``, index of its class.
        truth_ignored: ``(M, A)``, whether it is ignored in an area range.
    """

    images: int
    classes: int
    areas: tuple[AreaRange, ...]
    image: NDArray[np.int32]
    category: NDArray[np.int16]
    rank: NDArray[np.int16]
    score: NDArray[np.float64]
    matched: Bits
    ignored: Bits
    truth_image: NDArray[np.int32]
    truth_category: NDArray[np.int16]
    truth_ignored: NDArray[np.bool_]

    @classmethod
    def empty(cls, images: int, classes: int, areas: tuple[AreaRange, ...]) -> Records:
        """Of images without any ground truth and without detections."""
        no_bits = pack_bits(np.zeros((0, len(areas), len(IOU_THRESHOLDS)), dtype=bool))
        image, number, score = np.zeros(0, np.int32), np.zeros(0, np.int16), np.zeros(0)
        ignored = np.zeros((0, len(areas)), dtype=bool)
        return cls(images, classes, areas, image, number, number, score, no_bits, no_bits, image, number, ignored)

    @property
    def bytes_per_detection(self) -> float:
        """Memory that the records take, divided by the detections."""
        columns = (self.image, self.category, self.rank, self.score, self.matched, self.ignored)
        return sum(column.nbytes for column in columns) / max(len(self.score), 1)

    def sorted(self) -> Records:
        """The same detections in the order that this class requires."""
        order = np.lexsort((self.rank, self.image, -self.score, self.category))
        names = ("image", "category", "rank", "score", "matched", "ignored")
        return replace(self, **{name: getattr(self, name)[order] for name in names})

    def flags(self, detections: slice) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Of some detections: whether each is a true positive, and whether it counts at all; ``(n, A, T)`` both."""
        size = {"ranges": len(self.areas), "thresholds": len(IOU_THRESHOLDS)}
        ignored = unpack_bits(self.ignored[detections], **size)
        return unpack_bits(self.matched[detections], **size) & ~ignored, ~ignored

    def of_class(self, number: int) -> slice:
        """The slice of the detections of a class."""
        first, stop = np.searchsorted(self.category, [number, number + 1])
        return slice(int(first), int(stop))

    def truth_counts(self, number: int) -> NDArray[np.int64]:
        """Ground truth of a class on each image that counts in each area range, ``(images, A)``."""
        own = self.truth_category == number
        counts = np.zeros((self.images, len(self.areas)), np.int64)
        np.add.at(counts, self.truth_image[own], ~self.truth_ignored[own])
        return counts

    def truth_totals(self) -> NDArray[np.int64]:
        """Ground truth of each class that counts in each area range, ``(K, A)``."""
        totals = np.zeros((self.classes, len(self.areas)), np.int64)
        np.add.at(totals, self.truth_category, ~self.truth_ignored)
        return totals


@dataclass(frozen=True, slots=True)
class Curves:
    """pycocotools' arrays; -1 where there is no ground truth.

    Attributes:
        precision: ``(T, R, K, A, M)``: IoU thresholds, recalls, classes, area ranges, detections for each image.
        recall: ``(T, K, A, M)``, the highest recall reached.
        scores: ``(T, R, K, A, M)``, the score at which each recall is reached; 0 where it is not.
    """

    precision: NDArray[np.float64]
    recall: NDArray[np.float64]
    scores: NDArray[np.float64]


def accumulate(records: Records) -> Curves:
    """Precision and recall of all images, equal to the arrays of pycocotools' ``accumulate``."""
    shape = (len(IOU_THRESHOLDS), len(RECALLS), records.classes, len(records.areas), len(MAX_DETECTIONS))
    curves = Curves(-np.ones(shape), -np.ones(shape[:1] + shape[2:]), -np.ones(shape))
    for number, truth in enumerate(records.truth_totals()):
        own = records.of_class(number)
        rank, score = records.rank[own], records.score[own]
        positives, counted = records.flags(own)
        for m, limit in reversed(list(enumerate(MAX_DETECTIONS))):
            kept = rank < limit
            if m + 1 < len(MAX_DETECTIONS) and kept.all():
                for array in (curves.precision, curves.recall, curves.scores):
                    array[..., number, :, m] = array[..., number, :, m + 1]
                continue
            for a in np.flatnonzero(truth):
                _fill(curves, (number, int(a), m), score[kept], positives[kept, a], counted[kept, a], truth[a])
    return curves


def _fill(
    curves: Curves,
    cell: tuple[int, int, int],
    score: NDArray[np.float64],
    positives: NDArray[np.bool_],
    counted: NDArray[np.bool_],
    truth: int,
) -> None:
    """Fill in a class, area range and number of detections.

    The highest precision from a place on is always at a true positive, and a recall is reached at one, so that only
    true positives matter.

    Args:
        curves: Where to write.
        cell: Indices of class, area range and number of detections.
        score: ``(n,)``, falling.
        positives: ``(n, T)``, true positives.
        counted: ``(n, T)``, detections that count for or against the model.
        truth: Ground truth that counts; at least 1.
    """
    k, a, m = cell
    curves.precision[:, :, k, a, m] = curves.recall[:, k, a, m] = curves.scores[:, :, k, a, m] = 0
    if len(score):
        curves.scores[:, 0, k, a, m] = score[0]
    seen = np.cumsum(counted, axis=0)
    for t in np.flatnonzero(positives.any(axis=0)):
        at = np.flatnonzero(positives[:, t])
        true = np.arange(1.0, len(at) + 1)
        reached = true / truth
        place = np.searchsorted(reached, RECALLS)
        place = place[place < len(at)]
        curves.recall[t, k, a, m] = reached[-1]
        curves.precision[t, : len(place), k, a, m] = envelope(true / (seen[at, t] + np.spacing(1)))[place]
        curves.scores[t, 1 : len(place), k, a, m] = score[at[place[1:]]]


def envelope(precision: NDArray[np.float64]) -> NDArray[np.float64]:
    """The highest precision from each place on, along the first axis."""
    return np.maximum.accumulate(precision[::-1], axis=0)[::-1]


def coco_metrics(curves: Curves, category: int | None = None) -> dict[str, float]:
    """COCO's twelve metrics, from 0 to 1; NaN where there is nothing to average.

    Args:
        curves: Of area ranges that begin with COCO's four.
        category: Index of one class, or None for all.
    """
    classes = slice(None) if category is None else slice(category, category + 1)
    precision, recall = curves.precision[:, :, classes], curves.recall[:, classes]
    last = len(MAX_DETECTIONS) - 1
    values = {"AP": _mean(precision[..., 0, last])}
    for name, threshold in (("AP50", 0.5), ("AP75", 0.75)):
        values[name] = _mean(precision[threshold == IOU_THRESHOLDS][..., 0, last])
    for a, letter in enumerate("sml", start=1):
        values[f"AP{letter}"] = _mean(precision[..., a, last])
    for m, limit in enumerate(MAX_DETECTIONS):
        values[f"AR{limit}"] = _mean(recall[..., 0, m])
    for a, letter in enumerate("sml", start=1):
        values[f"AR{letter}"] = _mean(recall[..., a, last])
    return values


def _mean(values: NDArray[np.float64]) -> float:
    """The mean of the values that are not -1; NaN without any."""
    kept = values[values > -1]
    return float(np.mean(kept)) if kept.size else float("nan")


def area_precision(curves: Curves, area: int, category: int | None = None) -> float:
    """AP of one area range, from 0 to 1, or NaN: of all classes or of the one with the index ``category``."""
    classes = slice(None) if category is None else slice(category, category + 1)
    return _mean(curves.precision[:, :, classes, area, -1])
