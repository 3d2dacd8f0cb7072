"""Objects keep their identity through a video: ByteTrack on masks.

As in ByteTrack (Zhang et al., ByteTrack: Multi-Object Tracking by Associating Every Detection Box, 2022, arXiv
2110.06864), detections with high scores are assigned to tracks first, and those with low scores, which objects that are
partly hidden get, only to tracks that are left. Here the last mask of a track is moved by the predicted motion and
compared with the masks of the detections, so that objects whose boxes overlap are distinguished. Differences:

- Detections with low scores, and those that overlap too little, are compared by the share of their pixels that is
  inside, because what is visible of a hidden object is a fraction of its last mask. They may also continue a track that
  is lost. But low scores alone continue a track for no longer than a lost one waits, so that no false alarm keeps it.
- The mask of a track stays while its object is partly hidden, and its motion is that of the sides that are not cut off.
- Detections with high scores that are left are compared with the masks where they were last, for objects that stop and
  for pauses of the video, and then assigned by their distance, for small and fast objects that overlap in no two
  frames.
- A track that is lost at the edge of the image waits there.
- A mask that another detection already has does not become a track: models report an object as two classes, or one of
  its fragments as well.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from d2tune.errors import check_range
from d2tune.inference.results import Detections, rounded_score
from d2tune.video.masks import MaskCrop, crops_of, shared_px2
from d2tune.video.motion import Motion

MIN_SCORE = 0.5
LOW_SCORE = 0.1
LOST_S = 1.0
FRAME_RATE = 25.0

_MIN_IOU = 0.2
"""ByteTrack's bound: a cost of at most 0.8."""

_MIN_SHARE = 0.5
"""ByteTrack's bound for low scores, here of the share of a detection inside the predicted mask."""

_NEW_IOU = 0.3
"""ByteTrack's bound for tracks of a single detection: a cost of at most 0.7."""

_OTHER_CLASS = 0.5
"""Factor for a detection of another class than most of a track's."""

_MOST_DISTANCE = 1.0
"""Largest distance of centers that are assigned by it, in sizes (square roots of areas) of the object."""

_LIKE_SIZE = 0.4
"""Smallest quotient of two areas that are assigned by distance."""

_WHOLE = 0.85
"""Share of the usual area of an object below which it may be partly hidden."""

_USUAL_S = 1.0
"""Time over which the usual area of an object follows that of its masks."""

_SAME_MASK = 0.7
"""IoU from which two detections in a frame are the same object; of the same class, the share inside the other."""

Item = TypeVar("Item")
Similarity = Callable[["list[_Track]", "list[_Seen]"], NDArray[np.float64]]


class _State(Enum):
    NEW = "has a single detection"
    FOLLOWED = "was detected in the last frame"
    LOST = "was not detected in the last frame"


@dataclass(slots=True, eq=False)
class _Seen:
    """A detection of the frame."""

    index: int
    class_id: int
    mask: MaskCrop


@dataclass(slots=True, eq=False)
class _Track:
    """An object's path through the video.

    Attributes:
        mask: Its last whole mask; of a partly hidden object, moved along.
        motion: Its motion.
        area_px2: Its usual area.
        last_s: Time of its last detection.
        last_high_s: Time of the last one with a high score.
        state: Whether it is followed.
        id: Its id, once it is known to be an object.
        classes: Number of detections of each class.
    """

    mask: MaskCrop
    motion: Motion
    area_px2: float
    last_s: float
    last_high_s: float
    state: _State
    id: int | None = None
    classes: Counter[int] = field(default_factory=Counter)


