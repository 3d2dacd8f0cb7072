import json

import numpy as np
import pytest
import torch
from torchmetrics.classification import MulticlassAccuracy, MulticlassF1Score, MulticlassJaccardIndex

from d2tune.errors import DataError
from d2tune.metrics.semantic import SemanticResult, SemanticScorer
from tests.metrics.grids import seeds
from tests.metrics.overlap.test_boundary import paper_boundary

IGNORE_LABEL = 255
NAMES = ("sky", "road", "tree", "car")


def blobs(draw: np.random.Generator, classes: int, *, height: int = 23, width: int = 31) -> np.ndarray:
    """A label map of rectangles on one another, with ignored pixels."""
    image = np.full((height, width), draw.integers(classes), np.int64)
    for _ in range(12):
        y, x = draw.integers(height), draw.integers(width)
        image[y : y + draw.integers(3, 14), x : x + draw.integers(3, 14)] = draw.choice([*range(classes), IGNORE_LABEL])
    return image


def damaged(draw: np.random.Generator, truth: np.ndarray, classes: int) -> np.ndarray:
    """A prediction that agrees with most of the ground truth and has a class at ignored pixels."""
    shifted = np.roll(truth, draw.integers(-2, 3, size=2), axis=(0, 1))
    noise = draw.integers(classes, size=truth.shape)
    return np.where((shifted == IGNORE_LABEL) | (draw.random(truth.shape) < 0.1), noise, shifted)


def pairs(seed: int, *, classes: int = 4, images: int = 5) -> list[tuple[np.ndarray, np.ndarray]]:
    draw = np.random.default_rng(seed)
    truths = [blobs(draw, classes) for _ in range(images)]
    return [(damaged(draw, truth, classes), truth) for truth in truths]


def score(images: list[tuple[np.ndarray, np.ndarray]], names: tuple[str, ...] = NAMES, **options) -> SemanticScorer:
    scorer = SemanticScorer(names, **options)
    for number, (prediction, truth) in enumerate(images):
        scorer.add(prediction, truth, f"{number}.png")
    return scorer


def values(result: SemanticResult) -> dict[str, float | None]:
    return {name: one.value for name, one in result.metrics.items()}


def of_classes(result: SemanticResult, key: str) -> list[float | None]:
    return [row.metrics[key].value for row in result.classes]


def loop_reference(images: list[tuple[np.ndarray, np.ndarray]], classes: int) -> dict[str, float]:
    """The definitions, one pixel at a time in float64."""
    right, truth_count, predicted_count = ([0.0] * classes for _ in range(3))
    for prediction, truth in images:
        for p, t in zip(prediction.ravel().tolist(), truth.ravel().tolist(), strict=True):
            if t == IGNORE_LABEL:
                continue
            truth_count[t] += 1
            if p != IGNORE_LABEL:
                predicted_count[p] += 1
            right[t] += p == t
    ious, dices, accuracies, weighted = [], [], [], 0.0
    total = sum(truth_count)
    for c in range(classes):
        if truth_count[c] + predicted_count[c] > 0:
            ious.append(right[c] / (truth_count[c] + predicted_count[c] - right[c]))
            dices.append(2 * right[c] / (truth_count[c] + predicted_count[c]))
            weighted += truth_count[c] / total * ious[-1]
        if truth_count[c] > 0:
            accuracies.append(right[c] / truth_count[c])
    return {
        "mIoU": 100 * sum(ious) / len(ious),
        "fwIoU": 100 * weighted,
        "pACC": 100 * sum(right) / total,
        "mACC": 100 * sum(accuracies) / len(accuracies),
        "mDice": 100 * sum(dices) / len(dices),
    }


