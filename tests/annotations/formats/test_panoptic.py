from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.formats import panoptic, semantic
from d2tune.annotations.geometry.masks import decode_mask
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import labelme_file, shape
from tests.shared_files import SHARED

SAMPLE = SHARED / "data" / "panoptic_coco_sample"


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def folder(path: Path) -> Path:
    labelme_file(
        path / "x" / "a.json",
        shape(square(0, 0, 20), "sky"),
        shape(square(40, 0, 8), "sky"),
        shape(square(10, 10, 20), "car", group_id=1),
        shape(square(12, 12, 4), "sign"),
        shape(square(25, 25, 10), "car", group_id=1),
        shape(square(50, 40, 4), "sign", flags={"iscrowd": True}),
        shape(square(60, 0, 2), "car"),
        shape(square(59, 0, 4), "sign"),
    )
    return path


def test_later_shapes_are_on_top_shape_by_shape(tmp_path: Path) -> None:
    dataset = read_dataset(folder(tmp_path), options=ReadOptions(stuff=["sky"]))
    top = semantic.paint(dataset.instances, width_px=64, height_px=48)
    number = {
        (dataset.class_names[instance.category_id - 1], instance.shapes): i
        for i, instance in enumerate(dataset.instances)
    }
    assert top[5, 5] == number["sky", (0,)]
    assert top[11, 11] == number["car", (2, 4)]
    assert top[13, 13] == number["sign", (3,)]  # drawn between the two parts of the car
    assert top[30, 30] == number["car", (2, 4)]
    assert top[40, 5] == -1


def test_segments_ignored_pixels_and_separated_labels(tmp_path: Path) -> None:
    out = tmp_path / "out"
    result = convert(folder(tmp_path / "src"), to="panoptic", out=out, options=ReadOptions(stuff=["sky"]))
    assert {path.relative_to(out).as_posix() for path in result.paths} == {
        "panoptic/x/a.png",
        "stuff/x/a.png",
        "panoptic.json",
        "instances.json",
    }
    table = json.loads((out / "panoptic.json").read_text("utf-8"))
    rows = table["annotations"][0]["segments_info"]
    of = {row["id"]: row["name"] for row in table["categories"]}
    segments = sorted((of[row["category_id"]], row["area"], row["iscrowd"], tuple(row["bbox"])) for row in rows)
    assert segments == [
        ("car", 400 + 100 - 25 - 16, 0, (10, 10, 25, 25)),
        ("sign", 16, 0, (12, 12, 4, 4)),
        ("sign", 16, 0, (59, 0, 4, 4)),
        ("sign", 16, 1, (50, 40, 4, 4)),
        ("sky", 400 - 100 + 64, 0, (0, 0, 48, 20)),  # both pieces of sky are one segment
    ]  # the small car is covered
    colors = np.asarray(PilImage.open(out / "panoptic" / "x" / "a.png"))
    assert (panoptic.from_colors(colors) == 0).sum() == 64 * 48 - sum(row["area"] for row in rows)
    stuff = np.asarray(PilImage.open(out / "stuff" / "x" / "a.png"))
    assert (stuff[5, 5], stuff[30, 30], stuff[40, 5]) == (1, 0, 255)
    instances = json.loads((out / "instances.json").read_text("utf-8"))
    assert [row["category_id"] for row in instances["annotations"]].count(3) == 0
    with pytest.raises(DataError, match="already there"):
        convert(folder(tmp_path / "src"), to="panoptic", out=out, options=ReadOptions(stuff=["sky"]))


def test_ids_beyond_a_byte_survive_the_colors() -> None:
    ids = np.array([[0, 1, 255, 256, 65535, 65536, 16_000_000]], dtype=np.int32)
    assert np.array_equal(panoptic.from_colors(panoptic.to_colors(ids)), ids)
    assert panoptic.to_colors(ids)[0, 5].tolist() == [0, 0, 1]


