"""YOLO's label files as they are written: read back by this package and by supervision."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.formats.yolo.rings import joined
from d2tune.annotations.geometry.masks import decode_mask, rasterize, to_raw, union_rles
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, moved, photo, png_base64, shape

RING = np.pad(np.ones((12, 10), dtype=np.uint8), 1)
RING[4:7, 4:8] = 0


def masks_of(dataset: Dataset) -> list[Any]:
    """The pixels of each instance, in order."""
    sizes = {image.id: {"width_px": image.width_px, "height_px": image.height_px} for image in dataset.images}
    return [
        decode_mask(to_raw(one.segmentation))
        if isinstance(one.segmentation, Rle)
        else decode_mask(union_rles(rasterize(one.segmentation, **sizes[one.image_id])))
        for one in dataset.instances
    ]


def source(folder: Path) -> Path:
    """Polygons, an object of two pieces, and one with a hole."""
    hole = shape([[30, 20], [41, 33]], "dog", "mask", mask=png_base64(RING))
    pieces = [shape(SQUARE, "cat", group_id=1), shape(moved(SQUARE, 40, 30), "cat", group_id=1)]
    labelme_file(folder / "a.json", shape(TRIANGLE, "dog"), *pieces, hole)
    labelme_file(folder / "x" / "b.json", shape(moved(TRIANGLE, 3.3, 2.7), "cat"))
    labelme_file(folder / "x" / "c.json")
    return folder


def test_what_is_written_is_read_back_with_the_same_pixels(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = convert(source(tmp_path / "src"), to="yolo-seg", out=tmp_path / "out").dataset
    again = read_dataset(tmp_path / "out")
    assert [one.file_name for one in again.images] == ["images/a.png", "images/x/b.png", "images/x/c.png"]
    assert again.class_names == first.class_names == ("cat", "dog")
    for one, other in zip(masks_of(first), masks_of(again), strict=True):
        assert np.array_equal(one, other)
    assert [one.category_id for one in again.instances] == [one.category_id for one in first.instances]
    assert not [finding for finding in again.findings if finding.level != "info"]
    assert "1 object with holes and of 1 object of several pieces" in caplog.text
    description = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text("utf-8"))
    assert description == {"train": "images", "val": "images", "nc": 2, "names": {0: "cat", 1: "dog"}}


def test_supervision_reads_the_same_masks(tmp_path: Path) -> None:
    from supervision import DetectionDataset
    from supervision.detection.utils.converters import polygon_to_mask

    labelme_file(tmp_path / "src" / "a.json", shape(TRIANGLE, "dog"), shape(moved(SQUARE, 40), "cat"))
    convert(tmp_path / "src", to="yolo-seg", out=tmp_path / "out")
    out = {name: str(tmp_path / "out" / name) for name in ("images", "labels", "data.yaml")}
    loaded = DetectionDataset.from_yolo(out["images"], out["labels"], out["data.yaml"])
    assert loaded.classes == ["cat", "dog"]
    ((_, _, detections),) = list(loaded)
    expected = [polygon_to_mask(np.array(points), (64, 48)).astype(bool) for points in (TRIANGLE, moved(SQUARE, 40))]
    assert detections.class_id.tolist() == [1, 0]
    for one, other in zip(detections.mask, expected, strict=True):
        assert np.array_equal(one, other)


def test_names_are_distinct_and_do_not_repeat_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / "src"
    for name in ("images/a.png", "images/a.jpg", "a.png", "labels/b.png"):
        labelme_file(folder / f"{name}.json", shape(SQUARE), image=name.rpartition("/")[2])
    convert(folder, to="yolo-seg", out=tmp_path / "out")
    written = sorted(path.relative_to(tmp_path / "out").as_posix() for path in (tmp_path / "out").rglob("*.*g"))
    assert written == ["images/a-2.jpg", "images/a-3.png", "images/a.png", "images/b.png"]
    assert sorted(path.name for path in (tmp_path / "out" / "labels").glob("*.txt")) == [
        "a-2.txt",
        "a-3.txt",
        "a.txt",
        "b.txt",
    ]
    assert len(read_dataset(tmp_path / "out").instances) == 4


def test_images_are_copied_linked_or_left(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE))
    image = tmp_path / "src" / "a.png"
    for images in ("copy", "link", "none"):
        convert(tmp_path / "src", to="yolo-seg", out=tmp_path / images, images=images)
    assert (tmp_path / "copy" / "images" / "a.png").read_bytes() == image.read_bytes()
    assert not (tmp_path / "copy" / "images" / "a.png").samefile(image)
    assert (tmp_path / "link" / "images" / "a.png").samefile(image)
    assert not (tmp_path / "none" / "images").exists() and (tmp_path / "none" / "labels" / "a.txt").is_file()


def test_nothing_of_a_person_is_replaced(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE))
    out = tmp_path / "out"
    photo(out / "images" / "a.png", 8, 8)
    with pytest.raises(DataError, match="already there"):
        convert(tmp_path / "src", to="yolo-seg", out=out, force=True)
    assert not (out / "labels").exists() and not (out / "data.yaml").exists()
    (out / "images" / "a.png").unlink()
    convert(tmp_path / "src", to="yolo-seg", out=out)
    with pytest.raises(DataError, match="--force"):
        convert(tmp_path / "src", to="yolo-seg", out=out)
    convert(tmp_path / "src", to="yolo-seg", out=out, force=True)


def test_crowds_are_counted(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE), shape(TRIANGLE, flags={"iscrowd": True}))
    convert(tmp_path / "src", to="yolo-seg", out=tmp_path / "out")
    assert "1 crowd not written" in caplog.text
    assert len((tmp_path / "out" / "labels" / "a.txt").read_text().splitlines()) == 1


def test_polygons_of_an_object_that_overlap_do_not_cut_each_other(tmp_path: Path) -> None:
    pieces = [shape(SQUARE, group_id=1), shape(moved(SQUARE, 5, 5), group_id=1)]
    labelme_file(tmp_path / "src" / "a.json", *pieces)
    convert(tmp_path / "src", to="yolo-seg", out=tmp_path / "out")
    (instance,) = read_dataset(tmp_path / "out").instances
    assert instance.area_px2 == 100 + 100 - 25


def test_images_inside_of_annotation_files_are_written(tmp_path: Path) -> None:
    import base64

    data = base64.b64encode(photo(tmp_path / "photo.png").read_bytes()).decode()
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE), draw=False, imageData=data)
    convert(tmp_path / "src", to="yolo-seg", out=tmp_path / "out")
    assert (tmp_path / "out" / "images" / "a.png").is_file()


def test_a_project_has_both_splits_in_one_folder(tmp_path: Path) -> None:
    from d2tune import api

    for split in ("train", "val"):
        labelme_file(tmp_path / split / f"{split}.json", shape(SQUARE, "cat"), shape(TRIANGLE, "dog"))
    (tmp_path / "p.yaml").write_text("task: instance\ndata: {root: .}\nclasses: [cat, dog]\n")
    api.convert(tmp_path / "p.yaml", to="yolo-seg", out=tmp_path / "out")
    description = yaml.safe_load((tmp_path / "out" / "data.yaml").read_text("utf-8"))
    assert (description["train"], description["val"]) == ("images/train", "images/val")
    assert (tmp_path / "out" / "labels" / "val" / "val.txt").is_file()
    assert len(read_dataset(tmp_path / "out").images) == 2
    assert len(read_dataset(tmp_path / "out" / description["val"]).instances) == 2


def test_joined_rings_keep_holes_and_pieces() -> None:
    outer = np.array([[0, 0], [20, 0], [20, 20], [0, 20]], dtype=float)
    hole = np.array([[5, 5], [5, 10], [10, 10], [10, 5]], dtype=float)
    apart = outer / 4 + 30
    (rle,) = rasterize([joined([outer, hole, apart])], width_px=40, height_px=40)
    mask = decode_mask(rle)
    expected = np.zeros((40, 40), dtype=bool)
    expected[:20, :20] = True
    expected[5:10, 5:10] = False
    expected[30:35, 30:35] = True
    assert np.array_equal(mask, expected)


def test_options_of_the_source(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE, "cat"), shape(TRIANGLE, "dog"))
    convert(tmp_path / "src", to="yolo-seg", out=tmp_path / "out", options=ReadOptions(labels=("dog", "cat")))
    lines = (tmp_path / "out" / "labels" / "a.txt").read_text().splitlines()
    assert [line.split()[0] for line in lines] == ["1", "0"]
    assert lines[0].split()[1] == "0.078125"
