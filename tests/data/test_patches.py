from __future__ import annotations

import tracemalloc
from collections import Counter
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from d2tune.data.patches import PatchSampler, flip_left_right, overhead


def sampler(*maps: Any, patch_px: int = 4, balance: float = 1.0, classes: int = 3) -> PatchSampler:
    return PatchSampler(
        [np.asarray(labels, np.uint8) for labels in maps], patch_px=patch_px, balance=balance, classes=classes
    )


def rare_map(height: int = 40, width: int = 50) -> Any:
    """Class 0 everywhere, one pixel of class 1, three of class 2."""
    labels = np.zeros((height, width), np.uint8)
    labels[31, 7] = 1
    labels[5, 20:23] = 2
    return labels


def test_every_class_of_the_image_is_drawn_as_often() -> None:
    labels = rare_map()
    draw = np.random.default_rng(0)
    patch_sampler = sampler(labels, patch_px=4)
    seen: Counter[int] = Counter()
    for _ in range(6000):
        top, left = patch_sampler.draw(0, draw)
        seen.update(np.unique(labels[top : top + 4, left : left + 4]).tolist())
    # a patch drawn for class 0 rarely holds the others: 16 and 24 places of 37 * 47
    for rare in (1, 2):
        assert seen[rare] / 6000 == pytest.approx(1 / 3, abs=0.03)


def test_every_pixel_of_a_class_is_drawn_as_often_and_every_place_around_it() -> None:
    labels = np.full((20, 20), 255, np.uint8)
    pixels = [(2, 3), (2, 9), (17, 10)]
    for row, column in pixels:
        labels[row, column] = 1
    patch_sampler = sampler(labels, patch_px=3)
    draw = np.random.default_rng(1)
    places = Counter(patch_sampler.draw(0, draw) for _ in range(27000))
    wanted = {(row - up, column - back) for row, column in pixels for up in range(3) for back in range(3)}
    wanted = {(top, left) for top, left in wanted if 0 <= top <= 17 and 0 <= left <= 17}
    assert set(places) == wanted and len(places) == 27
    assert min(places.values()) > 850 and max(places.values()) < 1150


def test_uniform_places() -> None:
    patch_sampler = sampler(np.zeros((6, 7), np.uint8), patch_px=4, balance=0)
    draw = np.random.default_rng(2)
    places = Counter(patch_sampler.draw(0, draw) for _ in range(12000))
    assert set(places) == {(top, left) for top in range(3) for left in range(4)}
    assert min(places.values()) > 850 and max(places.values()) < 1150


def test_the_share_that_is_balanced() -> None:
    labels = rare_map(200, 200)
    draw = np.random.default_rng(3)
    patch_sampler = sampler(labels, patch_px=8, balance=0.6)
    hits = sum(
        (labels[top : top + 8, left : left + 8] == 1).any()
        for top, left in (patch_sampler.draw(0, draw) for _ in range(5000))
    )
    assert hits / 5000 == pytest.approx(0.6 / 3, abs=0.02)


@settings(max_examples=80, deadline=None)
@given(data=st.data())
def test_patches_stay_inside_and_hold_labels(data: st.DataObject) -> None:
    height, width = data.draw(st.integers(1, 30)), data.draw(st.integers(1, 30))
    draw = np.random.default_rng(data.draw(st.integers(0, 2**32)))
    labels = np.full((height, width), 255, np.uint8)
    for _ in range(data.draw(st.integers(0, 3))):
        labels[draw.integers(height), draw.integers(width)] = draw.integers(3)
    side, own_side = data.draw(st.integers(1, 40)), data.draw(st.sampled_from([None, 5]))
    patch_sampler = sampler(labels, patch_px=side, balance=data.draw(st.sampled_from([0.0, 0.5, 1.0])))
    side = own_side or side
    for _ in range(10):
        top, left = patch_sampler.draw(0, draw, patch_px=own_side)
        assert 0 <= top <= max(0, height - side) and 0 <= left <= max(0, width - side)
        assert (labels != 255).any() == (labels[top : top + side, left : left + side] != 255).any()