def boundary_reference(images: list[tuple[np.ndarray, np.ndarray]], category: int) -> float:
    """Boundary IoU of one class from the paper's sentence, one pixel at a time: mask within d pixels of not-mask."""
    both = either = 0
    for prediction, truth in images:
        height, width = truth.shape
        d = max(1, round(0.02 * (height**2 + width**2) ** 0.5))

        def near_its_contour(
            labels: np.ndarray, y: int, x: int, truth: np.ndarray = truth, d: int = d, category: int = category
        ) -> bool:
            if labels[y, x] != category:
                return False
            for v in range(y - d, y + d + 1):
                for u in range(x - d, x + d + 1):
                    if not (0 <= v < labels.shape[0] and 0 <= u < labels.shape[1]):
                        return True
                    if truth[v, u] != IGNORE_LABEL and labels[v, u] != category:
                        return True
            return False

        for y in range(height):
            for x in range(width):
                if truth[y, x] != IGNORE_LABEL:
                    t, p = near_its_contour(truth, y, x), near_its_contour(prediction, y, x)
                    both += t and p
                    either += t or p
    return 100 * both / either


def test_a_case_computed_by_hand() -> None:
    truth = np.array([[0, 0, 0, 1], [0, 1, 1, IGNORE_LABEL]])
    prediction = np.array([[0, 0, 1, 1], [0, 1, 0, 1]])
    result = score([(prediction, truth)], ("a", "b"), boundary=False).result()
    # a: 3 right, 4 true, 4 predicted; b: 2 right, 3 true, 3 predicted
    assert np.array_equal(result.confusion, [[3, 1, 0], [1, 2, 0]])
    assert of_classes(result, "IoU") == pytest.approx([60, 50])
    assert of_classes(result, "Dice") == pytest.approx([75, 200 / 3])
    assert of_classes(result, "ACC") == pytest.approx([75, 200 / 3])
    expected = {"mIoU": 55, "fwIoU": (4 * 60 + 3 * 50) / 7, "pACC": 500 / 7, "mACC": 425 / 6, "mDice": 425 / 6}
    assert values(result) == pytest.approx(expected)
    assert [row.pixels for row in result.classes] == [4, 3]


@pytest.mark.parametrize("seed", seeds(8))
def test_the_metrics_are_those_of_a_loop_over_pixels(seed: int) -> None:
    images = pairs(seed)
    images[0][0][:3] = IGNORE_LABEL  # a prediction may have pixels without a class
    result = score(images, (*NAMES, "never there"), boundary=False).result()
    assert values(result) == pytest.approx(loop_reference(images, 5), abs=1e-9)


@pytest.mark.parametrize("seed", seeds(6))
def test_the_metrics_are_those_of_torchmetrics_with_the_same_definition(seed: int) -> None:
    images = pairs(seed)
    result = score(images, (*NAMES, "never there"), boundary=False).result()
    p = torch.cat([torch.from_numpy(prediction).flatten() for prediction, _ in images])
    t = torch.cat([torch.from_numpy(truth).flatten() for _, truth in images])
    options = {"num_classes": 5, "ignore_index": IGNORE_LABEL}
    references = {
        "mIoU": MulticlassJaccardIndex(average="macro", **options),
        "fwIoU": MulticlassJaccardIndex(average="weighted", **options),
        "pACC": MulticlassAccuracy(average="micro", **options),
        "mACC": MulticlassAccuracy(average="macro", **options),  # the same where every predicted class has pixels
        "mDice": MulticlassF1Score(average="macro", **options),
    }
    assert set(np.unique(t[t != IGNORE_LABEL])) == set(range(4))
    for name, reference in references.items():
        assert result.metrics[name].value == pytest.approx(100 * float(reference(p, t)), abs=1e-4), name
    per_class = 100 * MulticlassJaccardIndex(average="none", **options)(p, t)
    assert of_classes(result, "IoU")[:4] == pytest.approx(per_class[:4].tolist(), abs=1e-4)


def test_an_absent_class_has_no_value_and_a_class_only_predicted_has_0() -> None:
    truth = np.zeros((6, 6), int)
    prediction = truth.copy()
    prediction[0] = 1
    result = score([(prediction, truth)], ("a", "b", "c")).result()
    a, b, c = result.classes
    assert [one.value for one in c.metrics.values()] == [None] * 4
    assert c.metrics["IoU"].reason == "class 'c' has no pixel in ground truth or prediction"
    assert c.metrics["boundary_IoU"].reason == "class 'c' has no boundary in ground truth or prediction"
    assert (b.metrics["IoU"].value, b.metrics["Dice"].value, b.metrics["boundary_IoU"].value) == (0, 0, 0)
    assert b.metrics["ACC"].value is None
    assert b.metrics["ACC"].reason == "class 'b' has no pixel in the ground truth"
    assert result.metrics["mIoU"].value == pytest.approx(a.metrics["IoU"].value / 2)
    assert result.metrics["mACC"].value == pytest.approx(a.metrics["ACC"].value)


