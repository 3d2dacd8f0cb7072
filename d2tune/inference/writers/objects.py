"""The objects of a prediction of any task, each with its mask, for writers that measure, cut out or list them."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.semantic import IGNORE_LABEL
from d2tune.inference.results import Detections, LabelMap, PanopticMap, rounded_score
from d2tune.inference.writers.base import Images, Writer, WriterOptions
from d2tune.metrics.overlap.run_lengths import crops

AnyResult = Detections | LabelMap | PanopticMap
Kept = TypeVar("Kept")


@dataclass(frozen=True, slots=True)
class PredictedObject:
    """An instance, a segment, or a connected region of a label map.

    Attributes:
        number: From 1, in the order of the result; of a panoptic map the id of the segment.
        class_id: Index of its class.
        score: Its score with six digits; None if the model gives none.
        left_px: Column of the mask in the image.
        top_px: Row of the mask in the image.
        mask: ``(h, w)`` the pixels of the object within its box.
    """

    number: int
    class_id: int
    score: float | None
    left_px: int
    top_px: int
    mask: NDArray[np.bool_]

    def window(self, array: NDArray[Any]) -> NDArray[Any]:
        """The part of an array ``(H, W, ...)`` of the image that the box covers."""
        height, width = self.mask.shape
        return array[self.top_px : self.top_px + height, self.left_px : self.left_px + width]


def objects_of(result: AnyResult, *, background: str | None = None) -> Iterator[PredictedObject]:
    """The objects of a result that have pixels, one at a time.

    Args:
        result: Detections without masks count as their boxes, rounded to pixels.
        background: The class of label maps without objects; None for none.
    """
    if isinstance(result, Detections):
        yield from _instances(result)
    elif isinstance(result, LabelMap):
        yield from _regions(result, background)
    else:
        yield from _segments(result)


def _instances(result: Detections) -> Iterator[PredictedObject]:
    for index, score in enumerate(result.scores):
        mask, left, top = _mask_of(result, index)
        if mask.size:
            yield PredictedObject(index + 1, int(result.class_ids[index]), rounded_score(score), left, top, mask)


def _mask_of(result: Detections, index: int) -> tuple[NDArray[np.bool_], int, int]:
    """The mask of an instance within its box, left and top; without pixels ``(h, 0)``."""
    if result.rles is None:
        x0, y0, x1, y1 = (round(side) for side in result.boxes_xyxy[index].tolist())
        left, top = max(0, x0), max(0, y0)
        width, height = min(result.width_px, x1) - left, min(result.height_px, y1) - top
        return np.ones((max(0, height), max(0, width)), dtype=bool), left, top
    ((crop, left, top),) = crops([result.rles[index].to_coco()])
    return np.ascontiguousarray(crop.T), left, top


def _regions(result: LabelMap, background: str | None) -> Iterator[PredictedObject]:
    """The connected regions by class, from top to bottom; pixels that touch at a corner are connected."""
    number = 0
    for class_id in np.unique(result.class_ids).tolist():
        if class_id == IGNORE_LABEL or result.class_names[class_id] == background:
            continue
        of_class = (result.class_ids == class_id).astype(np.uint8)
        count, labels, stats, _ = cv2.connectedComponentsWithStats(of_class, connectivity=8)
        for label in range(1, count):
            left, top, width, height = (int(value) for value in stats[label, :4])
            number += 1
            mask = labels[top : top + height, left : left + width] == label
            yield PredictedObject(number, class_id, None, left, top, mask)


def _segments(result: PanopticMap) -> Iterator[PredictedObject]:
    for segment in result.segments:
        if not segment.area_px2:
            continue
        of_segment = (result.segment_ids == segment.id).astype(np.uint8)
        left, top, width, height = cv2.boundingRect(of_segment)
        mask = of_segment[top : top + height, left : left + width].astype(bool)
        score = None if segment.score is None else rounded_score(segment.score)
        yield PredictedObject(segment.id, segment.class_id, score, left, top, mask)


def lower_scores_of(result: AnyResult) -> list[float]:
    """The scores of instances below the lowest score; other results have none."""
    return [rounded_score(score) for score in result.lower_scores] if isinstance(result, Detections) else []


class ObjectsWriter(Writer[Any, Kept]):
    """The base class of writers of the objects of any task.

    Args:
        out: See `Writer`.
        images: See `Writer`.
        predictor: See `Writer`.
        options: See `Writer`.
        background: The class of label maps without objects; None for none.
    """

    def __init__(
        self, out: Path, images: Images, predictor: Any, options: WriterOptions, *, background: str | None = None
    ) -> None:
        super().__init__(out, images, predictor, options)
        self._background = background

    def objects(self, result: AnyResult) -> Iterator[PredictedObject]:
        """Those of `objects_of` that are not smaller than the smallest area of the options."""
        least_px2 = self.options.min_area_px2 or 0
        objects = objects_of(result, background=self._background)
        return (one for one in objects if np.count_nonzero(one.mask) >= least_px2)

    def class_name(self, one: PredictedObject) -> str:
        """The class of an object."""
        return str(self.predictor.class_names[one.class_id])
