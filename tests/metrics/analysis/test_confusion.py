import json

import numpy as np
import pytest

from d2tune.metrics.analysis.confusion import ConfusionMatrix
from d2tune.metrics.analysis.scored_image import ScoredImage
from tests.metrics.analysis.scored_images import image_of, random_boxes
from tests.metrics.grids import seeds


def matrix(images: list[ScoredImage], n_classes: int = 2, **options) -> np.ndarray:
    confusion = ConfusionMatrix([f"class {index}" for index in range(n_classes)], **options)
    for image in images:
        confusion.add(image)
    return confusion.counts


def cells(counts: np.ndarray) -> dict[tuple[int, int], int]:
    return {(int(row), int(column)): int(counts[row, column]) for row, column in zip(*np.nonzero(counts), strict=True)}


BACKGROUND = 2


@pytest.mark.parametrize(
    ("image", "expected"),
    [
        (image_of([[0.9]], [0], [0], [0.9]), {(0, 0): 1}),
        (image_of([[0.9]], [0], [1], [0.9]), {(0, 1): 1}),
        (image_of([[0.5]], [0], [1], [0.5]), {(0, 1): 1}),
        (image_of([[0.49]], [0], [0], [0.9]), {(0, BACKGROUND): 1, (BACKGROUND, 0): 1}),
        (image_of([[0.9]], [0], [0], [0.49]), {(0, BACKGROUND): 1}),
        # the greater IoU wins, whatever class and score
        (image_of([[0.7, 0.8]], [0], [0, 1], [0.9, 0.6]), {(0, 1): 1, (BACKGROUND, 0): 1}),
        # of equal IoUs the higher score wins
        (image_of([[0.8, 0.8]], [0], [0, 1], [0.6, 0.9]), {(0, 1): 1, (BACKGROUND, 0): 1}),
        # the best pair is taken first, and what is left is paired with what is left
        (image_of([[0.9, 0.8], [0.6, 0.85]], [0, 1], [1, 0], [0.6, 0.9]), {(0, 1): 1, (1, 0): 1}),
        # a loser finds its second best
        (image_of([[0.9, 0.8], [0, 0.6]], [0, 1], [0, 1], [0.6, 0.9]), {(0, 0): 1, (1, 1): 1}),
        # crowds: in no pair, and they excuse detections of their class
        (image_of([[0.9]], [0], [0], [0.9], crowd=(0,)), {}),
        (image_of([[0.9]], [0], [1], [0.9], crowd=(0,)), {(BACKGROUND, 1): 1}),
        (image_of([[0.9], [0.6]], [0, 0], [0], [0.9], crowd=(0,)), {(0, 0): 1}),
        (image_of([[]], [1], [], []), {(1, BACKGROUND): 1}),
        (image_of([], [], [1], [0.9]), {(BACKGROUND, 1): 1}),
        (image_of([], [], [], []), {}),
    ],
)
def test_cases_counted_by_hand(image: ScoredImage, expected: dict[tuple[int, int], int]) -> None:
    assert cells(matrix([image])) == expected


def test_images_are_added_up_and_the_threshold_is_the_callers() -> None:
    image = image_of([[0.9, 0], [0, 0.9]], [0, 1], [0, 1], [0.9, 0.3])
    assert cells(matrix([image] * 3)) == {(0, 0): 3, (1, BACKGROUND): 3}
    assert cells(matrix([image] * 3, score=0.3)) == {(0, 0): 3, (1, 1): 3}


def reference(image: ScoredImage, n_classes: int, score: float) -> np.ndarray:
    """Take the best remaining pair until there is none."""
    counts = np.zeros((n_classes + 1, n_classes + 1), int)
    rows = [row for row in range(len(image.gt_classes)) if not image.gt_crowd[row]]
    columns = [column for column in range(len(image.dt_classes)) if image.dt_scores[column] >= score]
    while True:
        options = [
            (image.ious[row, column], image.dt_scores[column], -row, -column)
            for row in rows
            for column in columns
            if image.ious[row, column] >= 0.5
        ]
        if not options:
            break
        row, column = (-place for place in max(options)[2:])
        counts[image.gt_classes[row], image.dt_classes[column]] += 1
        rows.remove(row)
        columns.remove(column)
    for row in rows:
        counts[image.gt_classes[row], n_classes] += 1
    for column in columns:
        crowds = [row for row in range(len(image.gt_classes)) if image.gt_crowd[row]]
        if not any(
            image.ious[row, column] >= 0.5 and image.gt_classes[row] == image.dt_classes[column] for row in crowds
        ):
            counts[n_classes, image.dt_classes[column]] += 1
    return counts


@pytest.mark.parametrize("seed", seeds(20))
def test_random_images_are_paired_as_a_loop_pairs_them(seed: int) -> None:
    draw = np.random.default_rng(seed)
    images = [random_boxes(draw, classes=3, detections=4)[0] for _ in range(10)]
    expected = sum(reference(image, 3, 0.3) for image in images)
    actual = matrix(images, 3, score=0.3)
    assert np.array_equal(actual, expected)
    assert actual[:3].sum() == sum(int((~image.gt_crowd).sum()) for image in images)


def test_the_json_says_how_it_was_counted() -> None:
    confusion = ConfusionMatrix(["a", "b"], score=0.25)
    confusion.add(image_of([[0.9]], [0], [1], [0.9]))
    assert json.loads(json.dumps(confusion.to_json())) == {
        "labels": ["a", "b", "background"],
        "score": 0.25,
        "iou": 0.5,
        "counts": [[0, 1, 0], [0, 0, 0], [0, 0, 0]],
    }
