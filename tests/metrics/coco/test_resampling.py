"""Metrics of images that count several times, against pycocotools on a data set with the images really repeated."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from d2tune.metrics.coco.accumulate import METRIC_NAMES, Records, accumulate, coco_metrics
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange
from d2tune.metrics.coco.resampling import resample
from d2tune.metrics.coco.scorer import score_coco
from tests.metrics.coco.oracle import official
from tests.metrics.coco.random_sets import CocoPair, random_set
from tests.metrics.grids import seeds

FURTHER = AreaRange("tiny", 0, 50, "smaller than 50 px")


def without_ties(pair: CocoPair, seed: int) -> CocoPair:
    """The set with a score of its own for each detection."""
    truth, results = copy.deepcopy(pair)
    scores = np.random.default_rng(seed).permutation(len(results)) / 1000
    for row, score in zip(results, scores, strict=True):
        row["score"] = float(score)
    return truth, results


def repeated(pair: CocoPair, weights: np.ndarray) -> CocoPair:
    """Each image, by id, as often as its weight says; copies follow each other."""
    truth, results = pair
    images, annotations, rows = [], [], []
    for image, weight in zip(sorted(truth["images"], key=lambda one: one["id"]), weights, strict=True):
        for _ in range(weight):
            number = len(images) + 1
            images.append({**image, "id": number})
            for row in truth["annotations"]:
                if row["image_id"] == image["id"]:
                    annotations.append({**row, "image_id": number, "id": len(annotations) + 1})
            rows.extend({**row, "image_id": number} for row in results if row["image_id"] == image["id"])
    return {**truth, "images": images, "annotations": annotations}, rows


@pytest.mark.parametrize("seed", seeds(40, few=(0, 2, 5)))
def test_weights_of_one_change_nothing(seed: int) -> None:
    result = score_coco(*random_set(seed), kinds=("bbox", "segm"), area_ranges=[*COCO_AREAS, FURTHER])
    for kind in result.kinds.values():
        again = resample(kind.records, np.ones((2, len(result.image_ids)), int))
        for metrics, values in zip(
            (kind.metrics, *(row.metrics for row in kind.classes)), (again.overall, *again.classes), strict=True
        ):
            assert set(metrics) == set(values)
            for name, metric in metrics.items():
                assert (len(values[name]) == 2 and values[name][0] == values[name][1]) or metric.value is None
                value = values[name][0]
                assert (None if np.isnan(value) else value) == metric.value, name


@pytest.mark.parametrize("seed", seeds(12))
def test_weights_are_repetitions(seed: int) -> None:
    pair = without_ties(random_set(seed), seed)
    result = score_coco(*pair, kinds=("segm",))
    records = result.kinds["segm"].records
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(result.image_ids)))
    values = resample(records, weights).overall
    for row, counts in enumerate(weights):
        expected = official(repeated(pair, counts), "segm").stats if counts.any() else -np.ones(12)
        for name, value in zip(METRIC_NAMES, expected, strict=True):
            mine = values[name][row]
            assert (-1 if np.isnan(mine) else mine) == (value if value == -1 else 100 * value), (name, counts)


def test_by_hand() -> None:
    """Two images with an object each, detected on the first only: AP of the first alone is 100, of the second 0."""
    row = {"category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0, "area": 100}
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, **row}, {"id": 2, "image_id": 2, **row}],
    }
    detections = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]
    records = score_coco(truth, detections, kinds=("bbox",)).kinds["bbox"].records
    values = resample(records, np.array([[2, 0], [0, 2], [1, 1], [0, 0]])).overall
    assert values["AP"][:3] == pytest.approx([100, 0, 100 * 51 / 101])
    assert values["AR100"][:3] == pytest.approx([100, 0, 50])
    assert np.isnan(values["AP"][3])


def test_more_draws_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = score_coco(*random_set(5), kinds=("bbox",)).kinds["bbox"].records
    weights = np.random.default_rng(0).integers(0, 3, (50, records.images))
    whole = resample(records, weights)
    monkeypatch.setattr("d2tune.metrics.coco.resampling.BYTES_AT_ONCE", 300_000)
    again = resample(records, weights)
    assert all(np.array_equal(whole.overall[name], again.overall[name], equal_nan=True) for name in whole.overall)


@pytest.mark.parametrize("shape", [(20, 8, 60), (6, 80, 1)], ids=["many classes", "many objects"])
def test_each_draw_is_a_data_set_of_its_own(shape: tuple[int, int, int]) -> None:
    """Against the metrics of a data set whose images are really repeated, to the last bit, for every class too."""
    images, objects, classes = shape
    draw = np.random.default_rng(1)
    annotations, detections = [], []
    for number in range(images * objects):
        x, y, side = (int(value) for value in (draw.integers(0, 400), draw.integers(0, 400), draw.integers(8, 140)))
        own = {"image_id": number // objects, "category_id": int(draw.integers(classes))}
        annotations.append({"id": number + 1, **own, "bbox": [x, y, side, side], "area": side**2, "iscrowd": 0})
        shifted = [x + float(draw.normal()) * 4, y, side, side]
        detections.append({**own, "bbox": shifted, "score": float(draw.random())})
    names = [{"id": number, "name": f"class {number}"} for number in range(classes)]
    truth = {"images": [{"id": number} for number in range(images)], "categories": names, "annotations": annotations}
    records = score_coco(truth, detections, kinds=("bbox",)).kinds["bbox"].records
    weights = np.vstack([np.ones((1, images), int), draw.integers(0, 4, (4, images))])
    resampled = resample(records, weights)
    for row, counts in enumerate(weights):
        again = score_coco(*repeated((truth, detections), counts), kinds=("bbox",)).kinds["bbox"].records
        assert again is not None
        curves = accumulate(again)
        for number, mine in [(None, resampled.overall), *enumerate(resampled.classes)]:
            for name, value in coco_metrics(curves, number).items():
                assert np.array_equal(mine[name][row], 100 * value, equal_nan=True), (number, name)


@pytest.mark.parametrize(("images", "classes"), [(3, 0), (0, 0), (0, 2), (3, 2)])
@pytest.mark.parametrize("draws", [0, 4])
def test_nothing_to_count(images: int, classes: int, draws: int) -> None:
    resampled = resample(Records.empty(images, classes, (*COCO_AREAS, FURTHER)), np.ones((draws, images), int))
    assert len(resampled.classes) == classes
    for by_name in (resampled.overall, *resampled.classes):
        assert list(by_name) == [*METRIC_NAMES, "AP tiny"]
        assert all(values.shape == (draws,) and np.isnan(values).all() for values in by_name.values())


def test_no_detections() -> None:
    truth, _ = random_set(5)
    records = score_coco(truth, [], kinds=("bbox",)).kinds["bbox"].records
    values = resample(records, np.ones((3, records.images), int)).overall
    assert list(values["AP"]) == list(values["AR100"]) == [0, 0, 0]
