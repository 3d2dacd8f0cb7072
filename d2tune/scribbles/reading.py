"""The scribbles and boxes of a Labelme file."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.labelme import is_labelme
from d2tune.annotations.formats.labelme_shapes import area_type, decode_base64, is_line_type, spelled
from d2tune.annotations.formats.shared.labels import SPECIAL_LABELS
from d2tune.annotations.geometry.polygons import PointError, check_points
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.io.photos.reading import read_photo, read_photo_content
from d2tune.annotations.model.types import Mask, Points
from d2tune.errors import DataError
from d2tune.text import describe

_POINTS = ("point", "points")

_MOST_PX = 1e7
"""Coordinates beyond are clipped before they are drawn, which OpenCV does with whole numbers."""


@dataclass(slots=True)
class MarkedObject:
    """An object that a person marked.

    Attributes:
        label: Its class.
        group_id: The group of its shapes; None where it has none.
        place: Its first shape, as messages name it.
        is_of_points: Whether it is marked by the points of a label that have no group.
        lines: The points of each of its scribbles.
        box_xyxy: Its box; None where it has none.
    """

    label: str
    group_id: int | None
    place: str
    is_of_points: bool = False
    lines: list[Points] = field(default_factory=list)
    box_xyxy: tuple[float, float, float, float] | None = None


@dataclass(slots=True)
class MarkedFile:
    """A Labelme file with marks.

    Attributes:
        path: The file.
        content: What it holds.
        objects: The marked objects.
        background: Scribbles of the background with their group; None is of all objects.
        kept: Its other shapes, which stay as they are.
        image: The image; None where it is only in the file.
    """

    path: Path
    content: dict[str, Any]
    objects: list[MarkedObject]
    background: list[tuple[int | None, Points]]
    kept: list[dict[str, Any]]
    image: Path | None

    def pixels(self) -> NDArray[np.uint8]:
        """The image ``(H, W, 3)`` in RGB.

        Raises:
            DataError: It cannot be read, or has another size than the file states.
        """
        if self.image is not None:
            rgb = read_photo(self.image)
        else:
            inner = decode_base64(self.content.get("imageData"))
            rgb = read_photo_content(inner or b"", name=str(self.path))
        height_px, width_px = rgb.shape[:2]
        stated = self.content.get("imageWidth"), self.content.get("imageHeight")
        if all(type(side) is int and side > 0 for side in stated) and stated != (width_px, height_px):
            raise DataError(
                "the image has another size than the file states, so that the marks are not where they were drawn",
                file=self.path,
                place="imageWidth, imageHeight",
                found=f"{stated[0]} x {stated[1]} px, an image of {width_px} x {height_px} px",
                hint="Put the image that was annotated in its place.",
            )
        return rgb


def read_marks(path: Path, *, background: str) -> MarkedFile | None:
    """Read a file.

    Lines, points and a box of a label and a ``group_id`` mark an object together; without ``group_id`` each shape marks
    an object of its own, but points of a label, which mark one together. A rectangle is the box of an object.

    Args:
        path: A JSON file.
        background: The label of scribbles beside the objects, in any case and with any underscores around it.

    Returns:
        The file; None where it is not a Labelme file or marks no object.

    Raises:
        DataError: A shape is invalid, an object has no scribbles beside it, or the image is missing.
    """
    content = _labelme(path)
    if content is None:
        return None
    file = MarkedFile(path, content, [], [], [], None)
    for index, shape in enumerate(content["shapes"]):
        _read_shape(file, shape, f"shape {index}", background)
    if not file.objects and not file.background:
        return None
    _check_both(file, background)
    file.image = _image_of(path, content)
    return file


def rasterized(lines: list[Points], shape: tuple[int, int]) -> Mask:
    """Scribbles as a mask ``(H, W)``: lines of one pixel, points as they are."""
    mask = np.zeros(shape, dtype=np.uint8)
    for points in lines:
        whole = np.clip(np.floor(points), -_MOST_PX, _MOST_PX).astype(np.int32)
        cv2.polylines(mask, [whole.reshape(-1, 1, 2)], False, 1, 1)
    return mask.astype(bool)


def _labelme(path: Path) -> dict[str, Any] | None:
    try:
        content, _ = decode_json(read_bytes(path))
    except JsonError as error:
        raise DataError(str(error), file=path) from None
    if not is_labelme(content):
        return None
    checked: dict[str, Any] = content
    return checked


def _read_shape(file: MarkedFile, shape: Any, place: str, background: str) -> None:
    if not isinstance(shape, dict) or not isinstance(shape.get("label"), str) or not shape["label"].strip():
        raise DataError("the shape has no label", file=file.path, place=place)
    label, kind = shape["label"].strip(), spelled(shape.get("shape_type"))
    is_box = area_type(shape.get("shape_type")) == "rectangle"
    is_special = label in SPECIAL_LABELS and _plain(label) != _plain(background)
    if is_special or (not is_box and not is_line_type(kind)):
        file.kept.append(shape)
        return
    group_id = shape.get("group_id")
    if group_id is not None and type(group_id) is not int:
        raise DataError("the group_id is not a whole number", file=file.path, place=place, found=describe(group_id))
    try:
        points = check_points(shape.get("points"))
    except PointError as error:
        raise DataError(str(error), file=file.path, place=place) from None
    if not len(points):
        raise DataError("the shape has no points", file=file.path, place=place)
    if _plain(label) == _plain(background):
        if is_box:
            hint = "Draw a line beside the objects."
            raise DataError("a box cannot mark the background", file=file.path, place=place, hint=hint)
        file.background.append((group_id, points))
        return
    one = _object_of(file, MarkedObject(label, group_id, place, group_id is None and kind in _POINTS), is_box=is_box)
    if not is_box:
        one.lines.append(points)
        return
    low, high = points.min(axis=0), points.max(axis=0)
    one.box_xyxy = float(low[0]), float(low[1]), float(high[0]), float(high[1])


def _plain(label: str) -> str:
    return label.strip().strip("_").casefold()


def _object_of(file: MarkedFile, new: MarkedObject, *, is_box: bool) -> MarkedObject:
    """The object that a shape marks, which earlier shapes may have marked as well."""
    group_id = new.group_id
    for one in file.objects:
        is_same = one.is_of_points and new.is_of_points if group_id is None else one.group_id == group_id
        if is_same and one.label == new.label and not (is_box and one.box_xyxy is not None):
            return one
    if group_id is not None:
        other = next((one for one in file.objects if one.group_id == group_id and one.label != new.label), None)
        if other is not None:
            raise DataError(
                f"two objects have the group_id {group_id}: {new.label!r} here, and {other.label!r} in {other.place}",
                file=file.path,
                place=new.place,
                hint="Give each object a group_id of its own.",
            )
    file.objects.append(new)
    return new


def _check_both(file: MarkedFile, background: str) -> None:
    """Refuse scribbles of one class alone."""
    hint = f"Draw a line with the label {background} around the object, or a rectangle instead of scribbles."
    if not file.objects:
        raise DataError(
            f"all scribbles are of the background ({background!r})",
            file=file.path,
            expected="scribbles on an object as well",
            hint="Draw a line with the label of its class on the object.",
        )
    labels = {one.label for one in file.objects}
    for one in file.objects:
        if one.box_xyxy is not None or len(labels) > 1:
            continue
        if not any(group in (None, one.group_id) for group, _ in file.background):
            raise DataError(
                f"all scribbles are of one class, {one.label!r}, so that it is not known where the object ends",
                file=file.path,
                place=one.place,
                hint=hint,
            )


def _image_of(path: Path, content: dict[str, Any]) -> Path | None:
    """The image file: where the file says, or beside it with its name; None where it is only in the file.

    Raises:
        DataError: There is none.
    """
    named = content.get("imagePath")
    if isinstance(named, str) and named:
        place = path.parent / named.replace("\\", "/")
        if place.is_file():
            return place
        if (beside := path.parent / place.name).is_file():
            return beside
    for sibling in sorted(path.parent.iterdir()):
        if sibling.stem == path.stem and is_image_name(sibling.name):
            return sibling
    if content.get("imageData"):
        return None
    hint = "Put the image where imagePath says, or beside the file."
    raise DataError("the image does not exist", file=path, place="imagePath", found=describe(named), hint=hint)
