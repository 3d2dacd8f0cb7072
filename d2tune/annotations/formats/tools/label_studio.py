"""Label Studio: the exports JSON and JSON_MIN of images."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.shared.reading import (
    Reading,
    load_json,
    objects_in,
    place_image,
    read_shapes,
    read_source,
)
from d2tune.annotations.formats.shared.signatures import is_label_studio, is_label_studio_task
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.formats.tools.label_studio_regions import Region, classes_of, shape_of
from d2tune.annotations.io.images import is_image_name
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.text import describe

TITLE = "Label Studio JSON"


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read an export of Label Studio, or all of a folder.

    Of several annotations of a task the latest is read, a ground truth before others, with a warning; canceled ones
    and predictions are not read. A task without an annotation has an unlabeled image.

    Raises:
        DataError: The source does not exist or has no export.
    """
    return read_source(source, options, _read_file, title=TITLE)


def _read_file(name: str, reading: Reading) -> list[Unit]:
    file, tasks = load_json(name, reading, is_label_studio, TITLE)
    if tasks is None:
        return [file]
    units, first = [], 0
    for task in tasks:
        unit = Unit(name)
        if not isinstance(task, dict):
            unit.note("error", "bad_shape", f"a task is {describe(task)}, expected an object")
            units.append(unit)
            continue
        count = _read_task(task, unit, reading, first)
        first += count or 0
        units += [] if count is None else [unit]
    return [file, *units] if file.findings else units


def _read_task(task: dict[str, Any], unit: Unit, reading: Reading, first: int) -> int | None:
    """Read a task into a unit; the number of its shapes, None where it has no annotation."""
    is_whole = is_label_studio_task(task)
    data = task["data"] if is_whole else task
    names = list(_image_names(data))
    unit.image_name = str(names[0]) if names else ""
    if is_whole:
        annotation = _chosen(task, unit)
        if annotation is None:
            return None
        regions = _regions(objects_in(annotation.get("result"), unit, "regions"))
    else:
        regions = _minimal_regions(task)
    _note_classes(regions, unit, first)
    rows = [region.row for region in regions]
    sizes = ((row["original_width"], row.get("original_height")) for row in rows if "original_width" in row)
    size_px = next(sizes, (None, None))
    search = (reading.path(unit.file).parent / "images", reading.path(unit.file).parent)
    named = names[0] if names else None
    is_placed = place_image(unit, named, reading, folders=search[::-1], size_px=size_px, source_id=task.get("id"))
    if any(row.get("image_rotation") for row in rows):
        message = "the image was rotated in Label Studio, so that its coordinates are not those of the file"
        unit.note("error", "image_rotated", message, hint="rotate the file and annotate it again")
        is_placed = False
    read_shapes([shape_of(region) for region in regions], unit, reading, is_placed=is_placed, first=first)
    return len(regions)


def _note_classes(regions: list[Region], unit: Unit, first: int) -> None:
    """A warning for each region with several classes, of which one is read."""
    for index, region in enumerate(regions, start=first):
        classes = classes_of(region)
        if len(classes) > 1:
            message = f"the region has {len(classes)} classes ({', '.join(map(str, classes))}); the first is read"
            unit.note("warning", "several_classes", message, shape=index, hint="give each region one class")


def _image_names(data: dict[str, Any]) -> Iterator[str]:
    """The values of a task that can be the path of its image, the most likely first."""
    texts = {key: value for key, value in data.items() if isinstance(value, str) and value.strip()}
    if "image" in texts:
        yield texts["image"]
    yield from (value for value in texts.values() if is_image_name(value.partition("?")[0]) or "?d=" in value)
    yield from (value for value in texts.values() if "/" in value)


def _chosen(task: dict[str, Any], unit: Unit) -> dict[str, Any] | None:
    """The annotation of a task that is read; None where it has none."""
    rows = objects_in(task.get("annotations", task.get("completions")), unit, "annotations")
    valid = [row for row in rows if row and not row.get("was_cancelled")]
    if not valid:
        return None
    if len(valid) > 1:
        message = f"the task has {len(valid)} annotations; the latest is read"
        hint = "mark one as ground truth, or remove the others, where another is to be read"
        unit.note("warning", "several_annotations", message, hint=hint)

    def rank(row: dict[str, Any]) -> tuple[bool, str, float]:
        when = str(row.get("updated_at") or row.get("created_at") or "")
        number = row.get("id")
        return bool(row.get("ground_truth")), when, number if isinstance(number, (int, float)) else 0

    return max(valid, key=rank)


def _regions(rows: list[dict[str, Any]]) -> list[Region]:
    """The regions of an annotation; classes in a result of their own are joined to the region with their id."""
    labels: dict[str, list[object]] = {}
    for row in rows:
        value = row.get("value")
        chosen = value.get("labels") if isinstance(value, dict) else None
        if row.get("type") == "labels" and isinstance(chosen, list):
            labels.setdefault(str(row.get("id")), chosen)
    geometries = {str(row["id"]) for row in rows if row.get("type") != "labels" and row.get("id") is not None}
    regions = []
    for row in rows:
        value = row.get("value")
        if row.get("type") == "relation" or (row.get("type") == "labels" and str(row.get("id")) in geometries):
            continue
        value = value if isinstance(value, dict) else {}
        regions.append(Region(row, value, str(row.get("type", "")), labels.get(str(row.get("id")), [])))
    return regions


def _minimal_regions(task: dict[str, Any]) -> list[Region]:
    """The regions of a task of JSON_MIN."""
    values = (row for rows in task.values() if isinstance(rows, list) for row in rows)
    return [Region(row, row, "", []) for row in values if isinstance(row, dict) and "original_width" in row]
