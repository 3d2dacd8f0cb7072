"""What is right and wrong on the images of a panoptic evaluation: segments, matched as for panoptic quality."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.model.dataset import Category
from d2tune.evaluation.images.base import OF_TIDE, ImageResult, Images, Mistake, Shape, shown_progress
from d2tune.metrics.analysis.scored_image import ScoredImage
from d2tune.metrics.analysis.tide import KINDS, ImageErrors, image_errors
from d2tune.metrics.panoptic import IGNORED_ID, PanopticScorer
from d2tune.report.thumbnails import Sketch

Segments = tuple[NDArray[np.int32], Sequence[Mapping[str, Any]]]
"""Segment ids ``(H, W)`` and their ``segments_info``."""


@dataclass(frozen=True, slots=True, eq=False)
class _Matched:
    """The segments of an image: ids of both sides, the IoU of every pair, pixels, and the errors."""

    truth_ids: list[int]
    predicted_ids: list[int]
    image: ScoredImage
    truth_px: NDArray[np.int64]
    predicted_px: NDArray[np.int64]
    errors: ImageErrors
    ignored: frozenset[int]


class PanopticImages(Images):
    """Predicted segments beside annotated ones.

    Args:
        categories: The classes in the order of their ids.
        images: Number of images.
        segments: Gives the predicted and the annotated segments of an image.
    """

    quality_name = "PQ of the image"
    quality_words = "the panoptic quality of the image alone"
    noun = "segment"

    def __init__(
        self, categories: Sequence[Category], images: int, segments: Callable[[int], tuple[Segments, Segments]]
    ) -> None:
        self._categories = tuple(categories)
        self._class_of = {one.id: at for at, one in enumerate(self._categories)}
        self._images = images
        self._segments = segments

    def results(self) -> list[ImageResult]:
        """See `Images.results`."""
        return [self._result(index) for index in shown_progress(range(self._images))]

    def shapes(self, index: int) -> tuple[list[Shape], list[Shape]]:
        """See `Images.shapes`."""
        predicted, truth = self._segments(index)
        matched = self._match(predicted, truth)
        errors = matched.errors
        right = errors.kinds < 0
        detected, matching = set(errors.targets[right].tolist()), set(errors.detections[right].tolist())
        image, ignored = matched.image, matched.ignored
        truth_shapes = [
            Shape(
                number, Sketch(mask=truth[0] == matched.truth_ids[at]), None, bool(image.gt_crowd[at]) or at in detected
            )
            for at, number in enumerate(image.gt_classes.tolist())
        ]
        predicted_shapes = [
            Shape(number, Sketch(mask=predicted[0] == matched.predicted_ids[at]), None, at in matching or at in ignored)
            for at, number in enumerate(image.dt_classes.tolist())
        ]
        return truth_shapes, predicted_shapes

    def _result(self, index: int) -> ImageResult:
        predicted, truth = self._segments(index)
        matched = self._match(predicted, truth)
        errors, image = matched.errors, matched.image
        right = errors.kinds < 0
        detected = set(errors.targets[right].tolist())
        missed = [at for at in np.flatnonzero(~image.gt_crowd).tolist() if at not in detected]
        wrong = [at for at in np.flatnonzero(~right).tolist() if int(errors.detections[at]) not in matched.ignored]
        mistakes = [self._missed(matched, truth[0], at) for at in missed]
        mistakes += [self._false(matched, predicted[0], place) for place in wrong]
        scorer = PanopticScorer(self._categories)
        scorer.add(*predicted, *truth, "image")
        quality = scorer.result().metrics["PQ"].value
        return ImageResult(100.0 if quality is None else quality, len(detected), tuple(mistakes))

    def _match(self, predicted: Segments, truth: Segments) -> _Matched:
        """Match segments of one class whose IoU is above 0.5, as `metrics.panoptic` does."""
        crowds = {int(row["id"]) for row in truth[1] if row.get("iscrowd")}
        present = set(np.unique(truth[0]).tolist())
        truth_ids = [int(row["id"]) for row in truth[1] if int(row["id"]) in present]
        predicted_ids = [int(row["id"]) for row in predicted[1]]
        pairs = _pairs(truth[0], truth_ids, predicted[0], predicted_ids)
        truth_px, predicted_px = pairs[1:].sum(axis=1), pairs.sum(axis=0)[1:]
        both, ignored_px = pairs[1:, 1:], pairs[0, 1:]
        union = truth_px[:, None] + (predicted_px - ignored_px)[None] - both
        ious = both / np.maximum(union, 1)
        ious[ious == 0.5] = np.nextafter(0.5, 0)  # only more than half is a match
        classes = [
            np.array([self._class_of[class_of[number]] for number in ids], np.int64)
            for ids, class_of in ((truth_ids, _classes(truth[1])), (predicted_ids, _classes(predicted[1])))
        ]
        crowd = np.array([number in crowds for number in truth_ids], bool)
        on_crowd = (both * (crowd[:, None] & (classes[0][:, None] == classes[1]))).sum(axis=0)
        ious[crowd] = 0
        image = ScoredImage("image", ious, classes[0], crowd, classes[1], np.ones(len(predicted_ids)))
        errors = image_errors(image)
        matching = set(errors.detections[errors.kinds < 0].tolist())
        over_half = 2 * (ignored_px + on_crowd) > predicted_px
        ignored = frozenset(set(np.flatnonzero(over_half).tolist()) - matching)
        return _Matched(truth_ids, predicted_ids, image, truth_px, predicted_px, errors, ignored)

    def _missed(self, matched: _Matched, ids: NDArray[np.int32], at: int) -> Mistake:
        ious = matched.image.ious[at]
        best = int(ious.argmax()) if ious.size and float(ious.max()) >= 0.1 else -1
        note = self._note(float(ious[best]), int(matched.image.dt_classes[best]), "predicted as") if best >= 0 else ""
        near = (best,) if best >= 0 else ()
        box, number = _box(ids == matched.truth_ids[at]), int(matched.image.gt_classes[at])
        return Mistake("missed", number, box, float(matched.truth_px[at]), None, note, (at,), near)

    def _false(self, matched: _Matched, ids: NDArray[np.int32], place: int) -> Mistake:
        at = int(matched.errors.detections[place])
        ious = matched.image.ious[:, at]
        best = int(ious.argmax()) if ious.size and float(ious.max()) >= 0.1 else -1
        note = self._note(float(ious[best]), int(matched.image.gt_classes[best]), "annotated as") if best >= 0 else ""
        about = (best,) if best >= 0 else ()
        box, number = _box(ids == matched.predicted_ids[at]), int(matched.image.dt_classes[at])
        kind = OF_TIDE[KINDS[int(matched.errors.kinds[place])]]
        return Mistake(kind, number, box, float(matched.predicted_px[at]), None, note, about, (at,))

    def _note(self, iou: float, number: int, verb: str) -> str:
        return f"IoU {iou:.2f} with a segment {verb} {self._categories[number].name}"


def _classes(infos: Sequence[Mapping[str, Any]]) -> dict[int, int]:
    return {int(row["id"]): int(row["category_id"]) for row in infos}


def _pairs(
    truth: NDArray[np.int32], truth_ids: list[int], predicted: NDArray[np.int32], predicted_ids: list[int]
) -> NDArray[np.int64]:
    """Pixels ``(1 + G, 1 + D)`` of each pair of segments; the first row and column are ignored pixels."""
    rows, columns = _places(truth, truth_ids), _places(predicted, predicted_ids)
    shape = (len(truth_ids) + 1, len(predicted_ids) + 1)
    counts = np.bincount((rows * shape[1] + columns).ravel(), minlength=shape[0] * shape[1])
    return counts.reshape(shape).astype(np.int64)


def _places(ids: NDArray[np.int32], known: list[int]) -> NDArray[np.int64]:
    """For each pixel 1 + the place of its segment, or 0."""
    values, inverse = np.unique(ids, return_inverse=True)
    place = {number: at for at, number in enumerate(known, start=1)}
    table = np.array([0 if value == IGNORED_ID else place.get(value, 0) for value in values.tolist()], np.int64)
    return table[inverse.reshape(ids.shape)]


def _box(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    return Sketch(mask=mask).extent() or (0.0, 0.0, 1.0, 1.0)
