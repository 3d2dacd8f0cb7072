"""Reading Labelme files and writing them back loses nothing, and Labelme itself opens and saves what is written."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pycocotools import mask as mask_utils

from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.formats import labelme
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, photo, png_base64, shape
from tests.labelme_app import open_in_labelme
from tests.shared_files import SHARED

TOP_KEYS = ["flags", "imageData", "imageHeight", "imagePath", "imageWidth", "shapes", "version"]


def legible(raw: dict[str, Any]) -> dict[str, Any]:
    """What Labelme's strict reader needs of a shape, by its documentation; nothing else may have been changed."""
    shape = {"group_id": None, "description": "", "mask": None} | raw
    shape["shape_type"] = raw.get("shape_type") or "polygon"
    shape["flags"] = raw.get("flags") or {}
    shape["description"] = raw.get("description") or ""
    return shape


@pytest.mark.parametrize("source", ["labelme_zoo", "microcontrollers/test"])
def test_real_files_come_back_with_every_value(source: str, tmp_path: Path) -> None:
    folder = SHARED / "data" / source
    options = ReadOptions(skip_bad=True, restore_dir=tmp_path / "restored")
    dataset = labelme.read(folder, options)
    written = labelme.write(dataset, tmp_path / "out", originals=folder)
    assert len(written) == len(dataset.images) > 5
    for image in dataset.images:
        assert image.annotation_file is not None
        before = json.loads((folder / image.annotation_file).read_bytes().decode("utf-8-sig"))
        after = json.loads((tmp_path / "out" / image.annotation_file).read_text("utf-8"))
        assert sorted(set(after) - set(before)) == sorted(set(TOP_KEYS) - set(before))
        for key in set(before) - {"version", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"}:
            assert after[key] == before[key] or (key == "flags" and not before[key])
        assert [legible(raw) for raw in before["shapes"]] == after["shapes"]
        assert image.path is not None
        assert (tmp_path / "out" / image.annotation_file).parent.joinpath(after["imagePath"]).samefile(image.path)


@pytest.mark.slow
def test_loose_types_become_those_that_labelme_takes(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "src" / "a.json",
        shape(SQUARE, 7, group_id="3", flags={"blurred": 1}, description=None),
        shape(TRIANGLE, "cat", group_id="left", description=12),
    )
    dataset = labelme.read(tmp_path / "src", ReadOptions())
    (path,) = labelme.write(dataset, tmp_path / "out", originals=tmp_path / "src")
    first, second = json.loads(path.read_text("utf-8"))["shapes"]
    assert (first["label"], first["group_id"], first["flags"], first["description"]) == ("7", 3, {"blurred": True}, "")
    assert (second["group_id"], second["description"]) == (None, "12")
    (seen,) = open_in_labelme([path], tmp_path)
    assert seen["errors"] == [] and len(seen["shapes"]) == 2


def test_excluded_shapes_are_not_written(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "src" / "a.json",
        shape(SQUARE, "cat"),
        shape(SQUARE, "dog"),
        shape(TRIANGLE, "cat", flags={"prediction": True}),
        shape([[3, 3]], "cat"),
    )
    options = ReadOptions(rename={"dog": None, "cat": "animal"}, no_predictions=True)
    dataset = labelme.read(tmp_path / "src", options)
    (path,) = labelme.write(dataset, tmp_path / "out", originals=tmp_path / "src")
    shapes = json.loads(path.read_text("utf-8"))["shapes"]
    assert [(row["label"], row["points"]) for row in shapes] == [("animal", SQUARE), ("cat", [[3, 3]])]


def test_files_keep_the_folders_they_had(tmp_path: Path) -> None:
    source = tmp_path / "src"
    photo(source / "photos" / "a.png")
    labelme_file(source / "drawn" / "a.json", shape(SQUARE), draw=False, image="../photos/a.png")
    (path,) = convert(source, out=tmp_path / "out", to="labelme").paths
    assert path == tmp_path / "out" / "drawn" / "a.json"
    again = read_dataset(tmp_path / "out", options=ReadOptions(image_root=source))
    assert [image.file_name for image in again.images] == ["photos/a.png"]


def test_the_tolerance_of_converted_predictions(tmp_path: Path) -> None:
    y, x = np.mgrid[:300, :400]
    rle = mask_utils.encode(np.asfortranarray((np.hypot(x - 110, y - 90) < 60).astype(np.uint8)))
    photo(tmp_path / "a.png", 400, 300)
    row = {"id": 1, "image_id": 1, "category_id": 1, "score": 0.9}
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 400, "height": 300}],
        "annotations": [row | {"segmentation": {"size": [300, 400], "counts": rle["counts"].decode()}}],
        "categories": [{"id": 1, "name": "blob"}],
    }
    (tmp_path / "found.json").write_text(json.dumps(coco), "utf-8")
    counts = []
    for tolerance_px in (0.0, 1.0, 4.0):
        out = tmp_path / str(tolerance_px)
        (path,) = convert(tmp_path / "found.json", out=out, to="labelme", tolerance_px=tolerance_px).paths
        counts.append(len(json.loads(path.read_text("utf-8"))["shapes"][0]["points"]))
    assert counts[0] > 200 > counts[1] > counts[2] > 5


