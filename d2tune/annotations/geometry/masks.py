"""Masks as COCO run lengths and bitmaps: conversion, union and measures."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask  # type: ignore[import-untyped,unused-ignore]
from numpy.typing import NDArray

from d2tune.annotations.geometry.polygons import LENGTH_LIMIT_PX, PointError, outline_length_px
from d2tune.annotations.model.types import Mask, Points, Polygons, RawRle, Rle
from d2tune.text import describe

_MERGED_AT_ONCE = 64
_AREAS_AT_ONCE = 255  # pycocotools fails on more with numpy 2


def rasterize(polygons: Sequence[Points], *, width_px: int, height_px: int) -> list[RawRle]:
    """One run-length mask per polygon; the polygons must be on the image and have three or more vertices.

    Raises:
        PointError: An outline is longer than `LENGTH_LIMIT_PX`.
    """
    if not polygons:
        return []
    many_vertices = LENGTH_LIMIT_PX / max(width_px, height_px)  # no edge is longer than the image
    if any(len(part) > many_vertices and outline_length_px(part) > LENGTH_LIMIT_PX for part in polygons):
        raise PointError("outline_too_complex", f"its length on the image is over {LENGTH_LIMIT_PX:,} px")
    rles: list[RawRle] = coco_mask.frPyObjects([part.reshape(-1) for part in polygons], height_px, width_px)
    return rles


def union_rles(rles: Sequence[RawRle]) -> RawRle:
    """The union of run-length masks."""
    merged = list(rles)
    while len(merged) > 1:
        # in blocks, because merging masks one by one goes through all runs once for every mask
        merged = [coco_mask.merge(merged[at : at + _MERGED_AT_ONCE]) for at in range(0, len(merged), _MERGED_AT_ONCE)]
    return merged[0]


def union_segmentations(segmentations: Sequence[Polygons | Rle], *, width_px: int, height_px: int) -> RawRle:
    """The union of the segmentations of one instance or more of an image of that size.

    Raises:
        PointError: An outline is longer than `LENGTH_LIMIT_PX`.
    """
    rles: list[RawRle] = []
    for one in segmentations:
        rles += [to_raw(one)] if isinstance(one, Rle) else rasterize(one, width_px=width_px, height_px=height_px)
    return union_rles(rles)


def rle_area_px2(rle: RawRle) -> float:
    """The number of pixels."""
    return float(coco_mask.area(rle))


def rle_areas_px2(rles: Sequence[RawRle]) -> list[float]:
    """The number of pixels of each mask."""
    blocks = (list(rles[at : at + _AREAS_AT_ONCE]) for at in range(0, len(rles), _AREAS_AT_ONCE))
    return [float(area) for block in blocks for area in coco_mask.area(block)]


def rle_bbox_xywh(rle: RawRle) -> tuple[float, float, float, float]:
    """The box ``(x, y, width, height)`` around a run-length mask."""
    x, y, width, height = (float(value) for value in coco_mask.toBbox(rle))
    return x, y, width, height


def encode_mask(mask: NDArray[Any]) -> RawRle:
    """A whole-image mask ``(H, W)`` as a run-length mask."""
    rle: RawRle = coco_mask.encode(np.asfortranarray(mask, dtype=np.uint8))
    return rle


def decode_mask(rle: RawRle | Rle) -> Mask:
    """The pixels ``(H, W)`` of a run-length mask."""
    raw = {"size": [rle.height_px, rle.width_px], "counts": rle.counts} if isinstance(rle, Rle) else rle
    mask: Mask = coco_mask.decode(raw).view(np.bool_)
    return mask


def to_rle(raw: RawRle) -> Rle:
    """The run-length mask of a dataset for pycocotools' object."""
    counts = raw["counts"]
    height_px, width_px = (int(value) for value in raw["size"])
    return Rle(height_px, width_px, counts.decode("ascii") if isinstance(counts, bytes) else counts)


def to_raw(rle: Rle) -> RawRle:
    """A run-length mask of a dataset as pycocotools' object."""
    return {"size": [rle.height_px, rle.width_px], "counts": rle.counts.encode("ascii")}


def runs_to_rle(starts: NDArray[np.int64], lengths: NDArray[np.int64], *, width_px: int, height_px: int) -> RawRle:
    """A run-length mask from column-major runs.

    Args:
        starts: First pixel of each run from 0, ascending, shape ``(R,)``.
        lengths: Pixels in each run, positive; runs may adjoin but not overlap, shape ``(R,)``.
        width_px: Width of the image.
        height_px: Height of the image.
    """
    stops = starts + lengths
    opens = np.concatenate([starts[:1], starts[1:][starts[1:] > stops[:-1]]])
    closes = np.concatenate([stops[:-1][starts[1:] > stops[:-1]], stops[-1:]])
    edges = np.stack([opens, closes], axis=1).reshape(-1)
    bounds = np.concatenate([[0], edges, [width_px * height_px]])
    counts = np.diff(bounds)
    if len(counts) > 1 and counts[-1] == 0:
        counts = counts[:-1]
    rle: RawRle = coco_mask.frPyObjects({"size": [height_px, width_px], "counts": counts.tolist()}, height_px, width_px)
    return rle


