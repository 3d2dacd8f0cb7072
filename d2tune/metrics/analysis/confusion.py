"""Which classes are taken for which, and which are missed or seen where there is nothing.

Detections of a score from the threshold on are paired with the ground truth whatever their classes: all pairs with an
IoU of 0.5 or more are taken in the order of their IoU, the greatest first, and each is a pair where both are still
free; among equal IoUs the higher score comes first. A pair counts in the row of its true class and the column of the
predicted one. Ground truth without a detection counts in the last column, a detection without ground truth in the last
row: both mean background. Crowds are in no pair, and a detection without one that lies on a crowd of its own class by
half or more counts nowhere.

This pairs by place alone and so shows a wrong class as one mistake. AP pairs within each class and sees two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.analysis.scored_image import ScoredImage

IOU = 0.5


class ConfusionMatrix:
    """Counts pairs of true and predicted class over images.

    Args:
        class_names: The K classes.
        score: Detections below this score are left out.

    Attributes:
        labels: The K classes and ``background``.
        counts: ``(K + 1, K + 1)``, int64; rows are the truth, columns the prediction.
    """

    def __init__(self, class_names: Sequence[str], *, score: float = 0.5) -> None:
        self.labels = (*class_names, "background")
        self.counts: NDArray[np.int64] = np.zeros((len(self.labels), len(self.labels)), np.int64)
        self._score = score

    def add(self, image: ScoredImage) -> None:
        """Count the pairs of one image."""
        shown = image.dt_scores >= self._score
        ious, classes = image.ious[:, shown], image.dt_classes[shown]
        rows, columns = _pairs(ious[~image.gt_crowd], image.dt_scores[shown])
        truth = image.gt_classes[~image.gt_crowd]
        background = len(self.labels) - 1
        same_class = image.gt_classes[:, None] == classes
        on_crowd = ((ious >= IOU) & same_class & image.gt_crowd[:, None]).any(axis=0)
        missed = np.delete(truth, rows)
        false = np.delete(classes, columns)[~np.delete(on_crowd, columns)]
        np.add.at(self.counts, (truth[rows], classes[columns]), 1)
        np.add.at(self.counts, (missed, np.full(len(missed), background)), 1)
        np.add.at(self.counts, (np.full(len(false), background), false), 1)

    def to_json(self) -> dict[str, Any]:
        """A plain dict: ``labels``, ``score``, ``iou`` and ``counts``, a list of rows."""
        return {"labels": list(self.labels), "score": self._score, "iou": IOU, "counts": self.counts.tolist()}


def _pairs(ious: NDArray[Any], scores: NDArray[Any]) -> tuple[list[int], list[int]]:
    """Rows and columns of the pairs."""
    rows, columns = np.nonzero(ious >= IOU)
    order = np.lexsort((columns, rows, -scores[columns], -ious[rows, columns]))
    taken_rows: dict[int, int] = {}
    taken_columns: set[int] = set()
    for row, column in zip(rows[order].tolist(), columns[order].tolist(), strict=True):
        if row not in taken_rows and column not in taken_columns:
            taken_rows[row] = column
            taken_columns.add(column)
    return list(taken_rows), list(taken_rows.values())
