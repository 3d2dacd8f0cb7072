"""What a parsed annotation file is, by its keys; nothing else is imported here, so that recognizing costs little."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any


def is_labelme_list(value: object) -> bool:
    """Whether a JSON file is a list of the contents of Labelme files."""
    return _first(value, lambda row: isinstance(row.get("shapes"), list) and "imagePath" in row)


def is_label_studio(value: object) -> bool:
    """Whether a JSON file is an export of Label Studio, JSON or JSON_MIN, with annotations."""
    return _first(value, lambda row: is_label_studio_task(row) or is_label_studio_min(row))


def is_label_studio_task(row: dict[str, Any]) -> bool:
    """Whether an entry is a task with its annotations, as in the export JSON."""
    return isinstance(row.get("data"), dict) and any(
        isinstance(row.get(key), list) for key in ("annotations", "completions")
    )


def is_label_studio_min(row: dict[str, Any]) -> bool:
    """Whether an entry is a task with the values of its regions, as in JSON_MIN."""
    regions = (region for value in row.values() if isinstance(value, list) for region in value[:1])
    if any(isinstance(region, dict) and "original_width" in region for region in regions):
        return True
    return "annotation_id" in row and "annotator" in row


def is_datumaro(value: object) -> bool:
    """Whether a JSON file is a subset of a Datumaro data set."""
    return _has(value, items=list, categories=dict)


def is_isat(value: object) -> bool:
    """Whether a JSON file is the annotation of an image by ISAT."""
    if not isinstance(value, dict) or not _has(value, objects=list, info=dict):
        return False
    info = value["info"]
    return "name" in info and ("width" in info or info.get("description") == "ISAT")


def is_cityscapes(value: object) -> bool:
    """Whether a JSON file has the polygons of an image of Cityscapes."""
    return isinstance(value, dict) and _has(value, objects=list) and {"imgHeight", "imgWidth"} <= value.keys()


def is_supervisely(value: object) -> bool:
    """Whether a JSON file is the annotation of an image by Supervisely."""
    if not isinstance(value, dict) or not _has(value, objects=list, size=dict):
        return False
    return bool({"height", "width"} <= value["size"].keys())


def is_supervisely_meta(value: object) -> bool:
    """Whether a JSON file has the classes of a project of Supervisely."""
    return isinstance(value, dict) and _first(value.get("classes"), lambda row: "title" in row and "shape" in row)


def is_darwin(value: object) -> bool:
    """Whether a JSON file is the annotation of an item by V7 Darwin, version 2."""
    return _has(value, item=dict, annotations=list)


SIGNATURES: dict[str, Callable[[object], bool]] = {
    "labelme": is_labelme_list,
    "label-studio": is_label_studio,
    "datumaro": is_datumaro,
    "isat": is_isat,
    "cityscapes": is_cityscapes,
    "supervisely": is_supervisely,
    "darwin": is_darwin,
}
"""The tests of JSON files by the name of the format."""


def unread_kind(value: object) -> str | None:
    """What a JSON file probably is that no reader reads, with what to do; None where nothing is known."""
    if isinstance(value, list):
        return _unread_list(value)
    if not isinstance(value, dict):
        return None
    if isinstance(value.get("images"), list) and "annotations" not in value:
        return "a COCO file without annotations (image info)"
    if isinstance(value.get("image"), dict) and isinstance(value.get("annotations"), list):
        return "Darwin JSON 1.0; export Darwin JSON 2.0"
    if value.get("type") == "FeatureCollection":
        return "GeoJSON"
    if is_supervisely_meta(value):
        return "the meta.json of a Supervisely project; name the folder of the project"
    if isinstance(value.get("frames"), list) and "name" in value:
        return "BDD100K or Scalabel labels"
    if isinstance(value.get("annotations"), list) and "categories" in value:
        return "a COCO file without images"
    return None


def _unread_list(value: list[Any]) -> str | None:
    first = value[0] if value and isinstance(value[0], dict) else {}
    if {"image_id", "category_id"} <= first.keys():
        return "COCO predictions or a list of COCO annotations without images and categories"
    if isinstance(first.get("data"), dict):
        return "Label Studio tasks without annotations"
    if {"Labeled Data", "Label"} <= first.keys() or {"data_row", "projects"} <= first.keys():
        return "a Labelbox export"
    if {"name", "labels"} <= first.keys():
        return "BDD100K or Scalabel labels"
    return None


def _has(value: object, **kinds: type) -> bool:
    """Whether a value is an object whose keys have values of some kinds."""
    return isinstance(value, dict) and all(isinstance(value.get(key), kind) for key, kind in kinds.items())


def _first(value: object, test: Callable[[dict[str, Any]], bool]) -> bool:
    """Whether a list has rows, and the first of them is an object that passes a test."""
    return isinstance(value, list) and bool(value) and isinstance(value[0], dict) and test(value[0])
