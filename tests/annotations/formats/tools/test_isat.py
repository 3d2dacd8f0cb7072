"""ISAT; right values by hand, on 64 x 48 px images."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import SQUARE, TRIANGLE, codes, moved, photo


def isat(path: Path, *objects: Any, name: str = "a.png", image: str = "a.png", width_px: int = 64) -> Path:
    photo(path.parent / image)
    info = {"description": "ISAT", "folder": "D:/x", "name": name, "width": width_px, "height": 48, "depth": 3}
    path.write_text(json.dumps({"info": info, "objects": list(objects)}), "utf-8")
    return path.parent


def row(points: Any, category: Any = "car", group: Any = 1, layer: float = 1.0, **more: Any) -> dict[str, Any]:
    values = {"segmentation": points, "category": category, "group": group, "layer": layer, "iscrowd": 0}
    return values | {"bbox": [0, 0, 9, 9], "area": 1, "note": ""} | more


def test_groups_and_crowds(tmp_path: Path) -> None:
    objects = [
        row(SQUARE, group=1),
        row(moved(SQUARE, 30), group=1),
        row(moved(SQUARE, 0, 25), group=2),
        row(moved(SQUARE, 30, 25), "van", group=1),
        row(moved(TRIANGLE, 15), "van", group=3, iscrowd=1),
    ]
    dataset = read_dataset(isat(tmp_path / "a.json", *objects))
    assert [one.area_px2 for one in dataset.instances] == [200, 100, 100, 300]
    assert [one.iscrowd for one in dataset.instances] == [False, False, False, True]
    assert dataset.class_names == ("car", "van") and not dataset.findings


def test_higher_layers_cover_lower_ones(tmp_path: Path) -> None:
    whole = [[0, 0], [64, 0], [64, 48], [0, 48]]
    isat(tmp_path / "src" / "a.json", row(SQUARE, "car", layer=7.0), row(whole, "sky", group=2, layer=2.0))
    convert(tmp_path / "src", to="semantic", out=tmp_path / "out")
    assert (np.asarray(Image.open(tmp_path / "out" / "a.png")) == 0).sum() == 100


def test_the_background_is_ignored_and_boxes_alone_are_read(tmp_path: Path) -> None:
    objects = [row(SQUARE, "__background__"), row([], bbox=[10, 20, 30, 40], group=2)]
    dataset = read_dataset(isat(tmp_path / "a.json", *objects))
    assert [one.area_px2 for one in dataset.instances] == [400] and dataset.instances[0].is_box
    assert codes(dataset) == [("info", "box_as_mask", None), ("info", "ignored_label", 0)]


def test_images_in_a_folder_beside_that_of_the_labels(tmp_path: Path) -> None:
    (tmp_path / "images").mkdir()
    (tmp_path / "label").mkdir()
    isat(tmp_path / "label" / "a.json", row(SQUARE), image="../images/a.png")
    dataset = read_dataset(tmp_path)
    assert dataset.images[0].file_name == "images/a.png" and not dataset.findings
    apart = read_dataset(tmp_path / "label", options=ReadOptions(image_root=tmp_path / "images"))
    assert len(apart.instances) == 1


@pytest.mark.parametrize(
    ("object_", "expected"),
    [
        (row([[1, 2], [3, "x"], [5, 6]]), ("error", "bad_point", 0)),
        (row([[1, 2], [3, 4]]), ("warning", "too_few_points", 0)),
        (row(None), ("error", "bad_point", 0)),
        (row(SQUARE, None), ("error", "bad_shape", 0)),
        ("x", ("error", "bad_shape", 0)),
    ],
)
def test_invalid_objects_are_findings(tmp_path: Path, object_: Any, expected: tuple[str, str, int]) -> None:
    if object_ == row(None):
        object_ = object_ | {"bbox": None}
    dataset = read_dataset(isat(tmp_path / "a.json", object_, row(moved(SQUARE, 30), group=9)))
    assert codes(dataset) == [expected] and len(dataset.instances) == 1


def test_another_size_is_an_error(tmp_path: Path) -> None:
    assert [one.code for one in read_dataset(isat(tmp_path / "a.json", row(SQUARE), width_px=65)).errors()] == [
        "size_mismatch"
    ]
