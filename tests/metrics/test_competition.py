from __future__ import annotations

import itertools
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2tune.annotations.formats.from_masks import dataset_of_masks
from d2tune.annotations.model.dataset import Dataset, Image
from d2tune.errors import DataError
from d2tune.inference.writers.submission import dataset_of_maps
from d2tune.metrics.competitions import competition_score

HEIGHT, WIDTH = 6, 10
Masks = list[tuple[int, np.ndarray]]


def box(left: int, top: int, width: int, height: int, place: int = 0) -> tuple[int, np.ndarray]:
    mask = np.zeros((HEIGHT, WIDTH), bool)
    mask[top : top + height, left : left + width] = True
    return place, mask


def dataset(photos: dict[str, Masks], classes: tuple[str, ...] = ("ship",)) -> Dataset:
    images = [Image(number, name, WIDTH, HEIGHT) for number, name in enumerate(photos, start=1)]
    return dataset_of_masks(images, list(photos.values()), classes)


def test_carvana_is_the_mean_dice_of_the_images() -> None:
    truth = dataset({"a.jpg": [box(0, 0, 4, 2)], "b.jpg": [box(0, 0, 2, 2)], "c.jpg": [], "d.jpg": []}, ("car",))
    # a: 4 of 8 and 8 pixels shared; b: nothing found; c: rightly nothing; d: something where there is nothing
    predicted = dataset({"a.jpg": [box(2, 0, 4, 2)], "b.jpg": [], "c.jpg": [], "d.jpg": [box(0, 0, 1, 1)]}, ("car",))
    result = competition_score("carvana", truth, predicted)
    assert result.per_image == {"a.jpg": 0.5, "b.jpg": 0.0, "c.jpg": 1.0, "d.jpg": 0.0}
    assert (result.name, result.metric, result.value) == ("carvana", "mean Dice", 0.375)


def test_severstal_counts_every_class_of_every_image() -> None:
    classes = ("background", "1", "2", "3", "4")
    truth = dataset({"a.jpg": [box(0, 0, 4, 2, 1), box(0, 4, 4, 1, 3)], "b.jpg": []}, classes)
    # a: class 1 half right, class 2 wrongly found, class 3 wholly right, class 4 rightly absent; b: all absent
    predicted = dataset({"a.jpg": [box(2, 0, 4, 2, 1), box(8, 0, 1, 1, 2), box(0, 4, 4, 1, 3)], "b.jpg": []}, classes)
    result = competition_score("severstal", truth, predicted, background="background")
    assert result.per_image == {"a.jpg": (0.5 + 0 + 1 + 1) / 4, "b.jpg": 1.0}
    assert result.value == 0.8125


def test_a_background_that_is_drawn_counts_nowhere() -> None:
    classes = ("background", "car")
    truth = dataset({"a.jpg": [box(0, 0, 10, 6, 0), box(0, 0, 4, 2, 1)]}, classes)
    predicted = dataset({"a.jpg": [box(2, 0, 4, 2, 1)]}, classes)
    for name in ("carvana", "severstal"):
        assert competition_score(name, truth, predicted, background="background").value == 0.5


def test_airbus_averages_f2_over_the_thresholds() -> None:
    # the first ship is found with IoU 8/12 = 0.667: a hit at 0.50, 0.55, 0.60 and 0.65; the second is missed, and one
    # ship is found that is none
    truth = dataset({"a.jpg": [box(0, 0, 5, 2), box(0, 4, 3, 1)]})
    predicted = dataset({"a.jpg": [box(1, 0, 5, 2), box(8, 4, 2, 1)]})
    hit = 5 * 1 / (5 * 1 + 4 * 1 + 1)
    assert competition_score("airbus", truth, predicted).value == pytest.approx(4 * hit / 10, abs=1e-15)


def test_airbus_wants_more_than_the_threshold() -> None:
    # IoU 4/8 is no hit at 0.50; 3/5 is none at 0.60, however the thresholds are rounded
    half = competition_score("airbus", dataset({"a.jpg": [box(0, 0, 8, 1)]}), dataset({"a.jpg": [box(0, 0, 4, 1)]}))
    assert half.value == 0
    most = competition_score("airbus", dataset({"a.jpg": [box(0, 0, 5, 1)]}), dataset({"a.jpg": [box(0, 0, 3, 1)]}))
    assert most.value == pytest.approx(0.2, abs=1e-15)


@pytest.mark.parametrize(
    ("there", "predicted", "score"),
    [([], [], 1.0), ([], [box(0, 0, 2, 2)], 0.0), ([box(0, 0, 2, 2)], [], 0.0), ([box(0, 0, 2, 2)],) * 2 + (1.0,)],
)
def test_airbus_on_images_with_nothing_in_them(there: Masks, predicted: Masks, score: float) -> None:
    assert competition_score("airbus", dataset({"a.jpg": there}), dataset({"a.jpg": predicted})).value == score


def test_each_ship_is_hit_once_and_by_one_prediction() -> None:
    once, twice = dataset({"a.jpg": [box(0, 0, 4, 2)]}), dataset({"a.jpg": [box(0, 0, 4, 2), box(0, 0, 4, 2)]})
    assert competition_score("airbus", twice, once).value == pytest.approx(5 / (5 + 4), abs=1e-15)
    assert competition_score("airbus", once, twice).value == pytest.approx(5 / (5 + 1), abs=1e-15)


