import contextlib
import copy
import io
import json
from pathlib import Path

import numpy as np
import pytest
from pycocotools import mask as mask_utils
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.annotations.formats.coco import to_coco
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.metrics.coco.accumulate import METRIC_NAMES
from d2tune.metrics.coco.results import KINDS
from d2tune.metrics.coco.rows import read_coco
from d2tune.metrics.coco.scorer import score_coco, score_set
from d2tune.metrics.coco.summary import InstanceMetrics, metrics_of, spanned_main, with_intervals
from tests.metrics.coco.random_sets import random_set
from tests.metrics.grids import seeds

SIZE = 200


def box_instance(number: int, image: int, category: int, x: float, y: float, w: float, h: float) -> Instance:
    ring = np.array([[x, y], [x + w, y], [x + w, y + h], [x, y + h]], float)
    return Instance(number, image, category, (ring,), (x, y, w, h), w * h)


def box_result(image: int, category: int, x: int, y: int, w: int, h: int, confidence: float) -> dict:
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[y : y + h, x : x + w] = 1
    rle = mask_utils.encode(np.asfortranarray(mask))
    segmentation = {"size": rle["size"], "counts": rle["counts"].decode()}
    box = [float(x), float(y), float(w), float(h)]
    return {"image_id": image, "category_id": category, "bbox": box, "score": confidence, "segmentation": segmentation}


def dataset(instances: list[Instance], *, images: int = 2, classes: tuple[str, ...] = ("a",)) -> Dataset:
    return Dataset(
        tuple(Image(number, f"{number}.png", SIZE, SIZE, Path(f"{number}.png")) for number in range(1, images + 1)),
        tuple(Category(number, name) for number, name in enumerate(classes, start=1)),
        tuple(instances),
    )


def score(truth: Dataset, detections: list[dict]) -> InstanceMetrics:
    return metrics_of(score_coco(to_coco(truth), detections, kinds=("bbox", "segm")))


def test_a_perfect_detector_of_two_boxes_scores_100() -> None:
    """With ids from 0 this would be 25.2."""
    truth = dataset([box_instance(1, 1, 1, 10, 10, 40, 40), box_instance(2, 1, 1, 100, 100, 50, 50)], images=1)
    detections = [box_result(1, 1, 10, 10, 40, 40, 0.9), box_result(1, 1, 100, 100, 50, 50, 0.8)]
    metrics = score(truth, detections)
    assert metrics.segm["AP"].value == pytest.approx(100) and metrics.bbox["AP"].value == pytest.approx(100)
    (row,) = metrics.classes
    assert (row.name, row.instances, row.detected, row.false) == ("a", 2, 2, 0)
    assert row.metrics["segm"]["AP"].value == pytest.approx(100)


def test_one_of_two_found_and_a_false_alarm_by_hand() -> None:
    """Precision is 1 up to recall 0.5 and 0 beyond: 51 of COCO's 101 recall points."""
    truth = dataset([box_instance(1, 1, 1, 10, 10, 40, 40), box_instance(2, 2, 1, 100, 100, 50, 50)])
    detections = [
        box_result(1, 1, 10, 10, 40, 40, 0.9),
        box_result(2, 1, 0, 0, 20, 20, 0.6),
        box_result(2, 1, 0, 0, 9, 9, 0.2),
    ]
    metrics = score(truth, detections)
    assert metrics.segm["AP"].value == pytest.approx(100 * 51 / 101)
    (row,) = metrics.classes
    assert (row.detected, row.false) == (1, 1)


def test_what_cannot_be_computed_says_why() -> None:
    truth = dataset([box_instance(1, 1, 1, 10, 10, 40, 40)], classes=("a", "b"))
    metrics = score(truth, [box_result(1, 2, 0, 0, 10, 10, 0.9)])
    assert metrics.classes[1].metrics["segm"]["AP"].value is None
    assert metrics.classes[1].metrics["segm"]["AP"].reason == "class 'b' has no ground truth in the data"
    assert (
        metrics.segm["APl"].value is None
        and metrics.segm["APl"].reason == "no object in the data is larger than 96 x 96 px"
    )
    assert metrics.segm["AP"].value == 0
    empty = score(dataset([]), [])
    assert empty.segm["AP"].value is None and empty.segm["AP"].reason == "there is no ground truth in the data"


def test_no_detection_at_all_is_zero() -> None:
    metrics = score(dataset([box_instance(1, 1, 1, 10, 10, 40, 40)]), [])
    assert metrics.segm["AP"].value == 0 and metrics.bbox["AR100"].value == 0