def check_rle(segmentation: Mapping[str, Any], *, width_px: int, height_px: int) -> RawRle:
    """Check a COCO run-length dict, compressed or not, before pycocotools decodes it.

    Raises:
        PointError: Its size is not the image's, or its runs do not add up to the image.
    """
    size = segmentation.get("size")
    if size != [height_px, width_px]:
        expected = f"[{height_px}, {width_px}]"
        raise PointError("bad_rle", f"the run-length mask has the size {describe(size)}, expected {expected}")
    counts = segmentation.get("counts")
    runs = _decompress(counts) if isinstance(counts, str) else counts
    if not isinstance(runs, list) or not all(type(run) is int and run >= 0 for run in runs):
        raise PointError("bad_rle", "the counts of the run-length mask are neither whole numbers nor compressed text")
    total = sum(runs)
    if total != width_px * height_px:
        raise PointError("bad_rle", f"the runs add up to {total} pixels, the image has {width_px * height_px}")
    edges = np.cumsum([0, *runs])
    starts, stops = edges[1:-1:2], edges[2::2]
    filled = stops > starts
    if not filled.any():
        return encode_mask(np.zeros((height_px, width_px), dtype=np.uint8))
    lengths = (stops - starts)[filled].astype(np.int64)
    return runs_to_rle(starts[filled].astype(np.int64), lengths, width_px=width_px, height_px=height_px)


def _decompress(text: str) -> list[int] | None:
    """The runs of pycocotools' compressed counts; None where the text is invalid.

    Each run is a little-endian number with 5 bits per character above code 48. Bit 5 is set where more characters
    follow, and bit 4 of the last character is the sign. From the fourth run on, the difference to the run two before
    is stored.
    """
    runs: list[int] = []
    value = shift = 0
    if not text.isascii():
        return None
    for code in text.encode("ascii"):
        bits = code - 48
        if not 0 <= bits < 64 or shift > 60:
            return None
        value |= (bits & 31) << shift
        shift += 5
        if bits & 32:
            continue
        if bits & 16:
            value -= 1 << shift
        runs.append(value + runs[-2] if len(runs) > 2 else value)
        value = shift = 0
    return None if shift else runs


def mask_runs(mask: NDArray[Any]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Column-major runs ``(starts, lengths)``, both ``(R,)``, of a mask ``(H, W)``; starts count from 0."""
    flat = np.concatenate([[False], np.asarray(mask, dtype=bool).reshape(-1, order="F"), [False]])
    edges = np.flatnonzero(flat[1:] != flat[:-1]).astype(np.int64)
    return edges[0::2], edges[1::2] - edges[0::2]


@dataclass(frozen=True, slots=True, eq=False)
class Patch:
    """A mask that covers part of an image.

    Attributes:
        mask: The pixels, shape ``(h, w)``.
        left_px: Column of the image where the patch begins.
        top_px: Row of the image where the patch begins.
    """

    mask: Mask
    left_px: int
    top_px: int

    def clipped(self, *, width_px: int, height_px: int) -> Patch:
        """The part of the patch on the image, cropped to its pixels; an empty patch where it has none."""
        rows = slice(max(0, -self.top_px), max(0, height_px - self.top_px))
        columns = slice(max(0, -self.left_px), max(0, width_px - self.left_px))
        mask = self.mask[rows, columns]
        top, left = self.top_px + rows.start, self.left_px + columns.start
        filled_rows, filled_columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(filled_rows):
            return Patch(mask[:0, :0], 0, 0)
        y, x = int(filled_rows[0]), int(filled_columns[0])
        return Patch(mask[y : int(filled_rows[-1]) + 1, x : int(filled_columns[-1]) + 1], left + x, top + y)

    def rle(self, *, width_px: int, height_px: int) -> RawRle:
        """The patch as a mask of the whole image; it must be clipped and not empty."""
        if 4 * self.mask.size > width_px * height_px:
            canvas = np.zeros((height_px, width_px), dtype=np.uint8, order="F")
            rows, columns = self.mask.shape
            canvas[self.top_px : self.top_px + rows, self.left_px : self.left_px + columns] = self.mask
            return encode_mask(canvas)
        starts, lengths = mask_runs(np.pad(self.mask, ((0, 1), (0, 0))))
        column, row = np.divmod(starts, self.mask.shape[0] + 1)
        places = (self.left_px + column) * height_px + self.top_px + row
        return runs_to_rle(places, lengths, width_px=width_px, height_px=height_px)
