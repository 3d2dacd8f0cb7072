"""The numbers in the drawings are those that d2tune's metrics give for what is drawn."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree

import numpy as np
import pytest

from d2tune.annotations.model.dataset import Category
from d2tune.metrics.coco.scorer import Detections, GroundTruth, InstanceScorer
from d2tune.metrics.coco.summary import WANTED_PRECISION, metrics_of
from tools.docs_site import drawings


@pytest.mark.parametrize("name", drawings.DRAWINGS)
def test_a_drawing_is_valid_small_and_has_a_title(name: str) -> None:
    text = drawings.DRAWINGS[name]()
    root = ElementTree.fromstring(text)
    title = root.find("{http://www.w3.org/2000/svg}title")
    assert title is not None and title.text and len(title.text) > 30
    assert len(text) < 40_000
    assert drawings.DRAWINGS[name]() == text


def test_the_iou_of_discs_is_that_of_their_pixels() -> None:
    y, x = np.mgrid[-800:800, -800:800] + 0.5
    for distance in (62.0, 5.5):
        left = (x + 5 * distance) ** 2 + y**2 < 450**2
        right = (x - 5 * distance) ** 2 + y**2 < 450**2
        pixels = np.count_nonzero(left & right) / np.count_nonzero(left | right)
        assert drawings.iou_of_discs(45, distance) == pytest.approx(pixels, abs=2e-3)


def test_the_iou_of_the_boundaries_is_that_of_their_pixels() -> None:
    y, x = np.mgrid[-1500:1500, -1500:1500] + 0.5
    radius = np.hypot(x, y) / 10
    discs = [radius < one for one in drawings.RADII_PX]
    bands = [(radius < one) & (radius >= one - drawings.BAND_PX) for one in drawings.RADII_PX]
    for pair, value in zip((discs, bands), drawings.disc_and_boundary_iou(), strict=True):
        pixels = np.count_nonzero(pair[0] & pair[1]) / np.count_nonzero(pair[0] | pair[1])
        assert value == pytest.approx(pixels, abs=2e-3)


def test_the_area_under_the_curve_is_the_ap_of_the_scorer() -> None:
    """Objects are boxes of 10 x 10 px side by side; right detections lie on them, wrong ones elsewhere."""
    truth = np.array([[20.0 * index, 0, 10, 10] for index in range(drawings.OBJECTS)])
    right = iter(truth)
    boxes = [next(right) if hit else [20.0 * index, 50, 10, 10] for index, hit in enumerate(drawings.RANKED)]
    scores = np.linspace(0.98, 0.35, len(boxes))
    scorer = InstanceScorer([Category(1, "a")], kinds=("bbox",))
    classes = np.ones(len(boxes), dtype=np.int64)
    objects = GroundTruth(classes[: len(truth)], np.full(len(truth), 100.0), np.zeros(len(truth), bool), truth)
    scorer.add(1, objects, Detections(classes, scores, np.array(boxes)))
    ap = metrics_of(scorer.result()).bbox["AP50"].value
    assert ap == pytest.approx(100 * drawings.average_precision(drawings.ranked_curve()))


def test_the_thresholds_are_those_that_an_evaluation_gives() -> None:
    assert 100 * drawings.PRECISION_WANTED == WANTED_PRECISION


def test_the_iou_of_the_small_label_maps() -> None:
    # counted by hand: 14 pixels of sky in the ground truth and 18 in the prediction, all 14 of them shared
    assert drawings.iou_of_maps("s") == pytest.approx(14 / 18)
    assert drawings.iou_of_maps("r") == pytest.approx(14 / 18)


def test_four_times_as_many_images_halve_the_interval() -> None:
    values = drawings.simulated_images()
    widths = [np.diff(drawings.interval_of(values[:count]))[0] for count in (200, 800)]
    assert widths[0] / widths[1] == pytest.approx(2, abs=0.3)
