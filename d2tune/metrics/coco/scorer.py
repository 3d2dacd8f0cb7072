"""Scoring boxes, masks and boundaries of instances, image by image, with pycocotools' definitions and numbers.

Each image is compared when it is added and matched together with others soon after; a few bytes are kept for each
detection (:class:`d2tune.metrics.coco.accumulate.Records`), so that memory does not grow with masks.
"""

from __future__ import annotations

from collections.abc import Sequence, Sized
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

from d2tune.annotations.model.dataset import Category
from d2tune.errors import DataError
from d2tune.metrics.coco.accumulate import Records, accumulate
from d2tune.metrics.coco.matching import COCO_AREAS, IOU_THRESHOLDS, MAX_DETECTIONS, AreaRange, match, outside
from d2tune.metrics.coco.results import KINDS, InstanceResult, Kind, KindResult, kind_result
from d2tune.metrics.coco.rows import CocoSet, read_coco
from d2tune.metrics.overlap import run_lengths
from d2tune.metrics.overlap.boundary import boundary_width_px
from d2tune.metrics.overlap.iou import Pairs, box_iou, join_pairs, pairs_of

if TYPE_CHECKING:
    import torch
    from torch import Tensor

Masks: TypeAlias = "Sequence[run_lengths.Rle] | Tensor"
"""COCO's compressed RLE of each mask, or ``(N, H, W)`` bool on any device."""

PENDING = 20_000
"""Number of detections and ground truth that are collected before they are matched together."""


@dataclass(frozen=True, slots=True)
class GroundTruth:
    """The ground truth of one image.

    Attributes:
        category_ids: ``(G,)``.
        areas_px2: ``(G,)``, COCO's ``area``.
        crowd: ``(G,)``, bool.
        boxes_xywh: ``(G, 4)``; needed for ``bbox``.
        masks: G masks; needed for ``segm`` and ``boundary``.
    """

    category_ids: ArrayLike
    areas_px2: ArrayLike
    crowd: ArrayLike
    boxes_xywh: ArrayLike | None = None
    masks: Masks | None = None


@dataclass(frozen=True, slots=True)
class Detections:
    """The detections on one image.

    Attributes:
        category_ids: ``(D,)``.
        scores: ``(D,)``; equal scores rank in the order given.
        boxes_xywh: ``(D, 4)``; needed for ``bbox``.
        masks: D masks; needed for ``segm`` and ``boundary``.
    """

    category_ids: ArrayLike
    scores: ArrayLike
    boxes_xywh: ArrayLike | None = None
    masks: Masks | None = None


@dataclass(slots=True)
class _Image:
    """One image that was compared: its detections by class and falling score, at most 100 of each class."""

    number: int
    category: NDArray[np.int64]
    rank: NDArray[np.int64]
    score: NDArray[np.float64]
    truth_category: NDArray[np.int64]
    truth_area: NDArray[np.float64]
    crowd: NDArray[np.bool_]
    areas: dict[Kind, NDArray[np.float64]]
    pairs: dict[Kind, Pairs]


