"""COCO's ground truth and results, checked and put in order for scoring.

An error names the row, before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar

import numpy as np
from pycocotools import mask as mask_utils

from d2tune.annotations.geometry.polygons import COORDINATE_LIMIT_PX
from d2tune.annotations.model.dataset import Category
from d2tune.errors import D2TuneError, DataError
from d2tune.metrics.coco.results import Kind
from d2tune.metrics.overlap.run_lengths import Rle, checked_texts, to_rle
from d2tune.text import describe

T = TypeVar("T")
Row = dict[str, Any]
Size = tuple[Any, Any]
"""Height and width in px, None if the file has none; checked only for images with masks."""

PIXELS_LIMIT = 2**31 - 1
"""Larger masks overflow the integers that pycocotools counts with."""

AREA_SLACK = 2
"""Limit of an area as a multiple of its image: areas of outlines that extend beyond the image are common."""


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Ground truth and results of the same images; rows keep their order.

    A row has ``image_id``, ``category_id``, ``score`` (results), ``iscrowd`` and ``area`` (ground truth), ``bbox``
    if boxes are scored and ``rle`` if masks are scored.

    Attributes:
        image_ids: The images, ascending.
        categories: The classes, by id.
        truth: Rows of the ground truth.
        results: Rows of the results.
    """

    image_ids: tuple[int, ...]
    categories: tuple[Category, ...]
    truth: tuple[Row, ...]
    results: tuple[Row, ...]

    def by_image(self) -> Iterator[tuple[int, list[Row], list[Row]]]:
        """Each image with its ground truth and its results."""
        sides: list[dict[int, list[Row]]] = []
        for rows in (self.truth, self.results):
            side: dict[int, list[Row]] = {image_id: [] for image_id in self.image_ids}
            for row in rows:
                side[row["image_id"]].append(row)
            sides.append(side)
        for image_id in self.image_ids:
            yield image_id, sides[0][image_id], sides[1][image_id]