def test_the_same_seed_draws_the_same_places() -> None:
    patch_sampler = sampler(rare_map(), balance=0.5)
    first, second = (np.random.default_rng(7) for _ in range(2))
    assert [patch_sampler.draw(0, first) for _ in range(50)] == [patch_sampler.draw(0, second) for _ in range(50)]


def test_each_image_has_its_own_classes() -> None:
    left, right = np.full((10, 10), 255), np.full((10, 10), 255)
    left[0, 0], right[9, 9] = 0, 2
    patch_sampler = sampler(left, right, patch_px=2)
    draw = np.random.default_rng(0)
    assert {patch_sampler.draw(0, draw) for _ in range(20)} == {(0, 0)}
    assert {patch_sampler.draw(1, draw) for _ in range(20)} == {(8, 8)}


def test_values_that_are_not_class_indices() -> None:
    with pytest.raises(ValueError, match="the value 3; class indices are 0 to 2"):
        sampler(np.full((4, 4), 3))


@pytest.mark.slow
def test_a_large_map_costs_little() -> None:
    labels = np.zeros((20000, 20000), np.uint8)
    labels[:, 10000:] = 1
    labels[12345, 6789] = 2
    tracemalloc.start()
    patch_sampler = sampler(labels, patch_px=512)
    draw = np.random.default_rng(0)
    places = [patch_sampler.draw(0, draw) for _ in range(300)]
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 200 << 20
    rare = sum(top <= 12345 < top + 512 and left <= 6789 < left + 512 for top, left in places)
    assert 60 < rare < 140


@pytest.mark.parametrize("channels", [1, 3, 4, 60])
def test_the_eight_symmetries(channels: int) -> None:
    image = np.arange(4 * 6 * channels, dtype=np.float32).reshape(4, 6, channels)
    labels = np.arange(24, dtype=np.uint8).reshape(4, 6)
    # by the points of the square: each symmetry takes (row, column) to +-(row, column) or +-(column, row)
    wanted = {
        tuple(np.asarray(turned).reshape(-1).tolist())
        for plain in (labels, labels.T)
        for turned in (plain, plain[::-1], plain[:, ::-1], plain[::-1, ::-1])
    }
    draw = np.random.default_rng(0)
    seen: Counter[tuple[int, ...]] = Counter()
    for _ in range(4000):
        turned, moved = overhead(image, labels, draw)
        seen[tuple(moved.reshape(-1).tolist())] += 1
        assert turned.shape == (*moved.shape, channels) and turned.flags.c_contiguous and moved.flags.c_contiguous
        np.testing.assert_array_equal(turned[..., 0], moved.astype(np.float32) * channels)
        np.testing.assert_array_equal(turned[..., -1], moved.astype(np.float32) * channels + channels - 1)
    assert set(seen) == wanted and min(seen.values()) > 420


@pytest.mark.parametrize("channels", [1, 5, 60])
def test_left_and_right(channels: int) -> None:
    image = np.arange(3 * 4 * channels, dtype=np.uint8).reshape(3, 4, channels)
    labels = np.arange(12, dtype=np.uint8).reshape(3, 4)
    turned, moved = flip_left_right(image, labels)
    assert moved.tolist() == [[3, 2, 1, 0], [7, 6, 5, 4], [11, 10, 9, 8]]
    for column in range(4):
        np.testing.assert_array_equal(turned[:, column], image[:, 3 - column])
    assert turned.dtype == np.uint8 and turned.flags.c_contiguous


@pytest.mark.parametrize("size", [(1, 1), (1, 7), (7, 1)])
def test_images_of_one_row_or_column_become_tensors(size: tuple[int, int]) -> None:
    image, labels = np.zeros((*size, 3), np.uint8), np.zeros(size, np.uint8)
    turned = [flip_left_right(image, labels), *(overhead(image, labels, np.random.default_rng(n)) for n in range(16))]
    for moved, its_labels in turned:
        assert torch.from_numpy(moved.transpose(2, 0, 1)).shape[1:] == torch.from_numpy(its_labels).shape
