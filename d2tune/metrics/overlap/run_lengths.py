"""Masks as run lengths, compared on the CPU without bitmaps of whole images.

pycocotools walks along the runs of two masks to count the pixels that they share. For boundaries the columns that a
mask spans are unrolled, all masks of an image at once, and only for pairs whose masks overlap enough to match.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils

from d2tune.annotations.geometry.masks import check_rle
from d2tune.annotations.geometry.polygons import LENGTH_LIMIT_PX, PointError, check_points, outline_length_px
from d2tune.errors import DataError
from d2tune.metrics.overlap.boundary import crop_boundary
from d2tune.metrics.overlap.iou import Pairs, count_iou, join_pairs
from d2tune.text import describe

if TYPE_CHECKING:
    from torch import Tensor

Rle = dict[str, Any]
"""COCO's compressed run lengths, ``{"size": [height, width], "counts": str or bytes}``."""

UNROLLED_BYTES = 64 * 2**20
"""Bound on the bitmaps that are unrolled at once."""

TEXT_BYTES = 2**16
"""Bound on the compressed text that is checked at once."""

FARTHEST_SIDES = 4
"""Limit of the coordinates of a polygon, as a multiple of the longer side of its image."""

_LONGEST_GROUPS = 7  # characters of a run; 34 bits are more than an image has pixels


def to_rle(segmentation: Any, height_px: int, width_px: int) -> Rle:
    """Polygons, uncompressed or compressed run lengths as compressed ones, as pycocotools' ``annToRLE`` has it.

    Compressed text is not checked here; :func:`checked_texts` checks many of them at once.

    Raises:
        DataError: It is neither, the size of the mask differs from that of the image, runs do not add up to the image,
            or a polygon has fewer than three points, or points that are not finite or far from the image.
    """
    try:
        if isinstance(segmentation, dict) and "counts" in segmentation and "size" in segmentation:
            return _run_length_mask(segmentation["size"], segmentation["counts"], height_px, width_px)
        if isinstance(segmentation, list) and segmentation:
            for number, polygon in enumerate(segmentation, 1):
                _check_polygon(polygon, f"polygon {number}", max(height_px, width_px))
            rle: Rle = mask_utils.merge(mask_utils.frPyObjects(segmentation, height_px, width_px))
            return rle
    except PointError as error:
        raise DataError(str(error)) from None
    raise DataError("the segmentation is neither polygons nor run lengths", found=describe(segmentation, limit=80))


def _run_length_mask(size: Any, counts: Any, height_px: int, width_px: int) -> Rle:
    if not isinstance(size, (list, tuple)) or list(size) != [height_px, width_px]:
        is_pair = isinstance(size, (list, tuple)) and len(size) == 2
        raise DataError(
            "the size of the mask differs from the size of its image",
            found="{} x {} px (height x width)".format(*map(describe, size)) if is_pair else f"size {describe(size)}",
            expected=f"{height_px} x {width_px} px",
        )
    mask = {"size": [height_px, width_px], "counts": counts}
    return mask if isinstance(counts, (str, bytes)) else check_rle(mask, width_px=width_px, height_px=height_px)


def _check_polygon(polygon: Any, name: str, side_px: int) -> None:
    """Refuse what pycocotools crashes on or takes for a box."""
    if not isinstance(polygon, list) or len(polygon) < 6 or len(polygon) % 2:
        raise DataError(
            f"{name} is not an outline",
            found=f"{len(polygon)} numbers" if isinstance(polygon, list) else describe(polygon),
            expected="x, y, x, y, ... of three points or more",
            hint="Remove the polygon, or its row if it has no other polygon",
        )
    try:
        points = check_points(list(zip(polygon[::2], polygon[1::2], strict=True)))
    except PointError as error:
        raise DataError(f"{name}: {error}") from None
    reach_px = FARTHEST_SIDES * side_px
    if np.abs(points).max() > reach_px:
        raise DataError(
            f"{name} lies far outside its image",
            found=describe(float(points.flat[np.abs(points).argmax()])),
            expected=f"nothing beyond {reach_px} px",
        )
    if len(points) * 2 * reach_px > LENGTH_LIMIT_PX and outline_length_px(points) > LENGTH_LIMIT_PX:
        raise DataError(f"{name} is longer than {LENGTH_LIMIT_PX:,} px")


