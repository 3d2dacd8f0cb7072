"""What is right and wrong on each image, on predictions that were written by hand."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from d2tune.evaluation.images.base import ImageResult, Images
from d2tune.project.traits import TaskName
from d2tune.runs.evaluated import read_evaluated
from tests.review.world import DETECTIONS

Runs = Callable[[TaskName], Path]


def images_of(run: Path) -> tuple[Images, list[ImageResult]]:
    evaluated = read_evaluated(run)
    images = evaluated.evaluator.images(evaluated.predictions())
    return images, images.results()


def kinds(results: list[ImageResult]) -> list[list[tuple[str, int]]]:
    return [sorted((one.kind, one.class_number) for one in result.mistakes) for result in results]


def test_instances(run_of: Runs) -> None:
    images, results = images_of(run_of("instance"))
    assert kinds(results) == [
        [],
        [("missed", 1)],
        [("missed", 1), ("wrong class", 0)],
        [("false alarm", 0)],
        [("bad outline", 0), ("missed", 0)],
        [("duplicate", 0)],
    ]
    # the sum of IoU over TP + FP / 2 + FN / 2; the only match that is not exact would be the duplicate's
    expected = [100, 100 / 1.5, 100 / 2, 200 / 2.5, 100 / 2, 200 / 2.5]
    assert [result.quality for result in results] == pytest.approx(expected)
    assert [result.right for result in results] == [2, 1, 1, 2, 1, 2]
    rows = read_evaluated(run_of("instance")).content["classes"]
    assert sum(result.right for result in results) == sum(row["found"] for row in rows) == 9
    assert sum(result.false for result in results) == sum(row["false"] for row in rows) == 4
    outline = next(one for one in results[4].mistakes if one.kind == "bad outline")
    assert outline.note == "IoU 0.25" and outline.score == pytest.approx(0.85)
    assert outline.box_xyxy == (28, 10, 58, 30) and outline.area_px2 == 600
    truth, predicted = images.shapes(4)
    assert [shape.is_right for shape in truth] == [False, True]
    assert [shape.is_right for shape in predicted] == [False, True]
    assert truth[outline.truth[0]].sketch.extent() == (10, 10, 40, 30)
    assert predicted[outline.predicted[0]].sketch.extent() == (28, 10, 58, 30)


def test_the_precision_of_each_class_over_recall(run_of: Runs) -> None:
    images, _ = images_of(run_of("instance"))
    bus, car = images.curves()
    # of cars four of six are detected, without a false one: recall 0 to 0.66 of the 101 points
    assert car.precision[:67].tolist() == [1.0] * 67 and car.precision[67:].max() == 0
    assert car.AP50.value == pytest.approx(100 * 67 / 101)
    # of buses five of six; the first five detections are right, which is a recall of 5/6
    assert bus.precision[:84].tolist() == [1.0] * 84 and bus.precision[84:].max() == 0


def test_regions_of_classes(run_of: Runs) -> None:
    images, results = images_of(run_of("semantic"))
    assert kinds(results) == [
        [],
        [("missed", 1)],
        [("false alarm", 0), ("missed", 1)],
        [("false alarm", 0)],
        [("false alarm", 0), ("missed", 0)],  # 12 of its 30 columns are labeled
        [],  # the duplicate lies on the bus
    ]
    notes = [one.note for one in results[2].mistakes if one.kind == "missed"]
    assert notes == ["100 % of it is predicted as bus"]
    truth, _ = images.shapes(0)
    assert truth[0].sketch.extent() == (10, 10, 40, 30)
    assert truth[2].sketch.extent() is None, "the background is not drawn"
    # the IoU of an image with a missed car: bus 1, car 0, ground (9600 - 1200) / (9600 - 600)
    assert results[1].quality == pytest.approx(100 * (1 + 0 + 8400 / 9000) / 3)


def test_segments(run_of: Runs) -> None:
    _, results = images_of(run_of("panoptic"))
    assert kinds(results) == [
        [],
        [("missed", 1)],
        [("missed", 1), ("wrong class", 0)],
        [("false alarm", 0)],
        [("bad outline", 0), ("missed", 0)],
        [],
    ]
    rows = read_evaluated(run_of("panoptic")).content["classes"]
    assert sum(result.right for result in results) == sum(row["tp"] for row in rows) == 15
    assert sum(result.false for result in results) == sum(row["fp"] for row in rows) == 3
    assert sum(result.missed for result in results) == sum(row["fn"] for row in rows) == 3


def test_a_crowd_is_neither_missed_nor_makes_detections_false() -> None:
    from d2tune.evaluation.images.instance import InstanceImages
    from tests.review.world import BUS, CAR, coco_results

    annotations = [
        {"id": at, "image_id": 1, "category_id": at, "area": 600, "bbox": list(side)}
        | {"iscrowd": crowd, "segmentation": box(side)}
        for at, crowd, side in ((1, 1, BUS), (2, 0, CAR))
    ]
    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 120, "height": 80}],
        "categories": [{"id": 1, "name": "bus"}, {"id": 2, "name": "car"}],
        "annotations": annotations,
    }
    rows = [row for row in coco_results([DETECTIONS[0]], first_id=1) if row["category_id"] == 1]
    result = InstanceImages(truth, rows).results()[0]
    assert [one.kind for one in result.mistakes] == ["missed"] and result.right == 0
    assert result.mistakes[0].class_number == 1


def box(side: tuple[int, int, int, int]) -> list[list[float]]:
    x, y, width, height = side
    return [[x, y, x + width, y, x + width, y + height, x, y + height]]


def test_boxes_without_masks() -> None:
    from d2tune.evaluation.images.instance import InstanceImages
    from tests.review.world import BUS, OFF

    truth = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 120, "height": 80}],
        "categories": [{"id": 1, "name": "bus"}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "bbox": list(BUS), "area": 600, "iscrowd": 0}],
    }
    rows = [{"image_id": 1, "category_id": 1, "bbox": list(OFF), "score": 0.9}]
    images = InstanceImages(truth, rows)
    assert [one.kind for one in images.results()[0].mistakes] == ["missed", "bad outline"]
    assert images.shapes(0)[1][0].sketch.extent() == (28, 10, 58, 30)
