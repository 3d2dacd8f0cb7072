"""The tracker on small scenes whose right ids are known, its motion, and the masks that it compares."""

from __future__ import annotations

import math

import numpy as np
import pytest

from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.errors import ProjectError
from d2tune.inference.results import Detections
from d2tune.video import Tracker
from d2tune.video.masks import crops_of, shared_px2
from d2tune.video.motion import Motion
from tests.video.scenes import Box, detections

SIZE = (200, 300)


def box(x: float, y: float, side: int = 20) -> Box:
    return round(x), round(y), round(x) + side, round(y) + side


def test_ids_are_those_of_the_objects_whatever_the_order_of_detections() -> None:
    tracker = Tracker()
    assert tracker.update(detections(SIZE, box(10, 10), box(100, 100))) == (1, 2)
    assert tracker.update(detections(SIZE, box(104, 100), box(13, 10))) == (2, 1)
    assert tracker.update(detections(SIZE, box(16, 10), box(108, 100))) == (1, 2)


def test_a_new_object_gets_its_id_with_the_second_detection() -> None:
    tracker = Tracker()
    assert tracker.update(detections(SIZE, box(10, 10))) == (1,)
    assert tracker.update(detections(SIZE, box(10, 10), box(100, 100))) == (1, None)
    assert tracker.update(detections(SIZE, box(10, 10), box(100, 100))) == (1, 2)


