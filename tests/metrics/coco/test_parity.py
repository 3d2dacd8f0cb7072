"""The metrics are pycocotools' own, to the last bit, for run lengths and for bitmaps."""

from __future__ import annotations

import functools
import json
from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest
import torch

from d2tune.annotations.model.dataset import Category
from d2tune.metrics.analysis.analysis import analyze, size_ranges
from d2tune.metrics.coco.accumulate import METRIC_NAMES, Records
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange
from d2tune.metrics.coco.results import KINDS, InstanceResult, Kind, KindResult
from d2tune.metrics.coco.rows import read_coco
from d2tune.metrics.coco.scorer import Detections, GroundTruth, InstanceScorer, score_coco
from d2tune.metrics.coco.summary import metrics_of, with_intervals
from tests.metrics.coco.oracle import LargeBoundaryEval, official, official_result
from tests.metrics.coco.random_sets import CocoPair, decode, encode, random_set
from tests.metrics.grids import seeds

SETS = 200
FEW = (14, 19, 133)
"""Together they have crowds, classes without ground truth, over 100 detections of a class, and none at all."""

DEVICES = ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)]
WAYS = ["runs", "bitmaps on cpu", pytest.param("bitmaps on cuda", marks=pytest.mark.gpu)]

Expected = dict[str, tuple[dict[str, Any], np.ndarray]]


def expected_of(pair: CocoPair, areas: list[list[float]] | None = None) -> Expected:
    """pycocotools' arrays and twelve metrics for each kind."""
    evaluations = {kind: official(pair, kind, areas=areas) for kind in KINDS}
    return {kind: (one.eval, one.stats) for kind, one in evaluations.items()}


@functools.cache
def known(seed: int) -> tuple[CocoPair, Expected]:
    pair = random_set(seed)
    return pair, expected_of(pair)


def scored(pair: CocoPair, way: str, **options: Any) -> InstanceResult:
    if way == "runs":
        return score_coco(*pair, **options)
    return score_coco(*pair, device=way.split()[-1], **options)


def streamed(pair: CocoPair, device: str | None, masks_on: str) -> InstanceResult:
    """Image by image, the last first, with masks as tensors."""
    truth, results = pair
    scorer = InstanceScorer([Category(one["id"], one["name"]) for one in truth["categories"]], device=device)

    def column(rows: list[dict[str, Any]], key: str) -> list[Any]:
        return [row[key] for row in rows]

    def tensor(rows: list[dict[str, Any]], image: dict[str, Any]) -> torch.Tensor:
        masks = [decode(row["segmentation"]) for row in rows]
        empty = np.zeros((0, image["height"], image["width"]), bool)
        return torch.from_numpy(np.stack(masks) if masks else empty).to(masks_on)

    for image in sorted(truth["images"], key=lambda one: -one["id"]):
        own = [row for row in truth["annotations"] if row["image_id"] == image["id"]]
        detected = [row for row in results if row["image_id"] == image["id"]]
        boxes = np.array(column(own, "bbox")).reshape(-1, 4)
        rest = (column(own, "category_id"), column(own, "area"), column(own, "iscrowd"))
        detections = (column(detected, "category_id"), column(detected, "score"), column(detected, "bbox"))
        scorer.add(
            image["id"], GroundTruth(*rest, boxes, tensor(own, image)), Detections(*detections, tensor(detected, image))
        )
    return scorer.result()


def assert_equal(result: InstanceResult, expected: Expected, place: object) -> None:
    for kind, (arrays, stats) in expected.items():
        mine = result.kinds[kind]
        for name in ("precision", "recall", "scores"):
            assert np.array_equal(getattr(mine.curves, name), arrays[name]), (place, kind, name)
        for name, value in zip(METRIC_NAMES, stats, strict=True):
            assert mine.metrics[name].value == (None if value == -1 else 100 * value), (place, kind, name)
            assert (mine.metrics[name].reason is None) == (value != -1)


@pytest.mark.parametrize("seed", seeds(SETS, few=FEW))
@pytest.mark.parametrize("way", WAYS)
def test_every_number_is_pycocotools_own(seed: int, way: str) -> None:
    pair, expected = known(seed)
    assert_equal(scored(pair, way), expected, seed)


@pytest.mark.parametrize("seed", seeds(20, few=FEW))
@pytest.mark.parametrize("device", DEVICES)
def test_masks_as_tensors_and_images_in_any_order(device: str, seed: int) -> None:
    pair, expected = known(seed)
    assert_equal(streamed(pair, device, device), expected, seed)
    assert_equal(streamed(pair, None, device), expected, seed)


@pytest.mark.parametrize(
    ("numbers", "least"),
    [
        (FEW, dict.fromkeys(("crowds", "no truth", "over 100", "no detections", "medium", "large"), 1)),
        pytest.param(
            range(SETS),
            {"crowds": 51, "no truth": 51, "over 100": 5, "no detections": 3, "medium": 51, "large": 6},
            marks=pytest.mark.extended,
        ),
    ],
    ids=["few", "all"],
)
def test_the_sets_hold_what_makes_scoring_hard(numbers: Sequence[int], least: dict[str, int]) -> None:
    counts: Counter[str] = Counter()
    for seed in numbers:
        (truth, results), expected = known(seed)
        stats = expected["segm"][1]
        of_classes = {row["category_id"] for row in truth["annotations"]}
        counts["crowds"] += any(row["iscrowd"] for row in truth["annotations"])
        counts["no truth"] += bool({row["id"] for row in truth["categories"]} - of_classes)
        per_class = Counter((row["image_id"], row["category_id"]) for row in results)
        counts["over 100"] += any(count > 100 for count in per_class.values())
        counts["no detections"] += not results
        counts["medium"] += stats[4] >= 0
        counts["large"] += stats[5] >= 0
    assert all(counts[name] >= count for name, count in least.items()), counts


