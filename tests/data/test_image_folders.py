"""Folders of images as projects name them: one for each split, COCO's layout, and links."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotate import annotate
from d2tune.checking import check
from d2tune.data.splits import Splits, load_splits
from d2tune.errors import DataError, ProjectError
from d2tune.project import load_project
from tests.annotations.builders import SQUARE, labelme_file, photo, shape

OUTLINE = [5, 5, 15, 5, 15, 15, 5, 15]


def coco_file(path: Path, *names: str) -> None:
    images = [{"id": number, "file_name": name, "width": 64, "height": 48} for number, name in enumerate(names)]
    box = {"category_id": 1, "bbox": [5, 5, 10, 10], "segmentation": [OUTLINE], "iscrowd": 0}
    rows = [{"id": number, "image_id": number, **box} for number in range(len(names))]
    path.parent.mkdir(parents=True, exist_ok=True)
    value = {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "car"}]}
    path.write_text(json.dumps(value), "utf-8")


def splits_of(root: Path, data: str, *, task: str = "instance") -> Splits:
    path = root / "mine.yaml"
    path.write_text(f"task: {task}\nclasses: [car]\ndata: {data}\n", "utf-8")
    return load_splits(load_project(path, hardware="cpu").project)


def paths(splits: Splits) -> list[list[str]]:
    return [[str(image.path) for image in dataset.images] for dataset in (splits.train, splits.val)]


def test_the_layout_of_coco_is_trained_on_without_moving_files(tmp_path: Path) -> None:
    for subset in ("train2017", "val2017"):
        coco_file(tmp_path / "annotations" / f"instances_{subset}.json", "1.png")
        photo(tmp_path / subset / "1.png")
    named = "train: annotations/instances_train2017.json, val: annotations/instances_val2017.json"
    wanted = [[str(tmp_path / subset / "1.png")] for subset in ("train2017", "val2017")]
    assert paths(splits_of(tmp_path, f"{{root: ., {named}}}")) == wanted
    folders = "images: {train: train2017, val: val2017}"
    assert paths(splits_of(tmp_path, f"{{root: ., {named}, {folders}}}")) == wanted


def test_each_split_has_its_folder_of_images(tmp_path: Path) -> None:
    for split in ("train", "val"):
        labelme_file(tmp_path / "json" / split / "a.json", shape(SQUARE, "car"), draw=False)
        photo(tmp_path / "photos" / f"of_{split}" / "a.png")
    data = "{root: ., train: json/train, val: json/val, images: {train: photos/of_train, val: photos/of_val}}"
    assert paths(splits_of(tmp_path, data)) == [
        [str(tmp_path / f"photos/of_{name}/a.png")] for name in ("train", "val")
    ]
    with pytest.raises(ProjectError, match=r"data\.images.*must be a folder, or \{train: FOLDER, val: FOLDER\}"):
        splits_of(tmp_path, data.replace("val: photos", "test: photos"))
    with pytest.raises(DataError, match=r"of_nothing: the image root is not a folder"):
        splits_of(tmp_path, data.replace("of_val", "of_nothing"))


def test_images_and_masks_in_sibling_folders_of_each_split(tmp_path: Path) -> None:
    """As in SegNet's tutorial: train, trainannot, val, valannot."""
    for split in ("train", "val"):
        photo(tmp_path / split / "1.png")
        mask = np.zeros((48, 64), dtype=np.uint8)
        mask[5:15, 5:15] = 1
        (tmp_path / f"{split}annot").mkdir()
        PilImage.fromarray(mask).save(tmp_path / f"{split}annot" / "1.png")
    path = tmp_path / "mine.yaml"
    data = "{root: ., format: masks, train: trainannot, val: valannot, images: {train: train, val: val}}"
    path.write_text(f"task: semantic\nclasses: [ground, car]\ndata: {data}\n", "utf-8")
    splits = load_splits(load_project(path, hardware="cpu").project)
    assert paths(splits) == [[str(tmp_path / split / "1.png")] for split in ("train", "val")]
    for dataset in (splits.train, splits.val):
        assert [instance.area_px2 for instance in dataset.instances] == [48 * 64 - 100, 100]


