"""Panoptic quality: how well segments are detected and outlined.

Source: Kirillov, He, Girshick, Rother, Dollár, "Panoptic Segmentation", CVPR 2019, section 4.

A segment of the prediction and one of the ground truth of the same class match where their IoU is above 0.5; no
segment can match two. Pixels of the prediction that are ignored in the ground truth (id 0) belong
to no union. Unmatched segments of the ground truth are misses (FN), except crowds, which match nothing and are never
missed. Unmatched segments of the prediction are false (FP), except those with more than half of their pixels on ignored
pixels or on crowds of their class. For each class

- SQ is the mean IoU of the matches, 0 for segments without any match,
- RQ is ``TP / (TP + FP / 2 + FN / 2)``,
- PQ is ``sum of IoU / (TP + FP / 2 + FN / 2)``,

all summed over the images first. The metrics over all, thing (``_th``) and stuff (``_st``) classes are means over
those classes that have a TP, FP or FN. Areas are counted in the images, never read from the JSON.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, TypeGuard

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from d2tune.annotations.model.dataset import Category
from d2tune.errors import DataError
from d2tune.metrics.metric import Metric, mean_defined, metric, ratio

logger = logging.getLogger(__name__)

Ids = Tensor | NDArray[Any]

IGNORED_ID = 0
"""The segment id of pixels that belong to no segment."""


@dataclass(frozen=True, slots=True)
class PanopticClass:
    """The metrics of one class.

    Attributes:
        name: The class.
        isthing: Whether its objects are countable.
        tp: Matches.
        fp: Unmatched segments of the prediction.
        fn: Unmatched segments of the ground truth.
        metrics: ``PQ``, ``SQ`` and ``RQ``.
    """

    name: str
    isthing: bool
    tp: int
    fp: int
    fn: int
    metrics: dict[str, Metric]


@dataclass(frozen=True, slots=True)
class PanopticResult:
    """Panoptic quality of a set of predictions.

    Attributes:
        images: Number of images.
        metrics: ``PQ``, ``SQ``, ``RQ`` over all classes, the same with ``_th`` over things and with ``_st`` over stuff.
        classes: One row for each class.
    """

    images: int
    metrics: dict[str, Metric]
    classes: tuple[PanopticClass, ...]

    def to_json(self) -> dict[str, Any]:
        """A plain dict of the same."""
        return asdict(self)


@dataclass(frozen=True, slots=True)
class _Segments:
    """The segments of one image, S of them, sorted by id.

    Attributes:
        ids: ``(S,)``.
        classes: ``(S,)``, indices of the categories.
        crowd: ``(S,)``, bool.
    """

    ids: NDArray[np.int64]
    classes: NDArray[np.int64]
    crowd: NDArray[np.bool_]


class PanopticScorer:
    """Collects panoptic predictions and scores them.

    It keeps the sum of IoU and the numbers of TP, FP and FN of each class for each image: 32 bytes a class.

    Args:
        categories: The classes with their ids and whether they are things.
        device: Where pixels are counted.
    """

    def __init__(self, categories: Sequence[Category], *, device: str | torch.device = "cpu") -> None:
        self.categories = tuple(categories)
        self._place = {category.id: index for index, category in enumerate(self.categories)}
        self._device = torch.device(device)
        self._per_image: list[NDArray[np.float64]] = []

    @property
    def images(self) -> int:
        """The number of images added."""
        return len(self._per_image)

    def add(
        self,
        prediction: Ids,
        predicted_segments: Sequence[Mapping[str, Any]],
        ground_truth: Ids,
        ground_truth_segments: Sequence[Mapping[str, Any]],
        image: str,
    ) -> None:
        """Match the segments of one image.

        Args:
            prediction: Segment ids ``(H, W)``, 0 for ignored pixels.
            predicted_segments: ``segments_info``: a dict with ``id`` and ``category_id`` for each.
            ground_truth: Segment ids ``(H, W)``, 0 for ignored pixels.
            ground_truth_segments: The same, and ``iscrowd``, 0 by default. Segments without a pixel are ignored with
                a warning.
            image: Its name, for messages.

        Raises:
            DataError: The sizes differ, ids are missing or not unique, a class is unknown, or a predicted segment has
                no pixel.
        """
        truth = self._segments(ground_truth_segments, image, "ground truth")
        predicted = self._segments(predicted_segments, image, "prediction")
        if ground_truth.ndim != 2 or tuple(prediction.shape) != tuple(ground_truth.shape):
            raise DataError(
                "the prediction and the ground truth have different sizes",
                file=image,
                found=f"a prediction of shape {tuple(prediction.shape)}",
                expected=f"shape {tuple(ground_truth.shape)} as in the ground truth",
            )
        rows = self._places(ground_truth, truth, image, "ground truth")
        columns = self._places(prediction, predicted, image, "prediction")
        width = len(predicted.ids) + 1
        counts = torch.bincount((rows * width + columns).flatten(), minlength=(len(truth.ids) + 1) * width)
        shared = counts.view(-1, width).cpu().numpy()
        _check_pixels(shared, truth, predicted, image)
        self._per_image.append(_match(shared, truth, predicted, len(self.categories)))

    def result(self) -> PanopticResult:
        """The metrics of all images added."""
        sums = self._stacked().sum(axis=0)
        by_class = _class_metrics(sums)
        classes = [
            PanopticClass(
                category.name,
                category.isthing,
                tp=int(sums[1, index]),
                fp=int(sums[2, index]),
                fn=int(sums[3, index]),
                metrics={
                    name: metric(values[index], f"class {category.name!r} has no segment in ground truth or prediction")
                    for name, values in by_class.items()
                },
            )
            for index, category in enumerate(self.categories)
        ]
        kinds = {"": "", "_th": "thing ", "_st": "stuff "}
        metrics = {
            name: metric(value, f"no {kinds[name[2:]]}segment in ground truth or prediction")
            for name, value in self._means(by_class).items()
        }
        return PanopticResult(self.images, metrics, tuple(classes))

    def resample(self, weights: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
        """The metrics of `PanopticResult.metrics` on draws of the images, NaN where undefined.

        Args:
            weights: ``(R, n_images)``, how often each draw took each image, in the order of `add`.

        Returns:
            ``(R,)`` for each metric.
        """
        per_image = self._stacked()
        images, sums, classes = per_image.shape
        totals = (weights.astype(np.float64) @ per_image.reshape(images, -1)).reshape(-1, sums, classes)
        return self._means(_class_metrics(np.moveaxis(totals, 1, 0)))

    def _stacked(self) -> NDArray[np.float64]:
        """Sum of IoU, TP, FP and FN: ``(n_images, 4, K)``."""
        return np.stack(self._per_image) if self._per_image else np.zeros((0, 4, len(self.categories)))

    def _means(self, by_class: dict[str, NDArray[np.float64]]) -> dict[str, NDArray[np.float64]]:
        isthing = np.array([category.isthing for category in self.categories], dtype=bool)
        kinds = {"": np.ones_like(isthing), "_th": isthing, "_st": ~isthing}
        return {
            f"{name}{kind}": mean_defined(values[..., chosen])
            for kind, chosen in kinds.items()
            for name, values in by_class.items()
        }

    def _segments(self, infos: Sequence[Mapping[str, Any]], image: str, what: str) -> _Segments:
        rows: dict[int, tuple[int, bool]] = {}
        for info in infos:
            number, category_id = info.get("id"), info.get("category_id")
            if not _is_integer(number) or number == IGNORED_ID or number in rows:
                raise DataError(
                    f"a segment of the {what} has no unique id",
                    file=image,
                    found=repr(number),
                    expected="a whole number other than 0 that no other segment of the image has",
                )
            if not _is_integer(category_id) or category_id not in self._place:
                raise DataError(
                    f"segment {number} of the {what} has no class",
                    file=image,
                    found=f"category_id {category_id!r}",
                    expected="one of " + ", ".join(f"{one.id} {one.name}" for one in self.categories[:20]),
                )
            rows[number] = (self._place[category_id], info.get("iscrowd", 0) in (1, True))
        ids = sorted(rows)
        return _Segments(
            np.array(ids, dtype=np.int64),
            np.array([rows[number][0] for number in ids], dtype=np.int64),
            np.array([rows[number][1] for number in ids], dtype=bool),
        )

    def _places(self, segment_ids: Ids, segments: _Segments, image: str, what: str) -> Tensor:
        """For each pixel the place of its segment, counted from 1, or 0 for ignored pixels."""
        ids = (
            segment_ids.to(self._device, torch.int64)
            if isinstance(segment_ids, Tensor)
            else torch.from_numpy(segment_ids.astype(np.int64)).to(self._device)
        )
        known = torch.from_numpy(np.append(segments.ids, np.iinfo(np.int64).max)).to(self._device)
        places = torch.searchsorted(known, ids)
        ignored = ids == IGNORED_ID
        unknown = (known[places] != ids) & ~ignored
        if bool(unknown.any()):
            raise DataError(
                f"the image of the {what} holds a segment that its segments_info does not list",
                file=image,
                found=f"segment {int(ids[unknown][0])}",
                expected="every id but 0 in segments_info",
            )
        return (places + 1).masked_fill(ignored, 0)


def _is_integer(value: object) -> TypeGuard[int]:
    return isinstance(value, (int, np.integer)) and not isinstance(value, bool)


def _check_pixels(shared: NDArray[np.int64], truth: _Segments, predicted: _Segments, image: str) -> None:
    without = predicted.ids[shared[:, 1:].sum(axis=0) == 0]
    if without.size:
        raise DataError(
            "a segment of the prediction has no pixel",
            file=image,
            found=f"segment {without[0]} in segments_info only",
            expected="every segment in the image",
        )
    without = truth.ids[shared[1:].sum(axis=1) == 0]
    if without.size:
        names = ", ".join(str(number) for number in without[:5])
        logger.warning("%s: segments of the ground truth without a pixel are ignored: %s", image, names)


def _match(shared: NDArray[np.int64], truth: _Segments, predicted: _Segments, n_classes: int) -> NDArray[np.float64]:
    """Sum of IoU, TP, FP and FN of each class ``(4, K)`` on one image.

    Args:
        shared: Pixels ``(G + 1, P + 1)`` that segments have in common; row 0 and column 0 are ignored pixels.
        truth: The G segments of the ground truth.
        predicted: The P segments of the prediction.
        n_classes: The number of classes, K.
    """
    common = shared[1:, 1:]
    truth_areas, predicted_areas = shared[1:].sum(axis=1), shared[:, 1:].sum(axis=0)
    unions = truth_areas[:, None] + predicted_areas - common - shared[0, 1:]
    same_class = truth.classes[:, None] == predicted.classes
    matches = same_class & ~truth.crowd[:, None] & (2 * common > unions)
    on_crowd = (common * (same_class & truth.crowd[:, None])).sum(axis=0)
    ignored = 2 * (shared[0, 1:] + on_crowd) > predicted_areas
    false = ~matches.any(axis=0) & ~ignored
    missed = ~matches.any(axis=1) & ~truth.crowd & (truth_areas > 0)
    rows, columns = np.nonzero(matches)
    of_class = truth.classes[rows]
    return np.stack(
        [
            np.bincount(of_class, weights=common[rows, columns] / unions[rows, columns], minlength=n_classes),
            np.bincount(of_class, minlength=n_classes),
            np.bincount(predicted.classes[false], minlength=n_classes),
            np.bincount(truth.classes[missed], minlength=n_classes),
        ]
    )


def _class_metrics(sums: NDArray[np.float64]) -> dict[str, NDArray[np.float64]]:
    """PQ, SQ and RQ of classes ``(..., K)`` from sums ``(4, ..., K)``, NaN without any segment."""
    iou, tp, fp, fn = sums
    segments = tp + (fp + fn) / 2
    return {
        "PQ": 100 * ratio(iou, segments),
        "SQ": np.where(segments > 0, 100 * np.nan_to_num(ratio(iou, tp)), np.nan),
        "RQ": 100 * ratio(tp, segments),
    }
