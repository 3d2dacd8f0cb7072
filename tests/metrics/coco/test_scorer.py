"""Scoring by hand, messages for missing and wrong values, and what is kept in memory."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
import torch

from d2tune.annotations.model.dataset import Category
from d2tune.errors import DataError
from d2tune.metrics.coco.scorer import Detections, GroundTruth, InstanceScorer, score_coco
from tests.metrics.coco.random_sets import encode, random_set

Row = dict[str, Any]


def image(number: int) -> Row:
    return {"id": number, "height": 100, "width": 100, "file_name": f"{number}.png"}


def box_mask(x: int, y: int, w: int, h: int) -> Row:
    mask = np.zeros((100, 100), bool)
    mask[y : y + h, x : x + w] = True
    return encode(mask)


def truth_row(number: int, image_id: int, box: tuple[int, int, int, int], *, crowd: int = 0, category: int = 1) -> Row:
    rest = {"area": box[2] * box[3], "iscrowd": crowd, "segmentation": box_mask(*box)}
    return {"id": number, "image_id": image_id, "category_id": category, "bbox": list(box), **rest}


def detection_row(image_id: int, box: tuple[int, int, int, int], score: float, *, category: int = 1) -> Row:
    rest = {"score": score, "segmentation": box_mask(*box)}
    return {"image_id": image_id, "category_id": category, "bbox": list(box), **rest}


def ground_truth(rows: list[Row], *, images: int = 1, names: tuple[str, ...] = ("a",)) -> Row:
    categories = [{"id": number, "name": name} for number, name in enumerate(names, start=1)]
    return {"images": [image(at + 1) for at in range(images)], "annotations": rows, "categories": categories}


WAYS = [{}, {"device": "cpu"}]


@pytest.mark.parametrize("way", WAYS)
def test_average_precision_on_paper(way: Row) -> None:
    """Three objects; by falling score a hit, a false alarm, a hit, and one object is never detected.

    Precision is 1, 1/2, 2/3 at recall 1/3, 1/3, 2/3. Of the 101 recalls, 0 to 0.33 (34 of them) have precision 1,
    0.34 to 0.66 (33) have 2/3, the rest 0: AP = (34 + 33 * 2/3) / 101 = 56 / 101. The boxes are exact, so this holds
    at every threshold. The best
    detection finds an object on the first image only: AR1 = 1/3.
    """
    boxes = [(10, 10, 30, 30), (50, 50, 40, 40), (5, 60, 20, 20)]
    truth = ground_truth([truth_row(at + 1, 1 + (at == 1), box) for at, box in enumerate(boxes)], images=2)
    detections = [detection_row(1, boxes[0], 0.9), detection_row(2, (0, 0, 9, 9), 0.8), detection_row(2, boxes[1], 0.7)]
    result = score_coco(truth, detections, **way)
    for kind in result.kinds.values():
        for name in ("AP", "AP50", "AP75"):
            assert kind.metrics[name].value == pytest.approx(100 * 56 / 101, abs=1e-9)
        assert kind.metrics["AR100"].value == pytest.approx(200 / 3)
        assert kind.metrics["AR1"].value == pytest.approx(100 / 3)
        assert kind.classes[0].metrics["AP"] == kind.metrics["AP"]


@pytest.mark.parametrize("way", WAYS)
def test_boundary_iou_on_paper(way: Row) -> None:
    """A square of 20 px and the same one pixel to the right; 2 % of the diagonal of 100 x 100 px are 3 px.

    Masks share 19 * 20 = 380 of 420 pixels: IoU 0.905 reaches 9 of 10 thresholds. A boundary has 20^2 - 14^2 = 204
    pixels. Of the 380 shared pixels, 15 * 14 = 210 are inside of one square or the other: the boundaries share 170
    of 204 + 204 - 170 = 238, IoU 0.714, which reaches 5 of 10 thresholds.
    """
    truth = ground_truth([truth_row(1, 1, (40, 40, 20, 20))])
    result = score_coco(truth, [detection_row(1, (41, 40, 20, 20), 0.5)], **way)
    assert result.kinds["segm"].metrics["AP"].value == pytest.approx(90)
    assert result.kinds["bbox"].metrics["AP"].value == pytest.approx(90)
    assert result.kinds["boundary"].metrics["AP"].value == pytest.approx(50)


@pytest.mark.parametrize("way", WAYS)
def test_a_crowd_swallows_what_lies_in_it(way: Row) -> None:
    """Two detections inside a crowd are no false alarms, though they come before the only hit."""
    truth = ground_truth([truth_row(1, 1, (0, 0, 60, 60), crowd=1), truth_row(2, 1, (70, 70, 20, 20))])
    detections = [
        detection_row(1, (5, 5, 20, 20), 0.9),
        detection_row(1, (30, 30, 20, 20), 0.8),
        detection_row(1, (70, 70, 20, 20), 0.7),
    ]
    for kind in score_coco(truth, detections, **way).kinds.values():
        assert kind.metrics["AP"].value == pytest.approx(100)
        assert kind.classes[0].instances == 1


def test_equal_scores_count_in_the_order_given() -> None:
    """The same two detections of one object and a false alarm, with the false alarm last and first."""
    truth = ground_truth([truth_row(1, 1, (10, 10, 30, 30))])
    hit, alarm = detection_row(1, (10, 10, 30, 30), 0.5), detection_row(1, (60, 60, 30, 30), 0.5)
    assert score_coco(truth, [hit, alarm]).kinds["bbox"].metrics["AP"].value == pytest.approx(100)
    assert score_coco(truth, [alarm, hit]).kinds["bbox"].metrics["AP"].value == pytest.approx(50)


def test_what_cannot_be_computed_says_why() -> None:
    truth = ground_truth([truth_row(1, 1, (10, 10, 40, 40))], names=("cat", "dog"))
    result = score_coco(truth, [detection_row(1, (0, 0, 9, 9), 0.5, category=2)], split="val")
    segm = result.kinds["segm"]
    assert segm.metrics["AP"].value == 0
    assert segm.metrics["APs"].reason == "no object in val is smaller than 32 x 32 px"
    assert segm.metrics["ARl"].reason == "no object in val is larger than 96 x 96 px"
    cat, dog = segm.classes
    assert (cat.name, cat.instances, dog.instances) == ("cat", 1, 0)
    assert dog.metrics["AP"].value is None and dog.metrics["AP"].reason == "class 'dog' has no ground truth in val"
    assert dog.metrics["APs"].reason == "class 'dog' has no ground truth in val"
    assert cat.metrics["APs"].reason == "no 'cat' in val is smaller than 32 x 32 px"
    nothing = score_coco(ground_truth([]), [], split="val").kinds["bbox"].metrics
    assert {metric.value for metric in nothing.values()} == {None}
    assert nothing["AP"].reason == "there is no ground truth in val"


def test_no_classes_and_no_images() -> None:
    result = score_coco({"images": [], "annotations": [], "categories": []}, [])
    assert result.image_ids == () and result.kinds["segm"].metrics["AP"].value is None
    assert InstanceScorer([Category(1, "a")]).result().kinds["bbox"].classes[0].metrics["AP"].value is None


@pytest.mark.parametrize("way", WAYS)
def test_empty_results_score_zero(way: Row) -> None:
    truth = ground_truth([truth_row(1, 1, (10, 10, 40, 40))], images=3)
    for kind in score_coco(truth, [], **way).kinds.values():
        assert kind.metrics["AP"].value == 0 and kind.metrics["AR100"].value == 0


def changed(**values: Any) -> list[Row]:
    return [detection_row(1, (10, 10, 40, 40), 0.9), {**detection_row(1, (10, 10, 40, 40), 0.9), **values}]


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize(
    ("results", "words"),
    [
        (changed(image_id=7), ["result 2 of 2", "image_id 7", "not in the ground truth"]),
        (changed(category_id=9), ["result 2 of 2", "category_id 9", "one of 1"]),
        (changed(score=math.nan), ["result 2 of 2", "score", "nan"]),
        (changed(score="0.5"), ["result 2 of 2", "score", "'0.5'"]),
        (changed(bbox=[1, 2, math.inf, 4]), ["result 2 of 2", "box", "inf"]),
        (changed(bbox=[1, 2, 3]), ["result 2 of 2", "box", "[1, 2, 3]"]),
        (changed(segmentation=None), ["result 2 of 2", "no segmentation"]),
        (changed(segmentation=encode(np.ones((9, 8), bool))), ["result 2 of 2", "9 x 8", "100 x 100"]),
    ],
)
def test_bad_results_are_reported_with_their_row(way: Row, results: list[Row], words: list[str]) -> None:
    truth = ground_truth([truth_row(1, 1, (10, 10, 40, 40))])
    with pytest.raises(DataError) as caught:
        score_coco(truth, results, **way)
    assert all(word in str(caught.value) for word in words), str(caught.value)


def test_bad_ground_truth_is_reported() -> None:
    with pytest.raises(DataError, match="annotations"):
        score_coco({"images": [], "categories": []}, [])
    truth = ground_truth([truth_row(5, 8, (10, 10, 40, 40))])
    with pytest.raises(DataError, match="annotation 5: the image is not in the ground truth; found image_id 8"):
        score_coco(truth, [])


def test_polygons_and_uncompressed_runs_are_read() -> None:
    """The same square as a polygon, as plain runs and as compressed ones."""
    truth = ground_truth([truth_row(1, 1, (10, 10, 40, 40))])
    polygon = copy.deepcopy(truth)
    polygon["annotations"][0]["segmentation"] = [[10, 10, 50, 10, 50, 50, 10, 50]]
    runs = copy.deepcopy(truth)
    counts = [1010] + [40, 60] * 39 + [40, 100 * 100 - 1010 - 40 * 40 - 60 * 39]
    runs["annotations"][0]["segmentation"] = {"size": [100, 100], "counts": counts}
    for way in (truth, polygon, runs):
        assert score_coco(way, changed()[:1]).kinds["segm"].metrics["AP"].value == pytest.approx(100)


def test_missing_area_crowd_and_box_are_filled_in() -> None:
    truth = ground_truth([truth_row(1, 1, (10, 10, 40, 40))])
    bare = copy.deepcopy(truth)
    for key in ("area", "iscrowd", "bbox"):
        del bare["annotations"][0][key]
    for kind in score_coco(bare, changed()[:1]).kinds.values():
        assert kind.metrics["APm"].value == pytest.approx(100)


def test_the_scorer_refuses_what_does_not_fit() -> None:
    scorer = InstanceScorer([Category(3, "a")], kinds=("bbox",))
    one = GroundTruth([3], [4.0], [0], [[0, 0, 2, 2]])
    scorer.add(1, one, Detections([], []))
    with pytest.raises(DataError, match="image 1: the image was scored before"):
        scorer.add(1, one, Detections([], []))
    with pytest.raises(DataError, match="a class is unknown; found category id 1; expected one of 3"):
        scorer.add(2, one, Detections([1], [0.5], [[0, 0, 2, 2]]))
    with pytest.raises(DataError, match="a score is not a finite number"):
        scorer.add(2, one, Detections([3], [np.nan], [[0, 0, 2, 2]]))
    with pytest.raises(DataError, match="the number of boxes is wrong; found none; expected 1"):
        scorer.add(2, one, Detections([3], [0.5]))
    with pytest.raises(DataError, match="the numbers of classes, scores, areas and crowd flags differ"):
        scorer.add(2, one, Detections([3, 3], [0.5], [[0, 0, 2, 2]]))
    assert scorer.result().image_ids == (1,)
    with pytest.raises(DataError, match="different sizes"):
        masks = torch.ones(1, 4, 4, dtype=torch.bool), torch.ones(1, 5, 4, dtype=torch.bool)
        InstanceScorer([Category(3, "a")], kinds=("segm",)).add(
            1, GroundTruth([3], [4.0], [0], masks=masks[0]), Detections([3], [0.5], masks=masks[1])
        )


def test_what_is_kept_is_small() -> None:
    """Four bytes for the image, two each for class and rank, eight each for score, matches and what is ignored."""
    records = score_coco(*random_set(2)).kinds["segm"].records
    assert len(records.score) > 0
    assert records.bytes_per_detection == 32


def test_masks_above_the_budget_are_compared_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    pair = random_set(4)
    whole = [score_coco(*pair, **way) for way in WAYS]
    monkeypatch.setattr("d2tune.metrics.overlap.bitmaps.CPU_BUDGET_BYTES", 100_000)
    monkeypatch.setattr("d2tune.metrics.overlap.run_lengths.UNROLLED_BYTES", 20_000)
    monkeypatch.setattr("d2tune.metrics.coco.scorer.PENDING", 5)
    for way, result in zip(WAYS, whole, strict=True):
        again = score_coco(*pair, **way)
        for kind, one in result.kinds.items():
            assert one.metrics == again.kinds[kind].metrics
            assert np.array_equal(one.curves.precision, again.kinds[kind].curves.precision)
