"""Coordinates between 0 and 1 in every format that has coordinates."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from d2tune.annotations.convert import check
from d2tune.annotations.formats.shared.normalized import is_normalized
from d2tune.annotations.model.dataset import Dataset
from tests.annotations.builders import codes, labelme_file, photo, shape

CORNERS = [[0.25, 0.25], [0.75, 0.25], [0.75, 0.5], [0.25, 0.5]]
"""On 64 x 48 px: 16 to 48 px and 12 to 24 px, 384 pixels."""


def labelme(folder: Path, points: Any) -> None:
    labelme_file(folder / "a.json", shape(points), shape([[1, 1]], kind="point"))


def coco(folder: Path, points: Any) -> None:
    flat = [number for point in points for number in point]
    write_coco(folder, {"segmentation": [flat]})


def coco_box(folder: Path, points: Any) -> None:
    (left, top), (right, bottom) = points[0], points[2]
    write_coco(folder, {"segmentation": [], "bbox": [left, top, right - left, bottom - top]})


def write_coco(folder: Path, row: dict[str, Any]) -> None:
    photo(folder / "a.png")
    rows = [{"id": 1, "image_id": 1, "category_id": 1} | row]
    value = {"images": [{"id": 1, "file_name": "a.png"}], "annotations": rows, "categories": [{"id": 1, "name": "cat"}]}
    (folder / "c.json").write_text(json.dumps(value), "utf-8")


def via(folder: Path, points: Any) -> None:
    photo(folder / "a.png")
    x, y = zip(*points, strict=True)
    outline = {"name": "polygon", "all_points_x": x, "all_points_y": y}
    regions = [{"shape_attributes": outline, "region_attributes": {"class": "cat"}}]
    (folder / "v.json").write_text(json.dumps({"a": {"filename": "a.png", "regions": regions}}), "utf-8")


def voc(folder: Path, points: Any) -> None:
    """VOC counts pixels from 1 and includes the last, but normalized coordinates have no such shift."""
    (left, top), (right, bottom) = points[0], points[2]
    sides = {"xmin": left, "ymin": top, "xmax": right, "ymax": bottom}
    write_voc(folder, "bndbox", sides)


def voc_polygon(folder: Path, points: Any) -> None:
    named = {
        f"{axis}{at}": value for at, point in enumerate(points, 1) for axis, value in zip("xy", point, strict=True)
    }
    write_voc(folder, "polygon", named)


def write_voc(folder: Path, tag: str, values: dict[str, float]) -> None:
    photo(folder / "a.png")
    inner = "".join(f"<{key}>{value}</{key}>" for key, value in values.items())
    text = f"<filename>a.png</filename><object><name>cat</name><{tag}>{inner}</{tag}></object>"
    (folder / "a.xml").write_text(f"<annotation>{text}</annotation>", "utf-8")


def read(folder: Path) -> Dataset:
    return check(folder).dataset


@pytest.mark.parametrize("write", [labelme, coco, coco_box, via, voc, voc_polygon])
def test_normalized_coordinates_are_scaled_with_a_warning(tmp_path: Path, write: Any) -> None:
    write(tmp_path, CORNERS)
    dataset = read(tmp_path)
    assert [finding.code for finding in dataset.findings].count("normalized_coordinates") == 1
    assert [instance.area_px2 for instance in dataset.instances] == [384]
    assert dataset.instances[0].bbox_xywh == pytest.approx((16, 12, 32, 12))


@pytest.mark.parametrize("write", [labelme, coco, coco_box, via])
@pytest.mark.parametrize(
    "points",
    [
        [[0, 0], [1, 0], [1, 1], [0, 1]],  # the first pixel
        [[0.25, 0.25], [20.5, 0.25], [20.5, 20.5], [0.25, 20.5]],
        [[0.25, 0.25], [1.25, 0.25], [1.25, 1.25], [0.25, 1.25]],
    ],
)
def test_pixels_near_the_corner_are_pixels(tmp_path: Path, write: Any, points: Any) -> None:
    write(tmp_path, points)
    assert "normalized_coordinates" not in [code for _, code, _ in codes(read(tmp_path))]


def test_one_object_in_pixels_makes_a_file_one_in_pixels(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(CORNERS), shape([[10, 10], [30, 10], [30, 30]]))
    assert "normalized_coordinates" not in [code for _, code, _ in codes(read(tmp_path))]


@pytest.mark.parametrize(
    ("numbers", "answer"),
    [
        ([0, 0.5, 1], True),
        ([0, 1.0], False),
        ([], False),
        ([0.5, -0.005, 1.004], True),
        ([0.5, 1.1], False),
        ([0.5, None], False),
        ([0.5, True], False),
        ([0.5, float("nan")], False),
        ([0.5, "0.5"], False),
    ],
)
def test_what_counts_as_normalized(numbers: Any, answer: bool) -> None:
    assert is_normalized(numbers) == answer
