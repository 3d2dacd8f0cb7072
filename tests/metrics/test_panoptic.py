import json
import logging
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from d2tune.annotations.formats.panoptic import to_colors
from d2tune.annotations.model.dataset import Category
from d2tune.errors import DataError
from d2tune.evaluation.panoptic_files import PanopticFile, read_panoptic, score_panoptic_files
from d2tune.metrics.panoptic import PanopticResult, PanopticScorer
from tests.shared_files import SHARED

SAMPLE = SHARED / "data" / "panoptic_coco_sample"
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

        void = pixels(truth, 0)
        found = {info["id"]: pixels(prediction, info["id"]) for info in predicted}
        true = {info["id"]: pixels(truth, info["id"]) for info in segments}
        matched_predictions, matched_truths = set(), set()
        for t in segments:
            for p in predicted:
                if t.get("iscrowd") or t["category_id"] != p["category_id"]:
                    continue
                union = (found[p["id"]] - void) | true[t["id"]]
                iou = len(found[p["id"]] & true[t["id"]]) / len(union)
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
            nobody = set(void)
            for t in segments:
                if t.get("iscrowd") and t["category_id"] == p["category_id"]:
                    nobody |= true[t["id"]]
            if len(found[p["id"]] & nobody) / len(found[p["id"]]) <= 0.5:
                tables[p["category_id"]]["fp"] += 1
    figures: dict[str, float | None] = {}
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
            figures[name + ending] = 100 * sum(scores) / len(scores) if scores else None
    return figures


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


