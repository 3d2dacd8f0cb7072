"""The class of each cluster: of the pixels on a side of a threshold, or of a unit of a map."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
from numpy.typing import NDArray

_MOST_COMBINATIONS = 4096


def count_pairs(clusters: NDArray[Any], classes: NDArray[Any], *, n_clusters: int, n_classes: int) -> NDArray[np.int64]:
    """How many pixels each cluster shares with each class ``(n_clusters, n_classes)``.

    Args:
        clusters: Cluster of each pixel.
        classes: Class of each pixel, in the same shape; ids of ``n_classes`` and above are ignored.
        n_clusters: Number of clusters.
        n_classes: Number of classes.
    """
    is_labeled = classes < n_classes
    pairs = clusters[is_labeled].astype(np.int64) * n_classes + classes[is_labeled]
    return np.bincount(pairs, minlength=n_clusters * n_classes).reshape(n_clusters, n_classes)


def best_classes(counts: NDArray[np.int64]) -> NDArray[np.int64]:
    """The class of each cluster that gives the highest mean IoU over the classes that occur.

    All combinations are tried where they are few. Otherwise the class of one cluster after the other is changed while
    the mean IoU rises, from two starts: the class with most pixels, and the class that is more frequent than elsewhere.

    Args:
        counts: ``(clusters, classes)``, see `count_pairs`.
    """
    clusters, classes = counts.shape
    if classes**clusters <= _MOST_COMBINATIONS:
        combinations = itertools.product(range(classes), repeat=clusters)
        return max((np.array(one) for one in combinations), key=lambda one: mean_iou(counts, one))
    shares = counts / np.maximum(counts.sum(axis=0), 1)
    starts = (counts.argmax(axis=1), shares.argmax(axis=1))
    return max((_climbed(counts, start) for start in starts), key=lambda one: mean_iou(counts, one))


def mean_iou(counts: NDArray[np.int64], chosen: NDArray[Any]) -> float:
    """Mean IoU over the classes that occur, where each cluster has the chosen class."""
    ious = []
    for one in np.flatnonzero(counts.sum(axis=0)):
        is_own = chosen == one
        union = counts[:, one].sum() + counts[is_own].sum() - counts[is_own, one].sum()
        ious.append(counts[is_own, one].sum() / union)
    return float(np.mean(ious)) if ious else 0.0


def _climbed(counts: NDArray[np.int64], start: NDArray[Any]) -> NDArray[np.int64]:
    chosen, value = start.astype(np.int64).copy(), mean_iou(counts, start)
    is_rising = True
    while is_rising:
        is_rising = False
        for cluster in range(len(chosen)):
            for one in range(counts.shape[1]):
                moved = chosen.copy()
                moved[cluster] = one
                if (better := mean_iou(counts, moved)) > value + 1e-12:
                    chosen, value, is_rising = moved, better, True
    return chosen