class InstanceScorer:
    """COCO's metrics of images that are added one after the other.

    Args:
        categories: The classes; their ids need not be consecutive.
        kinds: What to score. Boundary AP is COCO's AP with boundary IoU in place of mask IoU: the smaller one of mask
            IoU and the IoU of the boundaries, these 2 % of the image's diagonal wide (Cheng et al., CVPR 2021).
        device: Where masks are compared as bitmaps, by matrix products. None compares run lengths on the CPU, the
            fastest way for masks that are run lengths. The metrics are the same.
        area_ranges: Sizes to distinguish, beginning with COCO's four; further ranges give ``AP NAME``.
        split: Name of the data in the reason for a missing value.
    """

    def __init__(
        self,
        categories: Sequence[Category],
        *,
        kinds: Sequence[Kind] = KINDS,
        device: torch.device | str | None = None,
        area_ranges: Sequence[AreaRange] = COCO_AREAS,
        split: str = "the data",
    ) -> None:
        if tuple(area_ranges[: len(COCO_AREAS)]) != COCO_AREAS:
            raise ValueError("area_ranges must begin with COCO_AREAS")
        self.categories = tuple(sorted(categories, key=lambda category: category.id))
        self.kinds = tuple(kinds)
        self.areas = tuple(area_ranges)
        self.device: torch.device | None = None
        if device is not None:
            import torch

            self.device = torch.device(device)
        self.split = split
        self._ids = np.array([category.id for category in self.categories], np.int64)
        self._numbers: dict[int, int] = {}
        self._pending: list[_Image] = []
        self._waiting = 0
        self._kept: dict[str, list[NDArray[Any]]] = {}

    def add(self, image_id: int, truth: GroundTruth, detections: Detections) -> None:
        """Compare the detections on one image with its ground truth.

        Raises:
            DataError: The image was added before; a class is unknown; a score or box is not a finite number; lengths
                differ; boxes or masks are missing; masks have different sizes.
        """
        place = f"image {image_id}"
        if image_id in self._numbers:
            raise DataError("the image was scored before", place=place)
        category = self._indices(detections.category_ids, place)
        score = _finite(detections.scores, place, "a score")
        truth_category = self._indices(truth.category_ids, place)
        crowd = np.asarray(truth.crowd, dtype=bool).reshape(-1)
        area = _finite(truth.areas_px2, place, "an area")
        _same_length(place, category, score)
        _same_length(place, truth_category, crowd, area)
        kept, rank = best_of_each_class(category, score)
        number = len(self._numbers)
        image = _Image(number, category[kept], rank, score[kept], truth_category, area, crowd, {}, {})
        if "bbox" in self.kinds:
            _compare_boxes(image, truth, detections, kept, place)
        if "segm" in self.kinds or "boundary" in self.kinds:
            self._compare_masks(image, truth, detections, kept, place)
        self._numbers[image_id] = number
        self._pending.append(image)
        self._waiting += len(image.score) + len(image.crowd)
        if self._waiting >= PENDING:
            self._match_pending()

    def result(self) -> InstanceResult:
        """The metrics of all images so far."""
        self._match_pending()
        kinds: dict[Kind, KindResult] = {}
        for kind in self.kinds:
            records = self._records(kind)
            truth = records.truth_totals()
            curves = accumulate(records)
            kinds[kind] = kind_result(curves, truth, self.categories, self.areas, split=self.split, records=records)
        return InstanceResult(tuple(sorted(self._numbers)), self.areas, kinds)

    def _indices(self, category_ids: ArrayLike, place: str) -> NDArray[np.int64]:
        """Category ids as indices."""
        ids = np.asarray(category_ids, dtype=np.int64).reshape(-1)
        known = np.isin(ids, self._ids)
        if not known.all():
            expected = f"one of {', '.join(str(number) for number in self._ids[:20])}"
            raise DataError("a class is unknown", place=place, found=f"category id {ids[~known][0]}", expected=expected)
        return np.searchsorted(self._ids, ids)

    def _compare_masks(
        self, image: _Image, truth: GroundTruth, detections: Detections, kept: NDArray[np.int64], place: str
    ) -> None:
        masks = _given(detections.masks, np.size(detections.scores), place, "masks")
        theirs = _given(truth.masks, len(image.crowd), place, "masks")
        boundary_px = None
        if size := _mask_size(place, masks, theirs):
            boundary_px = boundary_width_px(*size) if "boundary" in self.kinds else None
        ours = _chosen(masks, kept)
        classes = (image.category, image.truth_category)
        limits: dict[str, Any] = {"floor": IOU_THRESHOLDS[0], "boundary_px": boundary_px}
        if self.device is None:
            compared = run_lengths.compare(_as_runs(ours), _as_runs(theirs), *classes, image.crowd, **limits)
        else:
            from d2tune.metrics.overlap import bitmaps

            compared = bitmaps.compare(ours, theirs, *classes, image.crowd, device=self.device, **limits)
        areas, of_masks, of_boundaries = compared
        image.areas["segm"] = image.areas["boundary"] = areas.astype(float)
        image.pairs["segm"], image.pairs["boundary"] = of_masks, of_boundaries or of_masks

    def _match_pending(self) -> None:
        """Match the collected images, and keep only the records."""
        images, self._pending, self._waiting = self._pending, [], 0
        if not images:
            return
        detections_at = np.cumsum([0, *(len(one.score) for one in images)])
        truth_at = np.cumsum([0, *(len(one.crowd) for one in images)])
        offsets = list(zip(detections_at[:-1].tolist(), truth_at[:-1].tolist(), strict=True))
        numbers = np.array([one.number for one in images], np.int32)
        image = np.repeat(numbers, np.diff(detections_at))
        category = np.concatenate([one.category for one in images])
        crowd = np.concatenate([one.crowd for one in images])
        ignored = outside(np.concatenate([one.truth_area for one in images]), self.areas) | crowd[:, None]
        kept = {
            "image": image,
            "category": category.astype(np.int16),
            "rank": np.concatenate([one.rank for one in images]).astype(np.int16),
            "score": np.concatenate([one.score for one in images]),
            "truth_image": np.repeat(numbers, np.diff(truth_at)),
            "truth_category": np.concatenate([one.truth_category for one in images]).astype(np.int16),
            "truth_ignored": ignored,
        }
        group = image.astype(np.int64) * len(self.categories) + category
        for kind in self.kinds:
            away = outside(np.concatenate([one.areas[kind] for one in images]), self.areas)
            pairs = join_pairs([one.pairs[kind] for one in images], offsets)
            kept[f"{kind} matched"], kept[f"{kind} ignored"] = match(group, pairs, ignored, crowd, away)
        for name, values in kept.items():
            self._kept.setdefault(name, []).append(values)

    def _records(self, kind: Kind) -> Records:
        if not self._kept:
            return Records.empty(len(self._numbers), len(self.categories), self.areas)
        kept = {name: np.concatenate(arrays) for name, arrays in self._kept.items()}
        # images were numbered in the order of `add`; records number them in the order of their ids
        ids = np.array(list(self._numbers))
        place = np.empty(len(ids), np.int32)
        place[np.argsort(ids)] = np.arange(len(ids), dtype=np.int32)
        return Records(
            len(ids),
            len(self.categories),
            self.areas,
            place[kept["image"]],
            kept["category"],
            kept["rank"],
            kept["score"],
            kept[f"{kind} matched"],
            kept[f"{kind} ignored"],
            place[kept["truth_image"]],
            kept["truth_category"],
            kept["truth_ignored"],
        ).sorted()