class Tracker:
    """Gives the detections of consecutive frames the ids of the objects that they show.

    An object gets an id, counted from 1, with its second detection in two consecutive frames; those of the first frame
    get theirs at once.

    Args:
        min_score: Score from which a detection begins a track; a number, or one for each class.
        low_score: Lowest score of detections that may continue a track; the model must give detections from there on.
        lost_s: Seconds that a track waits for its object.
        frame_rate: Frames per second, where `update` is given no times.

    Raises:
        ProjectError: A number is outside of its range.
    """

    def __init__(
        self,
        *,
        min_score: float | Sequence[float] = MIN_SCORE,
        low_score: float = LOW_SCORE,
        lost_s: float = LOST_S,
        frame_rate: float = FRAME_RATE,
    ) -> None:
        self._min_scores = [min_score] if isinstance(min_score, (int, float)) else list(min_score)
        for score in self._min_scores:
            check_range(score, place="min_score", least=0, most=1)
        check_range(low_score, place="low_score", least=0, most=1)
        check_range(lost_s, place="lost_s", least=0)
        check_range(frame_rate, place="frame_rate", above=0)
        self._low_score = low_score
        self._lost_s = lost_s
        self._frame_s = 1 / frame_rate
        self._time_s = 0.0
        self._has_begun = False
        self._tracks: list[_Track] = []
        self._next_id = 1

    def update(
        self, detections: Detections, *, time_s: float | None = None, masks: Sequence[MaskCrop] | None = None
    ) -> tuple[int | None, ...]:
        """The id of the object that each detection of the next frame shows, or None where there is none.

        Args:
            detections: The detections, with masks or without.
            time_s: Time of the frame in seconds, not before that of the frame before; None is one frame later.
            masks: `masks.crops_of` the detections, where the caller has it.
        """
        is_first = not self._has_begun
        before_s = self._time_s
        if time_s is not None:
            self._time_s = time_s
        elif not is_first:
            self._time_s += self._frame_s
        self._has_begun = True
        for track in self._tracks:
            track.motion.predict(max(0.0, self._time_s - before_s))
            track.motion.stay_inside(detections.width_px, detections.height_px)
        high, low = self._split(detections, crops_of(detections) if masks is None else masks)
        taken = self._continue_tracks(high, low)
        for track, seen in taken:
            self._follow(track, seen, is_low=seen in low)
        self._lose([track for track, _ in taken])
        free = _without(high, [seen for _, seen in taken])
        taken += self._begin(free, [seen for _, seen in taken], is_first=is_first)
        ids = {seen.index: track.id for track, seen in taken}
        return tuple(ids.get(index) for index in range(len(detections)))

    def _split(self, detections: Detections, masks: Sequence[MaskCrop]) -> tuple[list[_Seen], list[_Seen]]:
        """The detections with high and those with low scores."""
        high: list[_Seen] = []
        low: list[_Seen] = []
        class_ids = detections.class_ids.tolist()
        for index, mask in enumerate(masks):
            score = rounded_score(detections.scores[index])
            least = self._min_scores[class_ids[index] if len(self._min_scores) > 1 else 0]
            if score >= min(least, self._low_score) and mask.area_px2:
                (high if score >= least else low).append(_Seen(index, class_ids[index], mask))
        return high, low

    def _continue_tracks(self, high: list[_Seen], low: list[_Seen]) -> list[tuple[_Track, _Seen]]:
        """Assign detections to tracks, in the order of trust; see the module."""
        new = [track for track in self._tracks if track.state is _State.NEW]
        known = _without(self._tracks, new)
        taken = _assign(known, high, _iou, least=_MIN_IOU)
        sure = [track for track in known if self._time_s - track.last_high_s <= self._lost_s]
        taken += _assign(*_left(taken, sure, [*high, *low]), _share, least=_MIN_SHARE)
        taken += _assign(*_left(taken, known, high), _iou_where_it_was, least=_MIN_IOU)
        taken += _assign(*_left(taken, known, high), _nearness, least=0.0)
        taken += _assign(*_left(taken, new, high), _iou, least=_NEW_IOU)
        taken += _assign(*_left(taken, new, high), _nearness, least=0.0)
        return taken

    def _follow(self, track: _Track, seen: _Seen, *, is_low: bool) -> None:
        """Continue a track with a detection."""
        area_px2 = seen.mask.area_px2
        is_partial = is_low or area_px2 < _WHOLE * track.area_px2
        track.area_px2 += min(1.0, (self._time_s - track.last_s) / _USUAL_S) * (area_px2 - track.area_px2)
        center_px = _hidden_center(track, seen.mask) if is_partial else seen.mask.center_px
        track.motion.correct(center_px, seen.mask.size_px, is_partial=is_partial)
        if is_partial:
            track.mask = _moved(track.mask, track.motion.center_px)
        else:
            track.mask = seen.mask
        track.classes[seen.class_id] += 1
        track.last_s = self._time_s
        if not is_low:
            track.last_high_s = self._time_s
        track.state = _State.FOLLOWED
        self._number(track)

    def _number(self, track: _Track) -> None:
        if track.id is None:
            track.id = self._next_id
            self._next_id += 1

    def _lose(self, followed: Sequence[_Track]) -> None:
        """Let tracks without a detection wait, and remove those that waited too long."""
        for track in _without(self._tracks, followed):
            is_kept = track.state is not _State.NEW and self._time_s - track.last_s <= self._lost_s
            if not is_kept:
                self._tracks.remove(track)
            track.state = _State.LOST

    def _begin(self, free: list[_Seen], used: list[_Seen], *, is_first: bool) -> list[tuple[_Track, _Seen]]:
        """Begin tracks with the detections whose masks no detection before them has."""
        begun: list[tuple[_Track, _Seen]] = []
        for seen in free:
            if any(_is_same(seen, other) for other in used):
                continue
            motion = Motion(seen.mask.center_px, seen.mask.size_px)
            state = _State.FOLLOWED if is_first else _State.NEW
            area_px2 = float(seen.mask.area_px2)
            track = _Track(
                seen.mask, motion, area_px2, self._time_s, self._time_s, state, classes=Counter([seen.class_id])
            )
            if is_first:
                self._number(track)
            self._tracks.append(track)
            begun.append((track, seen))
            used = [*used, seen]
        return begun


