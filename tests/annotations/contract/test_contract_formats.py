"""What the conversion contract says of the other formats, beyond the worked cases; values derived by hand."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import check, convert
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import TRIANGLE, codes, labelme_file, photo, shape


def coco_value(*segmentations: Any, **more: Any) -> dict[str, Any]:
    rows = [
        {"id": index, "image_id": 0, "category_id": 90, "segmentation": segmentation, "bbox": [0, 0, 1, 1], "area": 1}
        for index, segmentation in enumerate(segmentations)
    ]
    images = [{"id": 0, "file_name": "a.png", "width": 64, "height": 48}]
    return {"images": images, "annotations": rows, "categories": [{"id": 90, "name": "cat"}]} | more


def read_coco(folder: Path, value: Any, **options: Any) -> Dataset:
    photo(folder / "a.png")
    (folder / "c.json").write_text(json.dumps(value), "utf-8")
    return check(folder, format="coco", options=ReadOptions(**options)).dataset


@pytest.mark.parametrize(
    ("segmentation", "wanted"),
    [
        ([[1, 2, 3, 4]], ("warning", "too_few_points")),  # pycocotools takes it for a box
        ([[1, 2, 3, 4, 5]], ("error", "bad_point")),
        ([[1, 2, 3, "4", 5, 6]], ("error", "bad_point")),
        ([[1, 2, 3, None, 5, 6]], ("error", "bad_point")),
        ([[10, 10, 30, 10, 10, float("nan")]], ("error", "non_finite_coordinate")),
        ([[10, 10, 20, 20, 30, 30]], ("warning", "zero_area")),
        ([[70, 10, 80, 10, 80, 20]], ("warning", "outside_image")),
        ({"size": [64, 48], "counts": [64 * 48]}, ("error", "bad_rle")),
        ({"size": [48, 64], "counts": [1, 2]}, ("error", "bad_rle")),
        ({"size": [48, 64], "counts": [-1, 64 * 48 + 1]}, ("error", "bad_rle")),
        ({"size": [48, 64], "counts": "?!"}, ("error", "bad_rle")),
        ({"size": [48, 64], "counts": [64 * 48]}, ("warning", "rasterizes_empty")),
    ],
)
def test_coco_is_held_to_the_same_rules(tmp_path: Path, segmentation: Any, wanted: tuple[str, str]) -> None:
    dataset = read_coco(tmp_path, coco_value([[10, 10, 30, 10, 10, 40]], segmentation))
    assert codes(dataset) == [(*wanted, 1)]
    assert [instance.area_px2 for instance in dataset.instances] == [300]


def panoptic_folder(folder: Path) -> Path:
    """Sky on the first 20 rows, a car of 10 x 10 px, a color that is no segment, and one that is not there."""
    photo(folder / "a.png")
    ids = np.zeros((48, 64, 3), dtype=np.uint8)
    ids[:20, :, 0], ids[20:30, :10, 1], ids[40:, 40:, 2] = 1, 1, 9  # ids 1, 256 and 9 * 65536
    (folder / "panoptic").mkdir()
    PilImage.fromarray(ids).save(folder / "panoptic" / "a.png")
    stated = {"area": 5, "bbox": [0, 0, 1, 1], "iscrowd": 0}
    segments = [{"id": 1, "category_id": 3}, {"id": 256, "category_id": 5}, {"id": 7, "category_id": 5}]
    value = {
        "images": [{"id": 4, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{"image_id": 4, "file_name": "a.png", "segments_info": [row | stated for row in segments]}],
        "categories": [{"id": 3, "name": "sky", "isthing": 0}, {"id": 5, "name": "car", "isthing": 1}],
    }
    (folder / "p.json").write_text(json.dumps(value), "utf-8")
    return folder


@pytest.mark.parametrize("format", ["auto", "panoptic", "coco"])
@pytest.mark.parametrize("name", ["", "p.json"])
def test_panoptic_coco_is_coco_too(tmp_path: Path, format: str, name: str) -> None:
    dataset = check(panoptic_folder(tmp_path) / name, format=format).dataset
    assert codes(dataset) == [("warning", "rasterizes_empty", 2)]
    assert [(instance.category_id, instance.area_px2, instance.bbox_xywh) for instance in dataset.instances] == [
        (1, 20 * 64, (0, 0, 64, 20)),
        (2, 100, (0, 20, 10, 10)),
    ]


@pytest.mark.parametrize("number", [0, -1, None, "1"])
def test_ignored_pixels_are_not_a_segment(tmp_path: Path, number: Any) -> None:
    value = json.loads((panoptic_folder(tmp_path) / "p.json").read_text())
    value["annotations"][0]["segments_info"][1]["id"] = number
    (tmp_path / "p.json").write_text(json.dumps(value))
    assert codes(check(tmp_path).dataset) == [("error", "bad_shape", 1), ("warning", "rasterizes_empty", 2)]


def test_of_both_kinds_of_coco_the_instances_are_read_and_neither_is_an_error(tmp_path: Path) -> None:
    panoptic_folder(tmp_path)
    assert read_coco(tmp_path, coco_value([[10, 10, 30, 10, 10, 40]])).class_names == ("cat",)
    (tmp_path / "none").mkdir()
    (tmp_path / "none" / "x.json").write_text("[]", "utf-8")
    with pytest.raises(DataError, match="COCO"):
        check(tmp_path / "none", format="coco")


@pytest.mark.parametrize(
    ("preset", "text"),
    [
        # Images out of order, rows of one image apart.
        ("airbus", "ImageId,EncodedPixels\nb.png,1 2\na.png,6 2 10 1 14 1\nb.png,21 1\n"),
        ("airbus", "ImageId,EncodedPixels\r\na.png,6 2 10 1 14 1\r\nb.png,\r\n"),
        ("airbus", "\ufeffImageId,EncodedPixels\na.png,14 1 6 2 10 1\nb.png,\n"),
        ("airbus", "ImageId,EncodedPixels\na.png,6 2 8 2\nb.png,"),
        ("carvana", "img,rle_mask\nb.png,8 3 14 1\na.png,1 1 2 3\n"),
        # Every class of every image has a row, blank where it is absent; classes that occur nowhere too.
        (
            "severstal",
            "ImageId_ClassId,EncodedPixels\n"
            "a.png_1,6 2 10 1 14 1\na.png_2,\na.png_3,21 1\na.png_4,\nb.png_1,\nb.png_2,\nb.png_3,\nb.png_4,\n",
        ),
        ("severstal", "ImageId,ClassId,EncodedPixels\nb.png,3,6 2\nb.png,1,\na.png,2,1 1\n"),
    ],
)
def test_run_lengths_that_were_not_changed_are_written_as_they_were(tmp_path: Path, preset: str, text: str) -> None:
    for name in ("a.png", "b.png"):
        photo(tmp_path / "train" / name, 6, 4)
    (tmp_path / "masks.csv").write_bytes(text.encode())
    options = ReadOptions(preset=preset, class_name=None if preset == "severstal" else "x")
    for source in (tmp_path, tmp_path / "masks.csv"):
        out = tmp_path.parent / f"{tmp_path.name}-{source.name}.out.csv"
        convert(source, format="rle", to="rle", out=out, options=options)
        assert out.read_bytes() == text.encode()


def test_run_lengths_that_were_changed_are_written_anew(tmp_path: Path) -> None:
    photo(tmp_path / "a.png", 6, 4)
    (tmp_path / "masks.csv").write_text("ImageId,EncodedPixels\na.png,21 1 1 1\n")
    options = ReadOptions(preset="airbus", class_name="ship", split_components=True)
    convert(tmp_path, to="rle", out=tmp_path / "out", options=options)
    # Two ships, from the top left; the text of the original said one.
    assert (tmp_path / "out" / "masks.csv").read_text() == "ImageId,EncodedPixels\na.png,1 1\na.png,21 1\n"


RED, BLUE, GREEN = (255, 0, 0), (0, 0, 255), (0, 255, 0)


def color_folder(folder: Path, *, palette: bool = False) -> Path:
    """A red block of 10 x 10 px and a blue bar of 10 x 20 px on black, with mixed colors along one edge of each."""
    photo(folder / "images" / "a.jpg")
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[5:15, 5:15], pixels[20:30, 40:60] = RED, BLUE
    pixels[5:15, 15], pixels[20:30, 39] = (200, 0, 0), (0, 0, 60)  # nearest to red, nearest to black
    (folder / "masks").mkdir()
    mask = PilImage.fromarray(pixels)
    (mask.quantize(8) if palette else mask).save(folder / "masks" / "a.png")
    return folder


@pytest.mark.parametrize("palette", [False, True])
@pytest.mark.parametrize(
    "text",
    [
        "name,r,g,b\nbackground,0,0,0\nroof tile,255,0,0\nroad,0,0,255\n",
        "# label:color_rgb:parts:actions\nroof tile:255,0,0::\nroad:0,0,255::\n",
        "255 0 0\troof tile\n0 0 255\troad\n0 0 0 void\n",
        "\ufeffroof tile, 255, 0, 0\r\nroad, 0, 0, 255\r\n",
    ],
)
def test_color_masks_take_the_nearest_color(tmp_path: Path, text: str, palette: bool) -> None:
    (tmp_path / "map.txt").write_text(text, "utf-8")
    options = ReadOptions(color_map=tmp_path / "map.txt")
    dataset = check(color_folder(tmp_path / "src", palette=palette), options=options).dataset
    assert dataset.findings == () and dataset.class_names == ("road", "roof tile")
    areas = {dataset.class_names[instance.category_id - 1]: instance.area_px2 for instance in dataset.instances}
    assert areas == {"roof tile": 110, "road": 200}
    ordered = ReadOptions(color_map=tmp_path / "map.txt", labels=["roof tile", "road"])
    assert check(tmp_path / "src", options=ordered).dataset.counts() == {"roof tile": 1, "road": 1}


@pytest.mark.parametrize("name", ["class_dict.csv", "labelmap.txt", "label_colors.txt"])
def test_a_color_map_beside_the_masks_is_read(tmp_path: Path, name: str) -> None:
    (color_folder(tmp_path) / name).write_text("roof,255,0,0\nroad,0,0,255\n")
    assert check(tmp_path, format="masks").dataset.counts() == {"road": 1, "roof": 1}


def test_a_color_that_fills_an_area_is_a_class_that_is_missing(tmp_path: Path) -> None:
    (color_folder(tmp_path) / "class_dict.csv").write_text("roof,255,0,0\n")
    # The colors in their order: black, the mixed blue, blue, the mixed red, red.
    assert codes(check(tmp_path, format="masks").dataset) == [("error", "unknown_label", 2)]


def test_an_all_black_mask_has_no_class_whatever_the_labels(tmp_path: Path) -> None:
    photo(tmp_path / "images" / "a.jpg")
    photo(tmp_path / "masks" / "a.png")
    PilImage.new("RGB", (64, 48)).save(tmp_path / "masks" / "a.png")
    (tmp_path / "class_dict.csv").write_text("roof,255,0,0\n")
    dataset = check(tmp_path, format="masks", options=ReadOptions(labels=["roof"])).dataset
    assert (dataset.findings, dataset.instances) == ((), ())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "cannot be read"),
        ("", "has no color"),
        ("name,r,g,b\n", "has no color"),
        ("road,300,0,0\n", "line 1"),
        ("road,1,2,3\ncar,1,2,3\n", "line 2"),
    ],
)
def test_invalid_color_maps_are_reported_in_one_line(tmp_path: Path, text: str | None, message: str) -> None:
    if text is not None:
        (tmp_path / "map.csv").write_text(text)
    with pytest.raises(DataError, match=message):
        check(color_folder(tmp_path / "src"), options=ReadOptions(color_map=tmp_path / "map.csv"))


def test_a_folder_of_several_formats_is_read_as_labelme(tmp_path: Path) -> None:
    labelme_file(tmp_path / "b.json", shape(TRIANGLE))
    panoptic_folder(tmp_path)
    (tmp_path / "c.json").write_text(json.dumps(coco_value([[10, 10, 30, 10, 10, 40]])), "utf-8")
    (tmp_path / "m.csv").write_text("ImageId,EncodedPixels\na.png,1 1\n")
    (tmp_path / "v.json").write_text(json.dumps({"a": {"filename": "a.png", "regions": []}}), "utf-8")
    dataset = check(tmp_path).dataset
    assert [(f.code, f.file) for f in dataset.findings if f.level == "warning"] == [
        ("other_format", "m.csv"),
        *(("not_labelme", name) for name in ("c.json", "p.json", "v.json")),
    ]
    assert [image.file_name for image in dataset.images] == ["b.png"]
