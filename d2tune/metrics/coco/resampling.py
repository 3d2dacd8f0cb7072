"""COCO's metrics of images that count several times or not at all, from the matches of all images."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.coco.accumulate import METRIC_NAMES, Records, envelope
from d2tune.metrics.coco.matching import COCO_AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, RECALLS

BYTES_AT_ONCE = 128 * 2**20
"""Memory that :func:`resample` fills; more weights than fit are handled in turn."""

RECALLS_REACHED = (*((0, limit) for limit in MAX_DETECTIONS), *((a, MAX_DETECTIONS[-1]) for a in range(1, 4)))
"""Area range and limit of detections of COCO's six average recalls."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """Metrics of R draws, from 0 to 100; NaN where a draw has no ground truth.

    Attributes:
        overall: ``(R,)`` for each of COCO's twelve metrics, and ``AP NAME`` for each further area range.
        classes: The same for each class, in their order.
    """

    overall: dict[str, NDArray[np.float64]]
    classes: tuple[dict[str, NDArray[np.float64]], ...]


@dataclass(frozen=True, slots=True)
class _Layer:
    """The values that some metrics of r draws are means of.

    Attributes:
        names: The metrics.
        thresholds: The IoU thresholds of each metric.
        values: ``(r, K, T, n)``, n numbers for each threshold; only valid until the next layer.
        present: ``(r, K)``, whether there is ground truth.
    """

    names: tuple[str, ...]
    thresholds: tuple[slice, ...]
    values: NDArray[np.float64]
    present: NDArray[np.bool_]


def resample(records: Records, weights: NDArray[np.int64]) -> Resampled:
    """COCO's metrics with each image counted as often as its weight; nothing is matched again.

    With weights of 1 the metrics are those of :func:`d2tune.metrics.coco.accumulate.coco_metrics`, to the last bit.
    An image that counts w times is the same as w copies of it, except for the order of detections of one class on one
    image with the same score.

    Args:
        records: The matches, with area ranges that begin with COCO's four.
        weights: ``(R, images)``, images in the order of their ids.
    """
    largest = int(np.bincount(records.category, minlength=1).max())
    cells = 6 * largest + 2 * len(IOU_THRESHOLDS) * len(RECALLS) * records.classes
    step = max(1, BYTES_AT_ONCE // (8 * max(cells, 1)))
    draws = [_draw(records, weights[start : start + step]) for start in range(0, max(len(weights), 1), step)]

    def joined(chunks: list[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
        return {name: np.concatenate([chunk[name] for chunk in chunks]) for name in chunks[0]}

    return Resampled(
        joined([draw.overall for draw in draws]),
        tuple(joined([draw.classes[number] for draw in draws]) for number in range(records.classes)),
    )


def _draw(records: Records, weights: NDArray[np.int64]) -> Resampled:
    """The metrics of as many draws as fit into memory."""
    overall: dict[str, NDArray[np.float64]] = {}
    classes: list[dict[str, NDArray[np.float64]]] = [{} for _ in range(records.classes)]
    for layer in _layers(records, np.ascontiguousarray(weights.T, dtype=np.float64)):
        overall.update(zip(layer.names, _means(layer), strict=True))
        for k, metrics in enumerate(classes):
            for name, thresholds in zip(layer.names, layer.thresholds, strict=True):
                values = layer.values[:, k, thresholds]
                means = values.reshape(len(values), values.shape[1] * values.shape[2]).mean(axis=1)
                metrics[name] = np.where(layer.present[:, k], 100 * means, np.nan)
    return Resampled(overall, tuple(classes))


def _layers(records: Records, by_image: NDArray[np.float64]) -> Iterator[_Layer]:
    """Precision by area range and recall, in the order of COCO's metrics; further area ranges come last."""
    draws, levels = by_image.shape[1], len(IOU_THRESHOLDS)
    truth = np.zeros((len(records.areas), draws, records.classes))
    for k in range(records.classes):
        truth[:, :, k] = records.truth_counts(k).T.astype(float) @ by_image
    precision = np.zeros((draws, records.classes, levels, len(RECALLS)))

    def layer(a: int, names: tuple[str, ...], thresholds: tuple[slice, ...]) -> _Layer:
        for k in np.flatnonzero(truth[a].any(axis=0)):
            _fill_precision(precision[:, k], records, int(k), a, by_image, truth[a, :, k, None])
        return _Layer(names, thresholds, precision, truth[a] > 0)

    at = [int(np.flatnonzero(share == IOU_THRESHOLDS)[0]) for share in (0.5, 0.75)]
    yield layer(0, METRIC_NAMES[:3], (slice(None), *(slice(t, t + 1) for t in at)))
    for a, name in enumerate(METRIC_NAMES[3:6], start=1):
        yield layer(a, (name,), (slice(None),))
    reached = np.zeros((len(RECALLS_REACHED), draws, records.classes, levels, 1))
    for k in range(records.classes):
        reached[:, :, k, :, 0] = _true_positives(records, k, by_image)
    for (a, _), name, counts in zip(RECALLS_REACHED, METRIC_NAMES[6:], reached, strict=True):
        counts /= np.maximum(truth[a], 1)[:, :, None, None]
        yield _Layer((name,), (slice(None),), counts, truth[a] > 0)
    for a, area in enumerate(records.areas[len(COCO_AREAS) :], start=len(COCO_AREAS)):
        yield layer(a, (f"AP {area.name}",), (slice(None),))


