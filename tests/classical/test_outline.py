"""Outlines of drawn and of real objects from scribbles and boxes."""

from __future__ import annotations

import sys

import cv2
import numpy as np
import pytest
from skimage.segmentation import random_walker

from d2tune.classical.outline import METHODS, Method, outline_box, outline_scribbles
from d2tune.errors import DataError
from tests.docs.blocks import ROOT
from tests.shared_files import SHARED

sys.path.insert(0, str(ROOT / "benchmarks"))
from classical import balloons, box_of, scribbles  # type: ignore[import-not-found]


def disk(radius_px: int = 40) -> tuple[np.ndarray, np.ndarray]:
    """A red disk on green, both with noise, and its mask."""
    rows, columns = np.mgrid[:200, :260]
    mask = (rows - 90) ** 2 + (columns - 120) ** 2 <= radius_px**2
    rgb = np.where(mask[..., None], (190, 60, 50), (70, 150, 80))
    noise = np.random.default_rng(0).normal(0, 12, rgb.shape)
    return np.clip(rgb + noise, 0, 255).astype(np.uint8), mask


def line(*points: tuple[int, int]) -> np.ndarray:
    canvas = np.zeros((200, 260), np.uint8)
    cv2.polylines(canvas, [np.array(points, np.int32).reshape(-1, 1, 2)], False, 1, 1)
    return canvas.astype(bool)


def iou(a: np.ndarray, b: np.ndarray) -> float:
    return float((a & b).sum() / (a | b).sum())


@pytest.mark.parametrize("method", METHODS)
def test_a_disk(method: Method) -> None:
    rgb, mask = disk()
    inside = line((100, 90), (140, 90))
    ring = line((60, 30), (180, 30), (180, 150), (60, 150), (60, 30))
    assert iou(outline_scribbles(rgb, inside, ring, method=method), mask) > 0.95
    assert iou(outline_box(rgb, (80, 50, 161, 131), method=method), mask) > 0.95


@pytest.mark.parametrize("method", METHODS)
def test_scribbles_that_do_not_enclose_the_object(method: Method) -> None:
    rgb, mask = disk()
    predicted = outline_scribbles(rgb, line((110, 90), (130, 90)), line((40, 20), (40, 160)), method=method)
    assert iou(predicted, mask) > 0.9


def test_the_same_twice() -> None:
    rgb, _ = disk()
    first = outline_box(rgb, (80, 50, 161, 131))
    cv2.setRNGSeed(99)
    assert (outline_box(rgb, (80, 50, 161, 131)) == first).all()


def test_a_scribble_beside_the_object_takes_pixels_out_of_a_box() -> None:
    rgb, mask = disk()
    cut = line((80, 60), (160, 60))
    predicted = outline_box(rgb, (80, 50, 161, 131), outside=cut)
    assert not (predicted & cut).sum() > 0.3 * (mask & cut).sum()


@pytest.mark.parametrize("method", METHODS)
def test_a_scribble_in_a_box_replaces_its_middle(method: Method) -> None:
    rgb, mask = disk()
    rgb[:, 190:] = (70, 150, 80)
    box = (80, 50, 250, 131)  # its middle is beside the disk
    predicted = outline_box(
        rgb, box, inside=line((100, 90), (140, 90)), outside=line((180, 60), (180, 120)), method=method
    )
    assert iou(predicted, mask) > 0.95


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("size_hw", [(60, 90), (222, 15), pytest.param((3, 2), marks=pytest.mark.extended)])
def test_a_box_and_scribbles_that_leave_no_other_side(method: Method, size_hw: tuple[int, int]) -> None:
    rgb = np.full((*size_hw, 3), 90, np.uint8)
    whole, none = np.ones(size_hw, bool), np.zeros(size_hw, bool)
    corner = none.copy()
    corner[0, 0] = True
    box = (0, 0, size_hw[1], size_hw[0])
    assert outline_box(rgb, box, method=method).any()
    assert outline_box(rgb, box, inside=whole, method=method).all()
    assert not outline_box(rgb, box, outside=whole, method=method).any()
    assert outline_scribbles(rgb, whole, corner, method=method).all()
    single = outline_scribbles(rgb, corner, whole, method=method)
    assert single[0, 0] and single.sum() <= 9, "a pixel of the crop is up to 3 px of the image"


@pytest.mark.parametrize("is_inside", [True, False])
def test_scribbles_of_one_class_alone(is_inside: bool) -> None:
    rgb, _ = disk()
    some, none = line((100, 90), (140, 90)), np.zeros((200, 260), bool)
    pair = (some, none) if is_inside else (none, some)
    words = "of the background" if is_inside else "on the object"
    with pytest.raises(DataError, match=f"there is no scribble {words}"):
        outline_scribbles(rgb, *pair)


def test_a_box_beside_the_image() -> None:
    with pytest.raises(DataError, match="too small"):
        outline_box(disk()[0], (300, 10, 400, 50))


@pytest.mark.extended
def test_real_balloons() -> None:
    scores: dict[str, list[float]] = {"scribbles": [], "box": []}
    for number, (rgb, mask) in enumerate(balloons(SHARED / "data" / "balloon" / "val")):
        if number % 3 == 0:
            scores["scribbles"].append(iou(outline_scribbles(rgb, *scribbles(mask)), mask))
            scores["box"].append(iou(outline_box(rgb, box_of(mask)), mask))
    assert np.mean(scores["scribbles"]) >= 0.88
    assert np.mean(scores["box"]) >= 0.86


def test_the_walker_of_the_library_on_its_own_example() -> None:
    """The library's own test, so that a release that changes the walker is noticed."""
    random = np.random.RandomState(1234)
    image = np.zeros((70, 100))
    image[25:-25, 40:60] = 1
    image += 0.1 * random.randn(70, 100)
    seeds = np.zeros(image.shape, np.uint8)
    seeds[10, 10], seeds[35, 50] = 1, 2
    labels = random_walker(image, seeds, beta=90, mode="bf")
    assert (labels[25:45, 40:60] == 2).all()
