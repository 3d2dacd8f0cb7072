"""pycocotools as the reference: its arrays, its twelve metrics and its matches for a data set."""

from __future__ import annotations

import contextlib
import copy
import io
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.metrics.coco.accumulate import Curves, Records
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange, outside, pack_bits
from d2tune.metrics.coco.results import KINDS, KindResult, kind_result
from d2tune.metrics.coco.rows import CocoSet, read_coco
from tests.metrics.coco.random_sets import CocoPair, decode
from tests.metrics.overlap.test_boundary import paper_boundary

RATIO = 0.02


class DirectBoundaryEval(COCOeval):
    """Boundary AP by the book: every boundary is eroded step by step, every pair counted pixel by pixel."""

    def computeIoU(self, imgId: int, catId: int) -> Any:
        iou = super().computeIoU(imgId, catId)
        detections, truth = self._dts[imgId, catId], self._gts[imgId, catId]
        order = np.argsort([-row["score"] for row in detections], kind="mergesort")[:100]
        if len(iou):
            of_truth = [self.boundary(decode(row["segmentation"])) for row in truth]
            of_detections = [self.boundary(decode(detections[at]["segmentation"])) for at in order]
            for g, a in enumerate(of_truth):
                for d, b in enumerate(of_detections):
                    shared = int((a & b).sum())
                    if not truth[g]["iscrowd"] and iou[d, g] > 0:
                        iou[d, g] = min(iou[d, g], shared / int((a | b).sum()))
        return iou

    def boundary(self, mask: np.ndarray) -> np.ndarray:
        return paper_boundary(mask, RATIO)


class LargeBoundaryEval(DirectBoundaryEval):
    """The same with OpenCV's erosion, also one step of 3 x 3 px after the other, for millions of pixels."""

    def boundary(self, mask: np.ndarray) -> np.ndarray:
        inner = np.pad(mask.astype(np.uint8), 1)
        for _ in range(max(1, round(RATIO * np.hypot(*mask.shape)))):
            inner = cv2.erode(inner, np.ones((3, 3), np.uint8), borderType=cv2.BORDER_CONSTANT, borderValue=(0,))
        return mask & ~inner[1:-1, 1:-1].astype(bool)


def official(
    pair: CocoPair,
    kind: str,
    *,
    areas: list[list[float]] | None = None,
    boundary_eval: Callable[..., COCOeval] = DirectBoundaryEval,
) -> COCOeval:
    """pycocotools' evaluation of a set: evaluated, accumulated and summarized.

    Args:
        pair: Ground truth and results.
        kind: ``bbox``, ``segm`` or ``boundary``.
        areas: Area ranges in square pixels; COCO's four by default.
        boundary_eval: What computes ``boundary``.
    """
    ground_truth, results = copy.deepcopy(pair)
    kept = "bbox" if kind == "bbox" else "segmentation"
    rows = [{key: row[key] for key in ("image_id", "category_id", "score", kept)} for row in results]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = ground_truth
        truth.createIndex()
        if rows:
            detections = truth.loadRes(rows)
        else:
            detections = COCO()
            detections.dataset = {**ground_truth, "annotations": []}
            detections.createIndex()
        evaluator = boundary_eval if kind == "boundary" else COCOeval
        evaluation = evaluator(truth, detections, "bbox" if kind == "bbox" else "segm")
        if areas is not None:
            evaluation.params.areaRng = areas
            evaluation.params.areaRngLbl = ["all", "small", "medium", "large", *map(str, range(4, len(areas)))]
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return evaluation


def official_result(evaluation: COCOeval, pair: CocoPair, *, areas: tuple[AreaRange, ...] = COCO_AREAS) -> KindResult:
    """pycocotools' curves and matches of one kind as d2tune's tables and records."""
    data = read_coco(*pair, KINDS)
    records = _records(evaluation, data, areas)
    curves = Curves(*(np.asarray(evaluation.eval[name]) for name in ("precision", "recall", "scores")))
    truth = np.zeros((len(data.categories), len(areas)), np.int64)
    np.add.at(truth, records.truth_category, ~records.truth_ignored)
    return kind_result(curves, truth, data.categories, areas, split="the data", records=records)


def _records(evaluation: COCOeval, data: CocoSet, areas: tuple[AreaRange, ...]) -> Records:
    place = {image_id: at for at, image_id in enumerate(data.image_ids)}
    number = {category.id: at for at, category in enumerate(data.categories)}
    crowd = np.array([bool(row["iscrowd"]) for row in data.truth], dtype=bool)
    truth = {
        "truth_image": np.array([place[row["image_id"]] for row in data.truth], np.int32),
        "truth_category": np.array([number[row["category_id"]] for row in data.truth], np.int16),
        "truth_ignored": outside(np.array([row["area"] for row in data.truth], float), areas) | crowd[:, None],
    }
    empty = Records.empty(len(data.image_ids), len(data.categories), areas)
    names = ("image", "category", "rank", "score", "matched", "ignored")
    columns: dict[str, list[np.ndarray]] = {name: [getattr(empty, name)] for name in names}
    matches = np.empty(len(evaluation.evalImgs), dtype=object)
    matches[:] = evaluation.evalImgs
    for k, by_area in enumerate(matches.reshape(len(data.categories), len(areas), len(data.image_ids))):
        for i, of_areas in enumerate(by_area.T):
            if of_areas[0] is None or not of_areas[0]["dtIds"]:
                continue
            count = len(of_areas[0]["dtIds"])
            columns["image"].append(np.full(count, i, np.int32))
            columns["category"].append(np.full(count, k, np.int16))
            columns["rank"].append(np.arange(count, dtype=np.int16))
            columns["score"].append(np.array(of_areas[0]["dtScores"], float))
            for name, key in (("matched", "dtMatches"), ("ignored", "dtIgnore")):
                columns[name].append(pack_bits(np.stack([one[key].T > 0 for one in of_areas], axis=1)))
    joined: dict[str, Any] = {name: np.concatenate(arrays) for name, arrays in columns.items()}
    return replace(empty, **joined, **truth).sorted()