def ships_of(labels: np.ndarray) -> list[set[tuple[int, int]]]:
    """Sets of pixels that touch at sides or corners, by walking from neighbor to neighbor."""
    left = {(y, x) for y, x in np.argwhere(labels == 1).tolist()}
    ships = []
    while left:
        ship, edge = set(), {left.pop()}
        while edge:
            ship |= edge
            edge = {one for one in left if any(abs(one[0] - y) < 2 and abs(one[1] - x) < 2 for y, x in edge)}
            left -= edge
        ships.append(ship)
    return ships


def f2_by_loops(truth: np.ndarray, predicted: np.ndarray) -> Fraction:
    """The competition's rule, pair by pair; parts of one map are disjoint, so that a hit above 0.5 is the only one."""
    there, detected = ships_of(truth), ships_of(predicted)
    if not there or not detected:
        return Fraction(int(not there and not detected))
    total = Fraction(0)
    for step in range(10):
        threshold = Fraction(50 + 5 * step, 100)
        hits = sum(
            Fraction(len(one & other), len(one | other)) > threshold
            for one, other in itertools.product(there, detected)
        )
        total += Fraction(5 * hits, 5 * hits + 4 * (len(there) - hits) + len(detected) - hits)
    return total / 10


def dice_by_loops(truth: np.ndarray, predicted: np.ndarray, place: int) -> Fraction:
    shared = size = 0
    for one, other in zip(truth.ravel().tolist(), predicted.ravel().tolist(), strict=True):
        shared += one == place and other == place
        size += (one == place) + (other == place)
    return Fraction(2 * shared, size) if size else Fraction(1)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**32 - 1), st.integers(1, 4))
def test_every_value_is_that_of_plain_loops(seed: int, photos: int) -> None:
    rng = np.random.default_rng(seed)
    images = [Image(number, f"{number}.jpg", WIDTH, HEIGHT) for number in range(photos)]
    for name, classes in {"carvana": 2, "airbus": 2, "severstal": 5}.items():
        blocks = rng.integers(0, classes, (photos, HEIGHT // 2, WIDTH // 2)).astype(np.uint8)
        truth = blocks.repeat(2, axis=1).repeat(2, axis=2)
        truth[rng.random(photos) < 0.3] = 0
        predicted = np.where(rng.random(truth.shape) < 0.15, rng.integers(0, classes, truth.shape), truth)
        names = ["none", *map(str, range(1, classes))]
        sides = [
            dataset_of_maps(images, maps.astype(np.uint8), classes=names, background="none", preset=name)
            for maps in (truth, predicted)
        ]
        if name == "airbus":
            scores = [f2_by_loops(*pair) for pair in zip(truth, predicted, strict=True)]
        else:
            places = range(1, classes)
            scores = [
                sum((dice_by_loops(*pair, place) for place in places), Fraction(0)) / len(places)
                for pair in zip(truth, predicted, strict=True)
            ]
        result = competition_score(name, *sides, background="none")
        assert result.value == pytest.approx(float(sum(scores, Fraction(0)) / photos), abs=1e-12)
        assert list(result.per_image.values()) == pytest.approx([float(score) for score in scores], abs=1e-12)


def test_images_are_paired_by_base_name() -> None:
    truth = dataset({"train/a.jpg": [box(0, 0, 4, 2)], "train/b.jpg": []})
    predicted = dataset({"b.jpg": [], "a.jpg": [box(0, 0, 4, 2)]})
    assert competition_score("airbus", truth, predicted).per_image == {"a.jpg": 1.0, "b.jpg": 1.0}


def test_what_cannot_be_compared_is_named() -> None:
    truth = dataset({"a.jpg": [], "b.jpg": []})
    with pytest.raises(DataError, match=r"found 'airbuss'.*Did you mean 'airbus'"):
        competition_score("airbuss", truth, truth)
    with pytest.raises(DataError, match=r"b\.jpg: the image is only in the ground truth"):
        competition_score("airbus", truth, dataset({"a.jpg": []}))
    with pytest.raises(DataError, match=r"c\.jpg: the image is only in the predictions"):
        competition_score("airbus", truth, dataset({"a.jpg": [], "b.jpg": [], "c.jpg": []}))
    with pytest.raises(DataError, match=r"x/a\.jpg: two images have the same base name.*found also a\.jpg"):
        competition_score("airbus", truth, dataset({"a.jpg": [], "x/a.jpg": []}))
    with pytest.raises(DataError, match=r"found 'boat'; expected ship"):
        competition_score("airbus", truth, dataset({"a.jpg": [box(0, 0, 1, 1)], "b.jpg": []}, ("boat",)))
    small = dataset_of_masks([Image(1, "a.jpg", 5, 5), Image(2, "b.jpg", WIDTH, HEIGHT)], [[], []], ("ship",))
    with pytest.raises(DataError, match=r"a\.jpg: .*found 5 x 5 px; expected 10 x 6 px"):
        competition_score("airbus", truth, small)