def score_coco(
    ground_truth: dict[str, Any],
    results: Sequence[dict[str, Any]],
    *,
    kinds: Sequence[Kind] = KINDS,
    device: torch.device | str | None = None,
    area_ranges: Sequence[AreaRange] = COCO_AREAS,
    split: str = "the data",
) -> InstanceResult:
    """Score results in COCO's format against a COCO instances dict.

    A detection's area is that of its mask for ``segm`` and ``boundary``, also if it has a box, as in Detectron2;
    pycocotools' ``loadRes`` alone would use the area of the box.

    Args:
        ground_truth: A COCO instances dict.
        results: Rows in COCO's results format.
        kinds: What to score.
        device: As in `InstanceScorer`.
        area_ranges: As in `InstanceScorer`.
        split: Name of the data in the reason for a missing value.

    Raises:
        DataError: Ground truth or results are invalid; see :func:`d2tune.metrics.coco.rows.read_coco`.
    """
    data = read_coco(ground_truth, results, kinds)
    return score_set(data, kinds=kinds, device=device, area_ranges=area_ranges, split=split)


def score_set(
    data: CocoSet,
    *,
    kinds: Sequence[Kind] = KINDS,
    device: torch.device | str | None = None,
    area_ranges: Sequence[AreaRange] = COCO_AREAS,
    split: str = "the data",
) -> InstanceResult:
    """`score_coco` of a set that was read already; the set is not changed.

    Args:
        data: Read with these kinds, or with more.
        kinds: What to score.
        device: As in `InstanceScorer`.
        area_ranges: As in `InstanceScorer`.
        split: Name of the data in the reason for a missing value.
    """
    scorer = InstanceScorer(data.categories, kinds=kinds, device=device, area_ranges=area_ranges, split=split)
    for image_id, truth, results in data.by_image():
        scorer.add(
            image_id,
            GroundTruth(
                [row["category_id"] for row in truth],
                [row["area"] for row in truth],
                [row["iscrowd"] for row in truth],
                [row["bbox"] for row in truth] if "bbox" in kinds else None,
                [row["rle"] for row in truth] if "segm" in kinds or "boundary" in kinds else None,
            ),
            Detections(
                [row["category_id"] for row in results],
                [row["score"] for row in results],
                [row["bbox"] for row in results] if "bbox" in kinds else None,
                [row["rle"] for row in results] if "segm" in kinds or "boundary" in kinds else None,
            ),
        )
    return scorer.result()


