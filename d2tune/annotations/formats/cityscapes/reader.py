"""Reading the polygons of Cityscapes: ``gtFine/.../NAME_gtFine_polygons.json`` beside ``leftImg8bit``."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path
from typing import Any

from d2tune.annotations.formats.cityscapes.table import IDS, IGNORED
from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.reading import Reading, load_json, place_image, read_shapes, read_source
from d2tune.annotations.formats.shared.shapes import Shape
from d2tune.annotations.formats.shared.signatures import is_cityscapes
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions

TITLE = "Cityscapes polygons"

_ENDING = re.compile(r"(?P<name>.+?)_gt(?:Fine|Coarse)_polygons$", re.IGNORECASE)
_POLYGON_FOLDERS = ("gtfine", "gtcoarse")
_IMAGES = "leftImg8bit"


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a folder of polygon files, or one file.

    A label such as ``cargroup`` is a crowd of its class. Objects marked as deleted are excluded, and labels of pixels
    that belong to no class, such as ``out of roi``, are ignored unless they are among the labels. A source inside of
    ``gtFine`` has its images in the same folder of ``leftImg8bit``.

    Raises:
        DataError: The source does not exist or has no such file.
    """
    source = Path(source).absolute()
    folder = source if source.is_dir() else source.parent
    mirrored = _mirrored(folder)
    if options.image_root is None and mirrored is not None and mirrored.is_dir():
        options = replace(options, image_root=mirrored)
    return read_source(source, options, _read_file, title=TITLE)


def _mirrored(folder: Path) -> Path | None:
    """The folder of the images for a folder of polygons; None where it is in no folder of polygons."""
    parts = list(folder.parts)
    at = next((at for at in reversed(range(len(parts))) if parts[at].lower() in _POLYGON_FOLDERS), None)
    return None if at is None else Path(*parts[:at], _IMAGES, *parts[at + 1 :])


def _read_file(name: str, reading: Reading) -> list[Unit]:
    unit, value = load_json(name, reading, is_cityscapes, TITLE)
    if value is None:
        return [unit]
    path = reading.path(name)
    match = _ENDING.fullmatch(path.stem)
    base = match["name"] if match else path.stem
    mirrored = _mirrored(path.parent)
    folders = (*([] if mirrored is None else [mirrored]), path.parent)
    named = f"{base}_{_IMAGES}.png" if match else f"{base}.png"
    size_px = value["imgWidth"], value["imgHeight"]
    is_placed = place_image(unit, named, reading, folders=folders, stem=base, size_px=size_px)
    shapes_read = [_shape(row if isinstance(row, dict) else {}, reading) for row in value["objects"]]
    for index, shape in enumerate(shapes_read):
        if shape.excluded.startswith("the label"):
            unit.note("info", "ignored_label", shape.excluded, shape=index)
    read_shapes(shapes_read, unit, reading, is_placed=is_placed)
    return [unit]


def _shape(row: dict[str, Any], reading: Reading) -> Shape:
    label, excluded = row.get("label"), ""
    known = {*(reading.labels.names or ()), *reading.options.rename}
    iscrowd = False
    if isinstance(label, str) and label.endswith("group") and label not in {"group", *IDS, *known}:
        label, iscrowd = label.removesuffix("group"), True
    if row.get("deleted") in (1, True, "1"):
        excluded = "marked as deleted"
    elif isinstance(label, str) and label in IGNORED - known:
        excluded = f"the label {label!r} is ignored"
    return Shape(label, shapes.polygon(row.get("polygon")), iscrowd=iscrowd, excluded=excluded)