def checked_texts(rles: Sequence[Rle], place_of: Callable[[int], str]) -> list[Rle]:
    """The masks with their compressed text checked; a mask with empty runs is written again without them.

    Args:
        rles: Masks of any sizes.
        place_of: The place of the mask with an index, for messages.

    Raises:
        DataError: A text cannot be read, or its runs do not add up to the image.
    """
    kept = list(rles)
    filled = np.cumsum([len(one["counts"]) for one in rles])
    for chunk in np.split(np.arange(len(kept)), np.flatnonzero(np.diff(filled // TEXT_BYTES)) + 1):
        for at in chunk[_odd_texts([kept[index] for index in chunk])].tolist():
            height_px, width_px = kept[at]["size"]
            counts = kept[at]["counts"]
            text = counts.decode("latin-1") if isinstance(counts, bytes) else counts
            try:
                if not text.isascii():
                    raise PointError("bad_rle", f"the compressed runs hold {describe(text)}")
                kept[at] = check_rle({**kept[at], "counts": text}, width_px=width_px, height_px=height_px)
            except PointError as error:
                raise DataError(str(error), place=place_of(at)) from None
    return kept


def _odd_texts(rles: Sequence[Rle]) -> NDArray[np.int64]:
    """Indices of the masks whose text differs from what pycocotools would write for a mask of their size."""
    texts = [_as_bytes(one["counts"]) for one in rles]
    length = np.array([len(text) for text in texts], np.int64)
    groups = np.frombuffer(b"".join(texts), np.uint8).astype(np.int16) - 48
    owner = np.repeat(np.arange(len(texts)), length)
    odd = length == 0
    odd[owner[(groups < 0) | (groups > 63)]] = True
    goes_on = groups & 32 != 0
    odd[owner[np.flatnonzero(goes_on & (np.diff(owner, append=-1) != 0))]] = True
    last = np.flatnonzero(~goes_on)
    odd[owner[last[np.diff(last, prepend=-1) > _LONGEST_GROUPS]]] = True
    plain = np.flatnonzero(~odd)
    if plain.size:
        runs, first = _run_lengths([rles[at] for at in plain.tolist()])
        pixels = np.array([rles[at]["size"][0] * rles[at]["size"][1] for at in plain.tolist()], np.int64)
        wrong = np.add.reduceat(runs, first[:-1]) != pixels
        runs[first[:-1]] += 1  # only the first run may be empty
        odd[plain] = wrong | (np.minimum.reduceat(runs, first[:-1]) < 1)
    return np.flatnonzero(odd)


def _as_bytes(counts: str | bytes) -> bytes:
    return counts.encode("utf-8", "surrogatepass") if isinstance(counts, str) else counts


def encode(masks: Tensor) -> list[Rle]:
    """The run lengths of ``(N, H, W)`` bool masks."""
    columns = np.asfortranarray(masks.permute(1, 2, 0).cpu().numpy().astype(np.uint8))
    rles: list[Rle] = mask_utils.encode(columns) if columns.size else []
    return rles


def compare(
    detections: Sequence[Rle],
    truth: Sequence[Rle],
    detection_classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    *,
    floor: float,
    boundary_px: int | None,
) -> tuple[NDArray[np.int64], Pairs, Pairs | None]:
    """Areas of the detections, pairs by mask IoU and, with ``boundary_px``, pairs by boundary IoU.

    Args:
        detections: D masks.
        truth: G masks.
        detection_classes: ``(D,)``.
        truth_classes: ``(G,)``.
        crowd: ``(G,)``.
        floor: The lowest IoU that counts.
        boundary_px: Width of a boundary, or None for no boundaries.
    """
    pairs = _mask_pairs(detections, truth, detection_classes, truth_classes, crowd, floor)
    # one by one: pycocotools 2.0.11 cannot count those of more than 255 masks at once
    areas = np.array([mask_utils.area(one) for one in detections], np.int64)
    if boundary_px is None:
        return areas, pairs, None
    return areas, pairs, _boundary_pairs(detections, truth, crowd, pairs, floor, boundary_px)


def _mask_pairs(
    detections: Sequence[Rle],
    truth: Sequence[Rle],
    detection_classes: NDArray[np.int64],
    truth_classes: NDArray[np.int64],
    crowd: NDArray[np.bool_],
    floor: float,
) -> Pairs:
    by_class = []
    for number in np.intersect1d(detection_classes, truth_classes):
        rows, columns = np.flatnonzero(detection_classes == number), np.flatnonzero(truth_classes == number)
        ours, theirs = [detections[at] for at in rows.tolist()], [truth[at] for at in columns.tolist()]
        iou = mask_utils.iou(ours, theirs, crowd[columns].tolist())
        d, g = np.nonzero(iou >= floor)
        by_class.append(Pairs(rows[d], columns[g], iou[d, g]))
    return join_pairs(by_class)


def _boundary_pairs(
    detections: Sequence[Rle],
    truth: Sequence[Rle],
    crowd: NDArray[np.bool_],
    of_masks: Pairs,
    floor: float,
    width_px: int,
) -> Pairs:
    """The pairs whose boundary IoU is ``floor`` or more, among those whose masks reach it.

    The smaller one of mask IoU and IoU of the boundaries is at most the mask IoU, so that no other pair can reach it.
    """
    of_boundaries = of_masks.iou.copy()
    plain = np.flatnonzero(~crowd[of_masks.truth])
    for chunk in _affordable(plain, detections, truth, of_masks):
        iou = _boundary_iou(detections, truth, of_masks, chunk, width_px)
        of_boundaries[chunk] = np.minimum(of_masks.iou[chunk], iou)
    kept = of_boundaries >= floor
    return Pairs(of_masks.detection[kept], of_masks.truth[kept], of_boundaries[kept])


def _affordable(
    chosen: NDArray[np.int64], detections: Sequence[Rle], truth: Sequence[Rle], pairs: Pairs
) -> list[NDArray[np.int64]]:
    """``chosen`` in chunks whose unrolled masks fit into ``UNROLLED_BYTES``, or of one pair."""
    if not chosen.size:
        return []
    detection_spans, truth_spans = (mask_utils.toBbox(list(masks))[:, 2] for masks in (detections, truth))
    columns = detection_spans[pairs.detection[chosen]] + truth_spans[pairs.truth[chosen]]
    filled = np.cumsum(columns * detections[0]["size"][0])
    return np.split(chosen, np.flatnonzero(np.diff(filled // UNROLLED_BYTES)) + 1)


def _boundary_iou(
    detections: Sequence[Rle], truth: Sequence[Rle], pairs: Pairs, chosen: NDArray[np.int64], width_px: int
) -> NDArray[np.float64]:
    """IoU of the boundaries of the pairs with the indices ``chosen``, ``(len(chosen),)``."""
    rows, row_of = np.unique(pairs.detection[chosen], return_inverse=True)
    columns, column_of = np.unique(pairs.truth[chosen], return_inverse=True)
    boundaries = [
        (crop_boundary(crop, width_px), left, top)
        for crop, left, top in crops([detections[at] for at in rows] + [truth[at] for at in columns])
    ]
    areas = np.array([np.count_nonzero(crop) for crop, _, _ in boundaries])
    overlap = np.zeros(len(chosen), np.int64)
    for at, (row, column) in enumerate(zip(row_of, column_of + len(rows), strict=True)):
        (a, a_left, a_top), (b, b_left, b_top) = boundaries[row], boundaries[column]
        x, y = max(a_left, b_left), max(a_top, b_top)
        stop_x = min(a_left + a.shape[0], b_left + b.shape[0])
        stop_y = min(a_top + a.shape[1], b_top + b.shape[1])
        overlap[at] = np.count_nonzero(
            a[x - a_left : stop_x - a_left, y - a_top : stop_y - a_top]
            & b[x - b_left : stop_x - b_left, y - b_top : stop_y - b_top]
        )
    return count_iou(overlap, areas[row_of], areas[column_of + len(rows)], np.zeros(len(chosen), dtype=bool))


def crops(rles: Sequence[Rle]) -> list[tuple[NDArray[np.bool_], int, int]]:
    """Each mask cut to its box, as (columns x rows bool, left, top); masks of one size.

    An empty mask has no columns.
    """
    if not rles:
        return []
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
    """The run lengths of compressed RLEs in one array, and where those of each RLE begin in it, ``(N + 1,)``.

    A number is written in groups of five bits, lowest first, each a character from ``0`` on; bit 5 says that more
    follow, bit 4 of the last group is the sign. From the fourth number on each is the difference to the number two
    places before.
    """
    texts = [_as_bytes(one["counts"]) for one in rles]
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
