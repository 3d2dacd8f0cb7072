import json
import logging

import numpy as np
import pytest
import torch

from d2tune.annotations.model.dataset import Category
from d2tune.errors import DataError
from d2tune.metrics.panoptic import PanopticResult, PanopticScorer
from tests.metrics.grids import seeds

CATEGORIES = (Category(1, "cat"), Category(2, "dog"), Category(7, "grass", False), Category(9, "sky", False))

Side = tuple[np.ndarray, list[dict]]


def score(images: list[tuple[Side, Side]], categories: tuple[Category, ...] = CATEGORIES, **options) -> PanopticScorer:
    scorer = PanopticScorer(categories, **options)
    for number, ((prediction, predicted), (truth, segments)) in enumerate(images):
        scorer.add(prediction, predicted, truth, segments, f"{number}.png")
    return scorer


def values(result: PanopticResult) -> dict[str, float | None]:
    return {name: one.value for name, one in result.metrics.items()}


def counts(result: PanopticResult) -> dict[str, tuple[int, int, int]]:
    return {row.name: (row.tp, row.fp, row.fn) for row in result.classes}


def reference(images: list[tuple[Side, Side]], categories: tuple[Category, ...]) -> dict[str, float | None]:
    """Kirillov et al. 2019 with segments as sets of pixels."""
    tables = {category.id: {"iou": 0.0, "tp": 0, "fp": 0, "fn": 0} for category in categories}
    for (prediction, predicted), (truth, segments) in images:

        def pixels(image: np.ndarray, number: int) -> set[tuple[int, int]]:
            return set(zip(*(axis.tolist() for axis in np.nonzero(image == number)), strict=True))

        ignored = pixels(truth, 0)
        predictions = {info["id"]: pixels(prediction, info["id"]) for info in predicted}
        true = {info["id"]: pixels(truth, info["id"]) for info in segments}
        matched_predictions, matched_truths = set(), set()
        for t in segments:
            for p in predicted:
                if t.get("iscrowd") or t["category_id"] != p["category_id"]:
                    continue
                union = (predictions[p["id"]] - ignored) | true[t["id"]]
                iou = len(predictions[p["id"]] & true[t["id"]]) / len(union)
                if iou > 0.5:
                    assert p["id"] not in matched_predictions and t["id"] not in matched_truths
                    matched_predictions.add(p["id"])
                    matched_truths.add(t["id"])
                    tables[t["category_id"]]["tp"] += 1
                    tables[t["category_id"]]["iou"] += iou
        for t in segments:
            if t["id"] not in matched_truths and not t.get("iscrowd"):
                tables[t["category_id"]]["fn"] += 1
        for p in predicted:
            if p["id"] in matched_predictions:
                continue
            excused = set(ignored)
            for t in segments:
                if t.get("iscrowd") and t["category_id"] == p["category_id"]:
                    excused |= true[t["id"]]
            if len(predictions[p["id"]] & excused) / len(predictions[p["id"]]) <= 0.5:
                tables[p["category_id"]]["fp"] += 1
    metrics: dict[str, float | None] = {}
    for ending, kinds in (("", (True, False)), ("_th", (True,)), ("_st", (False,))):
        rows = [tables[category.id] for category in categories if category.isthing in kinds]
        rows = [row for row in rows if row["tp"] + row["fp"] + row["fn"]]
        for name in ("PQ", "SQ", "RQ"):
            scores = []
            for row in rows:
                segments_count = row["tp"] + row["fp"] / 2 + row["fn"] / 2
                scores.append(
                    {
                        "PQ": row["iou"] / segments_count,
                        "SQ": row["iou"] / row["tp"] if row["tp"] else 0.0,
                        "RQ": row["tp"] / segments_count,
                    }[name]
                )
            metrics[name + ending] = 100 * sum(scores) / len(scores) if scores else None
    return metrics


def random_side(draw: np.random.Generator, image: np.ndarray, *, crowds: bool) -> Side:
    """Segments for all ids of an image but 0; stuff of one class is one segment, crowds of one class may be two."""
    image = image.copy()
    infos, stuff = [], {}
    for number in np.unique(image[image != 0]).tolist():
        category = CATEGORIES[draw.integers(len(CATEGORIES))]
        if not category.isthing and category.id in stuff:
            image[image == number] = stuff[category.id]
            continue
        if not category.isthing:
            stuff[category.id] = number
        infos.append({"id": number, "category_id": category.id, "area": int(draw.integers(1, 10_000))})
        if crowds and category.isthing and draw.random() < 0.3:
            infos[-1]["iscrowd"] = 1
    draw.shuffle(infos)
    return image, infos