def _true_positives(records: Records, number: int, by_image: NDArray[np.float64]) -> NDArray[np.float64]:
    """True positives of a class, ``(6, r, T)`` for `RECALLS_REACHED`."""
    own = records.of_class(number)
    positives, _ = records.flags(own)
    images, place = np.unique(records.image[own], return_inverse=True)
    size = (len(images), len(IOU_THRESHOLDS))
    counts = np.zeros((len(RECALLS_REACHED), size[1], size[0]))
    for row, (a, limit) in zip(counts, RECALLS_REACHED, strict=True):
        detection, level = np.nonzero(positives[:, a] & (records.rank[own] < limit)[:, None])
        row[:] = np.bincount(place[detection] * size[1] + level, minlength=size[0] * size[1]).reshape(size).T
    totals: NDArray[np.float64] = (counts @ by_image[images]).swapaxes(1, 2)
    return totals


def _fill_precision(
    target: NDArray[np.float64],
    records: Records,
    number: int,
    a: int,
    by_image: NDArray[np.float64],
    truth: NDArray[np.float64],
) -> None:
    """Precision at COCO's recalls of a class and area range.

    Precision only rises at a true positive, so that only true positives matter.

    Args:
        target: ``(r, T, 101)``, where to write.
        records: The matches.
        number: Index of the class.
        a: Index of the area range.
        by_image: Weights, ``(images, r)``.
        truth: Ground truth, ``(r, 1)``.
    """
    own = records.of_class(number)
    image = records.image[own]
    positives, counted = (np.ascontiguousarray(flags[:, a].T) for flags in records.flags(own))
    everything = None
    for t in range(len(IOU_THRESHOLDS)):
        if t and (positives[t] == positives[t - 1]).all() and (counted[t] == counted[t - 1]).all():
            target[:, t] = target[:, t - 1]
            continue
        at = np.flatnonzero(positives[t])
        if not len(at):
            target[:, t] = 0
            continue
        ignored = np.flatnonzero(~counted[t])
        if 2 * len(ignored) < len(image):
            if everything is None:
                everything = _running_sum(by_image, image)
            seen = everything[at]
            if len(ignored):
                before = np.searchsorted(ignored, at)
                seen[before > 0] -= _running_sum(by_image, image[ignored])[before[before > 0] - 1]
        else:
            chosen = np.flatnonzero(counted[t])
            seen = _running_sum(by_image, image[chosen])[np.searchsorted(chosen, at)]
        target[:, t] = _at_recalls(_running_sum(by_image, image[at]), seen, truth)


def _running_sum(by_image: NDArray[np.float64], image: NDArray[np.int32]) -> NDArray[np.float64]:
    """Sums of the weights up to and including each of n detections, ``(n, r)``."""
    sums = by_image[image]
    return np.cumsum(sums, axis=0, out=sums)


def _at_recalls(
    true: NDArray[np.float64], seen: NDArray[np.float64], truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolated precision ``(r, 101)``.

    Args:
        true: ``(P, r)``, true positives up to and including each; P is at least 1.
        seen: ``(P, r)``, detections that count up to and including each; overwritten.
        truth: ``(r, 1)``, ground truth.
    """
    draws = len(truth)
    seen += np.spacing(1)
    best = envelope(np.divide(true, seen, out=seen))
    recall = np.ascontiguousarray(true.T) / np.maximum(truth, 1)
    if len(best) < len(RECALLS):
        # fewer true positives than recalls: each gives its precision to the recalls that it is the first to reach
        times = np.full((draws, len(best) + 1), len(RECALLS))
        times[:, :-1] = np.searchsorted(RECALLS, recall, side="right")
        times[:, 1:] -= times[:, :-1].copy()
        values = np.zeros(times.shape)
        values[:, :-1] = best.T
        return np.repeat(values.reshape(-1), times.reshape(-1)).reshape(draws, -1)
    place = np.stack([row.searchsorted(RECALLS) for row in recall])
    picked = best[np.minimum(place, len(best) - 1), np.arange(draws)[:, None]]
    return np.where(place < len(best), picked, 0.0)


def _means(layer: _Layer) -> list[NDArray[np.float64]]:
    """100 times the mean for each draw over all classes with ground truth, ``(r,)`` for each metric.

    Draws with the same classes are averaged together, each along its own row, thresholds first and classes last:
    numpy then adds the numbers in the same order as those of a single draw.
    """
    draws = len(layer.values)
    means = [np.full(draws, np.nan) for _ in layer.names]
    if not layer.present.any():
        return means
    patterns, pattern_of = np.unique(layer.present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(pattern_of.reshape(-1) == number)
        kept = layer.values[np.ix_(rows, np.flatnonzero(pattern))]
        ordered = np.ascontiguousarray(np.moveaxis(kept, 1, -1))
        for values, thresholds in zip(means, layer.thresholds, strict=True):
            if pattern.any():
                values[rows] = 100 * ordered[:, thresholds].reshape(len(rows), -1).mean(axis=1)
    return means