def _assign(
    tracks: list[_Track], seen: list[_Seen], similarity: Similarity, *, least: float
) -> list[tuple[_Track, _Seen]]:
    """The pairs of the assignment with the largest sum of similarities, those of ``least`` or more."""
    if not tracks or not seen:
        return []
    values = similarity(tracks, seen)
    values[values < least] = -1.0
    rows, columns = linear_sum_assignment(np.maximum(values, 0.0) + (values >= 0.0) * 1e-6, maximize=True)
    return [
        (tracks[row], seen[column]) for row, column in zip(rows, columns, strict=True) if values[row, column] >= 0.0
    ]


def _iou(tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.float64]:
    """IoU of the moved masks of tracks with those of detections."""
    return _iou_from(_shared(tracks, seen), tracks, seen)


def _iou_where_it_was(tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.float64]:
    """IoU of the masks of tracks where they were last with those of detections."""
    stay = np.zeros((len(tracks), 2), np.int64)
    shared = shared_px2([track.mask for track in tracks], stay, [one.mask for one in seen])
    return _iou_from(shared, tracks, seen)


def _iou_from(shared: NDArray[np.int64], tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.float64]:
    areas = np.array([track.mask.area_px2 for track in tracks])[:, None]
    others = np.array([one.mask.area_px2 for one in seen])[None]
    iou: NDArray[np.float64] = shared / (areas + others - shared) * _class_factor(tracks, seen)
    return iou


def _share(tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.float64]:
    """Share of the pixels of detections that are inside the moved masks of tracks."""
    others = np.array([one.mask.area_px2 for one in seen])[None]
    share: NDArray[np.float64] = _shared(tracks, seen) / others * _class_factor(tracks, seen)
    return share


def _nearness(tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.float64]:
    """One for the same center down to zero at the largest distance; negative for other classes and sizes."""
    centers = np.array([track.motion.center_px for track in tracks])[:, None]
    away_px = np.linalg.norm(centers - np.array([one.mask.center_px for one in seen])[None], axis=2)
    areas = np.array([track.mask.area_px2 for track in tracks])[:, None]
    others = np.array([one.mask.area_px2 for one in seen])[None]
    smaller, larger = np.minimum(areas, others), np.maximum(areas, others)
    is_like = (smaller >= _LIKE_SIZE * larger) & (_class_factor(tracks, seen) == 1.0)
    near: NDArray[np.float64] = np.where(is_like, 1.0 - away_px / (_MOST_DISTANCE * np.sqrt(larger)), -1.0)
    return near


def _class_factor(tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.float64]:
    usual = np.array([track.classes.most_common(1)[0][0] for track in tracks])[:, None]
    return np.where(usual == np.array([one.class_id for one in seen])[None], 1.0, _OTHER_CLASS)


def _shared(tracks: list[_Track], seen: list[_Seen]) -> NDArray[np.int64]:
    moves = [np.rint(track.motion.center_px - track.mask.center_px) for track in tracks]
    return shared_px2([track.mask for track in tracks], np.array(moves, np.int64), [one.mask for one in seen])


def _is_same(seen: _Seen, other: _Seen) -> bool:
    """Whether a detection is the object that another one has: as a whole, or as a fragment of the same class."""
    shared = int(shared_px2([seen.mask], np.zeros((1, 2), np.int64), [other.mask])[0, 0])
    is_fragment = seen.class_id == other.class_id and shared >= _SAME_MASK * seen.mask.area_px2
    return is_fragment or shared >= _SAME_MASK * (seen.mask.area_px2 + other.mask.area_px2 - shared)


def _hidden_center(track: _Track, visible: MaskCrop) -> NDArray[np.float64]:
    """Where the center of an object is of which a fraction is visible.

    What hides it cuts off a side, which does not move with the object; so for each axis the side counts that is nearer
    to where it was predicted.
    """
    moved = _moved(track.mask, track.motion.center_px)
    starts = np.array([visible.left - moved.left, visible.top - moved.top])
    ends = starts + np.array(visible.pixels.shape[::-1]) - moved.pixels.shape[::-1]
    away_px = np.where(np.abs(starts) <= np.abs(ends), starts, ends)
    center: NDArray[np.float64] = moved.center_px + away_px
    return center


def _moved(mask: MaskCrop, center_px: NDArray[np.float64]) -> MaskCrop:
    x, y = np.rint(center_px - mask.center_px).astype(int).tolist()
    return MaskCrop(mask.left + x, mask.top + y, mask.pixels, mask.area_px2, mask.center_px + np.array([x, y]))


def _without(items: Sequence[Item], removed: Sequence[Item]) -> list[Item]:
    gone = set(map(id, removed))
    return [item for item in items if id(item) not in gone]


def _left(
    taken: list[tuple[_Track, _Seen]], tracks: list[_Track], seen: list[_Seen]
) -> tuple[list[_Track], list[_Seen]]:
    """The tracks and detections that are not assigned yet."""
    return _without(tracks, [track for track, _ in taken]), _without(seen, [one for _, one in taken])