def random_pair(draw: np.random.Generator) -> tuple[Side, Side]:
    image = np.zeros((24, 30), np.int64)
    for number in draw.choice(256**3 - 1, 9, replace=False) + 1:
        y, x = draw.integers(0, 20, 2)
        image[y : y + draw.integers(2, 14), x : x + draw.integers(2, 14)] = number
    truth, segments = random_side(draw, image, crowds=True)
    # the prediction renumbers the segments, moves them a little, and gets some classes wrong
    numbers = {info["id"]: 1000 + index for index, info in enumerate(segments)}
    prediction = np.zeros_like(truth)
    for old, new in numbers.items():
        prediction[np.roll(truth == old, draw.integers(-1, 2, 2), axis=(0, 1))] = new
    y, x = draw.integers(0, 20, 2)
    prediction[y : y + 5, x : x + 6] = 77
    predicted = [{"id": numbers[info["id"]], "category_id": info["category_id"]} for info in segments]
    predicted.append({"id": 77, "category_id": 1})
    for info in predicted:
        if draw.random() < 0.15:
            info["category_id"] = CATEGORIES[draw.integers(4)].id
    return (prediction, [info for info in predicted if (prediction == info["id"]).any()]), (truth, segments)


@pytest.mark.parametrize("seed", seeds(25))
def test_random_maps_score_as_sets_of_pixels_do(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = [random_pair(draw) for _ in range(4)]
    actual = values(score(images).result())
    assert actual == pytest.approx(reference(images, CATEGORIES), abs=1e-9)
    assert all(value is None or 0 <= value <= 100 for value in actual.values())


@pytest.mark.parametrize("seed", seeds(5))
def test_maps_that_have_nothing_to_do_with_each_other_score_as_sets_of_pixels_do(seed: int) -> None:
    draw = np.random.default_rng(seed)
    sides = [random_side(draw, draw.integers(0, 6, (9, 11)), crowds=index % 2 == 1) for index in range(8)]
    images = list(zip(sides[::2], sides[1::2], strict=True))
    assert values(score(images).result()) == pytest.approx(reference(images, CATEGORIES), abs=1e-9)


def strip(*lengths: tuple[int, int]) -> np.ndarray:
    """An image one pixel high: pairs of id and length."""
    return np.repeat([number for number, _ in lengths], [length for _, length in lengths])[None]


def test_a_case_computed_by_hand() -> None:
    truth = strip((1, 10), (2, 10), (3, 20))
    prediction = strip((5, 8), (6, 12), (7, 15), (8, 5))
    segments = [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 1}, {"id": 3, "category_id": 7}]
    predicted = [
        {"id": 5, "category_id": 1},  # IoU 8 / 10 with segment 1
        {"id": 6, "category_id": 1},  # IoU 10 / 12 with segment 2
        {"id": 7, "category_id": 7},  # IoU 15 / 20 with segment 3
        {"id": 8, "category_id": 2},  # false
    ]
    result = score([((prediction, predicted), (truth, segments))]).result()
    assert counts(result) == {"cat": (2, 0, 0), "dog": (0, 1, 0), "grass": (1, 0, 0), "sky": (0, 0, 0)}
    cat = 100 * (0.8 + 10 / 12) / 2
    expected = {"PQ": (cat + 0 + 75) / 3, "SQ": (cat + 0 + 75) / 3, "RQ": 200 / 3}
    expected |= {"PQ_th": cat / 2, "SQ_th": cat / 2, "RQ_th": 50, "PQ_st": 75, "SQ_st": 75, "RQ_st": 100}
    assert values(result) == pytest.approx(expected)
    sky = result.classes[3].metrics["PQ"]
    assert (sky.value, sky.reason) == (None, "class 'sky' has no segment in ground truth or prediction")


@pytest.mark.parametrize(
    ("truth", "crowd", "prediction", "expected"),
    [
        # half and no more is not a match
        (strip((1, 5), (2, 5)), (), strip((1, 10)), (0, 1, 2)),
        (strip((1, 6), (2, 4)), (), strip((1, 10)), (1, 0, 1)),
        # ignored pixels leave the union: 4 of 4, not 4 of 10
        (strip((1, 4), (0, 6)), (), strip((1, 10)), (1, 0, 0)),
        # half on ignored pixels is still false, more than half is not
        (strip((1, 20), (0, 5)), (), strip((0, 15), (1, 10)), (0, 1, 1)),
        (strip((1, 20), (0, 6)), (), strip((0, 16), (1, 10)), (0, 0, 1)),
        # the same on a crowd, and ignored pixels and crowds together; a crowd is never missed
        (strip((1, 20), (2, 6)), (2,), strip((0, 16), (1, 10)), (0, 0, 1)),
        (strip((1, 20), (2, 2), (3, 2), (0, 2)), (2, 3), strip((0, 16), (1, 10)), (0, 0, 1)),
        # a crowd is matched by nothing
        (strip((2, 10)), (2,), strip((1, 10)), (0, 0, 0)),
        (strip((1, 10)), (), strip((0, 10)), (0, 0, 1)),
        (strip((0, 10)), (), strip((0, 10)), (0, 0, 0)),
    ],
)
def test_what_matches_what_is_ignored_and_what_is_false(
    truth: np.ndarray, crowd: tuple[int, ...], prediction: np.ndarray, expected: tuple[int, int, int]
) -> None:
    segments = [
        {"id": number, "category_id": 1, "iscrowd": int(number in crowd)}
        for number in np.unique(truth[truth != 0]).tolist()
    ]
    predicted = [{"id": number, "category_id": 1} for number in np.unique(prediction[prediction != 0]).tolist()]
    images = [((prediction, predicted), (truth, segments))]
    assert counts(score(images).result())["cat"] == expected