@pytest.mark.parametrize("seed", seeds(15, few=(14,)))
@pytest.mark.parametrize("way", WAYS)
def test_further_area_ranges(way: str, seed: int) -> None:
    """Four more ranges make 80 combinations with thresholds, more than one word of 64 bits holds."""
    edges = (0.0, 20.0, 150.0, 900.0, 1e10)
    further = [AreaRange(f"quarter {at}", *edges[at : at + 2], f"in quarter {at}") for at in range(4)]
    areas = [[one.low_px2, one.high_px2] for one in (*COCO_AREAS, *further)]
    pair = known(seed)[0]
    result = scored(pair, way, area_ranges=[*COCO_AREAS, *further])
    expected = expected_of(pair, areas)
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
                np.unique(np.column_stack([records.truth_image, records.truth_category, records.truth_ignored]), axis=0)
                for records in (one, other)
            )
        assert np.array_equal(mine, theirs), name


@pytest.mark.parametrize("seed", seeds(25))
def test_matches_and_rows_of_classes_are_pycocotools_own(seed: int) -> None:
    pair = random_set(seed)
    mine = score_coco(*pair)
    for kind in KINDS:
        reference = official_result(official(pair, kind), pair)
        assert reference.classes == mine.kinds[kind].classes
        assert_same_records(reference.records, mine.kinds[kind].records)


def test_what_follows_from_matches_is_the_same_for_bitmaps_and_for_pycocotools() -> None:
    """Thresholds, intervals, error types, calibration and sizes as JSON."""
    pair = random_set(2)
    data = read_coco(*pair, KINDS)
    ranges = size_ranges(data)
    areas = [[one.low_px2, one.high_px2] for one in ranges]
    mine = score_coco(*pair, area_ranges=ranges)
    reference = replace(
        mine, kinds={kind: official_result(official(pair, kind, areas=areas), pair, areas=ranges) for kind in KINDS}
    )
    contents = []
    for result in (mine, score_coco(*pair, device="cpu", area_ranges=ranges), reference):
        metrics = with_intervals(metrics_of(result), result)
        contents.append(json.dumps([metrics.to_json(), analyze(data, result, metrics).to_json()]))
    assert contents[0] == contents[1] == contents[2]


@pytest.mark.parametrize(
    ("width", "height"),
    [(640, 480), pytest.param(4000, 3000, marks=pytest.mark.extended)],
)
@pytest.mark.parametrize("way", WAYS)
def test_large_masks(way: str, width: int, height: int) -> None:
    """Boundaries 2 % of the diagonal wide, and masks up to the whole image."""
    pair, references = large_case(width, height)
    mine = scored(pair, way)
    for kind, reference in references.items():
        assert reference.metrics == mine.kinds[kind].metrics
        assert np.array_equal(reference.curves.precision, mine.kinds[kind].curves.precision)
    assert mine.kinds["boundary"].metrics["AP"].value != mine.kinds["segm"].metrics["AP"].value


@functools.cache
def large_case(width: int, height: int) -> tuple[CocoPair, dict[Kind, KindResult]]:
    pair = discs(width, height)
    evaluations = {kind: official(pair, kind, boundary_eval=LargeBoundaryEval) for kind in KINDS}
    return pair, {kind: official_result(one, pair) for kind, one in evaluations.items()}


def discs(width: int, height: int) -> CocoPair:
    """Five objects on one image, from small discs to the whole image, and detections that are a little off."""
    draw = np.random.default_rng(3)
    truth: dict[str, Any] = {
        "images": [{"id": 1, "height": height, "width": width}],
        "categories": [{"id": 1, "name": "a"}, {"id": 2, "name": "b"}],
        "annotations": [],
    }
    results: list[dict[str, Any]] = []
    for number, share in enumerate((0.005, 0.075, 0.15, 0.375, 1.5), start=1):
        radius = share * width
        center = draw.random(2) * [width, height]
        base = {"image_id": 1, "category_id": 1 + number % 2}
        mask = disc(center, radius, (height, width))
        rest = {"iscrowd": int(number == 3), "area": float(mask.sum()), "bbox": [0.0, 0.0, 10.0, 10.0 * number]}
        truth["annotations"].append({"id": number, **base, **rest, "segmentation": encode(mask)})
        moved = disc(center + draw.normal(0, radius / 30, 2), radius * draw.uniform(0.95, 1.05), (height, width))
        rest = {"bbox": [0.0, 0.0, 10.0, 9.0 * number], "score": float(draw.random())}
        results.append({**base, **rest, "segmentation": encode(moved)})
    return truth, results


def disc(center: np.ndarray, radius: float, shape: tuple[int, int]) -> np.ndarray:
    mask = np.zeros(shape, np.uint8)
    return cv2.circle(mask, [round(side) for side in center.tolist()], round(radius), 1, -1).astype(bool)
