"""Scoring by pycocotools, the reference, or by faster-coco-eval: one image and class at a time, all masks in memory."""

from __future__ import annotations

import contextlib
import importlib
import io
from collections.abc import Sequence
from dataclasses import replace
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.errors import MachineError
from d2tune.metrics.coco.accumulate import Curves, Records
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange, outside, pack_bits
from d2tune.metrics.coco.results import InstanceResult, Kind, KindResult, kind_result
from d2tune.metrics.coco.rows import CocoSet
from d2tune.metrics.overlap.boundary import mask_boundary
from d2tune.metrics.overlap.run_lengths import Rle

Library = Literal["pycocotools", "faster-coco-eval"]


class BoundaryEval(COCOeval):
    """pycocotools' evaluation of masks with boundary IoU in place of mask IoU; see `overlap.iou`."""

    def computeIoU(self, imgId: int, catId: int) -> Any:  # noqa: N802
        """The matrix of an image and class, ``(D, G)``, detections by falling score."""
        iou = super().computeIoU(imgId, catId)
        if len(iou) == 0:
            return iou
        found, truth = self._dts[imgId, catId], self._gts[imgId, catId]
        order = np.argsort([-row["score"] for row in found], kind="mergesort")[: len(iou)]
        plain = np.array([not row["iscrowd"] for row in truth])
        boundaries = mask_utils.iou(
            _boundaries([found[at]["segmentation"] for at in order]),
            _boundaries([row["segmentation"] for row in truth]),
            [0] * len(truth),
        )
        iou[:, plain] = np.minimum(iou, boundaries)[:, plain]
        return iou


def _boundaries(rles: Sequence[Rle]) -> list[Rle]:
    masks = mask_utils.decode(list(rles)).transpose(2, 0, 1).astype(bool)
    return mask_utils.encode(np.asfortranarray(mask_boundary(masks).transpose(1, 2, 0).astype(np.uint8)))


def score_officially(
    data: CocoSet,
    *,
    kinds: Sequence[Kind],
    library: Library,
    area_ranges: Sequence[AreaRange] = COCO_AREAS,
    part: str = "the data",
) -> InstanceResult:
    """COCO's figures by one of the two libraries.

    Args:
        data: Ground truth and results.
        kinds: What to score.
        library: Which one computes. faster-coco-eval keeps its matches to itself: there are no records.
        area_ranges: Sizes to tell apart, beginning with COCO's four.
        part: What the data are called in the reason for a missing figure.

    Raises:
        MachineError: The library is not installed.
    """
    areas = tuple(area_ranges)
    results: dict[Kind, KindResult] = {}
    for kind in kinds:
        with contextlib.redirect_stdout(io.StringIO()):
            evaluation = _evaluation(data, kind, library)
            evaluation.params.areaRng = [[area.low_px2, area.high_px2] for area in areas]
            evaluation.params.areaRngLbl = [area.name for area in areas]
            evaluation.evaluate()
            evaluation.accumulate()
        curves = Curves(*(np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")))
        records = _records(evaluation, data, areas) if library == "pycocotools" else None
        category, left_out = _truth_rows(data, areas)
        truth = np.zeros((len(data.categories), len(areas)), np.int64)
        np.add.at(truth, category, ~left_out)
        results[kind] = kind_result(curves, truth, data.categories, areas, part=part, records=records)
    return InstanceResult(data.image_ids, areas, results)


def _evaluation(data: CocoSet, kind: Kind, library: Library) -> Any:
    if library == "pycocotools":
        evaluator = BoundaryEval if kind == "boundary" else COCOeval
        return evaluator(*_indexed(COCO, data, kind), "bbox" if kind == "bbox" else "segm")
    try:
        faster = importlib.import_module("faster_coco_eval")
    except ImportError:
        raise MachineError("faster-coco-eval is not installed", hint="Run pip install faster-coco-eval") from None
    return faster.COCOeval_faster(*_indexed(faster.COCO, data, kind), kind)


def _indexed(index: Any, data: CocoSet, kind: Kind) -> list[Any]:
    """Ground truth and results as a library's ``COCO``, numbered from 1, since 0 means "not matched" to it."""
    sizes = {row["image_id"]: row["rle"]["size"] for row in (*data.truth, *data.results) if "rle" in row}
    images = []
    for image_id in data.image_ids:
        height_px, width_px = sizes.get(image_id, (1, 1))
        images.append({"id": image_id, "height": height_px, "width": width_px})
    categories = [{"id": category.id, "name": category.name} for category in data.categories]
    both = []
    for rows in (data.truth, data.results):
        annotations = []
        for number, row in enumerate(rows, start=1):
            plain = {"iscrowd": 0, **row, "id": number}
            if rows is data.results:
                plain["area"] = row["bbox"][2] * row["bbox"][3] if kind == "bbox" else mask_utils.area(row["rle"])
            if "rle" in row:
                plain["segmentation"] = plain.pop("rle")
            annotations.append(plain)
        one = index()
        one.dataset = {"images": images, "categories": categories, "annotations": annotations}
        one.createIndex()
        both.append(one)
    return both


def _truth_rows(data: CocoSet, areas: tuple[AreaRange, ...]) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """Index of each ground truth's class ``(M,)``, and whether it is left out of each area range ``(M, A)``."""
    number = {category.id: at for at, category in enumerate(data.categories)}
    category = np.array([number[row["category_id"]] for row in data.truth], np.int64)
    crowd = np.array([bool(row["iscrowd"]) for row in data.truth], dtype=bool)
    area = np.array([row["area"] for row in data.truth], np.float64)
    return category, outside(area, areas) | crowd[:, None]


def _records(evaluation: COCOeval, data: CocoSet, areas: tuple[AreaRange, ...]) -> Records:
    """The records that pycocotools' matches amount to."""
    place = {image_id: at for at, image_id in enumerate(data.image_ids)}
    truth_category, truth_ignored = _truth_rows(data, areas)
    truth_image = np.array([place[row["image_id"]] for row in data.truth], np.int32)
    empty = Records.empty(len(data.image_ids), len(data.categories), areas)
    names = ("image", "category", "rank", "score", "matched", "ignored")
    parts: list[tuple[NDArray[Any], ...]] = [tuple(getattr(empty, name) for name in names)]
    shape = (len(data.categories), len(areas), len(data.image_ids))
    images = np.empty(len(evaluation.evalImgs), dtype=object)
    images[:] = evaluation.evalImgs
    for k, by_area in enumerate(images.reshape(shape)):
        for i, of_areas in enumerate(by_area.T):
            if of_areas[0] is None or not of_areas[0]["dtIds"]:
                continue
            count = len(of_areas[0]["dtIds"])
            matched, ignored = (
                pack_bits(np.stack([one[name].T > 0 for one in of_areas], axis=1)) for name in ("dtMatches", "dtIgnore")
            )
            numbers = (np.full(count, i, np.int32), np.full(count, k, np.int16), np.arange(count, dtype=np.int16))
            parts.append((*numbers, np.array(of_areas[0]["dtScores"], np.float64), matched, ignored))
    columns: dict[str, Any] = {
        name: np.concatenate(column) for name, column in zip(names, zip(*parts, strict=True), strict=True)
    }
    columns |= {"truth_category": truth_category.astype(np.int16), "truth_ignored": truth_ignored}
    return replace(empty, **columns, truth_image=truth_image).sorted()
