"""Images with rare classes are used more often."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest

from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.data.batches import TrainingBatches
from d2tune.data.sampling import MOST_REPEATS, classes_of_images, repeats_of, systematic_sample
from d2tune.project.sections import Sampling


def dataset(*classes: str, crowd: bool = False) -> Dataset:
    """An image for each text, whose letters a, b and c are its objects."""
    images = tuple(Image(number, f"{number}.jpg", 100, 100) for number in range(1, len(classes) + 1))
    square = (np.array([[0.0, 0.0], [5.0, 0.0], [5.0, 5.0]]),)
    instances: list[Instance] = []
    for image, letters in zip(images, classes, strict=True):
        for letter in letters:
            number = len(instances) + 1
            box = (0.0, 0.0, 5.0, 5.0)
            instances.append(Instance(number, image.id, "abc".index(letter) + 1, square, box, 12.5, iscrowd=crowd))
    return Dataset(images, tuple(Category(number, name) for number, name in enumerate("abc", 1)), tuple(instances))


def test_which_classes_an_image_has() -> None:
    assert classes_of_images(dataset("aab", "", "c")) == [{1, 2}, set(), {3}]
    assert classes_of_images(dataset("a", crowd=True)) == [set()]


def test_frequencies() -> None:
    data = dataset(*["a"] * 7, "ab", "ac", "")  # a in 0.9 of the images, b and c in 0.1 each
    assert repeats_of(data, Sampling()) is None
    root = math.sqrt(0.4 / 0.1)
    by_root = repeats_of(data, Sampling(kind="repeat_factor", threshold=0.4))
    assert by_root == pytest.approx([1.0] * 7 + [root, root, 1.0])
    balanced = repeats_of(data, Sampling(kind="class_balanced"))
    assert balanced == pytest.approx([1.0] * 7 + [9.0, 9.0, 1.0])
    rare = repeats_of(dataset(*["a"] * 99, "b"), Sampling(kind="class_balanced"))
    assert rare is not None and rare[-1] == MOST_REPEATS
    assert repeats_of(dataset("", ""), Sampling(kind="class_balanced")) is None


def test_each_image_is_drawn_as_often_as_its_share_says() -> None:
    repeats = [1.0, 2.5, 1.0, 1.25]
    counts: Counter[int] = Counter()
    for seed in range(400):
        picked = systematic_sample(repeats, np.random.default_rng(seed))
        once = Counter(picked.tolist())
        assert len(picked) == 6 and once[1] in (2, 3) and once[0] in (1, 2) and once[3] in (1, 2)
        counts += once
    shares = [counts[index] / 400 for index in range(4)]
    assert shares == pytest.approx([value * 6 / 5.75 for value in repeats], abs=0.08)


def test_epochs_with_frequencies_have_one_length_and_every_image() -> None:
    repeats = [1.0] * 9 + [3.4, 1.7]
    batches = TrainingBatches(
        [False] * 6 + [True] * 5, batch_size=3, short_side_range_px=(50, 60), seed=4, repeats=repeats
    )
    per_epoch = 5  # 14.1 images in batches of 3
    for epoch in range(20):
        keys = [key for number in range(per_epoch) for key in batches.batch(epoch * per_epoch + number)]
        assert len(keys) == 15 and {key.index for key in keys} == set(range(11))
        assert sum(key.index == 9 for key in keys) >= 3
