"""Agreement of hand-made maps; every number is counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.inference.results import Detections, LabelMap, PanopticMap, Segment
from d2tune.model_comparison.agreement import agreement, named_map


def label_map(rows: list[list[int]], *names: str) -> LabelMap:
    return LabelMap(np.array(rows, np.uint8), names)


def square(top: int, left: int, side: int) -> np.ndarray:
    mask = np.zeros((4, 6), bool)
    mask[top : top + side, left : left + side] = True
    return mask


def detections(*objects: tuple[np.ndarray, int, float], names: tuple[str, ...]) -> Detections:
    return Detections(
        4,
        6,
        np.zeros((len(objects), 4), np.float32),
        np.array([score for _, _, score in objects], np.float32),
        np.array([class_id for _, class_id, _ in objects], np.int64),
        tuple(to_rle(encode_mask(mask)) for mask, _, _ in objects),
        names,
    )


def test_counts_by_hand() -> None:
    a = named_map(label_map([[0, 0, 1], [0, 2, 1]], "__background__", "cat", "dog"))
    b = named_map(label_map([[0, 1, 1], [0, 2, 2]], "__background__", "cat", "dog"))
    result = agreement(a, b)
    assert result.names == ("background", "cat", "dog")
    assert (result.pixels, result.same_px, result.share) == (6, 4, pytest.approx(4 / 6))
    assert [(row.name, row.a_px, row.b_px, row.both_px) for row in result.classes] == [
        ("background", 3, 2, 2),
        ("cat", 2, 2, 1),
        ("dog", 1, 2, 1),
    ]
    assert [row.iou for row in result.classes] == pytest.approx([2 / 3, 1 / 3, 1 / 2])
    assert result.mean_iou == pytest.approx(0.5)


def test_the_order_of_the_models_does_not_matter() -> None:
    rng = np.random.default_rng(1)
    a = named_map(LabelMap(rng.integers(0, 4, (9, 7)).astype(np.uint8), ("background", "cat", "sofa", "own_thing")))
    b = named_map(LabelMap(rng.integers(0, 3, (9, 7)).astype(np.uint8), ("couch", "Cat", "tree")))
    there, back = agreement(a, b), agreement(b, a).mirrored()
    assert there.names == back.names == ("background", "Cat", "couch", "own_thing", "tree")
    assert np.array_equal(there.a, back.a) and np.array_equal(there.b, back.b)
    assert there.classes == back.classes and there.same_px == back.same_px
    assert {row.name: row.known_by for row in there.classes} == {
        **{"background": "a", "own_thing": "a", "tree": "b"},
        **{"Cat": "both", "couch": "both"},
    }
    assert there.mean_iou == np.mean([row.iou for row in there.classes if row.known_by == "both"])


def test_pixels_without_data_do_not_count() -> None:
    a = named_map(label_map([[0, 255, 1, 1]], "x", "y"))
    b = named_map(label_map([[0, 0, 255, 1]], "x", "y"))
    result = agreement(a, b)
    assert (result.pixels, result.same_px) == (2, 2) and result.share == 1
    assert result.a.tolist() == [[0, -1, 1, 1]]
    nothing = named_map(label_map([[255, 255, 255, 255]], "x", "y"))
    assert agreement(a, nothing).share is None and agreement(a, nothing).mean_iou is None


def test_instances_and_segments_are_painted() -> None:
    low, high = (square(0, 0, 3), 0, 0.6), (square(1, 1, 3), 1, 0.9)
    painted = named_map(detections(high, low, names=("cat", "dog")))
    assert painted.names == ("cat", "dog", "background")
    assert painted.ids.tolist() == [
        [0, 0, 0, 2, 2, 2],
        [0, 1, 1, 1, 2, 2],
        [0, 1, 1, 1, 2, 2],
        [2, 1, 1, 1, 2, 2],
    ]
    ids = np.zeros((4, 6), np.int32)
    ids[:2], ids[2, 0] = 1, 2
    segments = (Segment(1, 1, False, 12), Segment(2, 0, True, 1, 0.8))
    panoptic = named_map(PanopticMap(ids, segments, ("cat", "road")))
    assert panoptic.names == ("cat", "road", "background")
    assert panoptic.ids.tolist() == [[1] * 6, [1] * 6, [0] + [2] * 5, [2] * 6]
    nothing = named_map(detections(names=("cat",)))
    assert (nothing.ids == 1).all()


def test_the_background_of_a_project() -> None:
    road = label_map([[0, 1]], "road", "car")
    assert named_map(road).names == ("road", "car")
    assert named_map(road, background="road").names == ("background", "car")


def test_maps_of_different_sizes() -> None:
    with pytest.raises(ValueError, match="different sizes"):
        agreement(named_map(label_map([[0]], "x")), named_map(label_map([[0, 0]], "x")))
