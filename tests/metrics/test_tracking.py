"""IDF1, identity switches and MOTA: cases counted by hand, and brute force over all pairings."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from d2tune.metrics.tracking import TrackingMetrics, TrackingScorer


def scored(*frames: tuple[list[int], list[int], list[list[float]]], min_iou: float = 0.5) -> TrackingMetrics:
    scorer = TrackingScorer(min_iou=min_iou)
    for objects, tracks, iou in frames:
        matrix = np.array(iou, float).reshape(len(objects), len(tracks))
        scorer.add(np.array(objects, np.int64), np.array(tracks, np.int64), matrix)
    return scorer.result()


def one(track: int | None, iou: float = 1.0) -> tuple[list[int], list[int], list[list[float]]]:
    """A frame with object 1 and a track at its place, or no track."""
    return ([1], [], [[]]) if track is None else ([1], [track], [[iou]])


def test_a_track_that_follows_its_object_has_all_of_it() -> None:
    result = scored(*[one(7)] * 5)
    assert (result.idf1, result.idp, result.idr, result.mota, result.switches) == (1.0, 1.0, 1.0, 1.0, 0)
    assert (result.truths, result.detections, result.objects, result.tracks) == (5, 5, 1, 1)


def test_the_longer_one_of_two_tracks_counts() -> None:
    # 6 frames of track 7, then 4 of track 8: 6 agree; 4 detections and 4 frames of the object do not
    result = scored(*[one(7)] * 6, *[one(8)] * 4)
    assert result.idf1 == pytest.approx(2 * 6 / (10 + 10))
    assert (result.idp, result.idr, result.switches) == (0.6, 0.6, 1)
    assert result.mota == pytest.approx(1 - 1 / 10)


def test_misses_and_false_detections_count() -> None:
    # object 1 in 4 frames, detected in 3; in 2 of them track 9 is at no object
    empty = ([1], [7, 9], [[1.0, 0.1]])
    result = scored(one(7), one(None), empty, empty)
    assert (result.misses, result.false_detections, result.truths, result.detections) == (1, 2, 4, 5)
    assert result.mota == pytest.approx(1 - 3 / 4)
    assert result.idf1 == pytest.approx(2 * 3 / (4 + 5))
    assert result.idp == pytest.approx(3 / 5) and result.idr == pytest.approx(3 / 4)


def test_two_objects_whose_tracks_are_exchanged() -> None:
    # 3 frames right, then exchanged for 2: each object agrees in 3 of 5 frames; two switches
    right = ([1, 2], [7, 8], [[1.0, 0.0], [0.0, 1.0]])
    exchanged = ([1, 2], [7, 8], [[0.0, 1.0], [1.0, 0.0]])
    result = scored(*[right] * 3, *[exchanged] * 2)
    assert result.switches == 2
    assert result.idf1 == pytest.approx(6 / 10)


def test_a_pair_stays_together_while_it_overlaps() -> None:
    # in the second frame track 8 fits object 1 better, but track 7 is still at its place
    result = scored(one(7), ([1], [7, 8], [[0.6, 0.9]]))
    assert (result.switches, result.false_detections) == (0, 1)


def test_a_switch_is_counted_after_a_gap() -> None:
    assert scored(one(7), one(None), one(8)).switches == 1
    assert scored(one(7), one(None), one(7)).switches == 0


@pytest.mark.parametrize(("iou", "misses"), [(0.5, 0), (0.499, 1)])
def test_the_lowest_iou_counts(iou: float, misses: int) -> None:
    result = scored(one(7, iou))
    assert (result.misses, result.false_detections, result.idf1) == (misses, misses, 1.0 - misses)


def test_a_video_of_nothing() -> None:
    nothing = scored(([], [], []))
    assert (nothing.idf1, nothing.mota, nothing.truths) == (1.0, 1.0, 0)
    false = scored(([], [7], []))
    assert (false.idf1, false.idp, false.mota) == (0.0, 0.0, 0.0)
    missed = scored(one(None))
    assert (missed.idf1, missed.idr, missed.mota) == (0.0, 0.0, 0.0)


@pytest.mark.parametrize("seed", range(20))
def test_idf1_is_the_best_of_all_pairings(seed: int) -> None:
    """Brute force: for every way to pair objects with tracks, count the agreeing detections."""
    random = np.random.default_rng(seed)
    frames = []
    for _ in range(12):
        objects = sorted(random.choice(4, random.integers(0, 5), replace=False).tolist())
        tracks = sorted(random.choice(5, random.integers(0, 6), replace=False).tolist())
        frames.append((objects, tracks, random.random((len(objects), len(tracks))).tolist()))
    truths = sum(len(objects) for objects, _, _ in frames)
    detections = sum(len(tracks) for _, tracks, _ in frames)
    best = 0
    for pairing in itertools.permutations([*range(5)], 4):
        agreeing = 0
        for objects, tracks, iou in frames:
            for row, name in enumerate(objects):
                if pairing[name] in tracks:
                    agreeing += iou[row][tracks.index(pairing[name])] >= 0.5
        best = max(best, agreeing)
    result = scored(*frames)
    assert result.idf1 == pytest.approx(2 * best / (truths + detections))
    assert result.idp == pytest.approx(best / detections) and result.idr == pytest.approx(best / truths)


@pytest.mark.parametrize("seed", range(10))
def test_mota_keeps_pairs_and_then_takes_the_best(seed: int) -> None:
    """Brute force: first keep pairs of the frame before, then the most pairs with the largest IoU among the rest."""
    random = np.random.default_rng(100 + seed)
    frames, misses, false, switches = [], 0, 0, 0
    before: dict[int, int] = {}
    last: dict[int, int] = {}
    for _ in range(15):
        objects = sorted(random.choice(3, random.integers(0, 4), replace=False).tolist())
        tracks = sorted(random.choice(3, random.integers(0, 4), replace=False).tolist())
        iou = random.random((len(objects), len(tracks)))
        frames.append((objects, tracks, iou.tolist()))
        pairs = {
            name: before[name]
            for row, name in enumerate(objects)
            if before.get(name) in tracks and iou[row, tracks.index(before[name])] >= 0.5
        }
        rest = [row for row, name in enumerate(objects) if name not in pairs]
        spare = [*(column for column, name in enumerate(tracks) if name not in pairs.values()), *[None] * len(rest)]
        options = [
            [(row, c) for row, c in zip(rest, order, strict=True) if c is not None and iou[row, c] >= 0.5]
            for order in itertools.permutations(spare, len(rest))
        ]
        chosen = max(options, key=lambda pairing: sum(iou[row, column] for row, column in pairing))
        pairs |= {objects[row]: tracks[column] for row, column in chosen}
        misses, false = misses + len(objects) - len(pairs), false + len(tracks) - len(pairs)
        switches += sum(last.get(name, track) != track for name, track in pairs.items())
        before, last = pairs, last | pairs
    result = scored(*frames)
    assert (result.misses, result.false_detections, result.switches) == (misses, false, switches)


def test_bad_frames_are_refused() -> None:
    with pytest.raises(ValueError, match="iou is"):
        TrackingScorer().add(np.array([1]), np.array([1, 2]), np.zeros((2, 1)))
    with pytest.raises(ValueError, match="twice"):
        scored(([1, 1], [2], [[1.0], [1.0]]))
