import contextlib
import io
import json

import numpy as np
import pytest
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from d2tune.metrics.analysis.scored_image import ScoredImage
from d2tune.metrics.analysis.tide import KINDS, TideResult, TideScorer
from tests.metrics.analysis.scored_images import image_of, random_boxes
from tests.metrics.grids import seeds


def score(images: list[ScoredImage], n_classes: int) -> TideResult:
    scorer = TideScorer(n_classes)
    for image in images:
        scorer.add(image)
    return scorer.result()


def gains(result: TideResult) -> dict[str, float]:
    """The kinds whose fix gives anything back."""
    return {name: error.dAP.value for name, error in result.errors.items() if error.dAP.value}


def counts(result: TideResult) -> dict[str, int]:
    return {name: error.count for name, error in result.errors.items() if error.count}


HALF = 51 / 101  # recall 0.5 at precision 1: the recalls 0.00 to 0.50
REST = 50 / 101


@pytest.mark.parametrize(
    ("image", "n_classes", "ap50", "errors", "d_ap"),
    [
        # two instances found
        (image_of([[0.8, 0], [0, 0.9]], [0, 0], [0, 0], [0.9, 0.8]), 1, 1, {}, {}),
        # the second found too loosely
        (
            image_of([[0.8, 0], [0, 0.3]], [0, 0], [0, 0], [0.9, 0.8]),
            1,
            HALF,
            {"localisation": 1},
            {"localisation": REST},
        ),
        # the second found as the first's class, with a higher score: class 0 has AP 50, class 1 has 0
        (
            image_of([[0.8, 0], [0, 0.9]], [0, 1], [0, 0], [0.9, 0.95]),
            2,
            0.25,
            {"classification": 1},
            {"classification": 0.75},
        ),
        # the same too loosely: removing it fixes class 0, removing the second instance fixes class 1
        (
            image_of([[0.8, 0], [0, 0.3]], [0, 1], [0, 0], [0.9, 0.95]),
            2,
            0.25,
            {"both": 1, "missed": 1},
            {"both": 0.25, "missed": 0.5},
        ),
        # precision 1, 1/2, 2/3: recalls above 0.5 have 2/3
        (
            image_of([[0.8, 0.7, 0], [0, 0, 0.9]], [0, 0], [0, 0, 0], [0.9, 0.85, 0.8]),
            1,
            HALF + REST * 2 / 3,
            {"duplicate": 1},
            {"duplicate": REST / 3},
        ),
        (
            image_of([[0.8, 0.05, 0], [0, 0, 0.9]], [0, 0], [0, 0, 0], [0.9, 0.85, 0.8]),
            1,
            HALF + REST * 2 / 3,
            {"background": 1},
            {"background": REST / 3},
        ),
        (image_of([[0.8], [0]], [0, 0], [0], [0.9]), 1, HALF, {"missed": 1}, {"missed": REST}),
        # nothing found at all, then with something wrong beside it
        (image_of([[]], [0], [], []), 1, 0, {"missed": 1}, {"missed": 1}),
        (image_of([[0.05]], [0], [0], [0.9]), 1, 0, {"missed": 1, "background": 1}, {}),
        # a loose detection that, fixed, drives out the match of lower score; and one that does not
        (image_of([[0.3, 0.7]], [0], [0, 0], [0.9, 0.8]), 1, 0.5, {"localisation": 1}, {"localisation": 0.5}),
        (image_of([[0.3, 0.7]], [0], [0, 0], [0.7, 0.8]), 1, 1, {"localisation": 1}, {}),
        # two loose ones on one instance: fixed, one of them stays
        (image_of([[0.3, 0.4]], [0], [0, 0], [0.7, 0.8]), 1, 0, {"localisation": 2}, {"localisation": 1}),
        # exactly 0.5 is found, exactly 0.1 is loose
        (image_of([[0.5]], [0], [0], [0.9]), 1, 1, {}, {}),
        (image_of([[0.1]], [0], [0], [0.9]), 1, 0, {"localisation": 1}, {"localisation": 1}),
        (image_of([[0.1], [0]], [1, 0], [0], [0.9]), 2, 0, {"both": 1, "missed": 2}, {"missed": 0.5}),
        # near its own class and right on another: localisation comes first
        (
            image_of([[0.2], [0.9]], [0, 1], [0], [0.9]),
            2,
            0,
            {"localisation": 1, "missed": 1},
            {"localisation": 0.5, "missed": 0.5},
        ),
        # right on another class and a duplicate in its own: classification comes first, and class 1 is found by it
        (
            image_of([[0.9, 0.8], [0, 0.7]], [0, 1], [0, 0], [0.9, 0.8]),
            2,
            0.5,
            {"classification": 1},
            {"classification": 0.5},
        ),
        # on a crowd of its class it is not an error, on one of another it is
        (image_of([[0.9, 0], [0, 0.9]], [0, 0], [0, 0], [0.8, 0.9], crowd=(1,)), 1, 1, {}, {}),
        (
            image_of([[0.9, 0], [0, 0.9]], [0, 1], [0, 0], [0.8, 0.9], crowd=(1,)),
            2,
            0.5,
            {"background": 1},
            {"background": 0.5},
        ),
    ],
)
def test_errors_one_by_one_cost_what_was_computed_by_hand(
    image: ScoredImage, n_classes: int, ap50: float, errors: dict[str, int], d_ap: dict[str, float]
) -> None:
    result = score([image], n_classes)
    assert result.AP50.value == pytest.approx(100 * ap50)
    assert counts(result) == errors
    assert gains(result) == pytest.approx({name: 100 * gain for name, gain in d_ap.items()})


