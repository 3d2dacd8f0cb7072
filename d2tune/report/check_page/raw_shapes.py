"""Shapes as annotation files give them, so that those which a dataset drops can be shown."""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import lru_cache, partial
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element

import numpy as np

from d2tune.annotations.formats import coco, labelme, via
from d2tune.annotations.formats.coco.loose import plain_id, read_id
from d2tune.annotations.formats.coco.segmentations import rings_of
from d2tune.annotations.formats.rle_layout import PRESETS, layout_of, separator_of
from d2tune.annotations.formats.voc_objects import box_of, polygons_of, rotated_box_of
from d2tune.annotations.geometry.polygons import (
    COORDINATE_LIMIT_PX,
    PointError,
    check_points,
    ellipse_points,
    rectangle_points,
)
from d2tune.annotations.io.json_files import JsonError, decode_json, decode_text, read_bytes
from d2tune.annotations.io.xml_files import parse_xml
from d2tune.annotations.model.types import Points

_POINTS_SHOWN = 5000
_FILE_LIMIT_BYTES = 512 * 1024 * 1024


@dataclass(frozen=True, slots=True, eq=False)
class RawShape:
    """One shape as its file gives it.

    Attributes:
        image_name: The image it was drawn on, as the file names it; None where the file names none.
        outlines: Closed outlines in pixels, each ``(V, 2)`` and finite.
        lines: Open lines and single points, each ``(V, 2)`` and finite.
        runs: Run-length text, to be drawn on the image's own size.
        runs_by_row: Whether the runs go along rows.
    """

    image_name: str | None = None
    outlines: tuple[Points, ...] = ()
    lines: tuple[Points, ...] = ()
    runs: str = field(default="", repr=False)
    runs_by_row: bool = False


Lazy = Callable[[], RawShape]


def raw_shapes(path: Path) -> dict[int, Lazy]:
    """Read an annotation file leniently: what cannot be drawn is skipped, and nothing raises.

    Returns:
        The shapes by shape index, or by line where a file has lines; call one to have it made.
    """
    try:
        status = path.stat()
    except (OSError, ValueError):
        return {}
    return {} if status.st_size > _FILE_LIMIT_BYTES else _read(path, status.st_mtime_ns)


@lru_cache(maxsize=2)
def _read(path: Path, changed_ns: int) -> dict[int, Lazy]:
    """The shapes of a file as it was at a time; the last files are remembered."""
    try:
        content = read_bytes(path)
        suffix = path.suffix.lower()
        if suffix == ".json":
            return dict(_json_shapes(decode_json(content)[0]))
        if suffix == ".csv":
            return dict(_csv_shapes(decode_text(content)[0]))
        if suffix == ".xml":
            return dict(_xml_shapes(parse_xml(content)))
    except (OSError, JsonError, csv.Error, ValueError, LookupError):
        pass
    return {}


def runs_mask(shape: RawShape, *, width_px: int, height_px: int) -> np.ndarray:
    """The pixels ``(H, W)`` bool of those runs that lie on the image, however wrong the others are."""
    words = [int(word) for word in shape.runs.split() if word.isascii() and word.isdigit() and len(word) < 19]
    flat = np.zeros(width_px * height_px, dtype=bool)
    for start, length in zip(words[0::2], words[1::2], strict=False):
        flat[max(0, start - 1) : max(0, start - 1 + length)] = True
    return flat.reshape(height_px, width_px) if shape.runs_by_row else flat.reshape(width_px, height_px).T


def _json_shapes(value: Any) -> Iterator[tuple[int, Lazy]]:
    if labelme.is_labelme(value):
        image_name = value.get("imagePath")
        for index, row in enumerate(value["shapes"]):
            if isinstance(row, dict):
                yield index, partial(_labelme_shape, row, image_name if isinstance(image_name, str) else None)
    elif coco.is_coco(value):
        images = [row for row in value["images"] if isinstance(row, dict)]
        ids = [read_id(row.get("id")) for row in images]
        names = {plain_id(one): row.get("file_name") for one, row in zip(ids, images, strict=True) if one is not None}
        for index, row in enumerate(value["annotations"]):
            if isinstance(row, dict):
                image_id = read_id(row.get("image_id"))
                name = None if image_id is None else names.get(plain_id(image_id))
                yield index, partial(_coco_shape, row, name if isinstance(name, str) else None)
    elif via.is_via(value):
        for image in via.images_of(value):
            for region in image.regions:
                name = image.name if isinstance(image.name, str) else None
                yield region.index, partial(_via_shape, region, name)


