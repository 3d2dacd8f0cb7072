from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from d2tune.annotations.convert import convert
from d2tune.annotations.formats import rle_csv
from d2tune.annotations.formats.rle_csv import RunError
from d2tune.annotations.geometry.masks import decode_mask, rasterize, union_rles
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import photo

# Four rows of six pixels, counted from 1. Along rows: 1-6, 7-12, 13-18, 19-24; down columns: 1-4, 5-8, ...
PIXELS = [(1, 1), (1, 2), (1, 3), (2, 1)]  # row, column
BY_ROWS, BY_COLUMNS = "8 3 14 1", "6 2 10 1 14 1"


def read(folder: Path, text: str, **options: Any) -> Dataset:
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            photo(folder / name, 6, 4)
    (folder / "masks.csv").write_text(text, "utf-8")
    return rle_csv.read(folder, ReadOptions(**options))


def places(dataset: Dataset, index: int = 0) -> list[tuple[int, ...]]:
    segmentation = dataset.instances[index].segmentation
    if isinstance(segmentation, Rle):
        mask = decode_mask(segmentation)
    else:
        mask = decode_mask(union_rles(rasterize(segmentation, width_px=6, height_px=4)))
    return [tuple(place) for place in np.argwhere(mask).tolist()]


def test_each_dialect_counts_its_own_way(tmp_path: Path) -> None:
    carvana = read(tmp_path, f"img,rle_mask\na.png,{BY_ROWS}\n", preset="carvana", class_name="car")
    airbus = read(tmp_path, f"ImageId,EncodedPixels\na.png,{BY_COLUMNS}\n", preset="airbus", class_name="ship")
    severstal = read(tmp_path, f"ImageId_ClassId,EncodedPixels\na.png_3,{BY_COLUMNS}\n", preset="severstal")
    assert places(carvana) == places(airbus) == places(severstal) == PIXELS
    assert (carvana.class_names, airbus.class_names, severstal.class_names) == (("car",), ("ship",), ("3",))


def test_blank_rows_are_negatives_and_rows_are_instances(tmp_path: Path) -> None:
    text = "ImageId,EncodedPixels\na.png,1 1\na.png,3 1\nb.png,\n"
    dataset = read(tmp_path, text, preset="airbus", class_name="ship")
    assert [len(ones) for ones in dataset.by_image().values()] == [2, 0]
    joined = read(tmp_path, "ImageId_ClassId,EncodedPixels\na.png_1,\na.png_2,1 1\nb.png_1,\n", preset="severstal")
    assert (joined.class_names, len(joined.images)) == (("2",), 2)


@pytest.mark.parametrize(
    ("runs", "message"),
    [
        ("1", "expected pairs"),
        ("1 2 3", "expected pairs"),
        ("0 2", "counted from 1"),
        ("3 0", "counted from 1"),
        ("24 2", "ends at pixel 25, the image has 24"),
        ("99999999999999999999999 1", "not all whole numbers"),
        ("1 3 2 1", "overlap"),
        ("1 x", "not all whole numbers"),
        ("1 -2", "not all whole numbers"),
    ],
)
def test_bad_runs_name_the_line(tmp_path: Path, runs: str, message: str) -> None:
    text = f"ImageId,EncodedPixels\nb.png,1 1\n\na.png,{runs}\n"
    dataset = read(tmp_path, text, preset="airbus", class_name="ship")
    (finding,) = dataset.findings
    assert (finding.level, finding.code, finding.file, finding.line) == ("error", "bad_rle", "masks.csv", 4)
    assert message in finding.message
    left = read(tmp_path, text, preset="airbus", class_name="ship", skip_bad=True)
    assert [image.file_name for image in left.images] == ["b.png"]


