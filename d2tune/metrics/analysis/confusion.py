"""The confusion matrix of instances: pairs of annotated and predicted class, and a background for those without a pair.

Detections with a score at or above the threshold are paired with the ground truth regardless of their classes. The
candidates are all pairs with an IoU of 0.5 or more, by falling IoU, among equal IoUs by falling score; each becomes a
pair if both of its sides are still free. A pair counts in the row of its annotated class and the column of its
predicted class. Ground truth without a detection counts in the last column, a detection without ground truth in the
last row: both mean background. Crowds are in no pair, and a detection without a pair is ignored if it overlaps a crowd
of its own class by half or more.

These pairs depend on overlap alone, so that a wrong class is one error. AP pairs within each class: there it is two.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.analysis.scored_image import ScoredImage

IOU = 0.5


class ConfusionMatrix:
    """Counts pairs of annotated and predicted class over images.

    Args:
        class_names: The K classes.
        score: Detections below this score are ignored.

    Attributes:
        labels: The K classes and ``background``.
        counts: ``(K + 1, K + 1)``, int64; rows are annotated classes, columns predicted classes.
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
