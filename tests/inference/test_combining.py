"""Segments of instances and classes of pixels: those of Detectron2's rule, which works on bitmaps of the image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from detectron2.modeling.meta_arch.panoptic_fpn import combine_semantic_and_instance_outputs
from detectron2.structures import Instances
from numpy.typing import NDArray

from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.inference.combining import Thresholds, combine, without_hidden
from d2tune.inference.results import Detections, PanopticMap, Segment
from d2tune.modeling.panoptic import segments

NAMES = ("bus", "car", "road", "sky", "water")
THINGS = 2
USUAL = Thresholds(overlap=0.5, stuff_area_px2=1, min_score=0.0)


def detections_of(masks: NDArray[np.bool_], scores: list[float], class_ids: list[int]) -> Detections:
    """Instances with these masks ``(N, H, W)``; their boxes are not used."""
    return Detections(
        *masks.shape[1:],
        boxes_xyxy=np.zeros((len(masks), 4), np.float32),
        scores=np.array(scores, np.float32),
        class_ids=np.array(class_ids, np.int64),
        rles=tuple(to_rle(encode_mask(mask)) for mask in masks),
        class_names=NAMES,
    )


def of_detectron2(labels: NDArray[np.uint8], given: Detections, thresholds: Thresholds) -> PanopticMap:
    """The segments of Detectron2's function."""
    instances = Instances(labels.shape)
    instances.scores = torch.from_numpy(given.scores)
    instances.pred_classes = torch.from_numpy(given.class_ids)
    instances.pred_masks = torch.from_numpy(given.masks)
    limits = thresholds.overlap, thresholds.stuff_area_px2, thresholds.min_score
    combined = combine_semantic_and_instance_outputs(instances, torch.from_numpy(labels), *limits)
    ids, infos = segments({"panoptic_seg": combined}, things=THINGS, stuff=len(NAMES) - THINGS)
    listed = tuple(
        Segment(info["id"], info["category_id"], info["category_id"] < THINGS, int((ids == info["id"]).sum()), score)
        for info in infos
        for score in [info.get("score")]
    )
    return PanopticMap(ids, listed, NAMES)


def random_image(seed: int) -> tuple[NDArray[np.uint8], Detections]:
    """Blocks of classes, and overlapping rectangles with holes, one of them empty and one full."""
    draw = np.random.default_rng(seed)
    height, width = 40 + seed, 61
    labels = np.kron(draw.integers(0, 4, (9, 9)), np.ones((7, 9), int))[:height, :width].astype(np.uint8)
    masks = np.zeros((12, height, width), bool)
    for mask in masks[:-1]:
        y, x = draw.integers(0, height - 4), draw.integers(0, width - 4)
        mask[y : y + draw.integers(1, 30), x : x + draw.integers(1, 30)] = True
        mask &= draw.random(mask.shape) < 0.9
    masks[-2] = True
    scores = draw.permutation(np.linspace(0.05, 0.95, len(masks))).tolist()
    return labels, detections_of(masks, scores, draw.integers(0, THINGS, len(masks)).tolist())


@pytest.mark.parametrize("thresholds", [USUAL, Thresholds(0.2, 150, 0.4), Thresholds(0.9, 10_000, 0.99)])
def test_the_segments_are_those_of_detectron2(thresholds: Thresholds, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("d2tune.inference.combining._BLOCK_PX", 500)
    for seed in range(8):
        labels, given = random_image(seed)
        ours = combine(labels, given, thresholds, things=THINGS)
        theirs = of_detectron2(labels, given, thresholds)
        assert ours.segment_ids.dtype == np.int32 and np.array_equal(ours.segment_ids, theirs.segment_ids)
        assert ours.segments == theirs.segments and ours.class_names == NAMES


def test_an_instance_under_another_gets_the_rest_or_nothing() -> None:
    """The second one has 40 % of its pixels under the first, the third 60 %."""
    masks = np.zeros((3, 20, 40), bool)
    masks[0, :10, 10:20] = masks[1, :10, 16:26] = masks[2, :10, 4:14] = True
    masks[2, :10, 12:16] = True
    labels = np.full((20, 40), 2, np.uint8)
    labels[:, 30:] = 0
    result = combine(labels, detections_of(masks, [0.9, 0.8, 0.7], [0, 1, 0]), USUAL, things=THINGS)
    assert [(one.class_id, one.area_px2) for one in result.segments] == [(0, 100), (1, 60), (0, 60), (3, 20 * 30 - 220)]
    strict = Thresholds(overlap=0.45, stuff_area_px2=600 - 160 + 1, min_score=0.0)
    result = combine(labels, detections_of(masks, [0.9, 0.8, 0.7], [0, 1, 0]), strict, things=THINGS)
    # nothing is left of the sky, of which 440 pixels are too few, and of the third one
    assert [(one.class_id, one.area_px2) for one in result.segments] == [(0, 100), (1, 60)]
    assert (result.segment_ids == 0).sum() == 20 * 40 - 160


def test_pixels_without_data_and_things_without_an_instance_have_no_segment() -> None:
    labels = np.array([[0, 0, 1], [255, 3, 3]], np.uint8)
    result = combine(labels, detections_of(np.zeros((0, 2, 3), bool), [], []), USUAL, things=THINGS)
    assert result.segment_ids.tolist() == [[0, 0, 1], [0, 2, 2]]
    assert result.segments == (Segment(1, 2, False, 1), Segment(2, 4, False, 2))


def test_hidden_instances_of_a_window_are_dropped_and_the_others_keep_their_masks_and_order() -> None:
    """The second one lies under the first, the third lies half under it, the last one has too low a score."""
    masks = np.zeros((4, 20, 40), bool)
    masks[0, :10, 10:30] = masks[1, 2:8, 12:34] = masks[2, :10, 20:40] = masks[3, 15:, :5] = True
    given = detections_of(masks, [0.8, 0.7, 0.6, 0.4], [0, 0, 1, 0])
    kept = without_hidden(given, Thresholds(overlap=0.5, stuff_area_px2=1, min_score=0.5))
    assert np.array_equal(kept.masks, masks[[0, 2]]) and kept.class_ids.tolist() == [0, 1]
    assert kept.scores.tolist() == given.scores[[0, 2]].tolist() and kept.boxes_xyxy.shape == (2, 4)
