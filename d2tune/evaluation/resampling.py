"""COCO's figures again for images drawn with repetition, from the records that matching left."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray

from d2tune.evaluation.accumulate import NAMES, Records, envelope
from d2tune.evaluation.matching import COCO_AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, RECALLS

BYTES_AT_ONCE = 256 * 2**20
"""About what :func:`resample` fills; more weights than fit are dealt with in turn."""


@dataclass(frozen=True, slots=True)
class Resampled:
    """Figures of R draws, from 0 to 100; NaN where a draw has no ground truth to compute one from.

    Attributes:
        overall: ``(R,)`` for each of COCO's twelve figures, and ``AP NAME`` for each further area range.
        classes: The same for each class, in their order.
    """

    overall: dict[str, NDArray[np.float64]]
    classes: tuple[dict[str, NDArray[np.float64]], ...]


def resample(records: Records, weights: NDArray[np.int64]) -> Resampled:
    """COCO's figures with each image counted as often as its weight says; nothing is matched again.

    With weights of 1 the figures are those of :func:`d2tune.evaluation.accumulate.figures`, to the last bit. An image
    that counts w times is the same as w copies of it; only where two detections of one class on one image have the
    same score do copies stand in another order.

    Args:
        records: What matching left, with area ranges that begin with COCO's four.
        weights: ``(R, images)``, images in the order of their ids.
    """
    largest = int(np.bincount(records.category, minlength=1).max())
    cells = 8 * largest + len(IOU_THRESHOLDS) * len(RECALLS) * records.classes * (len(records.areas) + 1)
    step = max(1, BYTES_AT_ONCE // (8 * cells))
    draws = [_draw(records, weights[start : start + step]) for start in range(0, max(len(weights), 1), step)]

    def joined(parts: list[dict[str, NDArray[np.float64]]]) -> dict[str, NDArray[np.float64]]:
        return {name: np.concatenate([part[name] for part in parts]) for name in parts[0]}

    return Resampled(
        joined([draw.overall for draw in draws]),
        tuple(joined([draw.classes[number] for draw in draws]) for number in range(records.classes)),
    )


def _draw(records: Records, weights: NDArray[np.int64]) -> Resampled:
    """The figures of as many draws as fit into memory."""
    by_image = np.ascontiguousarray(weights.T, dtype=np.float64)
    size = (len(weights), len(IOU_THRESHOLDS), len(RECALLS), records.classes)
    precision = np.full((len(records.areas), *size), np.nan)
    reached = np.full((len(records.areas), len(MAX_DETECTIONS), size[0], size[1], size[3]), np.nan)
    for number in range(records.classes):
        truth = (records.truth_counts(number).T.astype(float) @ by_image)[..., None]
        for a, m, t, totals in _totals(records, number, by_image):
            np.divide(totals, truth[a, :, 0], out=reached[a, m, :, t, number], where=truth[a, :, 0] > 0)
        for a, t, curve in _curves(records, number, by_image, truth):
            precision[a, :, t, :, number] = np.where(truth[a] > 0, curve, np.nan)
    classes = [_figures(records, precision[..., [k]], reached[..., [k]]) for k in range(records.classes)]
    return Resampled(_figures(records, precision, reached), tuple(classes))


def _totals(
    records: Records, number: int, by_image: NDArray[np.float64]
) -> Iterator[tuple[int, int, int, NDArray[np.float64]]]:
    """The true positives of a class by area range, detections for each image and threshold, ``(R,)`` each."""
    own = records.of_class(number)
    positives, _ = records.flags(own)
    image, rank = records.image[own], records.rank[own]
    for m, limit in enumerate(MAX_DETECTIONS):
        kept = rank < limit
        for a in range(len(records.areas)):
            for t in range(len(IOU_THRESHOLDS)):
                counts = np.bincount(image[positives[:, a, t] & kept], minlength=records.images)
                yield a, m, t, counts @ by_image


def _curves(
    records: Records, number: int, by_image: NDArray[np.float64], truth: NDArray[np.float64]
) -> Iterator[tuple[int, int, NDArray[np.float64]]]:
    """Precision at COCO's recalls of a class by area range and threshold, ``(R, 101)`` each.

    Precision can only rise at a true positive, so that only those need to be looked at.
    """
    own = records.of_class(number)
    positives, counted = records.flags(own)
    image = records.image[own]
    everything = _running_sum(by_image, image)
    for a in range(len(records.areas)):
        for t in range(len(IOU_THRESHOLDS)):
            at = np.flatnonzero(positives[:, a, t])
            left_out = np.flatnonzero(~counted[:, a, t])
            if 2 * len(left_out) < len(image):
                seen = everything[at + 1]
                if len(left_out):
                    seen -= _running_sum(by_image, image[left_out])[np.searchsorted(left_out, at)]
            else:
                chosen = np.flatnonzero(counted[:, a, t])
                seen = _running_sum(by_image, image[chosen])[np.searchsorted(chosen, at, side="right")]
            yield a, t, _at_recalls(_running_sum(by_image, image[at])[1:], seen, truth[a])


def _running_sum(by_image: NDArray[np.float64], image: NDArray[np.int32]) -> NDArray[np.float64]:
    """Sums of the weights of the first 0, 1, 2, ... detections, ``(n + 1, R)``."""
    sums = np.zeros((len(image) + 1, by_image.shape[1]))
    np.cumsum(by_image[image], axis=0, out=sums[1:])
    return sums


def _at_recalls(
    true: NDArray[np.float64], seen: NDArray[np.float64], truth: NDArray[np.float64]
) -> NDArray[np.float64]:
    """Interpolated precision ``(R, 101)``.

    Args:
        true: ``(P, R)``, true positives up to and with each one.
        seen: ``(P, R)``, detections that count up to each.
        truth: ``(R, 1)``, ground truth.
    """
    draws = len(truth)
    if not len(true):
        return np.zeros((draws, len(RECALLS)))
    best = envelope(true / (seen + np.spacing(1)))
    recall = np.ascontiguousarray(true.T) / np.maximum(truth, 1)
    wanted = np.ascontiguousarray(np.broadcast_to(RECALLS, (draws, len(RECALLS))))
    place = torch.searchsorted(torch.from_numpy(recall), torch.from_numpy(wanted)).numpy()
    picked = best[np.minimum(place, len(best) - 1), np.arange(draws)[:, None]]
    return np.where(place < len(best), picked, 0.0)


def _figures(
    records: Records, precision: NDArray[np.float64], reached: NDArray[np.float64]
) -> dict[str, NDArray[np.float64]]:
    """COCO's figures of each draw, 0 to 100.

    Args:
        records: For its area ranges.
        precision: ``(A, R, T, 101, K)``.
        reached: Recall, ``(A, M, R, T, K)``.
    """
    at = {share: np.flatnonzero(share == IOU_THRESHOLDS) for share in (0.5, 0.75)}
    precisions = [precision[0], precision[0][:, at[0.5]], precision[0][:, at[0.75]], *precision[1 : len(COCO_AREAS)]]
    recalls = [*reached[0], *reached[1 : len(COCO_AREAS), -1]]
    values = dict(zip(NAMES, [_mean(part) for part in (*precisions, *recalls)], strict=True))
    for a, area in enumerate(records.areas[len(COCO_AREAS) :], start=len(COCO_AREAS)):
        values[f"AP {area.name}"] = _mean(precision[a])
    return values


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """100 times the mean for each draw of ``(R, ..., K)`` over all classes that are not NaN, ``(R,)``.

    Draws with the same classes are averaged together, each along a row of its own: numpy then adds the numbers in
    the order in which it adds those of one draw.
    """
    means = np.full(len(values), np.nan)
    present = ~np.isnan(values.reshape(len(values), -1, values.shape[-1])[:, :1]).all(axis=1)
    patterns, pattern_of = np.unique(present, axis=0, return_inverse=True)
    for number, pattern in enumerate(patterns):
        rows = np.flatnonzero(pattern_of.reshape(-1) == number)
        if pattern.any():
            means[rows] = 100 * np.ascontiguousarray(values[rows][..., pattern]).reshape(len(rows), -1).mean(axis=1)
    return means
