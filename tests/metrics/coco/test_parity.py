"""The figures are pycocotools' own, to the last bit, however masks are compared."""

from __future__ import annotations

import functools
import json
from collections import Counter
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d2tune.annotations.model.dataset import Category
from d2tune.metrics.analysis.analysis import analyze, size_ranges
from d2tune.metrics.coco.accumulate import NAMES, Records
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange
from d2tune.metrics.coco.results import KINDS, InstanceResult
from d2tune.metrics.coco.rows import read_coco
from d2tune.metrics.coco.scorer import Detections, GroundTruth, InstanceScorer, score_coco
from d2tune.metrics.coco.summary import metrics_of, with_intervals
from tests.metrics.coco.drawn_sets import Drawn, decode, drawn_set, encode
from tests.metrics.coco.oracle import LargeBoundaryEval, official, official_result
from tests.metrics.grids import seeds

SETS = 200
BLOCK = 20

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WAYS = ["runs", "bitmaps on cpu", pytest.param("bitmaps on cuda", marks=pytest.mark.gpu)]

Expected = dict[str, tuple[dict[str, Any], np.ndarray]]


def expected_of(drawn: Drawn, areas: list[list[float]] | None = None) -> Expected:
    """pycocotools' arrays and twelve figures for each kind."""
    evaluations = {kind: official(drawn, kind, areas=areas) for kind in KINDS}
    return {kind: (one.eval, one.stats) for kind, one in evaluations.items()}


@functools.cache
def known(seed: int) -> tuple[Drawn, Expected]:
    drawn = drawn_set(seed)
    return drawn, expected_of(drawn)


def scored(drawn: Drawn, way: str, **options: Any) -> InstanceResult:
    if way == "runs":
        return score_coco(*drawn, **options)
    return score_coco(*drawn, device=way.split()[-1], **options)


def streamed(drawn: Drawn, device: str | None, masks_on: str) -> InstanceResult:
    """Image by image, the last first, with masks as tensors."""
    truth, results = drawn
    scorer = InstanceScorer([Category(one["id"], one["name"]) for one in truth["categories"]], device=device)

    def column(rows: list[dict[str, Any]], key: str) -> list[Any]:
        return [row[key] for row in rows]

    def tensor(rows: list[dict[str, Any]], image: dict[str, Any]) -> torch.Tensor:
        masks = [decode(row["segmentation"]) for row in rows]
        empty = np.zeros((0, image["height"], image["width"]), bool)
        return torch.from_numpy(np.stack(masks) if masks else empty).to(masks_on)

    for image in sorted(truth["images"], key=lambda one: -one["id"]):
        own = [row for row in truth["annotations"] if row["image_id"] == image["id"]]
        found = [row for row in results if row["image_id"] == image["id"]]
        boxes = np.array(column(own, "bbox")).reshape(-1, 4)
        rest = (column(own, "category_id"), column(own, "area"), column(own, "iscrowd"))
        detections = (column(found, "category_id"), column(found, "score"), column(found, "bbox"))
        scorer.add(
            image["id"], GroundTruth(*rest, boxes, tensor(own, image)), Detections(*detections, tensor(found, image))
        )
    return scorer.result()


def assert_equal(result: InstanceResult, expected: Expected, place: object) -> None:
    for kind, (arrays, stats) in expected.items():
        mine = result.kinds[kind]
        for name in ("precision", "recall", "scores"):
            assert np.array_equal(getattr(mine.curves, name), arrays[name]), (place, kind, name)
        for name, value in zip(NAMES, stats, strict=True):
            assert mine.metrics[name].value == (None if value == -1 else 100 * value), (place, kind, name)
            assert (mine.metrics[name].reason is None) == (value != -1)


@pytest.mark.parametrize("first", range(0, SETS, BLOCK))
@pytest.mark.parametrize("way", WAYS)
def test_every_number_is_pycocotools_own(first: int, way: str) -> None:
    for seed in range(first, first + BLOCK):
        drawn, expected = known(seed)
        assert_equal(scored(drawn, way), expected, seed)


@pytest.mark.parametrize("device", DEVICES)
def test_masks_as_tensors_and_images_in_any_order(device: str) -> None:
    for seed in range(20):
        drawn, expected = known(seed)
        assert_equal(streamed(drawn, device, device), expected, seed)
        assert_equal(streamed(drawn, None, device), expected, seed)


def test_the_sets_hold_what_makes_scoring_hard() -> None:
    sets = [known(seed)[0] for seed in range(SETS)]
    crowds = sum(any(row["iscrowd"] for row in truth["annotations"]) for truth, _ in sets)
    without_truth = sum(
        bool({row["id"] for row in truth["categories"]} - {row["category_id"] for row in truth["annotations"]})
        for truth, _ in sets
    )
    crowded = sum(
        any(count > 100 for count in Counter((row["image_id"], row["category_id"]) for row in rows).values())
        for _, rows in sets
    )
    nothing_found = sum(not rows for _, rows in sets)
    medium = sum(known(seed)[1]["segm"][1][4] >= 0 for seed in range(SETS))
    large = sum(known(seed)[1]["segm"][1][5] >= 0 for seed in range(SETS))
    assert crowds > 50 and without_truth > 50 and crowded >= 5
    assert nothing_found >= 3 and medium > 50 and large > 5