def test_errors_of_several_images_stay_with_their_instances() -> None:
    exact = image_of([[0.8]], [0], [0], [0.9])
    loose = image_of([[0.3]], [0], [0], [0.8])
    nothing = image_of([], [], [], [])
    result = score([nothing, loose, nothing, exact], 1)
    assert (result.AP50.value, counts(result)) == (pytest.approx(50 * HALF * 2), {"localisation": 1})
    assert gains(result) == pytest.approx({"localisation": 100 * REST})


@pytest.mark.parametrize(
    "images", [[], [image_of([], [], [0], [0.9])], [image_of([[0.9]], [0], [0], [0.9], crowd=(0,))]]
)
def test_without_ground_truth_there_is_no_value_but_a_reason(images: list[ScoredImage]) -> None:
    result = score(images, 1)
    for one in (result.AP50, *(error.dAP for error in result.errors.values())):
        assert (one.value, one.reason) == (None, "no instance in the data")
    json.dumps(result.to_json(), allow_nan=False)


def pycocotools_ap50(images: list[tuple[ScoredImage, np.ndarray, np.ndarray]], n_classes: int) -> float:
    truth, results = COCO(), []
    annotations = []
    for number, (image, gt_boxes, dt_boxes) in enumerate(images):
        for box, category, crowd in zip(gt_boxes, image.gt_classes, image.gt_crowd, strict=True):
            one = {"id": len(annotations) + 1, "image_id": number, "category_id": int(category), "iscrowd": int(crowd)}
            annotations.append(one | {"bbox": box.tolist(), "area": float(box[2] * box[3])})
        for box, category, confidence in zip(dt_boxes, image.dt_classes, image.dt_scores, strict=True):
            one = {"image_id": number, "category_id": int(category), "score": float(confidence)}
            results.append(one | {"bbox": box.tolist()})
    truth.dataset = {
        "images": [{"id": number} for number in range(len(images))],
        "categories": [{"id": number} for number in range(n_classes)],
        "annotations": annotations,
    }
    with contextlib.redirect_stdout(io.StringIO()):
        truth.createIndex()
        evaluation = COCOeval(truth, truth.loadRes(results), "bbox")
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    return 100 * evaluation.stats[1]


