"""COCO's ground truth and results, checked and put in order for scoring.

What is wrong is said with the number of the row, before anything is computed.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pycocotools import mask as mask_utils

from d2tune.annotations.dataset import Category
from d2tune.errors import D2TuneError, DataError
from d2tune.evaluation.figures import Kind
from d2tune.evaluation.runs import Rle, to_rle

Row = dict[str, Any]


@dataclass(frozen=True, slots=True)
class CocoSet:
    """Ground truth and results of the same images; rows keep their order.

    A row has ``image_id``, ``category_id``, ``score`` (results), ``iscrowd`` and ``area`` (ground truth), ``bbox``
    where boxes are scored and ``rle`` where masks are.

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
        ground_truth: A COCO instances dict. ``iscrowd`` may be missing (0), as may ``area`` (of the mask, or of the
            box where only boxes are scored).
        results: Rows in COCO's results format. A missing ``bbox`` is taken from the mask.
        kinds: What will be scored; it says whether boxes and masks are needed.

    Raises:
        DataError: Something is missing or has another form; a row names an unknown image or class; a score is not a
            finite number; a mask has not the size of its image.
    """
    for key in ("images", "annotations", "categories"):
        if not isinstance(ground_truth.get(key), list):
            raise DataError("the ground truth is no COCO instances file", place=key, expected="a list")
    sizes = {one["id"]: (one.get("height"), one.get("width")) for one in ground_truth["images"]}
    categories = {one["id"]: Category(one["id"], str(one["name"])) for one in ground_truth["categories"]}
    truth = []
    for number, row in enumerate(ground_truth["annotations"]):
        place = f"annotation {row.get('id', number)}"
        checked = _row(row, sizes, categories, kinds, place)
        checked["iscrowd"] = int(row.get("iscrowd", 0))
        area = row.get("area")
        if area is None:
            area = float(mask_utils.area(checked["rle"])) if "rle" in checked else row["bbox"][2] * row["bbox"][3]
        checked["area"] = area
        truth.append(checked)
    found = []
    for number, row in enumerate(results):
        place = f"result {number + 1} of {len(results)}"
        checked = _row(row, sizes, categories, kinds, place)
        score = row.get("score")
        if isinstance(score, bool) or not isinstance(score, (int, float)) or not math.isfinite(score):
            raise DataError("the score is not a finite number", place=place, found=repr(score))
        checked["score"] = score
        found.append(checked)
    order = sorted(categories)
    return CocoSet(tuple(sorted(sizes)), tuple(categories[key] for key in order), tuple(truth), tuple(found))


def _row(
    row: dict[str, Any],
    sizes: dict[int, tuple[int | None, int | None]],
    categories: dict[int, Category],
    kinds: Sequence[Kind],
    place: str,
) -> Row:
    image_id, category_id = row.get("image_id"), row.get("category_id")
    if image_id not in sizes:
        hint = "Results and ground truth must be of the same images"
        raise DataError("the image is not in the ground truth", place=place, found=f"image_id {image_id}", hint=hint)
    if category_id not in categories:
        known = ", ".join(str(number) for number in sorted(categories)[:20])
        raise DataError(
            "the class is not in the ground truth",
            place=place,
            found=f"category_id {category_id}",
            expected=f"one of {known}" if known else "a ground truth with categories",
        )
    checked: Row = {"image_id": image_id, "category_id": category_id}
    if "segm" in kinds or "boundary" in kinds or ("bbox" in kinds and not row.get("bbox")):
        checked["rle"] = _mask(row, sizes[image_id], place)
    if "bbox" in kinds:
        box = row.get("bbox") or mask_utils.toBbox(checked["rle"]).tolist()
        if len(box) != 4 or not all(isinstance(side, (int, float)) and math.isfinite(side) for side in box):
            raise DataError("the box is not four finite numbers", place=place, found=repr(box)[:80])
        checked["bbox"] = box
    return checked


def _mask(row: dict[str, Any], size: tuple[int | None, int | None], place: str) -> Rle:
    segmentation = row.get("segmentation")
    if not segmentation:
        raise DataError("there is no segmentation", place=place, hint="Score boxes only, or add masks")
    height_px, width_px = size
    if height_px is None or width_px is None:
        if not isinstance(segmentation, dict):
            raise DataError("the image has no height and width", place=f"image {row['image_id']}")
        height_px, width_px = segmentation["size"]
    try:
        return to_rle(segmentation, height_px, width_px)
    except D2TuneError as error:
        raise DataError(error.message, place=place, found=error.found, expected=error.expected) from None