def test_false_alarms_of_single_frames_get_no_id() -> None:
    tracker = Tracker()
    tracker.update(detections(SIZE))
    for place in (10, 100, 200):
        assert tracker.update(detections(SIZE, box(place, place // 2))) == (None,)
        assert tracker.update(detections(SIZE)) == ()


def test_objects_that_cross_keep_their_ids() -> None:
    """Two objects meet in the middle: one passes behind the other and is not detected for five frames."""
    tracker = Tracker()
    for step in range(40):
        front, back = box(20 + 6 * step, 100), box(260 - 6 * step, 104)
        if abs(front[0] - back[0]) < 18:
            assert tracker.update(detections(SIZE, front)) == (1,)
        else:
            assert tracker.update(detections(SIZE, front, back)) == (1, 2), step


def test_masks_distinguish_a_box_inside_another() -> None:
    """A frame-shaped object and one inside of it have boxes of the same center, but masks without a common pixel."""
    ring = np.zeros(SIZE, bool)
    ring[50:150, 100:200] = True
    ring[60:140, 110:190] = False
    inner = np.zeros(SIZE, bool)
    inner[65:135, 115:185] = True
    order = [(ring, inner), (inner, ring), (ring, inner)]
    tracker, ids = Tracker(), []
    for masks in order:
        rles = tuple(to_rle(encode_mask(mask)) for mask in masks)
        boxes = np.array([[100, 50, 200, 150] if mask is ring else [115, 65, 185, 135] for mask in masks], np.float32)
        scores = np.array([0.9, 0.8], np.float32)
        ids.append(tracker.update(Detections(*SIZE, boxes, scores, np.zeros(2, np.int64), rles, ("a",))))
    assert ids == [(1, 2), (2, 1), (1, 2)]


def test_low_scores_continue_a_track_and_begin_none() -> None:
    tracker = Tracker(min_score=0.5, low_score=0.1)
    assert tracker.update(detections(SIZE, box(10, 10), box(100, 100), scores=[0.9, 0.3])) == (1, None)
    for _ in range(10):
        assert tracker.update(detections(SIZE, box(10, 10), box(100, 100), scores=[0.2, 0.3])) == (1, None)
    assert tracker.update(detections(SIZE, box(10, 10), scores=[0.09])) == (None,)


def test_low_scores_alone_continue_a_track_for_as_long_as_a_lost_one_waits() -> None:
    tracker = Tracker(lost_s=0.4, frame_rate=10)
    assert tracker.update(detections(SIZE, box(10, 10))) == (1,)
    ids = [tracker.update(detections(SIZE, box(10, 10), scores=[0.3]))[0] for _ in range(6)]
    assert ids == [1, 1, 1, 1, None, None]


def test_each_class_has_its_lowest_score() -> None:
    tracker = Tracker(min_score=[0.8, 0.3])
    scores, classes = [0.7, 0.4], [0, 1]
    assert tracker.update(detections(SIZE, box(10, 10), box(90, 90), scores=scores, classes=classes)) == (None, 1)


@pytest.mark.parametrize(("frames", "expected"), [(9, 1), (12, 2)])
def test_a_lost_object_keeps_its_id_for_a_second(frames: int, expected: int) -> None:
    tracker = Tracker(lost_s=1.0, frame_rate=10)
    tracker.update(detections(SIZE, box(50, 50)))
    for _ in range(frames):
        tracker.update(detections(SIZE))
    tracker.update(detections(SIZE, box(50, 50)))
    assert tracker.update(detections(SIZE, box(50, 50))) == (expected,)


def test_times_of_frames_count_not_their_number() -> None:
    """The same 9 frames without the object, but over 3 seconds."""
    tracker = Tracker(lost_s=1.0)
    tracker.update(detections(SIZE, box(50, 50)), time_s=0.0)
    for step in range(1, 10):
        tracker.update(detections(SIZE), time_s=step / 3)
    tracker.update(detections(SIZE, box(50, 50)), time_s=3.1)
    assert tracker.update(detections(SIZE, box(50, 50)), time_s=3.2) == (2,)


def test_an_object_behind_a_wall_appears_where_it_was_expected() -> None:
    """It passes a wall from x = 100 to 140 at 8 px a frame; what is visible is cut off, with low scores."""
    tracker, seen = Tracker(), []
    for step in range(25):
        left, right = 20 + 8 * step, 50 + 8 * step
        visible = [(left, min(right, 100)), (max(left, 140), right)]
        shown = [(a, b) for a, b in visible if b - a >= 4]
        boxes = [(a, 80, b, 110) for a, b in shown]
        scores = [min(0.95, (b - a) / 30) for a, b in shown]
        seen += [one for one in tracker.update(detections(SIZE, *boxes, scores=scores)) if one is not None]
    assert set(seen) == {1} and len(seen) >= 18


def test_an_object_that_leaves_and_returns_at_once_keeps_its_id() -> None:
    tracker, ids = Tracker(), []
    path = [*range(240, 300, 6), *[None] * 12, *range(290, 230, -6)]
    for x in path:
        shown = [] if x is None else [(x, 80, min(x + 40, 300), 120)]
        ids += [one for one in tracker.update(detections(SIZE, *shown)) if one is not None]
    assert set(ids) == {1} and len(ids) == 20


def test_a_fast_object_is_followed_although_it_overlaps_in_no_two_frames() -> None:
    tracker = Tracker()
    ids = [tracker.update(detections(SIZE, box(10 + 24 * step, 50, side=30)))[0] for step in range(10)]
    assert ids == [1] * 10


def test_an_object_of_two_classes_is_one_object() -> None:
    tracker = Tracker()
    pair = detections(SIZE, box(50, 50, 40), box(51, 50, 40), scores=[0.9, 0.8], classes=[0, 1])
    assert [tracker.update(pair) for _ in range(3)] == [(1, None)] * 3


def test_a_fragment_of_an_object_is_not_an_object_but_one_of_another_class_is() -> None:
    whole, inside = (50, 50, 110, 110), (60, 60, 90, 90)
    tracker = Tracker()
    of_one_class = detections(SIZE, whole, inside, scores=[0.9, 0.8])
    assert [tracker.update(of_one_class) for _ in range(3)] == [(1, None)] * 3
    tracker = Tracker()
    of_two_classes = detections(SIZE, whole, inside, scores=[0.9, 0.8], classes=[0, 1])
    assert [tracker.update(of_two_classes) for _ in range(3)] == [(1, 2)] * 3


def test_a_class_may_change_but_the_own_class_comes_first() -> None:
    tracker = Tracker()
    for _ in range(3):
        assert tracker.update(detections(SIZE, box(50, 50, 40), classes=[0])) == (1,)
    assert tracker.update(detections(SIZE, box(52, 50, 40), classes=[1])) == (1,)
    both = detections(SIZE, box(52, 50, 40), box(55, 53, 40), scores=[0.9, 0.8], classes=[1, 0])
    assert tracker.update(both)[1] == 1


def test_boxes_are_tracked_where_a_model_has_no_masks() -> None:
    tracker = Tracker()
    for step in range(5):
        boxes = np.array([[10 + 3 * step, 10, 40 + 3 * step, 40]], np.float32)
        result = Detections(*SIZE, boxes, np.array([0.9], np.float32), np.zeros(1, np.int64), None, ("a",))
        assert tracker.update(result) == (1,)


def test_an_empty_mask_is_not_an_object() -> None:
    tracker = Tracker()
    assert tracker.update(detections(SIZE, (10, 10, 10, 10), box(50, 50))) == (None, 1)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"min_score": 1.5}, "min_score: must be between 0 and 1; found 1.5"),
        ({"min_score": [0.5, -1.0]}, "min_score: must be between 0 and 1; found -1"),
        ({"low_score": 2.0}, "low_score: must be between 0 and 1; found 2"),
        ({"lost_s": -1.0}, "lost_s: must be 0 or more; found -1"),
        ({"frame_rate": 0.0}, "frame_rate: must be above 0; found 0"),
    ],
)
def test_invalid_numbers_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(ProjectError) as refused:
        Tracker(**options)
    assert str(refused.value) == message