@pytest.mark.parametrize("seed", seeds(12))
def test_ap50_is_pycocotools_with_crowds_ties_and_more_than_100_detections(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = [random_boxes(draw, classes=4, detections=150 if seed % 3 == 0 else 3) for _ in range(8)]
    result = score([image for image, _, _ in images], 5)
    assert result.AP50.value == pytest.approx(pycocotools_ap50(images, 5), abs=1e-9)


def reference(images: list[ScoredImage], n_classes: int) -> tuple[dict[str, int], dict[str, float]]:
    """The module's definitions, one detection after the other."""
    detections, instances = [], []
    for image in images:
        own = [
            {"class": int(c), "crowd": bool(k), "by": None, "claimed": False}
            for c, k in zip(image.gt_classes, image.gt_crowd, strict=True)
        ]
        for index in sorted(range(len(image.dt_scores)), key=lambda index: -image.dt_scores[index]):
            d = {
                "class": int(image.dt_classes[index]),
                "score": float(image.dt_scores[index]),
                "kind": None,
                "gt": None,
            }
            column = [float(value) for value in image.ious[:, index]]
            options = [(iou, g) for iou, g in zip(column, own, strict=True) if not g["crowd"]]
            same = [(iou, g) for iou, g in options if g["class"] == d["class"]]
            other = [(iou, g) for iou, g in options if g["class"] != d["class"]]
            free = [(iou, g) for iou, g in same if g["by"] is None and iou >= 0.5]
            if free:
                best = max(iou for iou, _ in free)
                d["gt"] = next(g for iou, g in reversed(free) if iou == best)
                d["gt"]["by"] = d
                d["kind"] = "right"
            elif any(
                iou >= 0.5 and g["crowd"] and g["class"] == d["class"] for iou, g in zip(column, own, strict=True)
            ):
                continue
            else:
                s, o = (max((iou for iou, _ in some), default=-1.0) for some in (same, other))
                if 0.1 <= s < 0.5:
                    d["kind"], d["gt"] = "localisation", next(g for iou, g in same if iou == s)
                elif o >= 0.5:
                    d["kind"], d["gt"] = "classification", next(g for iou, g in other if iou == o)
                elif s >= 0.5:
                    d["kind"] = "duplicate"
                else:
                    d["kind"] = "background" if max(s, o) < 0.1 else "both"
                if d["gt"]:
                    d["gt"]["claimed"] = True
            detections.append(d)
        instances += [g for g in own if not g["crowd"]]
    missed = [g for g in instances if g["by"] is None and not g["claimed"]]
    numbers = {kind: sum(d["kind"] == kind for d in detections) for kind in KINDS[:-1]} | {"missed": len(missed)}

    def mean_ap(rows: list[tuple[int, float, bool]], left: list[dict]) -> float:
        aps = []
        for c in range(n_classes):
            if not any(g["class"] == c for g in instances):
                continue
            total, mine = sum(g["class"] == c for g in left), [row for row in rows if row[0] == c]
            if total == 0:
                aps.append(0.0 if mine else 1.0)
                continue
            points, true = [], 0
            for shown, (_, _, right) in enumerate(sorted(mine, key=lambda row: -row[1]), start=1):
                true += right
                points.append((true / total, true / shown))
            levels = [max((p for r, p in points if r >= level), default=0.0) for level in np.linspace(0, 1, 101)]
            aps.append(sum(levels) / 101)
        return 100 * sum(aps) / len(aps)

    plain = [(d["class"], d["score"], d["kind"] == "right") for d in detections]
    before = mean_ap(plain, instances)
    after = {
        kind: mean_ap([row for row, d in zip(plain, detections, strict=True) if d["kind"] != kind], instances)
        for kind in ("both", "duplicate", "background")
    }
    after["missed"] = mean_ap(plain, [g for g in instances if g not in missed])
    for kind in ("classification", "localisation"):
        rows = []
        for d in detections:
            if d["kind"] not in ("right", kind):
                rows.append((d["class"], d["score"], False))
                continue
            rivals = [r for r in detections if r["gt"] is d["gt"] and r["kind"] in ("right", kind)]
            winner = max(rivals, key=lambda r: (r["score"], r["kind"] == "right"))
            if d is winner:
                rows.append((d["gt"]["class"], d["score"], True))
        after[kind] = mean_ap(rows, instances)
    return numbers, {kind: after[kind] - before for kind in KINDS}


@pytest.mark.parametrize("seed", seeds(30, few=(0, 1, 2)))
def test_errors_of_random_images_cost_the_same_as_in_a_loop_over_detections(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = [random_boxes(draw, classes=3, detections=3)[0] for _ in range(6)]
    result = score(images, 4)
    numbers, d_ap = reference(images, 4)
    assert {name: error.count for name, error in result.errors.items()} == numbers
    assert {name: error.dAP.value for name, error in result.errors.items()} == pytest.approx(d_ap, abs=1e-9)
    assert min(d_ap.values()) > -1e-9


def test_shapes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match=r"a.png: 2 instances and 1 detections"):
        ScoredImage("a.png", np.zeros((1, 2)), np.zeros(2, int), np.zeros(2, bool), np.zeros(1, int), np.zeros(1))
