"""Supervisely; right values by hand, on 64 x 48 px images."""

from __future__ import annotations

import base64
import io
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2tune.annotations.convert import detect_format, read_dataset
from d2tune.annotations.geometry.masks import decode_mask, rasterize, to_raw, union_rles
from d2tune.annotations.model.types import Rle
from tests.annotations.builders import codes, photo

SQUARE = [[10, 10], [30, 10], [30, 30], [10, 30]]
HOLE = [[15, 15], [20, 15], [20, 20], [15, 20]]


def supervisely(
    folder: Path, *objects: Any, classes: tuple[str, ...] = ("van", "car"), file: str = "a.png.json"
) -> Path:
    photo(folder / "ds" / "img" / "a.png")
    (folder / "ds" / "ann").mkdir(exist_ok=True)
    value = {"description": "", "tags": [], "size": {"height": 48, "width": 64}, "objects": list(objects)}
    (folder / "ds" / "ann" / file).write_text(json.dumps(value), "utf-8")
    rows = [{"title": name, "shape": "any", "color": "#FF0000", "id": number} for number, name in enumerate(classes)]
    (folder / "meta.json").write_text(json.dumps({"classes": rows, "tags": [], "projectType": "images"}), "utf-8")
    return folder


def object_(kind: str, label: str = "car", **more: Any) -> dict[str, Any]:
    return {"id": 1, "classTitle": label, "geometryType": kind, "tags": []} | more


def polygon(*rings: Any, label: str = "car", **more: Any) -> dict[str, Any]:
    return object_("polygon", label, points={"exterior": rings[0], "interior": list(rings[1:])}, **more)


def bitmap(mask: Any, x: int, y: int, *, mode: str = "1", kind: str = "bitmap") -> dict[str, Any]:
    drawing = Image.fromarray(np.asarray(mask, dtype=np.uint8) * 255)
    if mode == "RGBA":
        whole = Image.new("RGBA", drawing.size, (255, 255, 255, 0))
        whole.putalpha(drawing)
        drawing = whole
    stream = io.BytesIO()
    drawing.convert(mode).save(stream, format="PNG")
    data = base64.b64encode(zlib.compress(stream.getvalue())).decode()
    return object_(kind, bitmap={"data": data, "origin": [x, y]})


@pytest.mark.parametrize("mode", ["1", "L", "RGBA"])
def test_bitmaps(tmp_path: Path, mode: str) -> None:
    mask = np.ones((8, 6), dtype=bool)
    mask[2:4, 2:5] = False
    mask[0, 0] = False
    (instance,) = read_dataset(supervisely(tmp_path, bitmap(mask, 20, 30, mode=mode))).instances
    assert isinstance(instance.segmentation, Rle)
    pixels = decode_mask(to_raw(instance.segmentation))
    assert pixels.sum() == 48 - 6 - 1 and np.array_equal(pixels[30:38, 20:26], mask)


def test_polygons_rectangles_and_order_of_classes(tmp_path: Path) -> None:
    rectangle = object_("rectangle", "van", points={"exterior": [[40, 10], [60, 20]], "interior": []})
    dataset = read_dataset(supervisely(tmp_path, polygon(SQUARE, HOLE), rectangle))
    assert [one.area_px2 for one in dataset.instances] == [400 - 25, 200]
    assert dataset.class_names == ("van", "car") and codes(dataset) == [("info", "box_as_mask", None)]
    assert dataset.images[0].file_name == "ds/img/a.png"
    assert detect_format(tmp_path) == detect_format(tmp_path / "ds") == "supervisely"
    segmentation = dataset.instances[0].segmentation
    assert isinstance(segmentation, Rle)
    expected = decode_mask(union_rles(rasterize([np.array(SQUARE, float)], width_px=64, height_px=48)))
    expected[15:20, 15:20] = False
    assert np.array_equal(decode_mask(to_raw(segmentation)), expected)


def test_bound_objects_are_one_instance(tmp_path: Path) -> None:
    moved = [[x + 30, y] for x, y in SQUARE]
    dataset = read_dataset(supervisely(tmp_path, polygon(SQUARE, bindingKey="x"), polygon(moved, bindingKey="x")))
    assert [one.shapes for one in dataset.instances] == [(0, 1)]


@pytest.mark.parametrize("file", ["a.png.json", "a.json"])
def test_names_of_files_and_shapes_without_an_area(tmp_path: Path, file: str) -> None:
    lines = [object_(kind, points={"exterior": [[1, 1], [5, 5]]}) for kind in ("line", "point", "graph", "cuboid")]
    dataset = read_dataset(supervisely(tmp_path, polygon(SQUARE), *lines, object_("cube"), file=file))
    notes = [one for one in codes(dataset) if one[1] != "image_found_elsewhere"]
    assert notes == [
        *(("warning", "unsupported_shape_type", index) for index in (1, 2, 3, 4)),
        ("warning", "unknown_shape_type", 5),
    ]
    assert len(dataset.instances) == 1


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (object_("bitmap", bitmap={"data": "???", "origin": [1, 2]}), "mask_undecodable"),
        (
            object_("bitmap", bitmap={"data": base64.b64encode(zlib.compress(b"x")).decode(), "origin": [1, 2]}),
            "mask_undecodable",
        ),
        (object_("bitmap"), "mask_undecodable"),
        (object_("polygon", points={"exterior": [[1, 2], [3]]}), "bad_point"),
        (object_("polygon"), "bad_point"),
        (object_("rectangle", points={"exterior": [[1, None], [3, 4]]}), "bad_point"),
        (polygon(SQUARE, label=""), "bad_shape"),
    ],
)
def test_invalid_objects_are_errors(tmp_path: Path, broken: dict[str, Any], code: str) -> None:
    dataset = read_dataset(supervisely(tmp_path, broken, polygon(SQUARE)))
    assert [(one.code, one.shape) for one in dataset.errors()] == [(code, 0)] and len(dataset.instances) == 1


def test_a_mask_that_unpacks_to_gigabytes_is_refused(tmp_path: Path) -> None:
    data = base64.b64encode(zlib.compress(b"\0" * 2**28)).decode()
    dataset = read_dataset(supervisely(tmp_path, object_("bitmap", bitmap={"data": data, "origin": [0, 0]})))
    assert [one.code for one in dataset.errors()] == ["mask_undecodable"]