@pytest.mark.parametrize("seed", seeds(5))
def test_the_twelve_metrics_are_pycocotools_own(seed: int) -> None:
    draw = np.random.default_rng(seed)
    instances, detections = [], []
    for image in range(1, 7):
        for _ in range(draw.integers(0, 6)):
            x, y, w, h = (int(value) for value in draw.integers(5, 95, 4))
            category = int(draw.integers(1, 4))
            instances.append(box_instance(len(instances) + 1, image, category, x, y, w, h))
            if draw.random() < 0.8:
                jitter = draw.integers(-4, 5, 2)
                detections.append(
                    box_result(image, category, x + jitter[0], y + jitter[1], w, h, round(draw.random(), 2))
                )
        detections.append(box_result(image, int(draw.integers(1, 4)), 3, 3, 30, 30, round(draw.random(), 2)))
    truth = dataset(instances, images=6, classes=("a", "b", "c"))
    metrics = score(truth, detections)
    for kind, mine in (("bbox", metrics.bbox), ("segm", metrics.segm)):
        with contextlib.redirect_stdout(io.StringIO()):
            coco = COCO()
            coco.dataset = to_coco(truth)
            coco.createIndex()
            rows = [{key: value for key, value in row.items() if kind == "bbox" or key != "bbox"} for row in detections]
            evaluation = COCOeval(coco, coco.loadRes(rows), kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
        expected = dict(zip(METRIC_NAMES, evaluation.stats, strict=True))
        for name, value in expected.items():
            assert (mine[name].value is None) == (value < 0)
            if value >= 0:
                assert mine[name].value == pytest.approx(100 * value, abs=1e-9)
        mean = np.mean(
            [
                row.metrics["segm"]["AP"].value if kind == "segm" else row.metrics["bbox"]["AP"].value
                for row in metrics.classes
            ]
        )
        assert mean == pytest.approx(mine["AP"].value)


def test_json_round_trip() -> None:
    truth = dataset([box_instance(1, 1, 1, 10, 10, 40, 40)], classes=("a", "b"))
    metrics = score(truth, [box_result(1, 1, 10, 10, 40, 40, 0.9)])
    assert InstanceMetrics.from_json(json.loads(json.dumps(metrics.to_json()))) == metrics


def test_thresholds_and_what_they_give_by_hand() -> None:
    """Right at 0.9, wrong at 0.8, right at 0.7, wrong at 0.6 with three instances."""
    truth = dataset([box_instance(number, 1, 1, 60 * number - 55, 10, 40, 40) for number in (1, 2, 3)], images=1)
    detections = [
        box_result(1, 1, 5, 10, 40, 40, 0.9),
        box_result(1, 1, 5, 120, 40, 40, 0.8),
        box_result(1, 1, 65, 10, 40, 40, 0.7),
        box_result(1, 1, 65, 120, 40, 40, 0.6),
    ]
    (row,) = score(truth, detections).classes
    # F1 is 2 / 4 at 0.9, 2 / 5 at 0.8, 4 / 6 at 0.7 and 4 / 7 at 0.6
    assert (row.best_f1.threshold, row.best_f1.recall) == (0.7, pytest.approx(200 / 3))
    assert row.best_f1.precision == pytest.approx(200 / 3) and row.best_f1.f1 == pytest.approx(200 / 3)
    assert (row.precise.threshold, row.precise.precision, row.precise.recall) == (0.9, 100, pytest.approx(100 / 3))


def test_intervals_hold_the_value_and_the_number_of_draws() -> None:
    instances = [box_instance(number, number, 1, 10, 10, 40, 40) for number in range(1, 11)]
    truth = dataset(instances, images=10)
    detections = [box_result(number, 1, 10, 10, 40, 40, 0.9) for number in range(1, 7)]
    result = score_coco(to_coco(truth), detections, kinds=("bbox", "segm", "boundary"))
    metrics = with_intervals(metrics_of(result), result)
    assert metrics.replicates == 1000
    for kind in ("bbox", "segm", "boundary"):
        ap50 = metrics.metrics[kind]["AP50"]
        assert ap50.value == pytest.approx(100 * 61 / 101)  # six in ten: recalls 0.00 to 0.60
        assert 15 < ap50.low < ap50.value < ap50.high <= 100
        assert metrics.classes[0].metrics[kind]["AP50"] == ap50
        assert metrics.metrics[kind]["APs"].low is None


def test_the_main_metric_in_training_has_an_interval_from_few_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    instances = [box_instance(number, number, 1, 10, 10, 40, 40) for number in range(1, 11)]
    detections = [box_result(number, 1, 10, 10, 40, 40, 0.9) for number in range(1, 7)]
    result = score_coco(to_coco(dataset(instances, images=10)), detections, kinds=("bbox", "segm"))
    metrics = metrics_of(result)
    main, complete = spanned_main(metrics, result), with_intervals(metrics, result).segm["AP"]
    assert main.value == complete.value == pytest.approx(100 * 61 / 101)
    # the same draws of the images, but the first 200 of 1000: the ends agree to about two of ten images
    assert main.low == pytest.approx(complete.low, abs=20) and main.high == pytest.approx(complete.high, abs=20)
    assert main.low < main.value < main.high
    monkeypatch.setattr("d2tune.metrics.coco.summary._QUICK_DETECTIONS", 6 * 100 - 1)  # fewer than 100 draws
    assert spanned_main(metrics, result) == metrics.segm["AP"]
    one = score_coco(to_coco(dataset(instances[:1], images=1)), detections[:1], kinds=("segm",))
    assert spanned_main(metrics_of(one), one).low is None, "one image does not show how images differ"


@pytest.mark.parametrize("device", [None, "cpu"])
def test_a_set_that_was_read_is_left_as_it_is(device: str | None) -> None:
    pair = random_set(2)
    data = read_coco(*pair, KINDS)
    before = copy.deepcopy(data)
    of_set, of_files = score_set(data, device=device), score_coco(*pair, device=device)
    assert data == before
    for kind in KINDS:
        assert of_set.kinds[kind].metrics == of_files.kinds[kind].metrics
        assert np.array_equal(of_set.kinds[kind].curves.precision, of_files.kinds[kind].curves.precision)