def test_without_any_pixel_there_is_no_value_but_a_reason() -> None:
    nothing = np.full((4, 5), IGNORE_LABEL)
    for scorer in (score([]), score([(np.zeros((4, 5), int), nothing)])):
        result = scorer.result()
        assert all(one.value is None and one.reason for one in result.metrics.values())
        json.dumps(result.to_json(), allow_nan=False)


@pytest.mark.parametrize("seed", seeds(3, few=(0,)))
def test_boundary_iou_is_the_papers_for_each_class(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = []
    for _ in range(2):
        truth = blobs(draw, 3, height=52, width=64)  # d is 2 pixels
        images.append((damaged(draw, truth, 3), truth))
    result = score(images, NAMES[:3]).result()
    expected = [boundary_reference(images, category) for category in range(3)]
    assert of_classes(result, "boundary_IoU") == pytest.approx(expected, abs=1e-9)
    assert result.metrics["boundary_mIoU"].value == pytest.approx(np.mean(expected), abs=1e-9)


def test_boundary_iou_of_a_shifted_square_by_hand() -> None:
    truth, prediction = np.zeros((2, 40, 40), int)  # diagonal 56.6 px, so d is 1
    truth[10:20, 10:20] = 1
    prediction[10:20, 11:21] = 1
    # rings of 36 pixels; top and bottom rows share 9 pixels each, and the columns at x 11 and 19 lie inside the other
    result = score([(prediction, truth)], ("ground", "square")).result()
    assert result.classes[1].metrics["boundary_IoU"].value == pytest.approx(100 * 18 / (72 - 18))
    assert result.classes[1].metrics["IoU"].value == pytest.approx(100 * 90 / 110)


def test_renumbering_the_classes_changes_no_class() -> None:
    """Eroding the label map instead of each mask, as Detectron2 does, makes the ids matter."""
    images = pairs(3)
    order = np.array([2, 3, 1, 0])
    renumbered = [
        tuple(np.where(image == IGNORE_LABEL, IGNORE_LABEL, order[np.minimum(image, 3)]) for image in pair)
        for pair in images
    ]
    plain, other = score(images).result(), score(renumbered).result()
    for index in range(4):
        assert plain.classes[index].metrics == other.classes[order[index]].metrics


def test_predictions_on_ignored_pixels_do_not_matter() -> None:
    draw = np.random.default_rng(0)
    images = pairs(4)
    other = [(np.where(truth == IGNORE_LABEL, draw.integers(4, size=truth.shape), p), truth) for p, truth in images]
    assert score(images).result().to_json() == score(other).result().to_json()


def test_a_perfect_prediction_has_100_everywhere_also_beside_ignored_pixels() -> None:
    images = [(np.where(truth == IGNORE_LABEL, 0, truth), truth) for _, truth in pairs(5)]
    result = score(images).result()
    assert set(values(result).values()) == {100.0}
    assert all(one.value == 100.0 for row in result.classes for one in row.metrics.values())


@pytest.mark.parametrize("size", [(40, 60), (90, 130), (3, 200), (2, 2), (1, 1)])
def test_the_boundaries_of_all_classes_at_once_are_those_of_each_mask(size: tuple[int, int]) -> None:
    draw = np.random.default_rng(6)
    truth = blobs(draw, 4, height=size[0], width=size[1])
    truth[0, 0] = 0
    prediction = damaged(draw, truth, 4)
    result = score([(prediction, truth)]).result()
    ignored = truth == IGNORE_LABEL
    for category, row in enumerate(result.classes):
        t, p = (paper_boundary((image == category) | ignored, 0.02) & ~ignored for image in (truth, prediction))
        expected = 100 * (t & p).sum() / (t | p).sum() if (t | p).any() else None
        assert row.metrics["boundary_IoU"].value == pytest.approx(expected)


@pytest.mark.parametrize("kind", [np.uint8, np.int32, np.uint16, "tensor", "tensor of bytes"])
def test_arrays_and_tensors_of_every_integer_type_give_the_same(kind: object) -> None:
    images = pairs(7)
    kinds = {"tensor": torch.int64, "tensor of bytes": torch.uint8}
    converted = [
        tuple(torch.from_numpy(one).to(kinds[kind]) if isinstance(kind, str) else one.astype(kind) for one in pair)
        for pair in images
    ]
    assert score(converted).result().to_json() == score(images).result().to_json()


def test_resampling_is_adding_an_image_so_many_times() -> None:
    images = pairs(8)
    scorer = score(images)
    whole = {name: values[0] for name, values in scorer.resample(np.ones((1, 5), np.int64)).items()}
    assert whole == pytest.approx(values(scorer.result()), abs=1e-9)
    weights = np.array([[2, 0, 1, 0, 2], [0, 5, 0, 0, 0], [1, 1, 1, 1, 1]])
    resampled = scorer.resample(weights)
    for row, counts in enumerate(weights):
        repeated = [pair for pair, count in zip(images, counts, strict=True) for _ in range(count)]
        expected = values(score(repeated).result())
        assert {name: draws[row] for name, draws in resampled.items()} == pytest.approx(expected, abs=1e-9)


def test_a_draw_without_any_class_is_undefined() -> None:
    nothing = np.full((4, 5), IGNORE_LABEL)
    scorer = score([(np.zeros((4, 5), int), nothing), (np.zeros((4, 5), int), np.zeros((4, 5), int))])
    resampled = scorer.resample(np.array([[2, 0], [1, 1]]))
    assert all(np.isnan(draws[0]) and draws[1] == 100 for draws in resampled.values())


@pytest.mark.parametrize(
    ("prediction", "truth", "words"),
    [
        (np.zeros((3, 4), int), np.full((3, 4), 7), ["a.png", "ground truth", "found 7", "0 sky, 1 road", "or 255"]),
        (np.full((3, 4), 4), np.zeros((3, 4), int), ["a.png", "prediction", "found 4", "3 car"]),
        (np.full((3, 4), -1), np.zeros((3, 4), int), ["a.png", "prediction", "found -1"]),
        (np.full((3, 4), 2**32), np.zeros((3, 4), int), ["a.png", "prediction", "found 4294967296"]),
        (np.full((3, 4), 2**32 - 1, np.uint32), np.zeros((3, 4), int), ["a.png", "prediction", "found 4294967295"]),
        (np.zeros((3, 5), int), np.zeros((3, 4), int), ["a.png", "different sizes", "5 x 3 px", "4 x 3 px"]),
        (np.zeros((1, 3, 4), int), np.zeros((3, 4), int), ["a.png", "not a label map", "(1, 3, 4)"]),
        (np.zeros((3, 4)), np.zeros((3, 4), int), ["a.png", "not a label map", "float64"]),
        (torch.zeros(3, 4), np.zeros((3, 4), int), ["a.png", "not a label map", "torch.float32"]),
    ],
)
def test_what_cannot_be_scored_is_named(prediction: np.ndarray, truth: np.ndarray, words: list[str]) -> None:
    with pytest.raises(DataError) as caught:
        SemanticScorer(NAMES).add(prediction, truth, "a.png")
    assert all(word in caught.value.one_line() for word in words), caught.value.one_line()


def test_the_ignored_id_is_not_a_class() -> None:
    with pytest.raises(ValueError, match="found 4 classes and the id 2"):
        SemanticScorer(NAMES, ignore=2)


def test_ignored_pixels_may_have_any_id() -> None:
    images = pairs(7)
    other = [tuple(np.where(image == IGNORE_LABEL, -1, image) for image in pair) for pair in images]
    assert score(other, ignore=-1).result().to_json() == score(images).result().to_json()
    with pytest.raises(DataError, match="found 255"):
        score([(np.full((3, 4), 255, np.uint8), np.zeros((3, 4), np.uint8))], ignore=-1)


@pytest.mark.gpu
def test_cuda_counts_the_same() -> None:
    images = pairs(9)
    assert score(images, device="cuda").result().to_json() == score(images).result().to_json()