def read_coco(ground_truth: dict[str, Any], results: Sequence[dict[str, Any]], kinds: Sequence[Kind]) -> CocoSet:
    """Check the ground truth and the results of an evaluation.

    Args:
        ground_truth: A COCO instances dict. ``iscrowd`` is 0 by default, ``area`` that of the mask, or of the box
            where only boxes are scored.
        results: Rows in COCO's results format. ``bbox`` is that of the mask by default.
        kinds: What will be scored; it decides whether boxes and masks are required.

    Raises:
        DataError: A value is missing or has another type; an id is not a whole number or is not unique; a row names an
            unknown image or class; a score is not a finite number; the size of a mask differs from that of its image,
            or its runs do not add up to it; a polygon is invalid.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(ground_truth.get(key), list):
            raise DataError("the ground truth is not a COCO instances file", place=key, expected="a list")
    sizes = _by_id(ground_truth["images"], "image", _size)
    names = _by_id(ground_truth["categories"], "category", _name)
    categories = tuple(Category(number, names[number]) for number in sorted(names))
    truth = _read_rows(ground_truth["annotations"], _annotation_place, sizes, names, kinds, _truth_fields)
    checked_results = _read_rows(results, _result_place, sizes, names, kinds, _result_fields)
    return CocoSet(tuple(sorted(sizes)), categories, tuple(truth), tuple(checked_results))


def _annotation_place(rows: Sequence[Any], at: int) -> str:
    number = rows[at].get("id") if isinstance(rows[at], dict) else None
    return f"annotation {at + 1} of {len(rows)}" if number is None else f"annotation {describe(number)}"


def _result_place(rows: Sequence[Any], at: int) -> str:
    return f"result {at + 1} of {len(rows)}"


def _by_id(rows: Sequence[Any], what: str, value_of: Callable[[Row, str], T]) -> dict[int, T]:
    """A value of each image or class, by its id."""
    values: dict[int, T] = {}
    for at, row in enumerate(rows):
        place = f"{what} {at + 1} of {len(rows)}"
        number = _id(_object(row, place), "id", place)
        if number in values:
            raise DataError(f"another {what} has the same id", place=place, found=f"id {number}")
        values[number] = value_of(row, place)
    return values


def _size(row: Row, place: str) -> Size:
    return row.get("height"), row.get("width")


def _name(row: Row, place: str) -> str:
    name = row.get("name")
    if not isinstance(name, str):
        raise DataError("the category has no name", place=place, found=f"name {describe(name)}", expected="text")
    return name


def _object(row: Any, place: str) -> Row:
    if not isinstance(row, dict):
        raise DataError("the row is not a JSON object", place=place, found=describe(row))
    return row


def _id(row: Row, key: str, place: str) -> int:
    """A whole number, or a float with a whole value, as exports of tables have."""
    value: Any = row.get(key)
    number = _number(value)
    if number is None or number != int(number) or abs(number) >= 2**63:
        is_text = isinstance(value, str)
        raise DataError(
            f"the {key} is text" if is_text else f"the {key} is not a whole number",
            place=place,
            found=f"{key} {describe(value)}",
            expected="a whole number",
            hint="Give images and classes whole numbers, the same in both files" if is_text else None,
        )
    return int(value)


def _number(value: Any) -> float | None:
    """A finite number, or None."""
    if isinstance(value, (bool, np.bool_)) or not isinstance(value, (int, float, np.integer, np.floating)):
        return None
    try:
        number = float(value)
    except OverflowError:
        return None
    return number if math.isfinite(number) else None


def _read_rows(
    rows: Sequence[Any],
    place_of: Callable[[Sequence[Any], int], str],
    sizes: dict[int, Size],
    names: dict[int, str],
    kinds: Sequence[Kind],
    fields: Callable[[Row, Row, Size, str], None],
) -> list[Row]:
    """The checked rows of one side; all compressed masks are checked together, before they are used."""
    read = [_row(row, sizes, names, kinds, place_of(rows, at)) for at, row in enumerate(rows)]
    masked = [at for at, checked in enumerate(read) if "rle" in checked]
    rles = checked_texts([read[at]["rle"] for at in masked], lambda index: place_of(rows, masked[index]))
    for at, rle in zip(masked, rles, strict=True):
        read[at]["rle"] = rle
    for at, checked in enumerate(read):
        if "bbox" in kinds and "bbox" not in checked:
            checked["bbox"] = mask_utils.toBbox([checked["rle"]])[0].tolist()
        fields(checked, rows[at], sizes[checked["image_id"]], place_of(rows, at))
    return read


def _row(row: Any, sizes: dict[int, Size], names: dict[int, str], kinds: Sequence[Kind], place: str) -> Row:
    image_id, category_id = (_id(_object(row, place), key, place) for key in ("image_id", "category_id"))
    if image_id not in sizes:
        hint = "Results and ground truth must have the same images"
        raise DataError("the image is not in the ground truth", place=place, found=f"image_id {image_id}", hint=hint)
    if category_id not in names:
        known = ", ".join(str(number) for number in sorted(names)[:20])
        raise DataError(
            "the class is not in the ground truth",
            place=place,
            found=f"category_id {category_id}",
            expected=f"one of {known}" if known else "a ground truth with categories",
        )
    checked: Row = {"image_id": image_id, "category_id": category_id}
    has_box = row.get("bbox") is not None and row["bbox"] != []
    if "segm" in kinds or "boundary" in kinds or ("bbox" in kinds and not has_box):
        checked["rle"] = _mask(row, image_id, sizes, place)
    if "bbox" in kinds and has_box:
        checked["bbox"] = _box(row["bbox"], place)
    return checked


def _box(raw: Any, place: str) -> list[float]:
    sides = [_number(side) for side in raw] if isinstance(raw, (list, tuple)) and len(raw) == 4 else []
    box = [side for side in sides if side is not None and abs(side) <= COORDINATE_LIMIT_PX]
    if len(box) != 4:
        raise DataError(
            "the box is not four finite numbers", place=place, found=describe(raw, limit=80), expected="[x, y, w, h]"
        )
    if box[2] < 0 or box[3] < 0:
        raise DataError("the box has a negative side", place=place, found=describe(raw), expected="[x, y, w, h]")
    return box


def _mask(row: Row, image_id: int, sizes: dict[int, Size], place: str) -> Rle:
    """The mask of a row; the first mask of an image without a size defines it."""
    segmentation = row.get("segmentation")
    if segmentation is None or segmentation == []:
        raise DataError("there is no segmentation", place=place, hint="Score boxes only, or add masks")
    if sizes[image_id] == (None, None) and isinstance(segmentation, dict):
        size = segmentation.get("size")
        if not isinstance(size, (list, tuple)) or len(size) != 2 or not _is_size(size):
            expected = "[height, width] in whole pixels"
            raise DataError("the mask has no size", place=place, found=f"size {describe(size)}", expected=expected)
        sizes[image_id] = size[0], size[1]
    height_px, width_px = sizes[image_id]
    if not _is_size(sizes[image_id]):
        raise DataError(
            "the image has no usable height and width",
            place=f"image {image_id}",
            found=f"height {describe(height_px)}, width {describe(width_px)}",
            expected=f"positive whole numbers, at most {PIXELS_LIMIT:,} pixels",
        )
    try:
        return to_rle(segmentation, height_px, width_px)
    except D2TuneError as error:
        raise DataError(
            error.message, place=place, found=error.found, expected=error.expected, hint=error.hint
        ) from None


def _is_size(size: Sequence[Any]) -> bool:
    return all(type(side) is int and side > 0 for side in size) and size[0] * size[1] <= PIXELS_LIMIT


def _truth_fields(checked: Row, row: Row, size: Size, place: str) -> None:
    crowd = row.get("iscrowd", 0)
    if not isinstance(crowd, (int, float, np.integer)) or crowd not in (0, 1):
        raise DataError("iscrowd is neither 0 nor 1", place=place, found=f"iscrowd {describe(crowd)}")
    checked["iscrowd"] = int(crowd)
    raw = row.get("area")
    if raw is None:
        has_mask = "rle" in checked
        area = float(mask_utils.area([checked["rle"]])[0]) if has_mask else checked["bbox"][2] * checked["bbox"][3]
    else:
        area = _number(raw)
        if area is None or area < 0:
            raise DataError("the area must be a number of 0 or more", place=place, found=f"area {describe(raw)}")
        if "rle" in checked and area > AREA_SLACK * size[0] * size[1]:
            height_px, width_px = size
            raise DataError(
                "the area is larger than the image",
                place=place,
                found=f"area {describe(raw)}",
                expected=f"pixels of the mask, in an image of {height_px} x {width_px} px",
                hint="Remove the area, so that it is computed from the mask",
            )
    checked["area"] = area


def _result_fields(checked: Row, row: Row, size: Size, place: str) -> None:
    score = _number(row.get("score"))
    if score is None:
        raise DataError("the score is not a finite number", place=place, found=describe(row.get("score")))
    checked["score"] = score
