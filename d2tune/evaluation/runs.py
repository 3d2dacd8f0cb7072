"""Masks as run lengths, compared on the CPU without making bitmaps of whole images.

pycocotools walks along the runs of two masks to count what they share. For boundaries the columns that a mask spans
are unrolled, all masks of an image at once, and only for pairs whose masks overlap enough to match at all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from d2tune.errors import DataError
from d2tune.evaluation.boundary import crop_boundary
from d2tune.evaluation.iou import Pairs, count_iou, join_pairs

Rle = dict[str, Any]
"""COCO's compressed run lengths, ``{"size": [height, width], "counts": str or bytes}``."""

UNROLLED_BYTES = 64 * 2**20
"""Bound on the bitmaps that are unrolled at once."""


def to_rle(segmentation: Any, height_px: int, width_px: int) -> Rle:
    """Polygons, uncompressed or compressed run lengths as compressed ones, as pycocotools' ``annToRLE`` has it.

    Raises:
        DataError: It is neither, or the mask has not the size of the image.
    """
    if isinstance(segmentation, dict) and "counts" in segmentation and "size" in segmentation:
        if [int(side) for side in segmentation["size"]] != [height_px, width_px]:
            raise DataError(
                "a mask has not the size of its image",
                found="{} x {} px (height x width)".format(*segmentation["size"]),
                expected=f"{height_px} x {width_px} px",
            )
        if isinstance(segmentation["counts"], list):
            return mask_utils.frPyObjects(segmentation, height_px, width_px)
        return segmentation
    if isinstance(segmentation, list) and segmentation and all(isinstance(part, list) for part in segmentation):
        return mask_utils.merge(mask_utils.frPyObjects(segmentation, height_px, width_px))
    raise DataError("a segmentation is neither polygons nor run lengths", found=repr(segmentation)[:80])


def encode(masks: Tensor) -> list[Rle]:
    """The run lengths of ``(N, H, W)`` bool masks."""
    columns = np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8))
    return mask_utils.encode(columns) if columns.size else []


def compare(
    found: Sequence[Rle],
    truth: Sequence[Rle],
    found_classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    *,
    floor: float,
    boundary_px: int | None,
) -> tuple[NDArray[np.int64], Pairs, Pairs | None]:
    """Areas of the detections, pairs by mask IoU and, where wanted, pairs by boundary IoU.

    Args:
        found: D masks.
        truth: G masks.
        found_classes: ``(D,)``.
        truth_classes: ``(G,)``.
        crowd: ``(G,)``.
        floor: The lowest IoU that counts.
        boundary_px: Width of a boundary, or None to leave boundaries out.
    """
    pairs = _mask_pairs(found, truth, found_classes, truth_classes, crowd, floor)
    areas = np.asarray(mask_utils.area(list(found)), np.int64) if found else np.zeros(0, np.int64)
    if boundary_px is None:
        return areas, pairs, None
    return areas, pairs, _boundary_pairs(found, truth, crowd, pairs, floor, boundary_px)


def _mask_pairs(
    found: Sequence[Rle],
    truth: Sequence[Rle],
    found_classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    floor: float,
) -> Pairs:
    parts = []
    for number in np.intersect1d(found_classes, truth_classes):
        rows, columns = np.flatnonzero(found_classes == number), np.flatnonzero(truth_classes == number)
        ours, theirs = [found[at] for at in rows.tolist()], [truth[at] for at in columns.tolist()]
        iou = mask_utils.iou(ours, theirs, crowd[columns].tolist())
        d, g = np.nonzero(iou >= floor)
        parts.append(Pairs(rows[d], columns[g], iou[d, g]))
    return join_pairs(parts)


def _boundary_pairs(
    found: Sequence[Rle],
    truth: Sequence[Rle],
    crowd: NDArray[np.bool_],
    of_masks: Pairs,
    floor: float,
    width_px: int,
) -> Pairs:
    """The pairs whose boundary IoU is ``floor`` or more, among those whose masks reach it.

    The smaller one of mask IoU and IoU of the boundaries is never above mask IoU, so that no other pair needs a look.
    """
    of_boundaries = of_masks.iou.copy()
    plain = np.flatnonzero(~crowd[of_masks.truth])
    for part in _affordable(plain, found, truth, of_masks):
        of_boundaries[part] = np.minimum(of_masks.iou[part], _boundary_iou(found, truth, of_masks, part, width_px))
    kept = of_boundaries >= floor
    return Pairs(of_masks.found[kept], of_masks.truth[kept], of_boundaries[kept])


