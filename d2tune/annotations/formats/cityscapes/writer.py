"""Writing label images as Cityscapes has them: values of classes, values of objects, and colors."""

from __future__ import annotations

import io
import json
import re
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from d2tune.annotations.formats.cityscapes.table import COLORS, IDS, IGNORED
from d2tune.annotations.formats.semantic import IGNORE_LABEL, paint
from d2tune.annotations.formats.shared.color_maps import voc_color
from d2tune.annotations.io.outputs import beside, png_bytes, refuse_existing, write_output, write_output_json
from d2tune.annotations.model.dataset import Dataset, Instance
from d2tune.errors import DataError
from d2tune.files import holds

_OBJECTS_OF_A_CLASS = 1000
_KINDS = ("labelIds", "instanceIds", "color")
_IMAGE_FOLDERS = ("leftimg8bit", "images")
_IMAGE_ENDING = re.compile(r"_leftImg8bit(?=\.[^.]*$|$)", re.IGNORECASE)


def write(dataset: Dataset, out: Path, *, split: str = "", force: bool = False) -> list[Path]:
    """Write ``gtFine/NAME_gtFine_labelIds.png``, ``_instanceIds.png`` and ``_color.png`` of each image.

    Where all classes are those of Cityscapes, they have its values and colors; else values count from 1 in the order of
    the classes. Pixels without an object have 0. ``categories.json`` has the class of each value. An object has 1000
    times its value plus its number among the objects of its class; regions and crowds have the value alone.

    Args:
        dataset: What to write.
        out: The folder; images keep their subfolders in ``gtFine``.
        split: Folder in ``gtFine``, ``train`` or ``val`` of a project.
        force: Whether files that an earlier conversion wrote are replaced; others never are.

    Returns:
        The files written.

    Raises:
        DataError: A file is already there, or there are too many classes or objects.
    """
    values = values_of(dataset)
    stems = beside(
        [replace(image, file_name=_plain(image.file_name)) for image in dataset.images], out / "gtFine" / split, ""
    )
    places = {image_id: {kind: _named(path, kind) for kind in _KINDS} for image_id, path in stems.items()}
    table, rows = out / "categories.json", _rows(dataset, values)
    paths = [path for of_image in places.values() for path in of_image.values()]
    refuse_existing([*paths, *([] if _is_written(table, rows) else [table])], force=force)
    groups = dataset.by_image()
    for image in dataset.images:
        instances = groups[image.id]
        top = paint(instances, width_px=image.width_px, height_px=image.height_px)
        classes = np.array([*(values[one.category_id] for one in instances), 0], dtype=np.uint8)[top]
        colors = _palette(dataset, values)[classes]
        objects = _object_values(instances, values, dataset)[top]
        pixels: dict[str, NDArray[Any]] = {"labelIds": classes, "instanceIds": objects, "color": colors}
        for kind, values_px in pixels.items():
            write_output(places[image.id][kind], _png(values_px))
    if not _is_written(table, rows):
        write_output_json(table, rows)
    return [*paths, table]


def values_of(dataset: Dataset) -> dict[int, int]:
    """The value of each category by its id.

    Raises:
        DataError: There are too many classes for 8 bits.
    """
    if all(name in IDS and name not in IGNORED for name in dataset.class_names):
        return {category.id: IDS[category.name] for category in dataset.categories}
    if len(dataset.categories) >= IGNORE_LABEL:
        raise DataError("a label image has at most 254 classes", found=str(len(dataset.categories)))
    return {category.id: category.id for category in dataset.categories}


def _plain(name: str) -> str:
    """The name of an image without the folders that Cityscapes and other layouts have for images."""
    *folders, base = name.split("/")
    return "/".join([*(folder for folder in folders if folder.lower() not in _IMAGE_FOLDERS), base])


def _named(path: Path, kind: str) -> Path:
    return path.with_name(f"{_IMAGE_ENDING.sub('', path.name)}_gtFine_{kind}.png")


def _rows(dataset: Dataset, values: dict[int, int]) -> list[dict[str, Any]]:
    """The rows of ``categories.json``, the first for pixels without an object."""
    rows = [{"label": 0, "name": "_background_", "isthing": 0}]
    for one in sorted(dataset.categories, key=lambda category: values[category.id]):
        rows.append({"label": values[one.id], "name": one.name, "isthing": int(one.isthing)})
    return rows


def _is_written(table: Path, rows: Sequence[dict[str, Any]]) -> bool:
    """Whether the table of another split with the same classes is there."""
    return holds(table, [(json.dumps(rows, indent=2, ensure_ascii=False) + "\n").encode()])


def _palette(dataset: Dataset, values: dict[int, int]) -> NDArray[np.uint8]:
    """Red, green and blue by value, ``(256, 3)``."""
    palette = np.array([voc_color(value) for value in range(256)], dtype=np.uint8)
    for category in dataset.categories:
        if IDS.get(category.name) == values[category.id]:
            palette[values[category.id]] = COLORS[category.name]
    return palette


def _object_values(instances: Sequence[Instance], values: dict[int, int], dataset: Dataset) -> NDArray[np.uint16]:
    """The value of each instance in ``instanceIds``, and 0 for none, ``(K + 1,)``.

    Raises:
        DataError: They do not fit into 16 bits.
    """
    things = {category.id for category in dataset.categories if category.isthing}
    counts: dict[int, int] = {}
    row = []
    for one in instances:
        value = values[one.category_id]
        if one.category_id in things and not one.iscrowd:
            number = counts[value] = counts.get(value, -1) + 1
            value = value * _OBJECTS_OF_A_CLASS + number
            if number >= _OBJECTS_OF_A_CLASS or value > np.iinfo(np.uint16).max:
                raise DataError(
                    "the values of objects do not fit into 16 bits",
                    found=f"object {number + 1} of the class with the value {values[one.category_id]}",
                    hint="Write --to panoptic, or fewer classes.",
                )
        row.append(value)
    return np.array([*row, 0], dtype=np.uint16)


def _png(pixels: NDArray[Any]) -> bytes:
    if pixels.dtype != np.uint16:
        return png_bytes(pixels)
    from PIL import Image as PilImage

    stream = io.BytesIO()
    PilImage.fromarray(np.ascontiguousarray(pixels)).save(stream, format="PNG")
    return stream.getvalue()