@pytest.mark.parametrize("way", WAYS)
def test_further_area_ranges(way: str) -> None:
    """Four more ranges make 80 combinations with thresholds, more than one word of 64 bits holds."""
    edges = (0.0, 20.0, 150.0, 900.0, 1e10)
    further = [AreaRange(f"quarter {at}", *edges[at : at + 2], f"in quarter {at}") for at in range(4)]
    areas = [[one.low_px2, one.high_px2] for one in (*COCO_AREAS, *further)]
    for seed in range(15):
        drawn = known(seed)[0]
        result = scored(drawn, way, area_ranges=[*COCO_AREAS, *further])
        expected = expected_of(drawn, areas)
        assert_equal(result, expected, seed)
        precision = expected["segm"][0]["precision"][:, :, :, 5, -1]
        mine = result.kinds["segm"].metrics["AP quarter 1"].value
        assert mine == (100 * np.mean(precision[precision > -1]) if (precision > -1).any() else None)


def assert_same_records(one: Records, other: Records) -> None:
    names = ("image", "category", "rank", "score", "matched", "ignored")
    for name in (*names, "truth_image", "truth_category", "truth_ignored"):
        mine, theirs = getattr(one, name), getattr(other, name)
        if name.startswith("truth"):  # ground truth may stand in another order
            mine, theirs = (
                np.unique(np.column_stack([part.truth_image, part.truth_category, part.truth_ignored]), axis=0)
                for part in (one, other)
            )
        assert np.array_equal(mine, theirs), name


@pytest.mark.parametrize("seed", seeds(25))
def test_matches_and_rows_of_classes_are_pycocotools_own(seed: int) -> None:
    drawn = drawn_set(seed)
    mine = score_coco(*drawn)
    for kind in KINDS:
        reference = official_result(official(drawn, kind), drawn)
        assert reference.classes == mine.kinds[kind].classes
        assert_same_records(reference.records, mine.kinds[kind].records)


def test_what_follows_from_matches_is_the_same_for_bitmaps_and_for_pycocotools() -> None:
    """Thresholds, intervals, error types, calibration and sizes as JSON."""
    drawn = drawn_set(2)
    data = read_coco(*drawn, KINDS)
    ranges = size_ranges(data)
    areas = [[one.low_px2, one.high_px2] for one in ranges]
    mine = score_coco(*drawn, area_ranges=ranges)
    reference = replace(
        mine, kinds={kind: official_result(official(drawn, kind, areas=areas), drawn, areas=ranges) for kind in KINDS}
    )
    contents = []
    for result in (mine, score_coco(*drawn, device="cpu", area_ranges=ranges), reference):
        metrics = with_intervals(metrics_of(result), result)
        contents.append(json.dumps([metrics.to_json(), analyze(data, result, metrics).to_json()]))
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.slow
@pytest.mark.parametrize("way", WAYS)
def test_large_images(way: str) -> None:
    """4000 x 3000 px, with boundaries of 100 px and masks of up to 12 million pixels."""
    draw = np.random.default_rng(3)
    truth: dict[str, Any] = {
        "images": [{"id": 1, "height": 3000, "width": 4000}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for number, radius in enumerate((20, 300, 600, 1500, 6000), start=1):
        center = draw.random(2) * [4000, 3000]
        base = {"image_id": 1, "category_id": 1 + number % 2}
        mask = disc(center, radius)
        rest = {"iscrowd": int(number == 3), "area": float(mask.sum()), "bbox": [0.0, 0.0, 10.0, 10.0 * number]}
        truth["annotations"].append({"id": number, **base, **rest, "segmentation": encode(mask)})
        moved = disc(center + draw.normal(0, radius / 30, 2), radius * draw.uniform(0.95, 1.05))
        rest = {"bbox": [0.0, 0.0, 10.0, 9.0 * number], "score": float(draw.random())}
        results.append({**base, **rest, "segmentation": encode(moved)})
    mine = scored((truth, results), way)
    for kind in KINDS:
        reference = official_result(official((truth, results), kind, boundary_eval=LargeBoundaryEval), (truth, results))
        assert reference.metrics == mine.kinds[kind].metrics
        assert np.array_equal(reference.curves.precision, mine.kinds[kind].curves.precision)
    assert mine.kinds["boundary"].metrics["AP"].value != mine.kinds["segm"].metrics["AP"].value


def disc(center: np.ndarray, radius: float) -> np.ndarray:
    mask = np.zeros((3000, 4000), np.uint8)
    return cv2.circle(mask, [round(side) for side in center.tolist()], round(radius), 1, -1).astype(bool)