@pytest.mark.parametrize("seed", range(25))
def test_random_maps_score_as_sets_of_pixels_do(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = [random_pair(draw) for _ in range(4)]
    found = values(score(images).result())
    assert found == pytest.approx(reference(images, CATEGORIES), abs=1e-9)
    assert all(value is None or 0 <= value <= 100 for value in found.values())


@pytest.mark.parametrize("seed", range(5))
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
        # half and no more is no match
        (strip((1, 5), (2, 5)), (), strip((1, 10)), (0, 1, 2)),
        (strip((1, 6), (2, 4)), (), strip((1, 10)), (1, 0, 1)),
        # pixels on void leave the union: 4 of 4, not 4 of 10
        (strip((1, 4), (0, 6)), (), strip((1, 10)), (1, 0, 0)),
        # half on void is still false, more than half is not
        (strip((1, 20), (0, 5)), (), strip((0, 15), (1, 10)), (0, 1, 1)),
        (strip((1, 20), (0, 6)), (), strip((0, 16), (1, 10)), (0, 0, 1)),
        # the same on a crowd, and void and crowds together; a crowd is never missed
        (strip((1, 20), (2, 6)), (2,), strip((0, 16), (1, 10)), (0, 0, 1)),
        (strip((1, 20), (2, 2), (3, 2), (0, 2)), (2, 3), strip((0, 16), (1, 10)), (0, 0, 1)),
        # a crowd is matched by nothing
        (strip((2, 10)), (2,), strip((1, 10)), (0, 0, 0)),
        (strip((1, 10)), (), strip((0, 10)), (0, 0, 1)),
        (strip((0, 10)), (), strip((0, 10)), (0, 0, 0)),
    ],
)
def test_what_matches_what_is_passed_over_and_what_is_false(
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


def sample_images(file: PanopticFile) -> list[Side]:
    return [(file.segment_ids(image_id), row["segments_info"]) for image_id, row in file.rows.items()]


@pytest.fixture(scope="module")
def sample() -> PanopticFile:
    return read_panoptic(SAMPLE / "panoptic_examples.json")


def test_the_ground_truth_scores_100_against_itself(sample: PanopticFile) -> None:
    result = score_panoptic_files(sample, sample).result()
    assert result.images == 2
    assert values(result) == dict.fromkeys(values(result), 100.0)
    crowds = sum(info["iscrowd"] for _, infos in sample_images(sample) for info in infos)
    assert crowds == 3 and sum(row.fp + row.fn for row in result.classes) == 0
    assert sum(row.tp for row in result.classes) == sum(len(infos) for _, infos in sample_images(sample)) - crowds


@pytest.mark.parametrize("seed", range(3))
def test_disturbed_real_images_score_as_sets_of_pixels_do(sample: PanopticFile, seed: int) -> None:
    draw = np.random.default_rng(seed)
    things = [category.id for category in sample.categories if category.isthing]
    images = []
    for truth, segments in sample_images(sample):
        prediction = np.roll(truth, draw.integers(-6, 7, 2), axis=(0, 1))
        predicted = [{"id": info["id"], "category_id": info["category_id"]} for info in segments]
        for info in predicted[:6]:
            info["category_id"] = int(draw.choice(things))
        for info in predicted[-4:]:
            prediction[prediction == info["id"]] = 0
        predicted = [info for info in predicted if (prediction == info["id"]).any()]
        images.append(((prediction, predicted), (truth, segments)))
    expected = reference(images, sample.categories)
    assert values(score(images, sample.categories).result()) == pytest.approx(expected, abs=1e-9)
    assert 5 < expected["PQ"] < 95


def write_panoptic(folder: Path, name: str, images: list[Side], **more: object) -> Path:
    """A COCO panoptic JSON with its PNGs, as any other tool would write it."""
    rows = []
    for number, (image, infos) in enumerate(images):
        png = folder / name / f"{number}.png"
        png.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(to_colors(image)).save(png)
        rows.append({"image_id": number, "file_name": png.name, "segments_info": infos})
    categories = [{"id": one.id, "name": one.name, "isthing": int(one.isthing)} for one in CATEGORIES]
    path = folder / f"{name}.json"
    path.write_text(json.dumps({"annotations": rows, "categories": categories} | more), encoding="utf-8")
    return path


@pytest.mark.parametrize("area", [1, 10**9])
def test_wrong_areas_in_the_json_change_nothing(tmp_path: Path, area: int) -> None:
    draw = np.random.default_rng(1)
    pairs = [random_pair(draw) for _ in range(3)]
    expected = values(score(pairs).result())
    for name, side in (("predictions", 0), ("truth", 1)):
        images = [(pair[side][0], [info | {"area": area} for info in pair[side][1]]) for pair in pairs]
        write_panoptic(tmp_path, name, images)
    predictions, truth = (read_panoptic(tmp_path / f"{name}.json") for name in ("predictions", "truth"))
    assert values(score_panoptic_files(predictions, truth).result()) == expected
    assert values(score_panoptic_files(truth, truth).result())["PQ"] == 100


def test_a_segment_of_the_ground_truth_without_a_pixel_is_passed_over(caplog: pytest.LogCaptureFixture) -> None:
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
    drawn = scorer.resample(weights)
    for row, times in enumerate(weights):
        repeated = [pair for pair, count in zip(images, times, strict=True) for _ in range(count)]
        expected = values(score(repeated).result())
        found = {name: None if np.isnan(figure[row]) else figure[row] for name, figure in drawn.items()}
        assert found == pytest.approx(expected, abs=1e-9)


def test_tensors_score_as_arrays_do() -> None:
    (prediction, predicted), (truth, segments) = random_pair(np.random.default_rng(5))
    tensors = [((torch.from_numpy(prediction).int(), predicted), (torch.from_numpy(truth), segments))]
    arrays = [((prediction, predicted), (truth, segments))]
    assert score(tensors).result() == score(arrays).result()


def test_nothing_has_no_figure_but_a_reason() -> None:
    result = score([]).result()
    assert {name: one.reason for name, one in result.metrics.items() if name.startswith("PQ")} == {
        "PQ": "no segment in ground truth or prediction",
        "PQ_th": "no thing segment in ground truth or prediction",
        "PQ_st": "no stuff segment in ground truth or prediction",
    }
    json.dumps(result.to_json(), allow_nan=False)


ONE = [{"id": 1, "category_id": 1}]


@pytest.mark.parametrize(
    ("prediction", "predicted", "parts"),
    [
        (strip((1, 9)), ONE, ["different sizes", "(1, 9)", "(1, 10)"]),
        (strip((1, 5), (3, 5)), ONE, ["prediction", "segment 3", "does not list"]),
        (strip((0, 10)), ONE, ["no pixel", "segment 1"]),
        (strip((1, 10)), ONE * 2, ["no id of its own", "found 1"]),
        (strip((1, 10)), [{"id": 0, "category_id": 1}], ["no id of its own", "found 0"]),
        (strip((1, 10)), [{"category_id": 1}], ["no id of its own", "found None"]),
        (strip((1, 10)), [{"id": 1, "category_id": 4}], ["no class", "category_id 4", "1 cat, 2 dog"]),
        (strip((1, 10)), [{"id": 1}], ["no class", "category_id None"]),
    ],
)
def test_what_cannot_be_scored_is_named(prediction: np.ndarray, predicted: list[dict], parts: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        PanopticScorer(CATEGORIES).add(prediction, predicted, strip((1, 10)), ONE, "a.png")
    assert all(part in caught.value.one_line() for part in ["a.png", *parts]), caught.value.one_line()


def test_predictions_without_an_image_or_its_png_are_named(tmp_path: Path) -> None:
    pair = random_pair(np.random.default_rng(0))
    truth = read_panoptic(write_panoptic(tmp_path, "truth", [pair[1], pair[1]]))
    predictions = read_panoptic(write_panoptic(tmp_path, "predictions", [pair[0]]))
    with pytest.raises(DataError, match="1 of 2 images have no prediction"):
        score_panoptic_files(predictions, truth)
    (tmp_path / "truth" / "1.png").unlink()
    with pytest.raises(DataError, match=r"1\.png: there is no such PNG"):
        score_panoptic_files(truth, truth)
    (tmp_path / "truth" / "1.png").write_bytes(b"no image")
    with pytest.raises(DataError, match="the PNG cannot be read"):
        score_panoptic_files(truth, truth)
    with pytest.raises(DataError, match="the ground truth lists no categories"):
        score_panoptic_files(predictions, read_panoptic(write_panoptic(tmp_path, "bare", [pair[1]], categories=[])))


def test_the_folder_of_the_pngs_can_be_named(tmp_path: Path, sample: PanopticFile) -> None:
    copy = tmp_path / "elsewhere.json"
    copy.write_bytes((SAMPLE / "panoptic_examples.json").read_bytes())
    moved = read_panoptic(copy, folder=SAMPLE / "panoptic_examples")
    assert values(score_panoptic_files(moved, sample).result())["PQ"] == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("[1]", "no COCO panoptic file"),
        ('{"annotations": [{"image_id": 1}]}', "no COCO panoptic file"),
        ('{"annotations": [{"image_id": 1, "segments_info": [3]}]}', "no COCO panoptic file"),
        ("{", "ends in the middle"),
        ('{"annotations": [], "categories": [{"id": 1}]}', "a category lacks"),
        ('{"annotations": [{"image_id": 1, "segments_info": []}, {"image_id": 1, "segments_info": []}]}', "twice"),
    ],
)
def test_a_file_that_is_none_is_named(tmp_path: Path, content: str, message: str) -> None:
    path = tmp_path / "a.json"
    path.write_text(content, encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_panoptic(path)


def test_a_file_that_is_not_there_and_a_png_outside_the_folder_are_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be read"):
        read_panoptic(tmp_path / "none.json")
    path = tmp_path / "a.json"
    rows = [{"image_id": 1, "file_name": "../b.png", "segments_info": []}]
    path.write_text(json.dumps({"annotations": rows}), encoding="utf-8")
    with pytest.raises(DataError, match="names no PNG"):
        read_panoptic(path).segment_ids("1")


@pytest.mark.gpu
def test_cuda_matches_the_same() -> None:
    draw = np.random.default_rng(9)
    images = [random_pair(draw) for _ in range(4)]
    assert score(images, device="cuda").result() == score(images).result()
