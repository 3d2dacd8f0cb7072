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
    assert (joined.class_names, joined.counts(), len(joined.images)) == (("1", "2"), {"1": 0, "2": 1}, 2)


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


# Files of other competitions -----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "options"),
    [
        (f"ImageId;EncodedPixels\na.png;{BY_COLUMNS}\n", {"preset": "airbus", "class_name": "x"}),
        (f"ImageId\tEncodedPixels\r\na.png\t{BY_COLUMNS}\r\n", {"preset": "airbus", "class_name": "x"}),
        (f",ImageId,EncodedPixels\n0,a.png,{BY_COLUMNS}\n", {"preset": "airbus", "only_class": "x"}),
        (f"Unnamed: 0, imageid , ENCODEDPIXELS\n0,a.png,{BY_COLUMNS}\n", {"preset": "airbus", "class_name": "x"}),
        (f"id,rle_mask,z\na,{BY_COLUMNS},5\n", {"preset": "airbus", "class_name": "x"}),
        (f"ImageId,ClassId,EncodedPixels,fold\na.png,x,{BY_COLUMNS},0\n", {"preset": "severstal"}),
        (f"fold,EncodedPixels,Image_Label\n3,{BY_COLUMNS},a.png_x\n", {"preset": "severstal"}),
        (f"id,annotation,width,height,cell_type,plate\na,{BY_ROWS},6,4,x,7\n", {"preset": "sartorius"}),
        ("ImageId,EncodedPixels\na,5 2 2 1 3 1\n", {"preset": "siim", "class_name": "x"}),
    ],
)
def test_headers_of_other_competitions_are_read(tmp_path: Path, text: str, options: dict[str, Any]) -> None:
    """The runs of siim: 5 px, then 2; 2 px, then 1; 3 px, then 1. That is 6-7, 10 and 14, counted from 1."""
    dataset = read(tmp_path, text, **options)
    assert [finding for finding in dataset.findings if finding.code != "unlabeled_image"] == []
    assert (dataset.counts(), places(dataset)) == ({"x": 1}, PIXELS)
    assert [image.file_name for image in dataset.images] == ["a.png"]


@pytest.mark.parametrize("nothing", ["-1", " -1", "nan", "NaN", "None", "", "  "])
def test_rows_without_an_object_make_negatives(tmp_path: Path, nothing: str) -> None:
    text = f"ImageId,EncodedPixels\na.png,{nothing}\nb.png,1 1\n"
    dataset = read(tmp_path, text, preset="airbus", class_name="ship")
    assert (dataset.findings, [len(ones) for ones in dataset.by_image().values()]) == ((), [0, 1])


def test_every_class_that_a_row_names_is_a_class(tmp_path: Path) -> None:
    """Of the classes 1 to 4, the class 2 has blank rows alone: without it, 3 and 4 would get the ids 2 and 3."""
    rows = [f"a.png_{number},{runs}" for number, runs in ((1, "1 1"), (2, ""), (3, "3 1"), (4, "5 1"))]
    rows += [f"b.png_{number}," for number in (1, 2, 3, 4)]
    dataset = read(tmp_path, "\n".join(["ImageId_ClassId,EncodedPixels", *rows]), preset="severstal")
    assert dataset.class_names == ("1", "2", "3", "4")
    assert [instance.category_id for instance in dataset.instances] == [1, 3, 4]
    named = read(tmp_path, "\n".join(["ImageId_ClassId,EncodedPixels", *rows]), preset="severstal", rename={"2": None})
    assert named.class_names == ("1", "3", "4") and named.findings == ()
    options = {"preset": "severstal", "labels": ["4", "3", "2", "1"]}
    assert read(tmp_path, "ImageId_ClassId,EncodedPixels\na.png_9,\nb.png_1,1 1\n", **options).errors() == ()


def test_images_are_named_without_suffix_in_any_folder(tmp_path: Path) -> None:
    photo(tmp_path / "train" / "1.2.276.0.png", 6, 4)
    photo(tmp_path / "train" / "images" / "x.png", 6, 4)
    photo(tmp_path / "train" / "masks" / "x.png", 6, 4)
    photo(tmp_path / "1" / "twice.png", 6, 4)
    photo(tmp_path / "2" / "twice.jpg", 6, 4)
    text = "ImageId,EncodedPixels\n1.2.276.0,1 1\nx,3 1\ntwice,1 1\ngone,1 1\n"
    dataset = read(tmp_path, text, preset="airbus", class_name="ship")
    assert {(f.code, f.line) for f in dataset.errors()} == {("image_ambiguous", 4), ("image_missing", 5)}
    annotated = {image.file_name for image in dataset.images if dataset.by_image()[image.id]}
    assert annotated == {"train/1.2.276.0.png", "train/images/x.png"}
    assert "image_found_elsewhere" not in {finding.code for finding in dataset.findings}


def test_a_class_after_an_image_may_have_an_underscore(tmp_path: Path) -> None:
    dataset = read(tmp_path, "Image_Label,EncodedPixels\na.png_white_matter,1 1\nb_1,2 1\n", preset="severstal")
    assert dataset.counts() == {"1": 1, "white_matter": 1}


