"""VIA's CSV export; right values by hand."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest

from d2tune.annotations.convert import check, convert, detect_format, read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo

HEADER = (
    *("filename", "file_size", "file_attributes", "region_count", "region_id"),
    *("region_shape_attributes", "region_attributes"),
)
SQUARE = {"name": "polygon", "all_points_x": [10, 30, 30, 10], "all_points_y": [10, 10, 30, 30]}
RECT = {"name": "rect", "x": 40, "y": 5, "width": 10, "height": 20}


def table(folder: Path, *rows: tuple[str, Any, Any], header: tuple[str, ...] = HEADER, mark: str = "") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "via_export_csv.csv").open("w", encoding="utf-8", newline="") as stream:
        stream.write(mark)
        writer = csv.writer(stream)
        writer.writerow(header)
        for number, (name, shape, attributes) in enumerate(rows):
            cells = [one if isinstance(one, str) else json.dumps(one) for one in (shape, attributes)]
            writer.writerow([name, 9, "{}", len(rows), number, *cells])
            photo(folder / name)
    return folder


@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_regions_of_several_images(tmp_path: Path, mark: str) -> None:
    rows = [
        ("a.png", SQUARE, {"class": "car"}),
        ("a.png", RECT, {"class": "van"}),
        ("b.png", {}, {}),
        ("c.png", {"name": "point", "cx": 1, "cy": 2}, {"class": "car"}),
    ]
    table(tmp_path, *rows, mark=mark)
    assert detect_format(tmp_path) == detect_format(tmp_path / "via_export_csv.csv") == "via-csv"
    dataset = read_dataset(tmp_path)
    assert [one.file_name for one in dataset.images] == ["a.png", "b.png", "c.png"]
    assert [one.area_px2 for one in dataset.instances] == [400, 200] and dataset.class_names == ("car", "van")
    assert codes(dataset) == [("warning", "unsupported_shape_type", 2)]


def test_options_of_via(tmp_path: Path) -> None:
    table(tmp_path, ("a.png", SQUARE, {"type": "car", "color": "red"}))
    assert [one.code for one in check(tmp_path).findings] == ["no_class"]
    dataset = read_dataset(tmp_path, options=ReadOptions(class_attribute="type", pixel_offset=0.5))
    assert dataset.counts() == {"car": 1} and dataset.instances[0].bbox_xywh == (10.5, 10.5, 20, 20)
    with pytest.raises(DataError, match="no region has this attribute"):
        check(tmp_path, options=ReadOptions(class_attribute="tpye"))


def test_damaged_rows_are_errors(tmp_path: Path) -> None:
    table(tmp_path, ("a.png", SQUARE, {"class": "car"}), ("a.png", '{"name": "rect"', {"class": "car"}))
    (error,) = read_dataset(tmp_path).errors()
    assert (error.code, error.line) == ("bad_csv", 3)
    with pytest.raises(DataError, match="not a JSON object"):
        convert(tmp_path, out=tmp_path / "out.json")


def test_other_tables_beside_it_are_noted(tmp_path: Path) -> None:
    table(tmp_path, ("a.png", SQUARE, {"class": "car"}))
    (tmp_path / "notes.csv").write_text("a,b\n1,2\n")
    assert codes(read_dataset(tmp_path)) == [("warning", "not_via", None)]


def test_long_outlines(tmp_path: Path) -> None:
    xs = [10 + 20 * (at / 30_000) for at in range(30_000)]
    long = {"name": "polygon", "all_points_x": [*xs, 30, 10], "all_points_y": [10.0] * 30_000 + [30, 30]}
    (instance,) = read_dataset(table(tmp_path, ("a.png", long, {"class": "car"}))).instances
    assert instance.area_px2 == 400