def _affordable(
    chosen: NDArray[np.int64], found: Sequence[Rle], truth: Sequence[Rle], pairs: Pairs
) -> list[NDArray[np.int64]]:
    """``chosen`` cut so that the columns of one part's masks fit into ``UNROLLED_BYTES``, as far as they can."""
    if not chosen.size:
        return []
    found_span, truth_span = (mask_utils.toBbox(list(masks))[:, 2] for masks in (found, truth))
    columns = found_span[pairs.found[chosen]] + truth_span[pairs.truth[chosen]]
    filled = np.cumsum(columns * found[0]["size"][0])
    return np.split(chosen, np.flatnonzero(np.diff(filled // UNROLLED_BYTES)) + 1)


def _boundary_iou(
    found: Sequence[Rle], truth: Sequence[Rle], pairs: Pairs, part: NDArray[np.int64], width_px: int
) -> NDArray[np.float64]:
    """IoU of the boundaries of the pairs with the indices ``part``, ``(len(part),)``."""
    rows, row_of = np.unique(pairs.found[part], return_inverse=True)
    columns, column_of = np.unique(pairs.truth[part], return_inverse=True)
    boundaries = [
        (crop_boundary(crop, width_px), left, top)
        for crop, left, top in _crops([found[at] for at in rows] + [truth[at] for at in columns])
    ]
    areas = np.array([np.count_nonzero(crop) for crop, _, _ in boundaries])
    overlap = np.zeros(len(part), np.int64)
    for at, (row, column) in enumerate(zip(row_of, column_of + len(rows), strict=True)):
        (one, left, top), (other, its_left, its_top) = boundaries[row], boundaries[column]
        x, y = max(left, its_left), max(top, its_top)
        stop_x = min(left + one.shape[0], its_left + other.shape[0])
        stop_y = min(top + one.shape[1], its_top + other.shape[1])
        overlap[at] = np.count_nonzero(
            one[x - left : stop_x - left, y - top : stop_y - top]
            & other[x - its_left : stop_x - its_left, y - its_top : stop_y - its_top]
        )
    return count_iou(overlap, areas[row_of], areas[column_of + len(rows)], np.zeros(len(part), dtype=bool))


def _crops(rles: Sequence[Rle]) -> list[tuple[NDArray[np.bool_], int, int]]:
    """Each non-empty mask cut to its box, as (columns x rows bool, left, top)."""
    height_px = rles[0]["size"][0]
    counts, first = _run_lengths(rles)
    left, top, wide, high = np.round(mask_utils.toBbox(list(rles))).astype(np.int64).T
    # the first run of each mask begins at its leftmost column, and a last one fills the rightmost
    counts[first[:-1]] -= left * height_px
    rest = wide * height_px - np.add.reduceat(counts, first[:-1])
    is_mask = (np.arange(len(counts)) - np.repeat(first[:-1], np.diff(first))) % 2 == 1
    lengths = np.insert(counts, first[1:], 0)
    lengths[first[1:] + np.arange(len(rles))] = np.maximum(rest, 0)
    is_mask = np.insert(is_mask, first[1:], False)
    ends_in_background = rest < 0
    if ends_in_background.any():
        lengths[(first[1:] + np.arange(len(rles)) - 1)[ends_in_background]] += rest[ends_in_background]
    flat = np.repeat(is_mask, lengths)
    starts = np.concatenate([[0], np.cumsum(wide * height_px)])
    return [
        (flat[starts[at] : starts[at + 1]].reshape(wide[at], height_px)[:, top[at] : top[at] + high[at]], x, y)
        for at, (x, y) in enumerate(zip(left.tolist(), top.tolist(), strict=True))
    ]


def _run_lengths(rles: Sequence[Rle]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """The run lengths that compressed RLEs spell, one after the other, and where each one's begin, ``(N + 1,)``.

    A number is spelt in groups of five bits, lowest first, each a character from ``0`` on; bit 5 says that more
    follow, bit 4 of the last is the sign. From the fourth on a number is the difference to the one before the last.
    """
    texts = [one["counts"].encode() if isinstance(one["counts"], str) else one["counts"] for one in rles]
    groups = np.frombuffer(b"".join(texts), np.uint8).astype(np.int64) - 48
    last = np.flatnonzero(groups & 32 == 0)
    begin = np.concatenate([[0], last[:-1] + 1])
    length = last + 1 - begin
    place = np.arange(len(groups)) - np.repeat(begin, length)
    numbers = np.add.reduceat((groups & 31) << (5 * place), begin)
    numbers -= np.where(groups[last] & 16, np.int64(1) << (5 * length), 0)
    first = np.concatenate([[0], np.searchsorted(last, np.cumsum([len(text) for text in texts]))])
    at = np.arange(len(numbers)) - np.repeat(first[:-1], np.diff(first))
    total = numbers.copy()
    for odd in (0, 1):
        chain = (at % 2 == odd) & (at > 0)
        sums = np.cumsum(np.where(chain, numbers, 0))
        before = np.concatenate([[0], sums])[first[:-1]]
        total[chain] = (sums - np.repeat(before, np.diff(first)))[chain]
    return total, first