def test_a_crowd_of_another_class_excuses_nothing() -> None:
    truth, segments = strip((2, 10)), [{"id": 2, "category_id": 2, "iscrowd": 1}]
    images = [((strip((1, 10)), [{"id": 1, "category_id": 1}]), (truth, segments))]
    assert counts(score(images).result())["cat"] == (0, 1, 0)


def test_a_segment_of_the_ground_truth_without_a_pixel_is_ignored(caplog: pytest.LogCaptureFixture) -> None:
    truth, segments = strip((1, 10)), [{"id": 1, "category_id": 1}, {"id": 2, "category_id": 1, "area": 50}]
    with caplog.at_level(logging.WARNING):
        result = score([((truth, segments[:1]), (truth, segments))]).result()
    assert counts(result)["cat"] == (1, 0, 0)
    assert "0.png" in caplog.text and "without a pixel" in caplog.text and ": 2" in caplog.text


def test_resampling_is_adding_an_image_so_many_times() -> None:
    draw = np.random.default_rng(3)
    images = [random_pair(draw) for _ in range(4)]
    scorer = score(images)
    weights = np.array([[1, 1, 1, 1], [3, 0, 1, 0], [0, 0, 0, 4]])
    resampled = scorer.resample(weights)
    for row, times in enumerate(weights):
        repeated = [pair for pair, count in zip(images, times, strict=True) for _ in range(count)]
        expected = values(score(repeated).result())
        actual = {name: None if np.isnan(draws[row]) else draws[row] for name, draws in resampled.items()}
        assert actual == pytest.approx(expected, abs=1e-9)


def test_tensors_score_as_arrays_do() -> None:
    (prediction, predicted), (truth, segments) = random_pair(np.random.default_rng(5))
    tensors = [((torch.from_numpy(prediction).int(), predicted), (torch.from_numpy(truth), segments))]
    arrays = [((prediction, predicted), (truth, segments))]
    assert score(tensors).result() == score(arrays).result()


def test_nothing_has_no_value_but_a_reason() -> None:
    result = score([]).result()
    assert {name: one.reason for name, one in result.metrics.items() if name.startswith("PQ")} == {
        "PQ": "no segment in ground truth or prediction",
        "PQ_th": "no thing segment in ground truth or prediction",
        "PQ_st": "no stuff segment in ground truth or prediction",
    }
    json.dumps(result.to_json(), allow_nan=False)


ONE = [{"id": 1, "category_id": 1}]


@pytest.mark.parametrize(
    ("prediction", "predicted", "words"),
    [
        (strip((1, 9)), ONE, ["different sizes", "(1, 9)", "(1, 10)"]),
        (strip((1, 5), (3, 5)), ONE, ["prediction", "segment 3", "does not list"]),
        (strip((0, 10)), ONE, ["no pixel", "segment 1"]),
        (strip((1, 10)), ONE * 2, ["no unique id", "found 1"]),
        (strip((1, 10)), [{"id": 0, "category_id": 1}], ["no unique id", "found 0"]),
        (strip((1, 10)), [{"category_id": 1}], ["no unique id", "found None"]),
        (strip((1, 10)), [{"id": 1, "category_id": 4}], ["no class", "category_id 4", "1 cat, 2 dog"]),
        (strip((1, 10)), [{"id": 1}], ["no class", "category_id None"]),
    ],
)
def test_what_cannot_be_scored_is_named(prediction: np.ndarray, predicted: list[dict], words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        PanopticScorer(CATEGORIES).add(prediction, predicted, strip((1, 10)), ONE, "a.png")
    assert all(word in caught.value.one_line() for word in ["a.png", *words]), caught.value.one_line()


@pytest.mark.gpu
def test_cuda_matches_the_same() -> None:
    draw = np.random.default_rng(9)
    images = [random_pair(draw) for _ in range(4)]
    assert score(images, device="cuda").result() == score(images).result()