def test_a_label_map_holds_255_classes(tmp_path: Path) -> None:
    categories = tuple(Category(number, str(number)) for number in range(1, 258))
    instance = Instance(1, 1, 256, (np.array([[0, 0], [2, 0], [2, 2.0]]),), (0, 0, 2, 2), 3)
    with pytest.raises(DataError, match="255 classes"):
        semantic.write(Dataset((Image(1, "a.png", 4, 4),), categories, (instance,)), tmp_path)


def test_the_coco_sample_reads_with_areas_from_the_png(tmp_path: Path) -> None:
    dataset = read_dataset(SAMPLE / "panoptic_examples.json", options=ReadOptions(image_root=SAMPLE / "input_images"))
    assert [f.code for f in dataset.findings] == []
    table = json.loads((SAMPLE / "panoptic_examples.json").read_text("utf-8"))
    assert len(dataset.images) == 2 and len(dataset.categories) == 133
    segments = sorted(segment["area"] for row in table["annotations"] for segment in row["segments_info"])
    assert sorted(instance.area_px2 for instance in dataset.instances) == pytest.approx(segments)
    boxes = sorted(tuple(segment["bbox"]) for row in table["annotations"] for segment in row["segments_info"])
    assert sorted(instance.bbox_xywh for instance in dataset.instances) == boxes
    names = {row["id"]: row for row in table["categories"]}
    assert [c.isthing for c in dataset.categories] == [bool(names[key]["isthing"]) for key in sorted(names)]

    paths = panoptic.write(dataset, tmp_path)
    assert len(paths) == 6
    again = read_dataset(tmp_path / "panoptic.json", options=ReadOptions(image_root=SAMPLE / "input_images"))
    assert again.findings == ()
    assert sorted(instance.area_px2 for instance in again.instances) == sorted(
        instance.area_px2 for instance in dataset.instances
    )


def sample(path: Path, **changes: Any) -> Dataset:
    path.mkdir(exist_ok=True)
    PilImage.new("RGB", (4, 2)).save(path / "a.png")
    ids = np.array([[1, 1, 300, 0], [1, 300, 300, 0]])
    (path / "pan").mkdir(exist_ok=True)
    PilImage.fromarray(panoptic.to_colors(ids)).save(path / "pan" / "a.png")
    segments = [
        {"id": 1, "category_id": 4, "area": 99, "bbox": [0, 0, 9, 9]},
        {"id": 300, "category_id": 2, "iscrowd": 1},
    ]
    value = {
        "images": [{"id": 5, "file_name": "a.png", "width": 4, "height": 2}],
        "annotations": [{"image_id": 5, "file_name": "a.png", "segments_info": segments}],
        "categories": [{"id": 4, "name": "sky", "isthing": 0}, {"id": 2, "name": "cat", "isthing": 1}],
    }
    value["annotations"][0] |= changes
    (path / "pan.json").write_text(json.dumps(value), "utf-8")
    return read_dataset(path / "pan.json")


def test_wrong_values_in_a_panoptic_file_are_measured_or_reported(tmp_path: Path) -> None:
    dataset = sample(tmp_path)
    assert dataset.findings == ()
    assert [(instance.area_px2, instance.bbox_xywh, instance.iscrowd) for instance in dataset.instances] == [
        (3, (0, 0, 2, 2), False),
        (3, (1, 0, 2, 2), True),
    ]
    assert [(c.name, c.isthing) for c in dataset.categories] == [("cat", True), ("sky", False)]
    assert decode_mask(dataset.instances[1].segmentation).sum() == 3

    def noted(**changes: Any) -> list[tuple[str, str]]:
        return [(f.level, f.code) for f in sample(tmp_path, **changes).findings]

    gone = {"id": 7, "category_id": 2}
    assert noted(segments_info=[gone]) == [("warning", "rasterizes_empty")]
    assert noted(segments_info=[{"id": "x"}]) == [("error", "bad_shape")]
    assert noted(segments_info=[{"id": 1, "category_id": 9}]) == [("error", "unknown_label")]
    assert noted(file_name="../a.png") == [("error", "mask_missing")]
    assert noted(file_name="b.png") == [("error", "mask_missing")]
    PilImage.new("RGB", (3, 3)).save(tmp_path / "pan" / "c.png")
    assert noted(file_name="c.png") == [("error", "size_mismatch")]