def best_of_each_class(
    category: NDArray[np.int64], score: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The detections of an image by class and falling score, at most 100 of each class.

    Args:
        category: ``(D,)``.
        score: ``(D,)``; equal ones keep their order.

    Returns:
        Indices of the kept detections, and the place of each in its class, from 0.
    """
    order = np.lexsort((-score, category))
    first = np.flatnonzero(np.diff(category[order], prepend=-1))
    rank = np.arange(len(order)) - np.repeat(first, np.diff(first, append=len(order)))
    kept = rank < MAX_DETECTIONS[-1]
    return order[kept], rank[kept]


def _compare_boxes(
    image: _Image, truth: GroundTruth, detections: Detections, kept: NDArray[np.int64], place: str
) -> None:
    boxes = _finite(_given(detections.boxes_xywh, np.size(detections.scores), place, "boxes"), place, "a box")
    boxes = boxes.reshape(-1, 4)[kept]
    truth_boxes = _finite(_given(truth.boxes_xywh, len(image.crowd), place, "boxes"), place, "a box").reshape(-1, 4)
    same_class = image.category[:, None] == image.truth_category[None, :]
    image.areas["bbox"] = boxes[:, 2] * boxes[:, 3]
    image.pairs["bbox"] = pairs_of(box_iou(boxes, truth_boxes, image.crowd), same_class, IOU_THRESHOLDS[0])


def _given(values: Any, count: int, place: str, what: str) -> Any:
    """The boxes or masks of an image; None is allowed where there is nothing to describe."""
    if values is None and count == 0:
        return []
    if values is None or len(values) != count:
        given = "none" if values is None else str(len(values))
        raise DataError(f"the number of {what} is wrong", place=place, found=given, expected=str(count))
    return values


def _chosen(masks: Masks, indices: NDArray[np.int64]) -> Masks:
    if isinstance(masks, Sequence):
        return [masks[at] for at in indices]
    import torch

    return masks[torch.from_numpy(indices).to(masks.device)]


def _as_runs(masks: Masks) -> Sequence[run_lengths.Rle]:
    return masks if isinstance(masks, Sequence) else run_lengths.encode(masks)


def _mask_size(place: str, *sides: Masks) -> tuple[int, int] | None:
    """Height and width of all masks, or None where there is none."""
    sizes: set[tuple[int, int]] = set()
    for masks in sides:
        if isinstance(masks, Sequence):
            sizes.update((int(one["size"][0]), int(one["size"][1])) for one in masks)
        else:
            sizes.update([(masks.shape[1], masks.shape[2])] if len(masks) else [])
    if len(sizes) > 1:
        all_sizes = " and ".join(f"{height} x {width} px" for height, width in sorted(sizes))
        raise DataError("masks of one image have different sizes (height x width)", place=place, found=all_sizes)
    return next(iter(sizes), None)


def _finite(values: ArrayLike, place: str, what: str) -> NDArray[np.float64]:
    numbers = np.asarray(values, dtype=np.float64)
    if not np.isfinite(numbers).all():
        bad = numbers[~np.isfinite(numbers)].flat[0]
        raise DataError(f"{what} is not a finite number", place=place, found=str(bad))
    return numbers


def _same_length(place: str, *columns: Sized) -> None:
    lengths = [len(column) for column in columns]
    if len(set(lengths)) > 1:
        raise DataError("the numbers of classes, scores, areas and crowd flags differ", place=place, found=str(lengths))