def _labelme_shape(row: dict[str, Any], image_name: str | None) -> RawShape:
    points, kind = _finite(row.get("points")), row.get("shape_type") or "polygon"
    if kind in ("rectangle", "mask") and len(points) == 2:
        return RawShape(image_name, (rectangle_points(*points.tolist()),))
    if kind == "circle" and len(points) == 2:
        radius_px = math.dist(*points.tolist())
        if 0 < radius_px < COORDINATE_LIMIT_PX:
            return RawShape(image_name, (ellipse_points(points[0].tolist(), radius_px, radius_px),))
    if kind == "points":
        return RawShape(image_name, lines=tuple(points[at : at + 1] for at in range(min(200, len(points)))))
    return _closed_or_open(image_name, points, is_closed=kind not in ("line", "linestrip", "point"))


def _coco_shape(row: dict[str, Any], image_name: str | None) -> RawShape:
    segmentation, box = row.get("segmentation"), row.get("bbox")
    outlines = []
    for ring in _rings(segmentation):
        is_flat = not isinstance(ring[0], list)
        outlines.append(_finite([ring[at : at + 2] for at in range(0, len(ring) - 1, 2)] if is_flat else ring))
    if not outlines and isinstance(box, list) and len(box) == 4:
        corner, size = _finite([box[:2]]), _finite([box[2:]])
        if len(corner) and len(size):
            outlines.append(rectangle_points(*np.concatenate([corner, corner + size]).tolist()))
    closed = [_closed_or_open(image_name, points, is_closed=True) for points in outlines]
    return RawShape(
        image_name,
        tuple(points for shape in closed for points in shape.outlines),
        tuple(points for shape in closed for points in shape.lines),
    )


def _rings(segmentation: object) -> list[list[Any]]:
    try:
        return list(rings_of(segmentation)) if isinstance(segmentation, list) else []
    except PointError:
        return []


def _via_shape(region: via.Region, image_name: str | None) -> RawShape:
    if region.kind in ("polygon", "polyline"):
        return _closed_or_open(image_name, _finite(region.numbers), is_closed=region.kind == "polygon")
    pairs = [[value, 0] for value in region.numbers] if isinstance(region.numbers, list) else []
    numbers = _finite(pairs)[:, 0].tolist()
    if len(numbers) != len(pairs) or len(numbers) < 2:
        return RawShape(image_name)
    x, y, *sizes = numbers
    if region.kind == "rect" and len(sizes) == 2:
        return RawShape(image_name, (rectangle_points((x, y), (x + sizes[0], y + sizes[1])),))
    if region.kind in ("circle", "ellipse") and sizes and min(sizes[:2]) > 0:
        theta = sizes[2] if len(sizes) > 2 else 0.0
        radius_y = sizes[1] if len(sizes) > 1 else sizes[0]
        return RawShape(image_name, (ellipse_points((x, y), sizes[0], radius_y, theta_rad=theta),))
    return RawShape(image_name, lines=(np.array([[x, y]]),))


def _csv_shapes(text: str) -> Iterator[tuple[int, Lazy]]:
    rows = csv.reader(io.StringIO(text, newline=""), delimiter=separator_of(text.partition("\n")[0]))
    layout = layout_of(next(rows, []))
    if layout is None or layout.preset is None:
        return
    by_rows = PRESETS[layout.preset].by_rows
    for row in rows:
        if len(row) == len(layout.columns):
            image_name, _, runs = layout.cells(row)
            yield rows.line_num, partial(RawShape, image_name, runs=runs, runs_by_row=by_rows)


def _xml_shapes(root: Element) -> Iterator[tuple[int, Lazy]]:
    image_name = root.findtext("filename")
    for index, element in enumerate(root.findall("object")):
        try:
            outlines, rotated, corners = polygons_of(element), rotated_box_of(element), box_of(element)
        except PointError:
            continue
        if not outlines and rotated is not None:
            outlines = [rotated]
        if not outlines and corners is not None:
            outlines = [rectangle_points(*corners.tolist())]
        if outlines:
            yield index, partial(RawShape, image_name and image_name.strip(), tuple(outlines))


def _closed_or_open(image_name: str | None, points: Points, *, is_closed: bool) -> RawShape:
    if is_closed and len(points) > 2:
        return RawShape(image_name, (points,))
    return RawShape(image_name, lines=(points,) if len(points) else ())


def _finite(raw: object) -> Points:
    """The points of a list that are pairs of finite numbers within the limits, ``(V, 2)``."""
    valid = []
    for pair in raw[:_POINTS_SHOWN] if isinstance(raw, (list, tuple)) else ():
        try:
            valid.append(check_points([pair])[0])
        except PointError:
            continue
    return np.array(valid, dtype=np.float64).reshape(-1, 2)