def test_images_beside_the_folder_of_a_split_are_below_the_data_root(tmp_path: Path) -> None:
    for split in ("train", "val"):
        labelme_file(tmp_path / "d" / split / "a.json", shape(SQUARE, "car"), image=f"../all/{split}.png", draw=False)
        photo(tmp_path / "d" / "all" / f"{split}.png")
    assert paths(splits_of(tmp_path, "{root: d}")) == [
        [str(tmp_path / f"d/all/{name}.png")] for name in ("train", "val")
    ]
    labelme_file(tmp_path / "d" / "val" / "a.json", shape(SQUARE, "car"), image="../../x.png", draw=False)
    photo(tmp_path / "x.png")
    with pytest.raises(DataError, match="outside the data root"):
        splits_of(tmp_path, "{root: d}")


@pytest.mark.parametrize("linked", ["files", "folders"])
def test_links_out_of_the_data_root_are_followed_where_the_project_says_so(tmp_path: Path, linked: str) -> None:
    """As DVC and git-annex keep images: links into a store."""
    for split in ("train", "val"):
        store = tmp_path / "store" / split
        photo(store / "a.png")
        labelme_file(tmp_path / "d" / split / "a.json", shape(SQUARE, "car"), draw=False, image=f"{linked}/a.png")
        place = tmp_path / "d" / split / linked
        if linked == "files":
            place.mkdir()
            (place / "a.png").symlink_to(store / "a.png")
        else:
            place.symlink_to(store)
    with pytest.raises(
        DataError, match=r"is reached by a link to .*\. Follow links with .*data\.follow_links: true\.$"
    ):
        splits_of(tmp_path, "{root: d}")
    splits = splits_of(tmp_path, "{root: d, follow_links: true}")
    assert [[image.file_name for image in one.images] for one in (splits.train, splits.val)] == [
        [f"{linked}/a.png"]
    ] * 2
    results = check(tmp_path / "mine.yaml")
    assert [finding.code for result in results for finding in result.findings] == []


def test_linked_folders_of_images_and_masks(tmp_path: Path) -> None:
    for split in ("train", "val"):
        store = tmp_path / "store" / split
        photo(store / "images" / "1.png", color=(200, 0, len(split)))
        (store / "masks").mkdir()
        PilImage.fromarray(np.pad(np.full((10, 10), 255, np.uint8), ((5, 33), (5, 49)))).save(store / "masks" / "1.png")
        (tmp_path / "d" / split).mkdir(parents=True)
        for name in ("images", "masks"):
            (tmp_path / "d" / split / name).symlink_to(store / name)
    with pytest.raises(DataError, match=r"images, a link to .*Follow links with --follow-links"):
        splits_of(tmp_path, "{root: d}")
    splits = splits_of(tmp_path, "{root: d, follow_links: true}")
    assert [instance.area_px2 for one in (splits.train, splits.val) for instance in one.instances] == [100, 100]
    (tmp_path / "d" / "all").mkdir()
    (tmp_path / "store").rename(tmp_path / "d" / "store")
    for split in ("train", "val"):
        for name in ("images", "masks"):
            (tmp_path / "d" / split / name).unlink()
            (tmp_path / "d" / split / name).symlink_to(tmp_path / "d" / "store" / split / name)
    assert len(splits_of(tmp_path, "{root: d}").train.instances) == 1, "links within the data root are followed"


def test_labelme_is_not_opened_on_annotations_in_one_file(tmp_path: Path) -> None:
    coco_file(tmp_path / "t.json", "1.png")
    (tmp_path / "p.yaml").write_text("classes: [car]\ndata: {root: ., train: t.json, images: {train: x}}\n", "utf-8")
    with pytest.raises(DataError, match=r"t\.json: the annotations of the split are one file"):
        annotate(tmp_path / "p.yaml")