def test_a_run_may_end_at_the_last_pixel_and_runs_may_adjoin() -> None:
    starts, lengths = rle_csv.parse_runs("24 1 1 2 3 4", pixels=24)
    assert (starts.tolist(), lengths.tolist()) == ([0, 2, 23], [2, 4, 1])
    with pytest.raises(RunError):
        rle_csv.parse_runs("24 1 24 1", pixels=24)


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("ImageId,Pixels\na.png,1 1\n", 1),
        ("", 1),
        ("ImageId,EncodedPixels\na.png\n", 2),
        ("ImageId,EncodedPixels\na,b,c\n", 2),
    ],
)
def test_bad_columns_name_the_line(tmp_path: Path, text: str, line: int) -> None:
    dataset = read(tmp_path, text, preset="airbus", class_name="ship")
    assert [(f.code, f.line) for f in dataset.errors()] == [("bad_rle", line)]


def test_a_joined_id_without_a_class_is_an_error(tmp_path: Path) -> None:
    dataset = read(tmp_path, "ImageId_ClassId,EncodedPixels\na.png,1 1\n", preset="severstal")
    assert [(f.code, f.line) for f in dataset.errors()] == [("bad_rle", 2)]


def test_the_dialect_and_the_class_must_be_named(tmp_path: Path) -> None:
    text = "ImageId,EncodedPixels\na.png,1 1\n"
    with pytest.raises(DataError, match="--preset"):
        read(tmp_path, text, class_name="ship")
    with pytest.raises(DataError, match="Did you mean 'airbus'"):
        read(tmp_path, text, class_name="ship", preset="airbas")
    with pytest.raises(DataError, match="--class-name"):
        read(tmp_path, text, preset="airbus")


def test_images_are_read_from_subfolders_or_reported(tmp_path: Path) -> None:
    photo(tmp_path / "train_v2" / "c.png", 6, 4)
    text = "ImageId,EncodedPixels\nc.png,1 1\ngone.png,\n"
    dataset = read(tmp_path, text, preset="airbus", class_name="ship")
    assert [image.file_name for image in dataset.images] == ["train_v2/c.png"]
    assert [(f.code, f.line) for f in dataset.errors()] == [("image_missing", 3)]


def test_connected_parts_become_instances(tmp_path: Path) -> None:
    # Pixels (0, 0), (1, 1) touch at a corner; (3, 5) is alone.
    text = "img,rle_mask\na.png,1 1 8 1 24 1\n"
    dataset = read(tmp_path, text, preset="carvana", class_name="car", split_components=True)
    assert [places(dataset, index) for index in range(2)] == [[(0, 0), (1, 1)], [(3, 5)]]


@settings(deadline=None)
@given(hnp.arrays(np.bool_, hnp.array_shapes(min_dims=2, max_dims=2, max_side=12)), st.booleans())
def test_text_and_mask_are_inverse(mask: np.ndarray, by_rows: bool) -> None:
    text = rle_csv.mask_to_text(mask, by_rows=by_rows)
    starts, lengths = rle_csv.parse_runs(text, pixels=mask.size)
    size = {"width_px": mask.shape[1], "height_px": mask.shape[0]}
    assert np.array_equal(rle_csv.runs_to_mask(starts, lengths, by_rows=by_rows, **size), mask)


@pytest.mark.parametrize(
    ("preset", "text"),
    [
        ("carvana", f"img,rle_mask\na.png,{BY_ROWS}\nb.png,\n"),
        ("airbus", f"ImageId,EncodedPixels\na.png,{BY_COLUMNS}\na.png,21 1\nb.png,\n"),
        ("severstal", f"ImageId,ClassId,EncodedPixels\na.png,1,{BY_COLUMNS}\na.png,3,21 1\nb.png,1,2 5\n"),
        ("severstal", f"ImageId_ClassId,EncodedPixels\na.png_1,{BY_COLUMNS}\na.png_3,21 1\nb.png_1,\nb.png_3,1 24\n"),
    ],
)
def test_writing_back_gives_the_same_text(tmp_path: Path, preset: str, text: str) -> None:
    read(tmp_path, text, preset=preset, class_name="x")
    options = ReadOptions(preset=preset, class_name="x")
    result = convert(tmp_path / "masks.csv", to="rle", out=tmp_path / "out.csv", options=options)
    assert result.paths == (tmp_path / "out.csv",)
    assert (tmp_path / "out.csv").read_text("utf-8") == text
