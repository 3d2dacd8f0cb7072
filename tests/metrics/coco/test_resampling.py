"""Figures of images drawn with repetition, against pycocotools on a data set with the images really repeated."""

from __future__ import annotations

import copy

import numpy as np
import pytest

from d2tune.metrics.coco.accumulate import NAMES, Records, accumulate
from d2tune.metrics.coco.accumulate import figures as figures_of
from d2tune.metrics.coco.matching import COCO_AREAS, AreaRange
from d2tune.metrics.coco.resampling import resample
from d2tune.metrics.coco.scorer import score_coco
from tests.metrics.coco.drawn_sets import Drawn, drawn_set
from tests.metrics.coco.oracle import official

FURTHER = AreaRange("tiny", 0, 50, "smaller than 50 px")


def without_ties(drawn: Drawn, seed: int) -> Drawn:
    """The set with a score of its own for each detection."""
    truth, results = copy.deepcopy(drawn)
    scores = np.random.default_rng(seed).permutation(len(results)) / 1000
    for row, score in zip(results, scores, strict=True):
        row["score"] = float(score)
    return truth, results


def repeated(drawn: Drawn, weights: np.ndarray) -> Drawn:
    """Each image, by id, as often as its weight says; copies follow each other."""
    truth, results = drawn
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


@pytest.mark.parametrize("seed", range(40))
def test_weights_of_one_change_nothing(seed: int) -> None:
    result = score_coco(*drawn_set(seed), kinds=("bbox", "segm"), area_ranges=[*COCO_AREAS, FURTHER])
    for kind in result.kinds.values():
        again = resample(kind.records, np.ones((2, len(result.image_ids)), int))
        for metrics, figures in zip(
            (kind.metrics, *(row.metrics for row in kind.classes)), (again.overall, *again.classes), strict=True
        ):
            assert set(metrics) == set(figures)
            for name, metric in metrics.items():
                assert (len(figures[name]) == 2 and figures[name][0] == figures[name][1]) or metric.value is None
                value = figures[name][0]
                assert (None if np.isnan(value) else value) == metric.value, name


@pytest.mark.parametrize("seed", range(12))
def test_weights_are_repetitions(seed: int) -> None:
    drawn = without_ties(drawn_set(seed), seed)
    result = score_coco(*drawn, kinds=("segm",))
    records = result.kinds["segm"].records
    weights = np.random.default_rng(seed).integers(0, 4, (3, len(result.image_ids)))
    figures = resample(records, weights).overall
    for row, counts in enumerate(weights):
        expected = official(repeated(drawn, counts), "segm").stats if counts.any() else -np.ones(12)
        for name, value in zip(NAMES, expected, strict=True):
            mine = figures[name][row]
            assert (-1 if np.isnan(mine) else mine) == (value if value == -1 else 100 * value), (name, counts)


def test_by_hand() -> None:
    """Two images with an object each, found on the first only: AP of the first alone is 100, of the second 0."""
    row = {"category_id": 1, "bbox": [0, 0, 10, 10], "iscrowd": 0, "area": 100}
    truth = {
        "images": [{"id": 1}, {"id": 2}],
        "categories": [{"id": 1, "name": "a"}],
        "annotations": [{"id": 1, "image_id": 1, **row}, {"id": 2, "image_id": 2, **row}],
    }
    found = [{"image_id": 1, "category_id": 1, "bbox": [0, 0, 10, 10], "score": 0.9}]
    records = score_coco(truth, found, kinds=("bbox",)).kinds["bbox"].records
    figures = resample(records, np.array([[2, 0], [0, 2], [1, 1], [0, 0]])).overall
    assert figures["AP"][:3] == pytest.approx([100, 0, 100 * 51 / 101])
    assert figures["AR100"][:3] == pytest.approx([100, 0, 50])
    assert np.isnan(figures["AP"][3])


def test_more_draws_than_fit_at_once(monkeypatch: pytest.MonkeyPatch) -> None:
    records = score_coco(*drawn_set(5), kinds=("bbox",)).kinds["bbox"].records
    weights = np.random.default_rng(0).integers(0, 3, (50, records.images))
    whole = resample(records, weights)
    monkeypatch.setattr("d2tune.metrics.coco.resampling.BYTES_AT_ONCE", 300_000)
    parts = resample(records, weights)
    assert all(np.array_equal(whole.overall[name], parts.overall[name], equal_nan=True) for name in whole.overall)


@pytest.mark.parametrize("shape", [(20, 8, 60), (6, 80, 1)], ids=["many classes", "many objects"])
def test_each_draw_is_a_data_set_of_its_own(shape: tuple[int, int, int]) -> None:
    """Against the figures of a data set whose images are really repeated, to the last bit, for every class too."""
    images, objects, classes = shape
    draw = np.random.default_rng(1)
    annotations, found = [], []
    for number in range(images * objects):
        x, y, side = (int(value) for value in (draw.integers(0, 400), draw.integers(0, 400), draw.integers(8, 140)))
        own = {"image_id": number // objects, "category_id": int(draw.integers(classes))}
        annotations.append({"id": number + 1, **own, "bbox": [x, y, side, side], "area": side**2, "iscrowd": 0})
        shifted = [x + float(draw.normal()) * 4, y, side, side]
        found.append({**own, "bbox": shifted, "score": float(draw.random())})
    names = [{"id": number, "name": f"class {number}"} for number in range(classes)]
    truth = {"images": [{"id": number} for number in range(images)], "categories": names, "annotations": annotations}
    records = score_coco(truth, found, kinds=("bbox",)).kinds["bbox"].records
    weights = np.vstack([np.ones((1, images), int), draw.integers(0, 4, (4, images))])
    drawn = resample(records, weights)
    for row, counts in enumerate(weights):
        again = score_coco(*repeated((truth, found), counts), kinds=("bbox",)).kinds["bbox"].records
        assert again is not None
        curves = accumulate(again)
        for number, mine in [(None, drawn.overall), *enumerate(drawn.classes)]:
            for name, value in figures_of(curves, number).items():
                assert np.array_equal(mine[name][row], 100 * value, equal_nan=True), (number, name)


@pytest.mark.parametrize(("images", "classes"), [(3, 0), (0, 0), (0, 2), (3, 2)])
@pytest.mark.parametrize("draws", [0, 4])
def test_nothing_to_count(images: int, classes: int, draws: int) -> None:
    drawn = resample(Records.empty(images, classes, (*COCO_AREAS, FURTHER)), np.ones((draws, images), int))
    assert len(drawn.classes) == classes
    for found in (drawn.overall, *drawn.classes):
        assert list(found) == [*NAMES, "AP tiny"]
        assert all(values.shape == (draws,) and np.isnan(values).all() for values in found.values())


def test_no_detections() -> None:
    truth, _ = drawn_set(5)
    records = score_coco(truth, [], kinds=("bbox",)).kinds["bbox"].records
    drawn = resample(records, np.ones((3, records.images), int)).overall
    assert list(drawn["AP"]) == list(drawn["AR100"]) == [0, 0, 0]
