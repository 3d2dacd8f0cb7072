"""How well an object is followed through images: region similarity and success, as DAVIS and OTB measure them.

J is the IoU of the predicted mask with the annotated one, on average over the objects of all images (Perazzi et al.,
CVPR 2016); the success of boxes is the share of objects whose predicted box has an IoU of at least 0.5 with the
annotated one (Wu et al., CVPR 2013).
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.metric import Metric, metric, ratio

_SUCCESS, _GOOD = 0.5, 0.75
_REASON = "no object was followed"


def mask_iou(a: NDArray[np.bool_], b: NDArray[np.bool_]) -> float:
    """The IoU of two masks ``(H, W)``; 1 where both are empty."""
    union = np.count_nonzero(a | b)
    return np.count_nonzero(a & b) / union if union else 1.0


def box_iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """The IoU of two boxes, each left, top, width and height."""
    width = min(a[0] + a[2], b[0] + b[2]) - max(a[0], b[0])
    height = min(a[1] + a[3], b[1] + b[3]) - max(a[1], b[1])
    common = max(0.0, width) * max(0.0, height)
    return common / max(1e-9, a[2] * a[3] + b[2] * b[3] - common)


@dataclass(frozen=True, slots=True)
class ClassJ:
    """The objects of a class: its name, how often they were followed to an image, and their metrics."""

    name: str
    objects: int
    metrics: dict[str, Metric]


class MaskTrackScorer:
    """Collects objects that were followed to images.

    Args:
        class_names: The classes in the order of their ids.
        images: Number of images.
    """

    def __init__(self, class_names: tuple[str, ...], images: int) -> None:
        self._class_names = class_names
        self.images = images
        self._rows: list[tuple[int, int, float, float]] = []

    def add(self, image: int, class_number: int, *, j: float, box: float) -> None:
        """Add an object.

        Args:
            image: The place of its image.
            class_number: Its class, from 0.
            j: IoU of its mask with the annotated one.
            box: IoU of its box with the annotated one.
        """
        self._rows.append((image, class_number, j, box))

    def resample(self, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """The metrics from 0 to 100 for weights ``(R, N)`` of the images: J, box50 and J75."""
        rows = np.array(self._rows, float).reshape(-1, 4)
        sums = np.zeros((self.images, 4))
        values = np.column_stack([rows[:, 2], rows[:, 3] >= _SUCCESS, rows[:, 2] >= _GOOD, np.ones(len(rows))])
        np.add.at(sums, rows[:, 0].astype(int), values)
        totals = np.asarray(weights, float) @ sums
        return {name: 100 * ratio(totals[:, at], totals[:, 3]) for at, name in enumerate(("J", "box50", "J75"))}

    def metrics(self) -> dict[str, Metric]:
        """The metrics: ``J``, ``box50`` (success of boxes at 0.5), and ``J75`` (share of masks with an IoU of 0.75)."""
        values = self.resample(np.ones((1, self.images), np.int64))
        return {name: metric(value[0], _REASON) for name, value in values.items()}

    def classes(self) -> list[ClassJ]:
        """The metrics of each class."""
        rows = []
        for number, name in enumerate(self._class_names):
            own = MaskTrackScorer(self._class_names, self.images)
            own._rows = [row for row in self._rows if row[1] == number]
            rows.append(ClassJ(name, len(own._rows), own.metrics()))
        return rows