def predictions(folder: Path) -> Dataset:
    """A blob, a ring with a hole and a pair of blobs that belong together, as a model would give them."""
    y, x = np.mgrid[:300, :400]
    near = np.hypot(x - 110, y - 90)
    masks = [near < 60, (np.hypot(x - 270, y - 100) < 70) & (np.hypot(x - 270, y - 100) > 30)]
    masks.append((np.hypot(x - 120, y - 230) < 40) | (np.hypot(x - 300, y - 240) < 40))
    photo(folder / "a.png", 400, 300)
    instances = []
    for number, mask in enumerate(masks, start=1):
        rle = mask_utils.encode(np.asfortranarray(mask.astype(np.uint8)))
        box = tuple(float(value) for value in mask_utils.toBbox(rle))
        area = float(mask_utils.area(rle))
        segmentation = Rle(300, 400, rle["counts"].decode())
        instances.append(Instance(number, 1, 1, segmentation, box, area, score=1 - number / 8))
    image = Image(1, "a.png", 400, 300, folder / "a.png")
    return Dataset((image,), (Category(1, "blob"),), tuple(instances))


@pytest.mark.slow
def test_labelme_opens_and_saves_predictions_without_changing_them(tmp_path: Path) -> None:
    (path,) = labelme.write(predictions(tmp_path), tmp_path)
    before = json.loads(path.read_text("utf-8"))
    (seen,) = open_in_labelme([path], tmp_path)
    assert seen["errors"] == []
    assert [shape["shape_type"] for shape in seen["shapes"]] == ["polygon", "mask", "polygon", "polygon"]
    after = json.loads(path.read_text("utf-8"))
    for old, new in zip(before["shapes"], after["shapes"], strict=True):
        assert {key: new[key] for key in old if key != "mask"} == {key: old[key] for key in old if key != "mask"}
        assert new["flags"] == {"prediction": True} and new["description"] == f"score={new['score']:.3f}"
    assert after["shapes"][2]["group_id"] == after["shapes"][3]["group_id"] == 0
    masks = [mask_of(instance) for instance in labelme.read(tmp_path, ReadOptions()).instances]
    for instance, mask in zip(predictions(tmp_path).instances, masks, strict=True):
        wanted = mask_of(instance)
        assert (wanted & mask).sum() / (wanted | mask).sum() > 0.96


def mask_of(instance: Instance) -> np.ndarray[Any, np.dtype[np.bool_]]:
    segmentation = instance.coco_segmentation()
    rle = (
        segmentation
        if isinstance(segmentation, dict)
        else mask_utils.merge(mask_utils.frPyObjects(segmentation, 300, 400))
    )
    return mask_utils.decode(rle).astype(bool)


@pytest.mark.slow
def test_labelme_opens_every_shape_type_and_real_files_after_a_round_trip(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "src" / "all.json",
        shape(SQUARE, group_id=2, description="says", flags={"iscrowd": True}, reviewer="Ada"),
        shape([[1, 1], [9, 9]], "box", "rectangle"),
        shape([[30, 20], [40, 20]], "ball", "circle"),
        shape([[1, 1], [9, 9]], "seam", "line"),
        shape([[1, 1], [9, 9], [12, 3]], "seam", "linestrip"),
        shape([[4, 4]], "dot", "point"),
        shape([[20, 20], [30, 25], [25, 35], [15, 30]], "chip", "oriented_rectangle"),
        shape([[5, 6], [7, 8]], "cell", "mask", mask=png_base64(np.eye(3))),
        shape([[2, 2], [3, 3]], "thin"),
    )
    convert(tmp_path / "src", out=tmp_path / "out", to="labelme")
    zoo = SHARED / "data" / "labelme_zoo"
    options = ReadOptions(skip_bad=True, restore_dir=tmp_path / "out")
    files = labelme.write(labelme.read(zoo, options), tmp_path / "zoo", originals=zoo)
    files = [tmp_path / "out" / "all.json", *files]
    before = [json.loads(file.read_text("utf-8")) for file in files]
    for file, value, seen in zip(files, before, open_in_labelme(files, tmp_path), strict=True):
        assert seen["errors"] == [], file
        assert len(seen["shapes"]) == len(value["shapes"]), file
        after = json.loads(file.read_text("utf-8"))
        for old, new in zip(value["shapes"], after["shapes"], strict=True):
            assert {key: new.get(key) for key in set(old) - {"mask"}} == {key: old[key] for key in set(old) - {"mask"}}


def test_the_old_suffix_becomes_a_group(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "src" / "a.json", shape(SQUARE, "cow-1"), shape(TRIANGLE, "cow-1"), shape(TRIANGLE, "cow-2")
    )
    dataset = labelme.read(tmp_path / "src", ReadOptions(instance_suffix="strip"))
    (path,) = labelme.write(dataset, tmp_path / "out", originals=tmp_path / "src")
    shapes = json.loads(path.read_text("utf-8"))["shapes"]
    assert [(row["label"], row["group_id"]) for row in shapes] == [("cow", 0), ("cow", 0), ("cow", None)]
