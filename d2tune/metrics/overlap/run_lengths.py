"""Masks as run lengths, compared on the CPU without making bitmaps of whole images.

pycocotools walks along the runs of two masks to count what they share. For boundaries the columns that a mask spans
are unrolled, all masks of an image at once, and only for pairs whose masks overlap enough to match at all.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as mask_utils
from torch import Tensor

from d2tune.annotations.geometry.masks import check_rle
from d2tune.annotations.geometry.polygons import LENGTH_LIMIT_PX, PointError, check_points, outline_length_px
from d2tune.errors import DataError
from d2tune.metrics.overlap.boundary import crop_boundary
from d2tune.metrics.overlap.iou import Pairs, count_iou, join_pairs
from d2tune.text import describe

Rle = dict[str, Any]
"""COCO's compressed run lengths, ``{"size": [height, width], "counts": str or bytes}``."""

UNROLLED_BYTES = 64 * 2**20
"""Bound on the bitmaps that are unrolled at once."""

TEXT_BYTES = 2**16
"""Bound on the compressed text that is checked at once."""

FARTHEST_SIDES = 4
"""So many times the longer side of its image a polygon may reach out from the corner."""

_LONGEST_GROUPS = 7  # characters of a run; 34 bits are more than an image has pixels


def to_rle(segmentation: Any, height_px: int, width_px: int) -> Rle:
    """Polygons, uncompressed or compressed run lengths as compressed ones, as pycocotools' ``annToRLE`` has it.

    Compressed text is taken as it is; :func:`checked_texts` looks at many of them at once.

    Raises:
        DataError: It is neither, the mask has not the size of the image, runs do not add up to it, or a polygon has
            fewer than three points, or points that are not finite or far from the image.
    """
    try:
        if isinstance(segmentation, dict) and "counts" in segmentation and "size" in segmentation:
            return _run_length_mask(segmentation["size"], segmentation["counts"], height_px, width_px)
        if isinstance(segmentation, list) and segmentation:
            for number, part in enumerate(segmentation, 1):
                _check_polygon(part, f"polygon {number}", max(height_px, width_px))
            return mask_utils.merge(mask_utils.frPyObjects(segmentation, height_px, width_px))
    except PointError as error:
        raise DataError(str(error)) from None
    raise DataError("a segmentation is neither polygons nor run lengths", found=describe(segmentation, limit=80))


def _run_length_mask(size: Any, counts: Any, height_px: int, width_px: int) -> Rle:
    if not isinstance(size, (list, tuple)) or list(size) != [height_px, width_px]:
        is_pair = isinstance(size, (list, tuple)) and len(size) == 2
        raise DataError(
            "a mask has not the size of its image",
            found="{} x {} px (height x width)".format(*map(describe, size)) if is_pair else f"size {describe(size)}",
            expected=f"{height_px} x {width_px} px",
        )
    mask = {"size": [height_px, width_px], "counts": counts}
    return mask if isinstance(counts, (str, bytes)) else check_rle(mask, width_px=width_px, height_px=height_px)


def _check_polygon(part: Any, name: str, side_px: int) -> None:
    """Refuse what pycocotools crashes on or takes for a box."""
    if not isinstance(part, list) or len(part) < 6 or len(part) % 2:
        raise DataError(
            f"{name} is no outline",
            found=f"{len(part)} numbers" if isinstance(part, list) else describe(part),
            expected="x and y in turn of three points or more",
            hint="Remove the polygon, or the row where it has no other",
        )
    try:
        points = check_points(list(zip(part[::2], part[1::2], strict=True)))
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
    """The masks, after a look at their compressed text; where runs are empty, with the same mask in plain runs.

    Args:
        rles: Masks of any sizes.
        place_of: What to call the mask with an index.

    Raises:
        DataError: A text cannot be read, or its runs do not add up to the image.
    """
    kept = list(rles)
    filled = np.cumsum([len(one["counts"]) for one in rles])
    for part in np.split(np.arange(len(kept)), np.flatnonzero(np.diff(filled // TEXT_BYTES)) + 1):
        for at in part[_odd_texts([kept[index] for index in part])].tolist():
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
    """Indices of the masks whose text is not what pycocotools would write for a mask of their size."""
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
