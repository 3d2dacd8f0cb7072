"""The instances of an image from those of its overlapping windows.

Two windows see the same pixels in the strip that they share. Detections of one object therefore cover the same pixels
there, and detections of two objects do not, however close the objects are.

- **Matching.** Detections of one class in two windows are compared in the strip that the windows share. Each is matched
  with at most one of the other window, in descending order of the IoU of their pixels in the strip, which must be at
  least `MATCH_IOU`. What is left over and ends at a side of its window inside the other window is a piece of an object.
  It belongs to a detection of the other window that has `PIECE_SHARE` of its pixels in the strip, if that one goes on
  beyond the strip as well (windows whose view of an object is cut into several pieces by its shape), or if it has this
  share of the whole piece (the sliver of an object that the other window sees as a whole).
- **Groups.** Matched detections of all windows form groups, by union-find. A group is an instance: its score is the
  highest one, its mask that of the detection which sees the object as a whole, if there is one, otherwise the union.

Masks are kept as run lengths of their boxes, and those of the image are computed from run lengths, so that memory does
not grow with the area of the image. The result depends neither on the batch nor on the order of matching.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from d2tune.inference.results import Detections, rounded_score
from d2tune.inference.windows import Window, overlapping
from d2tune.metrics.overlap.run_lengths import crops

MATCH_IOU = 0.5
"""Least IoU in the shared strip of two detections of one object."""
PIECE_SHARE = 0.7
"""Least share of a piece that the detection it belongs to covers."""
_INSIDE_SHARE = 0.5
"""Share of each detection of a group that its whole detection covers at least."""
_NEAR_SIDE_SHARE, _NEAR_SIDE_PX = 0.01, 2.0
"""A detection ends at a side of its window if it comes as near as this share of the window, and these pixels."""
MOST_PIXELS = 2**32 - 1
"""Pixels of the largest image whose masks pycocotools can encode."""


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A detection in a window; boxes and extents are in pixels of the image.

    Attributes:
        window: Index of the window.
        box_xyxy: ``(4,)`` float32, the predicted box.
        score: The score, from 0 to 1.
        class_id: Index of the class.
        extent: The smallest rectangle around the mask; None if the mask is empty.
        counts: Run lengths of the mask in its extent.
        cut: Whether it ends at the top, left, bottom and right side of its window, inside the image.
    """

    window: int
    box_xyxy: NDArray[np.float32]
    score: float
    class_id: int
    extent: Window | None
    counts: bytes
    cut: tuple[bool, bool, bool, bool]

    def crop(self) -> NDArray[np.bool_]:
        """The mask in its extent, ``(h, w)``."""
        assert self.extent is not None
        return _decoded(
            self.extent.bottom_px - self.extent.top_px, self.extent.right_px - self.extent.left_px, self.counts
        )

    def within(self, rectangle: Window) -> NDArray[np.bool_]:
        """The mask in a rectangle inside its extent."""
        assert self.extent is not None
        top, left = rectangle.top_px - self.extent.top_px, rectangle.left_px - self.extent.left_px
        height, width = rectangle.bottom_px - rectangle.top_px, rectangle.right_px - rectangle.left_px
        return self.crop()[top : top + height, left : left + width]


@lru_cache(maxsize=64)
def _decoded(height_px: int, width_px: int, counts: bytes) -> NDArray[np.bool_]:
    crop: NDArray[np.uint8] = mask_utils.decode({"size": [height_px, width_px], "counts": counts})
    return crop.view(np.bool_)


