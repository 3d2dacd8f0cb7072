"""V7 Darwin JSON 2.0; right values by hand, on 64 x 48 px images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.geometry.masks import decode_mask, to_raw
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo

SQUARE = [(10, 10), (30, 10), (30, 30), (10, 30)]
HOLE = [(15, 15), (20, 15), (20, 20), (15, 20)]


def path_of(points: list[tuple[int, int]]) -> list[dict[str, int]]:
    return [{"x": x, "y": y} for x, y in points]


def annotation(label: str = "car", number: str = "1", **geometry: Any) -> dict[str, Any]:
    return {"id": number, "name": label, "slot_names": ["0"], "attributes": [], "properties": []} | geometry


def darwin(folder: Path, *annotations: Any, **item: Any) -> Path:
    photo(folder / "a.png")
    slot = {"type": "image", "slot_name": "0", "width": 64, "height": 48, "source_files": [{"file_name": "a.png"}]}
    whole = {"name": "a.png", "path": "/", "source_info": {"item_id": "018f-1"}, "slots": [slot]} | item
    value = {"version": "2.0", "item": whole, "annotations": list(annotations)}
    (folder / "a.json").write_text(json.dumps(value), "utf-8")
    return folder


def test_polygons_boxes_and_ellipses(tmp_path: Path) -> None:
    box = {"x": 10, "y": 10, "w": 20, "h": 20}
    moved = [(x + 25, y) for x, y in SQUARE]
    dataset = read_dataset(
        darwin(
            tmp_path,
            annotation(polygon={"paths": [path_of(SQUARE)]}, bounding_box=box),
            annotation("van", polygon={"paths": [path_of(SQUARE), path_of(HOLE)]}),
            annotation("bus", polygon={"paths": [path_of(HOLE), path_of(moved)]}),
            annotation("box", bounding_box={"x": 40, "y": 35, "w": 10, "h": 5}),
            annotation(ellipse={"center": {"x": 20, "y": 40}, "radius": {"x": 10, "y": 5}, "angle": math.pi / 2}),
        )
    )
    assert [one.area_px2 for one in dataset.instances[:4]] == [400, 375, 25 + 400, 50]
    assert [one.is_box for one in dataset.instances] == [False, False, False, True, False]
    assert dataset.instances[4].bbox_xywh == pytest.approx((15, 30, 10, 18), abs=0.2), "clipped at 48 px"
    assert dataset.images[0].source_id == "018f-1"


def test_masks_of_the_raster_layer(tmp_path: Path) -> None:
    layer = np.zeros((48, 64), dtype=int)
    layer[5:20, 7:33] = 2
    layer[9:12, 10:14] = 1
    runs: list[int] = []
    for value in layer.reshape(-1).tolist():
        if runs and runs[-2] == value:
            runs[-1] += 1
        else:
            runs += [value, 1]
    raster = {"dense_rle": runs, "mask_annotation_ids_mapping": {"m1": 1, "m2": 2}, "total_pixels": 64 * 48}
    masks = [annotation(number="m1", mask={"sparse_rle": None}), annotation("van", "m2", mask={"sparse_rle": None})]
    source = darwin(tmp_path, *masks, {"id": "r", "name": "__raster_layer__", "raster_layer": raster})
    dataset = read_dataset(source)
    assert [one.area_px2 for one in dataset.instances] == [12, 15 * 26 - 12] and not dataset.findings
    segmentation = dataset.instances[1].segmentation
    assert isinstance(segmentation, Rle) and np.array_equal(decode_mask(to_raw(segmentation)), layer == 2)


def test_shapes_without_an_area(tmp_path: Path) -> None:
    rows = [
        annotation(polygon={"paths": [path_of(SQUARE)]}),
        annotation(keypoint={"x": 1, "y": 2}),
        annotation(line={"path": path_of(SQUARE)}),
        annotation(skeleton={"nodes": []}),
        annotation(tag={}),
    ]
    assert codes(read_dataset(darwin(tmp_path, *rows))) == [
        *(("warning", "unsupported_shape_type", index) for index in (1, 2, 3)),
        ("info", "no_spatial_extent", 4),
    ]


@pytest.mark.parametrize(
    ("broken", "code"),
    [
        (annotation(polygon={"paths": [[{"x": 1}, {"x": 2, "y": 3}, {"x": 4, "y": 5}]]}), "bad_point"),
        (annotation(polygon={"paths": [[1, 2, 3]]}), "bad_point"),
        (annotation(bounding_box={"x": 1, "y": 2, "w": None, "h": 3}), "bad_point"),
        (annotation(mask={"sparse_rle": None}), "mask_missing"),
        (annotation("", polygon={"paths": [path_of(SQUARE)]}), "bad_shape"),
    ],
)
def test_invalid_annotations_are_errors(tmp_path: Path, broken: dict[str, Any], code: str) -> None:
    assert [one.code for one in read_dataset(darwin(tmp_path, broken)).errors()] == [code]


def test_videos_slots_and_version_1_are_refused_by_name(tmp_path: Path) -> None:
    row = annotation(polygon={"paths": [path_of(SQUARE)]})
    video = darwin(tmp_path / "video", row | {"frames": {"0": {}}})
    assert [one.code for one in read_dataset(video).errors()] == ["several_frames"]
    slots = darwin(tmp_path / "slots", row, slots=[{"width": 64}, {"width": 64}])
    assert "2 slots" in read_dataset(slots).errors()[0].message
    photo(tmp_path / "old" / "a.png")
    (tmp_path / "old" / "a.json").write_text(json.dumps({"image": {"filename": "a.png"}, "annotations": [row]}))
    with pytest.raises(DataError, match=r"a\.json looks like Darwin JSON 1\.0; export Darwin JSON 2\.0"):
        convert(tmp_path / "old", out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
