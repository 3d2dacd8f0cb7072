"""Supervisely: ``meta.json`` with the classes, and a JSON file for each image in ``DATASET/ann`` beside ``img``."""

from __future__ import annotations

import io
import zlib
from pathlib import Path
from typing import Any

import numpy as np

from d2tune.annotations.formats.labelme_shapes import decode_base64
from d2tune.annotations.formats.shared import shapes
from d2tune.annotations.formats.shared.reading import Reading, load_json, place_image, read_shapes, read_source
from d2tune.annotations.formats.shared.shapes import Shape
from d2tune.annotations.formats.shared.signatures import is_supervisely, is_supervisely_meta
from d2tune.annotations.formats.shared.units import Unit
from d2tune.annotations.geometry.masks import Patch
from d2tune.annotations.geometry.polygons import PointError
from d2tune.annotations.io.json_files import JsonError, decode_json, read_bytes
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions

TITLE = "Supervisely"

_META = "meta.json"
_OTHER_FILES = frozenset({_META, "obj_class_to_machine_color.json", "key_id_map.json"})
_LIMIT_BYTES = 2**27


def read(source: Path, options: ReadOptions) -> Dataset:
    """Read a project or a data set of Supervisely, or the annotation of one image.

    Classes are those of ``meta.json``, in its order. Polygons may have holes, and masks are PNGs in the file. Objects
    with the same ``bindingKey`` and class are one instance.

    Raises:
        DataError: The source does not exist or has no annotation.
    """
    return read_source(source, options, _read_file, title=TITLE)


def _read_file(name: str, reading: Reading) -> list[Unit]:
    path = reading.path(name)
    if path.name in _OTHER_FILES:
        return []
    unit, value = load_json(name, reading, is_supervisely, TITLE)
    if value is None:
        return [unit]
    if not reading.classes:
        reading.list_classes(_classes_near(path))
    named = path.name.removesuffix(".json")
    size_px = value["size"]["width"], value["size"]["height"]
    folders = (path.parent.parent / "img", path.parent)
    is_placed = place_image(unit, named, reading, folders=folders, stem=path.stem, size_px=size_px)
    read_shapes(
        [_shape(row if isinstance(row, dict) else {}) for row in value["objects"]], unit, reading, is_placed=is_placed
    )
    return [unit]


def _classes_near(path: Path) -> list[str]:
    """The class names in ``meta.json`` of the project that a file is in; none where there is none."""
    for folder in list(path.parents)[:3]:
        try:
            meta, _ = decode_json(read_bytes(folder / _META))
        except (OSError, JsonError):
            continue
        if is_supervisely_meta(meta):
            return [str(row["title"]) for row in meta["classes"] if isinstance(row, dict) and "title" in row]
    return []


def _shape(row: dict[str, Any]) -> Shape:
    label, group = row.get("classTitle"), row.get("bindingKey")
    bitmap, points = row.get("bitmap"), row.get("points")
    kind = row.get("geometryType") or ("bitmap" if isinstance(bitmap, dict) else "polygon")
    points = points if isinstance(points, dict) else {}
    exterior, interior = points.get("exterior"), points.get("interior")
    if kind in ("bitmap", "alpha_mask"):
        return Shape(label, shapes.mask(lambda unit: _patch(bitmap, is_alpha=kind == "alpha_mask")), kind, group=group)
    if kind == "polygon":
        return Shape(label, shapes.with_holes(exterior, interior if isinstance(interior, list) else []), group=group)
    if kind == "rectangle":
        points_of = exterior if isinstance(exterior, list) else []
        corners = [value for point in points_of if isinstance(point, list) for value in point]
        outline = shapes.box_of_corners(*corners) if len(corners) == 4 else shapes.polygon(exterior)
        return Shape(label, outline, group=group)
    return Shape(label, None, kind)


def _patch(bitmap: object, *, is_alpha: bool) -> Patch:
    """The pixels of a mask and their place: a PNG compressed with zlib, whose opaque pixels are those of the mask."""
    from PIL import Image as PilImage

    bitmap = bitmap if isinstance(bitmap, dict) else {}
    content = decode_base64(bitmap.get("data"))
    origin = bitmap.get("origin")
    if content is None or not isinstance(origin, list) or len(origin) != 2:
        raise PointError("mask_undecodable", "the bitmap has no origin or is not valid base64")
    x, y = shapes.numbers_of(origin, "the origin of a bitmap")
    try:
        png = zlib.decompressobj().decompress(content, _LIMIT_BYTES)
        with PilImage.open(io.BytesIO(png)) as image:
            bands = image.getbands()
            pixels = np.asarray(image.getchannel("A") if "A" in bands else image.convert("L"))
    except Exception as error:  # Pillow raises a dozen kinds for broken images
        raise PointError("mask_undecodable", f"the bitmap cannot be decoded ({error})") from error
    return Patch(pixels > (127 if is_alpha else 0), round(x), round(y))