class Stitcher:
    """Collects the detections of the windows of an image.

    Args:
        height_px: Height of the image.
        width_px: Width of the image.
        windows: Its windows; see `windows.grid`.
        class_names: All classes in the order of their ids.

    Raises:
        DataError: The image has more pixels than run-length masks can have.
    """

    def __init__(self, height_px: int, width_px: int, windows: Sequence[Window], class_names: Sequence[str]) -> None:
        if height_px * width_px > MOST_PIXELS:
            given, valid = f"{width_px} x {height_px} px", f"at most {MOST_PIXELS:,} pixels"
            raise DataError("the image is too large for run-length masks", found=given, expected=valid)
        self._size = height_px, width_px
        self._windows = windows
        self._class_names = tuple(class_names)
        self._pieces: list[Piece] = []
        self._of_window: dict[int, list[int]] = defaultdict(list)
        self._lower: list[float] = []
        self._has_masks = True

    def add(self, index: int, detections: Detections) -> None:
        """Add the detections of the next window, in its own coordinates.

        Args:
            index: Index of the window.
            detections: Its detections.
        """
        self._lower += detections.lower_scores
        self._has_masks &= detections.rles is not None
        for number in range(len(detections)):
            self._of_window[index].append(len(self._pieces))
            self._pieces.append(self._piece(index, detections, number))

    def _piece(self, index: int, detections: Detections, number: int) -> Piece:
        window = self._windows[index]
        box = detections.boxes_xyxy[number] + np.array([window.left_px, window.top_px] * 2, np.float32)
        extent, counts = _mask(detections, number)
        if extent is not None:
            top, left, bottom, right = extent
            y, x = window.top_px, window.left_px
            extent = Window(top + y, left + x, bottom + y, right + x)
        cut = self._cut(window, box, extent)
        score, class_id = float(detections.scores[number]), int(detections.class_ids[number])
        return Piece(index, box, score, class_id, extent, counts, cut)

    def _cut(
        self, window: Window, box_xyxy: NDArray[np.float32], extent: Window | None
    ) -> tuple[bool, bool, bool, bool]:
        """Whether a detection ends at the top, left, bottom and right side of its window, inside the image."""
        x0, y0, x1, y1 = box_xyxy.tolist()
        if extent is not None:
            y0, x0, y1, x1 = (
                min(y0, extent.top_px),
                min(x0, extent.left_px),
                max(y1, extent.bottom_px),
                max(x1, extent.right_px),
            )
        height_px, width_px = self._size
        near_y = max(_NEAR_SIDE_PX, _NEAR_SIDE_SHARE * (window.bottom_px - window.top_px))
        near_x = max(_NEAR_SIDE_PX, _NEAR_SIDE_SHARE * (window.right_px - window.left_px))
        return (
            window.top_px > 0 and y0 <= window.top_px + near_y,
            window.left_px > 0 and x0 <= window.left_px + near_x,
            window.bottom_px < height_px and y1 >= window.bottom_px - near_y,
            window.right_px < width_px and x1 >= window.right_px - near_x,
        )

    def finish(self) -> Detections:
        """The instances of the image."""
        groups = _Groups(len(self._pieces))
        for first, second, strip in overlapping(self._windows):
            self._match(first, second, strip, groups)
        instances = [self._instance([self._pieces[at] for at in members]) for members in groups.members()]
        instances.sort(key=lambda instance: -rounded_score(instance.score))
        return Detections(
            *self._size,
            boxes_xyxy=np.array([one.box_xyxy for one in instances], np.float32).reshape(-1, 4),
            scores=np.array([one.score for one in instances], np.float32),
            class_ids=np.array([one.class_id for one in instances], np.int64),
            rles=tuple(one.rle for one in instances) if self._has_masks else None,
            class_names=self._class_names,
            lower_scores=tuple(sorted(self._lower, reverse=True)),
        )

    def _match(self, first: int, second: int, strip: Window, groups: _Groups) -> None:
        """Join the detections of two windows that are of one object."""
        shared = self._shared(first, second, strip)
        matched: set[int] = set()
        for one in sorted(shared, key=lambda one: (-one.iou, one.a, one.b)):
            if one.iou >= MATCH_IOU and not matched & {one.a, one.b}:
                matched |= {one.a, one.b}
                groups.join(one.a, one.b)
        owners: dict[int, tuple[float, int]] = {}
        for one in shared:
            for piece, other, in_strip in ((one.a, one.b, one.a_px2), (one.b, one.a, one.b_px2)):
                share = self._piece_share(piece, other, one.both_px2, in_strip)
                if piece not in matched and share >= PIECE_SHARE:
                    owners[piece] = max(owners.get(piece, (0.0, 0)), (share, -other))
        for piece, (_, owner) in owners.items():
            groups.join(piece, -owner)

    def _shared(self, first: int, second: int, strip: Window) -> list[_Shared]:
        """The pairs of detections of one class that share pixels in a strip."""
        near = {
            index: [(at, inside) for at in self._of_window.get(index, ()) if (inside := self._in_strip(at, strip))]
            for index in (first, second)
        }
        pairs = []
        for a, a_inside in near[first]:
            for b, b_inside in near[second]:
                both = a_inside.shared(b_inside)
                if both is None or self._pieces[a].class_id != self._pieces[b].class_id:
                    continue
                both_px2 = int(np.count_nonzero(self._pieces[a].within(both) & self._pieces[b].within(both)))
                if both_px2:
                    areas = (
                        int(np.count_nonzero(self._pieces[at].within(p))) for at, p in ((a, a_inside), (b, b_inside))
                    )
                    pairs.append(_Shared(a, b, both_px2, *areas))
        return pairs

    def _in_strip(self, at: int, strip: Window) -> Window | None:
        extent = self._pieces[at].extent
        return None if extent is None else extent.shared(strip)

    def _piece_share(self, piece: int, other: int, both_px2: int, in_strip_px2: int) -> float:
        """The share of a piece that a detection of another window covers; 0 if it is not a piece."""
        if not self._goes_on(piece, other):
            return 0.0
        if self._goes_on(other, piece):
            return both_px2 / in_strip_px2
        return both_px2 / int(np.count_nonzero(self._pieces[piece].crop()))

    def _goes_on(self, at: int, other: int) -> bool:
        """Whether a detection ends at a side of its window that lies inside the window of the other detection."""
        piece = self._pieces[at]
        own, beside = self._windows[piece.window], self._windows[self._pieces[other].window]
        sides = (
            beside.top_px < own.top_px < beside.bottom_px,
            beside.left_px < own.left_px < beside.right_px,
            beside.top_px < own.bottom_px < beside.bottom_px,
            beside.left_px < own.right_px < beside.right_px,
        )
        return any(is_cut and is_inside for is_cut, is_inside in zip(piece.cut, sides, strict=True))

    def _instance(self, pieces: Sequence[Piece]) -> _Instance:
        """The instance of matched detections, in the order of the windows."""
        score, class_id = max(piece.score for piece in pieces), pieces[0].class_id
        chosen = [_whole(pieces)] if len(pieces) > 1 else [pieces[0]]
        used = pieces if chosen[0] is None else [piece for piece in chosen if piece is not None]
        boxes = np.stack([piece.box_xyxy for piece in used])
        box = np.concatenate([boxes[:, :2].min(axis=0), boxes[:, 2:].max(axis=0)])
        return _Instance(box, score, class_id, self._rle(used))

    def _rle(self, pieces: Sequence[Piece]) -> Rle:
        height_px, width_px = self._size
        rles = [image_rle(piece, height_px, width_px) for piece in pieces]
        merged = rles[0] if len(rles) == 1 else mask_utils.merge(rles)
        return Rle(height_px, width_px, merged["counts"].decode())


