"""Which detection takes which ground truth, by COCO's greedy rule, for all IoU thresholds and area ranges at once.

pycocotools goes through the detections of an image and class by falling score. Each takes, at a threshold ``t``, the
ground truth of highest IoU (the later one of equals) that is not taken yet and reaches ``t``; one that counts in the
area range goes before all that are ignored; a crowd can be taken any number of times.

Here every combination of area range and threshold is one bit of a 64-bit word. Taking, freeing and preferring are
then operations on bits, done for all thresholds and areas, and for one detection of each image and class, at once.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from d2tune.metrics.overlap.iou import Pairs

Bits = NDArray[np.uint64]
"""``(..., W)``: flags for A area ranges times T thresholds, all thresholds of the first range first."""

IOU_THRESHOLDS = np.linspace(0.5, 0.95, 10)
RECALLS = np.linspace(0.0, 1.0, 101)
MAX_DETECTIONS = (1, 10, 100)


@dataclass(frozen=True, slots=True)
class AreaRange:
    """Objects of a size, both limits included, as pycocotools has it.

    Attributes:
        name: Its key in tables.
        low_px2: Smallest area.
        high_px2: Largest area.
        words: The size in words, as in "smaller than 32 x 32 px".
    """

    name: str
    low_px2: float
    high_px2: float
    words: str


COCO_AREAS = (
    AreaRange("all", 0.0, 1e10, "of any size"),
    AreaRange("small", 0.0, 32.0**2, "smaller than 32 x 32 px"),
    AreaRange("medium", 32.0**2, 96.0**2, "between 32 x 32 and 96 x 96 px"),
    AreaRange("large", 96.0**2, 1e10, "larger than 96 x 96 px"),
)
"""COCO's four area ranges; its twelve metrics need them."""


def outside(areas_px2: NDArray[np.float64], ranges: tuple[AreaRange, ...]) -> NDArray[np.bool_]:
    """Whether each of N areas lies outside each of A ranges, ``(N, A)``."""
    low, high = np.array([[one.low_px2, one.high_px2] for one in ranges]).T
    flags: NDArray[np.bool_] = (areas_px2[:, None] < low) | (areas_px2[:, None] > high)
    return flags


def pack_bits(flags: NDArray[np.bool_]) -> Bits:
    """``(N, A, T)`` flags as words of 64 bits, ``(N, W)``."""
    count = flags.shape[1] * flags.shape[2]
    padded = np.zeros((len(flags), -(-count // 64) * 64), dtype=bool)
    padded[:, :count] = flags.reshape(len(flags), count)
    words: Bits = np.packbits(padded, axis=1, bitorder="little").view("<u8")
    return words


def unpack_bits(bits: Bits, *, ranges: int, thresholds: int) -> NDArray[np.bool_]:
    """The flags ``(N, A, T)`` of :func:`pack_bits`."""
    octets = np.ascontiguousarray(bits).astype("<u8", copy=False).view(np.uint8)
    unpacked = np.unpackbits(octets, axis=1, count=ranges * thresholds, bitorder="little")
    flags: NDArray[np.bool_] = unpacked.reshape(len(bits), ranges, thresholds).view(np.bool_)
    return flags


def match(
    group: NDArray[np.int64],
    pairs: Pairs,
    ignored: NDArray[np.bool_],
    crowd: NDArray[np.bool_],
    detection_outside: NDArray[np.bool_],
) -> tuple[Bits, Bits]:
    """Match the detections of many images and classes.

    Args:
        group: ``(N,)``, a number for each detection's image and class; a group's detections stand together, by
            falling score.
        pairs: Detections and ground truth that overlap enough, always of one group.
        ignored: ``(M, A)``, whether a ground truth is ignored in an area range: it has another size, or it is a crowd,
            which is ignored in all.
        crowd: ``(M,)``.
        detection_outside: ``(N, A)``, whether a detection's own area lies outside a range.

    Returns:
        For each detection, ``(N, W)``: whether it took a ground truth, and whether it is ignored (it took an ignored
        ground truth, or took none and has another size). A detection that is matched and not ignored is a true
        positive; one that is neither is a false positive.
    """
    shape = (ignored.shape[1], len(IOU_THRESHOLDS))
    reached = pairs.iou[:, None] >= IOU_THRESHOLDS
    reaching = pack_bits(np.broadcast_to(reached[:, None, :], (len(reached), *shape)))
    is_ignored = pack_bits(np.broadcast_to(ignored[:, :, None], (len(ignored), *shape)))
    again = pack_bits(np.broadcast_to(crowd[:, None, None], (len(crowd), *shape)))
    taken = np.zeros_like(is_ignored)
    matched = np.zeros((len(group), reaching.shape[1]), np.uint64)
    at_ignored = np.zeros_like(matched)
    for turn in _turns(group, pairs):
        for ignored_ones in (False, True):
            for chosen in turn:
                d, g = pairs.detection[chosen], pairs.truth[chosen]
                wanted = is_ignored[g] if ignored_ones else ~is_ignored[g]
                takes = reaching[chosen] & wanted & ~matched[d] & (~taken[g] | again[g])
                taken[g] |= takes
                matched[d] |= takes
                if ignored_ones:
                    at_ignored[d] |= takes
    away = pack_bits(np.broadcast_to(detection_outside[:, :, None], (len(group), *shape)))
    return matched, at_ignored | (away & ~matched)


def _turns(group: NDArray[np.int64], pairs: Pairs) -> Iterator[list[NDArray[np.int64]]]:
    """The pairs in the order of the rule, as indices that can be handled at once.

    A turn is the next detection of every group. It has one array of indices for every place in a detection's order of
    preference: its best ground truth, its second best, and so on. No two pairs of an array share a detection or a
    ground truth.
    """
    order = np.lexsort((-pairs.truth, -pairs.iou, pairs.detection))
    detection = pairs.detection[order]
    is_first = np.diff(detection, prepend=-1) != 0
    starts = np.flatnonzero(is_first)
    preference = np.arange(len(order)) - np.repeat(starts, np.diff(starts, append=len(order)))
    active = detection[starts]  # the detections that have any pair
    new_group = np.flatnonzero(np.diff(group[active], prepend=-1) != 0)
    turn_of_active = np.arange(len(active)) - np.repeat(new_group, np.diff(new_group, append=len(active)))
    turn = turn_of_active[np.cumsum(is_first) - 1]
    by_turn = np.lexsort((preference, turn))
    turn, preference, order = turn[by_turn], preference[by_turn], order[by_turn]
    cuts = np.flatnonzero((np.diff(turn) != 0) | (np.diff(preference) != 0)) + 1
    arrays = np.split(order, cuts) if order.size else []
    turn_of_array = turn[np.concatenate([[0], cuts])] if order.size else turn
    for number in range(int(turn_of_array[-1]) + 1 if order.size else 0):
        first, stop = np.searchsorted(turn_of_array, [number, number + 1])
        yield arrays[first:stop]
