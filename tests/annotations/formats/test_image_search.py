"""Every reader finds images that are not at the path named, says so, and never gives an image to two annotations."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import check, read_dataset
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, photo, shape

Writer = Callable[[Path, str], None]


def codes(dataset: Dataset) -> list[tuple[str, str, str]]:
    return [(finding.level, finding.code, finding.file) for finding in dataset.findings if finding.level != "info"]


def labelme(folder: Path, image: str) -> None:
    labelme_file(folder / "x.json", shape(SQUARE), image=image, draw=False)


def coco(folder: Path, image: str) -> None:
    row = {
        "id": 1,
        "image_id": 7,
        "category_id": 1,
        "bbox": [5, 5, 10, 10],
        "segmentation": [[5, 5, 15, 5, 15, 15, 5, 15]],
    }
    value = {"images": [{"id": 7, "file_name": image}], "annotations": [row], "categories": [{"id": 1, "name": "cat"}]}
    written(folder / "x.json", json.dumps(value))


def via(folder: Path, image: str) -> None:
    region = {
        "shape_attributes": {"name": "rect", "x": 5, "y": 5, "width": 10, "height": 10},
        "region_attributes": {"kind": "cat"},
    }
    written(folder / "x.json", json.dumps({"one": {"filename": image, "size": -1, "regions": [region]}}))


def voc(folder: Path, image: str) -> None:
    box = "<bndbox><xmin>6</xmin><ymin>6</ymin><xmax>15</xmax><ymax>15</ymax></bndbox>"
    text = f"<annotation><filename>{image}</filename><object><name>cat</name>{box}</object></annotation>"
    written(folder / "x.xml", text)


def panoptic(folder: Path, image: str) -> None:
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[5:15, 5:15, 0] = 1
    (folder / "x").mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(pixels).save(folder / "x" / "m.png")
    row = {"image_id": 7, "file_name": "m.png", "segments_info": [{"id": 1, "category_id": 1, "iscrowd": 0}]}
    value = {"images": [{"id": 7, "file_name": image}], "annotations": [row], "categories": [{"id": 1, "name": "cat"}]}
    written(folder / "x.json", json.dumps(value))


def rle(folder: Path, image: str) -> None:
    runs = " ".join(f"{column * 48 + 6} 10" for column in range(5, 15))
    written(folder / "x.csv", f"ImageId,EncodedPixels\n{image},{runs}\n")


def written(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, "utf-8")


WRITERS = [labelme, coco, via, voc, panoptic, rle]
NAMES = [
    ("D:\\old\\p.png", "p.png"),
    ("/home/me/data/p.png", "p.png"),
    ("data/local-files/?d=set/p.png", "p.png"),
    ("https://host/media/upload/3/0a1b2c3d-p.png", "p.png"),
    ("p.jpg", "p.png"),
    ("P.PNG", "p.png"),
]


def read(writer: Writer, source: Path, **options: Any) -> Dataset:
    more: dict[str, Any] = {"preset": "airbus", "class_name": "cat"} if writer is rle else {}
    return read_dataset(source, options=ReadOptions(**more, **options))


@pytest.mark.parametrize("writer", WRITERS)
@pytest.mark.parametrize(("named", "disk"), NAMES)
def test_an_image_elsewhere_is_read_with_a_warning(tmp_path: Path, writer: Writer, named: str, disk: str) -> None:
    writer(tmp_path / "ann", named)
    photo(tmp_path / "photos" / "deep" / disk)
    dataset = read(writer, tmp_path / "ann", image_root=tmp_path / "photos")
    assert [(image.file_name, image.path) for image in dataset.images] == [
        (f"deep/{disk}", tmp_path / "photos" / "deep" / disk)
    ]
    assert [instance.area_px2 for instance in dataset.instances] == [100]
    assert [code for _, code, _ in codes(dataset)] == ["image_found_elsewhere"]
    (finding,) = (finding for finding in dataset.findings if finding.code == "image_found_elsewhere")
    assert named in finding.message and f"deep/{disk}" in finding.message


@pytest.mark.parametrize("writer", WRITERS)
def test_several_candidates_and_none_are_errors(tmp_path: Path, writer: Writer) -> None:
    writer(tmp_path / "set", "D:\\old\\p.png")
    assert [code for _, code, _ in codes(read(writer, tmp_path / "set"))] == ["image_missing"]
    for folder in ("one", "two"):
        photo(tmp_path / "set" / folder / "p.png")
    (finding,) = read(writer, tmp_path / "set").errors()
    assert finding.code == "image_ambiguous"
    assert "one/p.png, two/p.png" in finding.message
    with pytest.raises(DataError, match=r"Correct the path in the annotation file, or keep one of the images\.$"):
        read(writer, tmp_path / "set").raise_on_errors()


@pytest.mark.parametrize("writer", [labelme, voc])
def test_the_name_of_the_annotation_file_finds_an_image_that_was_renamed(tmp_path: Path, writer: Writer) -> None:
    writer(tmp_path, "old name.png")
    photo(tmp_path / "x.png")
    dataset = read(writer, tmp_path)
    assert [image.file_name for image in dataset.images] == ["x.png"]
    assert [code for _, code, _ in codes(dataset)] == ["image_found_elsewhere"]


@pytest.mark.parametrize("writer", [coco, via, panoptic, rle])
def test_a_file_of_many_images_gives_none_its_own_name(tmp_path: Path, writer: Writer) -> None:
    writer(tmp_path, "old name.png")
    photo(tmp_path / "x.png")
    assert [finding.code for finding in read(writer, tmp_path).errors()] == ["image_missing"]


@pytest.mark.parametrize("order", ["ab", "ba"])
def test_an_image_belongs_to_the_file_that_names_it(tmp_path: Path, order: str) -> None:
    first, second = tuple(order)
    labelme_file(tmp_path / f"{first}.json", shape(SQUARE), image="p.jpg", draw=False)
    labelme_file(tmp_path / f"{second}.json", shape(TRIANGLE), image="p.png", draw=False)
    photo(tmp_path / "p.jpg")
    for options in (ReadOptions(), ReadOptions(skip_bad=True)):
        dataset = read_dataset(tmp_path, options=options)
        assert [(image.file_name, image.annotation_file) for image in dataset.images] == [("p.jpg", f"{first}.json")]
        assert [instance.area_px2 for instance in dataset.instances] == [100]
        level = "warning" if options.skip_bad else "error"
        assert (level, "duplicate_image", f"{second}.json") in codes(dataset)


def test_an_image_that_two_files_fall_back_on_belongs_to_neither(tmp_path: Path) -> None:
    for name in "ab":
        labelme_file(tmp_path / f"{name}.json", shape(SQUARE), image="D:\\p.png", draw=False)
    photo(tmp_path / "sub" / "p.png")
    dataset = read_dataset(tmp_path)
    assert [finding.file for finding in dataset.errors() if finding.code == "duplicate_image"] == ["a.json", "b.json"]
    skipped = read_dataset(tmp_path, options=ReadOptions(skip_bad=True))
    assert (skipped.images, skipped.instances) == ((), ())


def test_masks_of_voc_are_not_the_images_of_its_annotations(tmp_path: Path) -> None:
    voc(tmp_path / "Annotations", "x.jpg")
    photo(tmp_path / "SegmentationClass" / "x.png")
    assert "image_missing" in [finding.code for finding in read_dataset(tmp_path, format="voc").errors()]
    photo(tmp_path / "JPEGImages" / "x.jpg")
    assert codes(read_dataset(tmp_path, format="voc")) == []


# imageData ----------------------------------------------------------------------------------------------------------


def two_halves(path: Path, *, dark: int = 0, size: tuple[int, int] = (64, 48)) -> bytes:
    """A photo with a dark half, left or right, and its bytes."""
    pixels = np.full((size[1], size[0], 3), 200, dtype=np.uint8)
    half = size[0] // 2
    pixels[:, dark * half : (dark + 1) * half] = 20
    path.parent.mkdir(parents=True, exist_ok=True)
    PilImage.fromarray(pixels).save(path)
    return path.read_bytes()


@pytest.mark.parametrize("same", ["bytes", "pixels"])
def test_an_image_beside_the_file_that_shows_what_image_data_shows_is_used(tmp_path: Path, same: str) -> None:
    inner = two_halves(tmp_path / "inner.png")
    two_halves(tmp_path / "set" / ("new.png" if same == "bytes" else "new.jpg"))
    data = base64.b64encode(inner).decode()
    labelme_file(tmp_path / "set" / "new.json", shape(SQUARE), image="old.png", draw=False, imageData=data)
    dataset = check(tmp_path / "set").dataset
    assert [image.file_name.partition(".")[0] for image in dataset.images] == ["new"]
    assert codes(dataset) == [("warning", "image_found_elsewhere", "new.json")]
    assert not [finding for finding in dataset.findings if finding.code == "unlabeled_image"]


@pytest.mark.parametrize("differs", ["pixels", "size"])
def test_an_image_that_shows_something_else_is_not_used(tmp_path: Path, differs: str) -> None:
    inner = two_halves(tmp_path / "inner.png")
    two_halves(tmp_path / "set" / "new.png", dark=1, size=(64, 48) if differs == "pixels" else (32, 48))
    data = base64.b64encode(inner).decode()
    labelme_file(tmp_path / "set" / "new.json", shape(SQUARE), image="old.png", draw=False, imageData=data)
    dataset = read_dataset(tmp_path / "set", options=ReadOptions(restore_dir=tmp_path / "out"))
    assert [image.file_name for image in dataset.images] == ["old.png"]
    assert codes(dataset) == [("warning", "image_restored_from_imageData", "new.json")]
    assert "new.png shows something else" in dataset.findings[0].message
    assert (tmp_path / "out" / "old.png").read_bytes() == inner


def test_a_restored_image_does_not_get_the_name_of_another_one(tmp_path: Path) -> None:
    inner = two_halves(tmp_path / "inner.png")
    two_halves(tmp_path / "set" / "x" / "p.png", dark=1)
    data = base64.b64encode(inner).decode()
    labelme_file(tmp_path / "set" / "x" / "a.json", shape(SQUARE), image="D:\\p.png", draw=False, imageData=data)
    labelme_file(tmp_path / "set" / "x" / "b.json", shape(TRIANGLE), image="p.png", draw=False)
    dataset = read_dataset(tmp_path / "set", options=ReadOptions(restore_dir=tmp_path / "out"))
    assert dataset.errors() == ()
    named = {image.annotation_file: image.file_name for image in dataset.images}
    assert named == {"x/a.json": "x/a.png", "x/b.json": "x/p.png"}


# COCO's layout ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("file", "image", "file_name"),
    [
        ("annotations/instances_train2017.json", "train2017/p.png", "p.png"),
        ("annotations/instances_train.json", "images/train/p.png", "p.png"),
        ("annotations/instances_val.json", "images/p.png", "p.png"),
        ("annotations/person_keypoints_val2017.json", "val2017/p.png", "p.png"),
        ("annotations/lvis_v1_val.json", "val/p.png", "p.png"),
        ("annotations/train.json", "train/p.png", "p.png"),
        ("annotations/train_annotations.json", "images/train/p.png", "p.png"),
        ("labels/instances_val.json", "val/p.png", "p.png"),
        ("train/_annotations.coco.json", "train/p.png", "p.png"),
        ("instances_val.json", "images/val/p.png", "images/val/p.png"),
        ("val.json", "val/p.png", "val/p.png"),
    ],
)
@pytest.mark.parametrize("writer", [coco, panoptic])
def test_layouts_of_coco(tmp_path: Path, writer: Writer, file: str, image: str, file_name: str) -> None:
    writer(tmp_path / "w", "p.png")
    (tmp_path / file).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / "w" / "x.json").rename(tmp_path / file)
    if writer is panoptic:
        (tmp_path / "w" / "x").rename((tmp_path / file).with_suffix(""))
    photo(tmp_path / image)
    dataset = read_dataset(tmp_path / file)
    assert codes(dataset) == []
    assert [(one.file_name, one.path) for one in dataset.images] == [(file_name, tmp_path / image)]
    assert dataset.image_root is not None and dataset.image_root / file_name == tmp_path / image
    assert read_dataset(tmp_path / file, options=ReadOptions(image_root=(tmp_path / image).parent)).findings == ()


def test_layouts_of_coco_reach_no_other_folder(tmp_path: Path) -> None:
    photo(tmp_path / "secret" / "p.png")
    for name in ("../secret/p.png", "../../secret/p.png", "secret/p.png"):
        coco(tmp_path / "annotations", name)
        (tmp_path / "annotations" / "x.json").rename(tmp_path / "annotations" / "instances_val.json")
        photo(tmp_path / "val" / "q.png")
        dataset = read_dataset(tmp_path / "annotations" / "instances_val.json")
        assert [finding.code for finding in dataset.errors()] == ["image_missing"]


def test_the_images_of_a_subset_come_before_others_of_their_names(tmp_path: Path) -> None:
    for subset in ("train", "val"):
        coco(tmp_path / "annotations", "p.png")
        (tmp_path / "annotations" / "x.json").rename(tmp_path / "annotations" / f"instances_{subset}.json")
        photo(tmp_path / subset / "p.png")
    for subset in ("train", "val"):
        dataset = read_dataset(tmp_path / "annotations" / f"instances_{subset}.json")
        assert [image.path for image in dataset.images] == [tmp_path / subset / "p.png"]