@dataclass(frozen=True, slots=True)
class _Shared:
    """Two detections of neighboring windows that share pixels.

    Attributes:
        a: Index of the detection of the first window.
        b: Index of the detection of the second window.
        both_px2: Pixels of both.
        a_px2: Pixels of the first in the strip.
        b_px2: Pixels of the second in the strip.
    """

    a: int
    b: int
    both_px2: int
    a_px2: int
    b_px2: int

    @property
    def iou(self) -> float:
        """IoU in the strip."""
        return self.both_px2 / (self.a_px2 + self.b_px2 - self.both_px2)


@dataclass(frozen=True, slots=True, eq=False)
class _Instance:
    box_xyxy: NDArray[np.float32]
    score: float
    class_id: int
    rle: Rle


class _Groups:
    """Union-find; the root of a group is its lowest index.

    Args:
        count: Number of items.
    """

    def __init__(self, count: int) -> None:
        self._above = list(range(count))

    def _root(self, at: int) -> int:
        while self._above[at] != at:
            self._above[at] = self._above[self._above[at]]
            at = self._above[at]
        return at

    def join(self, a: int, b: int) -> None:
        """Put two items into one group."""
        low, high = sorted((self._root(a), self._root(b)))
        self._above[high] = low

    def members(self) -> list[list[int]]:
        """The items of each group in ascending order, the groups in the order of their first item."""
        groups: dict[int, list[int]] = defaultdict(list)
        for at in range(len(self._above)):
            groups[self._root(at)].append(at)
        return list(groups.values())