@pytest.mark.parametrize(
    ("text", "preset", "message"),
    [
        ("ImageId,ClassId,EncodedPixels\na.png,1,1 1\n", "airbus", "the column ClassId has classes"),
        ("Image_Label,EncodedPixels\na.png_x,1 1\n", "carvana", "--preset severstal has"),
        ("ImageId,EncodedPixels\na.png,1 1\n", "severstal", "which have no class"),
        ("img,rle_mask\na.png,1 1\n", "airbus", "which are those of the dialect carvana"),
        ("ImageId,EncodedPixels\na.png,1 1\n", "carvana", "which are those of the dialect airbus"),
        (
            "id,annotation,width,height,cell_type\na,1 1,6,4,x\n",
            "severstal",
            "which are those of the dialect sartorius",
        ),
    ],
)
def test_columns_of_another_dialect_are_refused(tmp_path: Path, text: str, preset: str, message: str) -> None:
    name = None if preset in ("severstal", "sartorius") else "x"
    (error,) = read(tmp_path, text, preset=preset, class_name=name).errors()
    assert (error.code, error.line) == ("bad_rle", 1) and message in error.message


def test_a_size_that_is_not_that_of_the_image_is_an_error(tmp_path: Path) -> None:
    dataset = read(tmp_path, "id,annotation,width,height,cell_type\na,1 1,7,4,x\nb,1 1,6,4,x\n", preset="sartorius")
    assert [(f.code, "line 2 states 7 x 4 px" in f.message) for f in dataset.errors()] == [("size_mismatch", True)]
    assert [len(ones) for ones in dataset.by_image().values()] == [1]


def test_a_missing_dialect_is_suggested_by_the_columns(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"The columns are those of sartorius: .* or --preset sartorius"):
        read(tmp_path, "id;annotation;width;height;cell_type\na;1 1;6;4;x\n")


def test_a_class_name_that_is_not_used_and_overlaps_of_relative_starts_are_noted(tmp_path: Path) -> None:
    dataset = read(tmp_path, "ImageId,ClassId,EncodedPixels\na.png,1,1 1\n", preset="severstal", class_name="x")
    assert [(f.level, f.code) for f in dataset.findings if f.line] == [("info", "option_unused")]
    dataset = read(tmp_path, "ImageId,EncodedPixels\na.png,5 2 5 1\n", preset="airbus", class_name="x")
    assert "the dialect is siim" in str(dataset.errors()[0].hint)
    again = read(tmp_path, "ImageId,EncodedPixels\na.png,5 2 5 1\n", preset="siim", class_name="x")
    assert [one.area_px2 for one in again.instances] == [3]


@given(hnp.arrays(bool, hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=9)))
def test_relative_text_and_mask_are_inverse(mask: np.ndarray) -> None:
    text = rle_csv.mask_to_text(mask, by_rows=False, is_relative=True)
    height, width = mask.shape
    starts, lengths = rle_csv.parse_runs(text, pixels=mask.size, is_relative=True)
    again = rle_csv.runs_to_mask(starts, lengths, width_px=width, height_px=height, by_rows=False)
    assert (again == mask).all()
    if text:
        gaps = np.array(text.split(), dtype=int).reshape(-1, 2)
        painted = np.zeros(mask.size, dtype=bool)
        position = 0
        for gap, length in gaps:
            position += gap
            painted[position : position + length] = True
            position += length
        assert (mask == painted.reshape(width, height).T).all()


@pytest.mark.parametrize(
    ("preset", "text", "written"),
    [
        ("sartorius", f"id,annotation,width,height,cell_type\na,{BY_ROWS},6,4,x\na,1 1,6,4,y\n", None),
        ("airbus", f"ImageId;EncodedPixels;fold\na;{BY_COLUMNS};0\nb;-1;1\n", None),
        ("severstal", "Image_Label,EncodedPixels\na.png_x,1 1\na.png_y,\nb.png_x,\nb.png_y,2 5\n", None),
        ("siim", "ImageId,EncodedPixels\na,5 2 2 1\nb,-1\n", None),
        ("airbus", ",ImageId,EncodedPixels\n0,a,1 1\n", "ImageId,EncodedPixels\na,1 1\nb,\n"),
        (
            "sartorius",
            "id,annotation,width,height,cell_type,plate\na,1 1,6,4,x,7\n",
            "id,annotation,width,height,cell_type\na,1 1,6,4,x\n",
        ),
    ],
)
def test_files_of_other_competitions_are_written_back(
    tmp_path: Path, preset: str, text: str, written: str | None
) -> None:
    """The content stays where no mask has changed; else the columns of the dialect stay, and the names of images."""
    name = None if preset in ("severstal", "sartorius") else "x"
    read(tmp_path, text, preset=preset, class_name=name)
    options = ReadOptions(preset=preset, class_name=name, include_unlabeled=written is not None)
    convert(tmp_path, to="rle", out=tmp_path / "out" / "again.csv", format="rle", options=options)
    again = (tmp_path / "out" / "again.csv").read_text("utf-8")
    if written is None:
        assert again == text
    elif "plate" in text:
        assert again.startswith(written)
    else:
        assert again == written