def test_crops_have_the_pixels_areas_and_centers_of_masks() -> None:
    random = np.random.default_rng(5)
    for _ in range(20):
        mask = np.zeros((40, 50), bool)
        top, left = random.integers(0, 30, 2)
        mask[top : top + 10, left : left + 20] = random.random((10, min(20, 50 - left))) < 0.5
        result = detections((40, 50), (0, 0, 1, 1))
        result = Detections(
            40, 50, result.boxes_xyxy, result.scores, result.class_ids, (to_rle(encode_mask(mask)),), ("a",)
        )
        (crop,) = crops_of(result)
        rows, columns = np.nonzero(mask)
        rebuilt = np.zeros_like(mask)
        height, width = crop.pixels.shape
        rebuilt[crop.top : crop.top + height, crop.left : crop.left + width] = crop.pixels
        assert (rebuilt == mask).all() and crop.area_px2 == mask.sum()
        np.testing.assert_allclose(crop.center_px, (columns.mean() + 0.5, rows.mean() + 0.5))


def test_shared_pixels_of_moved_masks_are_those_of_bitmaps() -> None:
    random = np.random.default_rng(6)
    boxes = [tuple(int(v) for v in (a, b, a + c, b + d)) for a, b, c, d in random.integers(1, 30, (6, 4))]
    crops = crops_of(detections((60, 60), *boxes))
    moves = random.integers(-9, 10, (3, 2))
    shared = shared_px2(crops[:3], moves, crops[3:])
    for row, (x, y) in enumerate(moves.tolist()):
        for column in range(3):
            a, b = boxes[row], boxes[3 + column]
            wide = min(a[2] + x, b[2]) - max(a[0] + x, b[0])
            high = min(a[3] + y, b[3]) - max(a[1] + y, b[1])
            assert shared[row, column] == max(0, wide) * max(0, high)


def test_motion_finds_a_constant_velocity_at_uneven_times() -> None:
    motion, now_s = Motion(np.array([10.0, 20.0]), 20.0), 0.0
    for step_s in [0.04, 0.08, 0.04, 0.2, 0.04, 0.04] * 4:
        now_s += step_s
        motion.predict(step_s)
        motion.correct(np.array([10 + 30 * now_s, 20 - 12 * now_s]), 20.0, is_partial=False)
    np.testing.assert_allclose(motion.velocity_px_s, (30, -12), atol=1.0)
    motion.predict(0.5)
    np.testing.assert_allclose(motion.center_px, (10 + 30 * (now_s + 0.5), 20 - 12 * (now_s + 0.5)), atol=1.0)


def test_the_filter_is_that_of_the_equations() -> None:
    """One step of the Kalman filter in one dimension, written out with matrices."""
    size = 20.0
    state, spread = np.array([10.0, 0.0]), np.diag([(0.05 * size) ** 2, (3 * size) ** 2])
    motion = Motion(np.array([10.0, 0.0]), size)
    for seconds, measured in [(0.04, 12.0), (0.1, 15.0)]:
        step = np.array([[1, seconds], [0, 1]])
        noise = (0.8 * size) ** 2 * np.array([[seconds**3 / 3, seconds**2 / 2], [seconds**2 / 2, seconds]])
        state, spread = step @ state, step @ spread @ step.T + noise
        observe = np.array([[1.0, 0.0]])
        gain = spread @ observe.T @ np.linalg.inv(observe @ spread @ observe.T + (0.05 * size) ** 2)
        state = state + gain @ (np.array([measured]) - observe @ state)
        spread = (np.eye(2) - gain @ observe) @ spread
        motion.predict(seconds)
        motion.correct(np.array([measured, 0.0]), size, is_partial=False)
        assert math.isclose(motion.center_px[0], state[0]) and math.isclose(motion.velocity_px_s[0], state[1])


def test_an_object_outside_waits_at_the_edge() -> None:
    motion = Motion(np.array([290.0, 50.0]), 20.0)
    for _ in range(5):
        motion.predict(0.1)
        motion.correct(motion.center_px + np.array([4.0, 0.0]), 20.0, is_partial=False)
    motion.predict(5.0)
    motion.stay_inside(300, 200)
    assert motion.center_px[0] == 300 and motion.velocity_px_s[0] == 0