def _mask(detections: Detections, number: int) -> tuple[Window | None, bytes]:
    """The extent of a mask in its window, and its run lengths there; without masks the box is the mask."""
    if detections.rles is None:
        left, top, right, bottom = (round(float(side)) for side in detections.boxes_xyxy[number])
        extent = Window(top, left, max(top + 1, bottom), max(left + 1, right))
        return extent, _encoded(np.ones((extent.bottom_px - top, extent.right_px - left), dtype=bool))
    crop, left, top = crops([detections.rles[number].to_coco()])[0]
    width, height = crop.shape
    if not crop.size:
        return None, b""
    return Window(top, left, top + height, left + width), _encoded(crop.T)


def _encoded(crop: NDArray[np.generic]) -> bytes:
    counts: bytes = mask_utils.encode(np.asfortranarray(crop.astype(np.uint8)))["counts"]
    return counts


def _whole(pieces: Sequence[Piece]) -> Piece | None:
    """The detection of a group that sees the object as a whole, of several the one with the highest score.

    It ends at no side of its window inside the image, and covers most of each other detection.
    """
    for whole in sorted((piece for piece in pieces if not any(piece.cut)), key=lambda piece: -piece.score):
        if all(_share_inside(piece, whole) >= _INSIDE_SHARE for piece in pieces if piece is not whole):
            return whole
    return None


def _share_inside(piece: Piece, whole: Piece) -> float:
    """The share of a piece that another detection covers."""
    assert piece.extent is not None and whole.extent is not None
    both = piece.extent.shared(whole.extent)
    if both is None:
        return 0.0
    return np.count_nonzero(piece.within(both) & whole.within(both)) / np.count_nonzero(piece.crop())


def image_rle(piece: Piece, height_px: int, width_px: int) -> dict[str, Any]:
    """The mask of a detection as COCO's compressed run lengths of the image, from the runs of its columns.

    Args:
        piece: The detection.
        height_px: Height of the image.
        width_px: Width of the image.
    """
    pixels = height_px * width_px
    if piece.extent is None:
        counts = [pixels]
    else:
        columns = np.pad(piece.crop().T.astype(np.int8), ((0, 0), (1, 1)))
        steps = np.diff(columns, axis=1)
        first = (piece.extent.left_px + np.arange(len(columns))) * height_px + piece.extent.top_px
        begin, end = ((at := np.nonzero(steps == step))[1] + first[at[0]] for step in (1, -1))
        # a run that fills a column goes on in the next one
        apart = begin[1:] != end[:-1]
        begin, end = begin[np.append(True, apart)], end[np.append(apart, True)]
        edges = np.concatenate([[0], np.stack([begin, end], axis=1).reshape(-1), [pixels]])
        counts = np.diff(edges).tolist()
        counts = counts[:-1] if counts[-1] == 0 else counts
    rle: dict[str, Any] = mask_utils.frPyObjects({"size": [height_px, width_px], "counts": counts}, height_px, width_px)
    return rle
