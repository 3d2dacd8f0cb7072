"""COCO files as people have them: ids of any type, segmentations in other forms, and what is written for them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from pycocotools.coco import COCO

from d2tune.annotations.convert import check, convert
from d2tune.annotations.formats import coco
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import codes, photo

SQUARE = [10, 10, 30, 10, 30, 30, 10, 30]
PAIRS = [[10, 10], [30, 10], [30, 30], [10, 30]]
OTHER = [40, 10, 50, 10, 50, 20, 40, 20]
BOX = [10, 10, 20, 20]


def value(*rows: dict[str, Any], image_id: Any = 1, category_id: Any = 1, **more: Any) -> dict[str, Any]:
    base = {"image_id": image_id, "category_id": category_id, "segmentation": [SQUARE], "bbox": BOX}
    return {
        "images": [{"id": image_id, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [{"id": at} | base | row for at, row in enumerate(rows)],
        "categories": [{"id": category_id, "name": "cat"}],
    } | more


def read(folder: Path, content: Any, **options: Any) -> Dataset:
    for name in ("a.png", "b.png"):
        if not (folder / name).exists():
            photo(folder / name)
    (folder / "c.json").write_text(json.dumps(content), "utf-8")
    return coco.read(folder / "c.json", ReadOptions(**options))


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    encoded = coco_mask.encode(np.asfortranarray(mask))
    return {"size": list(mask.shape), "counts": encoded["counts"].decode()}


def square_mask() -> np.ndarray:
    mask = np.zeros((48, 64), dtype=np.uint8)
    mask[10:30, 10:30] = 1
    return mask


def plain_counts(mask: np.ndarray) -> list[int]:
    flat = mask.reshape(-1, order="F")
    edges = np.flatnonzero(np.diff(flat)) + 1
    counts: list[int] = np.diff([0, *edges.tolist(), flat.size]).tolist()
    return counts


RLE = run_lengths(square_mask())
COUNTS = plain_counts(square_mask())


@pytest.mark.parametrize(
    "segmentation",
    [
        SQUARE,
        PAIRS,
        [PAIRS],
        [[PAIRS]],
        [PAIRS, []],
        json.dumps([SQUARE]),
        RLE | {"counts": str(RLE["counts"].encode())},
        RLE | {"counts": "b" + json.dumps(RLE["counts"])},
        RLE | {"counts": [float(run) for run in COUNTS]},
        RLE | {"counts": [str(run) for run in COUNTS]},
        RLE | {"counts": json.dumps(COUNTS)},
        RLE | {"counts": COUNTS, "size": [48.0, 64.0]},
        RLE | {"size": ["48", "64"]},
        json.dumps(RLE),
        [RLE],
    ],
)
def test_segmentations_in_other_forms_are_read_with_a_warning(tmp_path: Path, segmentation: Any) -> None:
    dataset = read(tmp_path, value({"segmentation": segmentation}, {"segmentation": [OTHER]}))
    assert codes(dataset) == [("warning", "loose_type", None)]
    assert [instance.area_px2 for instance in dataset.instances] == [400, 100]
    assert dataset.instances[0].bbox_xywh == (10, 10, 20, 20)


def test_polygons_without_further_brackets_are_parts_of_one_instance(tmp_path: Path) -> None:
    other = [[x, y] for x, y in zip(OTHER[0::2], OTHER[1::2], strict=True)]
    dataset = read(tmp_path, value({"segmentation": [PAIRS, other]}))
    assert codes(dataset) == [("warning", "loose_type", None)]
    assert [(instance.area_px2, len(instance.segmentation)) for instance in dataset.instances] == [(500, 2)]  # type: ignore[arg-type]


def test_masks_in_a_list_are_united(tmp_path: Path) -> None:
    right = np.zeros_like(square_mask())
    right[10:30, 20:40] = 1
    dataset = read(tmp_path, value({"segmentation": [RLE, run_lengths(right)]}))
    assert [instance.area_px2 for instance in dataset.instances] == [600]


@pytest.mark.parametrize("nothing", [None, [], [[]], [[], []], {}, [{}], "", [None], {"size": [48, 64], "counts": []}])
def test_the_box_counts_where_there_is_no_segmentation(tmp_path: Path, nothing: Any) -> None:
    dataset = read(tmp_path, value({"segmentation": nothing}, {"segmentation": [OTHER]}))
    assert codes(dataset) == [("info", "box_as_mask", None)]
    assert "1 of 2 objects" in dataset.findings[0].message
    assert [instance.area_px2 for instance in dataset.instances] == [400, 100]
    assert [instance.is_box for instance in dataset.instances] == [True, False]


@pytest.mark.parametrize("box", [["10", "10", "20", "20"], "[10, 10, 20, 20]", "10 10 20 20", "10,10,20.0,20"])
def test_boxes_as_text_are_read_with_a_warning(tmp_path: Path, box: Any) -> None:
    dataset = read(tmp_path, value({"segmentation": [], "bbox": box}))
    assert codes(dataset) == [("warning", "loose_type", None), ("info", "box_as_mask", None)]
    assert dataset.instances[0].area_px2 == 400


@pytest.mark.parametrize(
    "row",
    [
        {"segmentation": [], "bbox": None},
        {"segmentation": [], "bbox": ["a", "b", "c", "d"]},
        {"segmentation": [], "bbox": "ten"},
        {"segmentation": [], "bbox": [1, 2, 3]},
        {"segmentation": [[[[[[10, 10, 30, 10, 30, 30]]]]]]},
        {"segmentation": [{"x": 1, "y": 2}]},
        {"segmentation": [SQUARE, "abc"]},
        {"iscrowd": 2},
        {"iscrowd": "maybe"},
    ],
)
def test_what_cannot_be_understood_is_an_error_and_names_the_image(tmp_path: Path, row: Any) -> None:
    dataset = read(tmp_path, value(row, {"segmentation": [OTHER]}))
    errors = dataset.errors()
    assert [(finding.shape, finding.image) for finding in errors] == [(0, "a.png")]
    assert errors[0].place() == "c.json: shape 0 (a.png)"


@pytest.mark.parametrize(
    ("of_images", "of_annotations", "kept", "warnings"),
    [
        (0, "0", 0, 1),
        (7, 7.0, 7, 1),
        ("7", 7, "7", 2),
        ("0007", "7", "0007", 2),
        (7.0, 7.0, 7, 2),
        ("x1", "x1", "x1", 1),
        (7, 7, 7, 0),
    ],
)
def test_ids_are_compared_by_what_they_stand_for(
    tmp_path: Path, of_images: Any, of_annotations: Any, kept: Any, warnings: int
) -> None:
    content = value({"image_id": of_annotations}, image_id=of_images)
    dataset = read(tmp_path, content)
    assert [image.source_id for image in dataset.images] == [kept]
    assert codes(dataset) == [("warning", "loose_type", None)] * warnings
    content = value({"category_id": of_annotations}, category_id=of_images)
    dataset = read(tmp_path, content)
    assert [category.source_id for category in dataset.categories] == [kept]
    assert codes(dataset) == [("warning", "loose_type", None)] * warnings
    assert [instance.category_id for instance in dataset.instances] == [1]


def test_an_id_that_could_be_two_is_an_error(tmp_path: Path) -> None:
    images = [{"id": "1", "file_name": "a.png"}, {"id": "01", "file_name": "b.png"}]
    dataset = read(tmp_path, value({"image_id": "01"}, {"image_id": 1}, images=images))
    assert [finding.code for finding in dataset.errors()] == ["image_missing"]
    assert dataset.images[dataset.instances[0].image_id - 1].file_name == "b.png"


@pytest.mark.parametrize("flag", ["1", 1.0, True, "true"])
def test_crowds_are_marked_in_any_type(tmp_path: Path, flag: Any) -> None:
    dataset = read(tmp_path, value({"iscrowd": flag}, {"iscrowd": None, "segmentation": [OTHER]}))
    assert [instance.iscrowd for instance in dataset.instances] == [True, False]


def test_one_degenerate_ring_leaves_the_others(tmp_path: Path) -> None:
    dataset = read(tmp_path, value({"segmentation": [SQUARE, [1, 1, 2, 2]]}))
    assert codes(dataset) == [("warning", "too_few_points", 0)]
    assert [instance.area_px2 for instance in dataset.instances] == [400]


@pytest.mark.parametrize(
    ("place", "row"),
    [
        ("a.png", {"coco_url": "http://images.cocodataset.org/train2017/a.png"}),
        ("train2017/a.png", {"coco_url": "http://images.cocodataset.org/train2017/a.png?x=1"}),
        ("a b.png", {"file_name": None, "coco_url": "http://h/val2017/a%20b.png"}),
    ],
)
def test_lvis_names_images_by_their_address(tmp_path: Path, place: str, row: dict[str, Any]) -> None:
    photo(tmp_path / place)
    content = value({}, images=[{"id": 391895} | row], image_id=391895)
    (tmp_path / "lvis.json").write_text(json.dumps(content))
    dataset = coco.read(tmp_path / "lvis.json", ReadOptions())
    assert [(image.file_name, image.source_id) for image in dataset.images] == [(place, 391895)]


def fish(*annotated: int) -> dict[str, Any]:
    names = [(0, "fish", "none"), (1, "cod", "fish"), (2, "eel", "fish"), (3, "eel-pout", "eel")]
    categories = [{"id": number, "name": name, "supercategory": above} for number, name, above in names]
    return value(*({"category_id": number} for number in annotated), categories=categories)


def test_a_category_that_is_only_the_root_of_others_is_not_a_class(tmp_path: Path) -> None:
    dataset = read(tmp_path, fish(1, 2, 3))
    assert [(one.id, one.name, one.source_id) for one in dataset.categories] == [
        (1, "cod", 1),
        (2, "eel", 2),
        (3, "eel-pout", 3),
    ]
    assert ("info", "root_category", None) in codes(dataset)
    assert read(tmp_path, fish(0, 1)).class_names == ("fish", "cod", "eel-pout")
    named = read(tmp_path, fish(1), labels=("fish", "cod", "eel", "eel-pout"))
    assert named.class_names == ("fish", "cod", "eel", "eel-pout")
    assert [one.source_id for one in named.categories] == [0, 1, 2, 3]
    own = [{"id": 1, "name": "person", "supercategory": "person"}, {"id": 2, "name": "car", "supercategory": "x"}]
    assert read(tmp_path, value({}, categories=own)).class_names == ("person", "car")


def two_images(*ids: Any, categories: Any = ((18, "dog"), (3, "cat"))) -> dict[str, Any]:
    rows = [{"image_id": ids[0], "category_id": 18}, {"image_id": ids[1], "category_id": 3}]
    names = ("b.png", "a.png")
    return {
        "images": [{"id": one, "file_name": name} for one, name in zip(ids, names, strict=True)],
        "annotations": [{"id": 0, "segmentation": [SQUARE], "iscrowd": 0} | row for row in rows],
        "categories": [{"id": number, "name": name} for number, name in categories],
    }


def test_what_is_written_for_a_coco_file_has_its_ids(tmp_path: Path) -> None:
    """The images are in the order of their names inside; outside, each has the id that its file gives it."""
    read(tmp_path, two_images(900, 0))
    convert(tmp_path / "c.json", out=tmp_path / "out.json")
    written = COCO(str(tmp_path / "out.json"))
    assert {row["file_name"]: row["id"] for row in written.dataset["images"]} == {"a.png": 0, "b.png": 900}
    assert {row["name"]: row["id"] for row in written.dataset["categories"]} == {"cat": 3, "dog": 18}
    assert {(row["image_id"], row["category_id"]) for row in written.dataset["annotations"]} == {(900, 18), (0, 3)}
    assert sorted(row["id"] for row in written.dataset["annotations"]) == [1, 2]


def test_ids_inside_count_from_1(tmp_path: Path) -> None:
    dataset = read(tmp_path, two_images(900, 0))
    assert [(image.id, image.file_name, image.source_id) for image in dataset.images] == [
        (1, "a.png", 0),
        (2, "b.png", 900),
    ]
    assert coco.to_coco(dataset)["images"][0]["id"] == 1
    assert dataset.source_image_ids() == {1: 0, 2: 900}
    assert dataset.source_category_ids() == {1: 3, 2: 18}
    second = dataset.subset([2])
    assert second.source_image_ids() == {1: 900}


def test_ids_as_text_are_numbered_where_coco_is_written(tmp_path: Path) -> None:
    dataset = read(tmp_path, two_images("y", "x"))
    assert dataset.source_image_ids() == {1: "x", 2: "y"}
    ids = coco.kept_ids(dataset)
    assert ids.images == {1: 1, 2: 2} and ids.categories == {1: 3, 2: 18}


def test_classes_that_the_file_does_not_have_get_new_ids(tmp_path: Path) -> None:
    dataset = read(tmp_path, two_images(1, 2), labels=("bird", "cat", "dog", "emu"))
    assert dataset.source_category_ids() == {1: 19, 2: 3, 3: 18, 4: 20}
    merged = read(tmp_path, two_images(1, 2), rename={"cat": "pet", "dog": "pet"})
    assert [category.source_id for category in merged.categories] == [None]
    assert merged.source_category_ids() == {1: 1}


def test_panoptic_files_keep_their_ids_too(tmp_path: Path) -> None:
    read(tmp_path, two_images(900, 5))
    out = tmp_path / "panoptic"
    convert(tmp_path / "c.json", out=out, to="panoptic")
    table, instances = (json.loads((out / name).read_text()) for name in ("panoptic.json", "instances.json"))
    for one in (table, instances):
        assert {row["file_name"]: row["id"] for row in one["images"]} == {"a.png": 5, "b.png": 900}
        assert {row["name"]: row["id"] for row in one["categories"]} == {"cat": 3, "dog": 18}
    assert {(row["image_id"], row["segments_info"][0]["category_id"]) for row in table["annotations"]} == {
        (900, 18),
        (5, 3),
    }
    photo(out / "a.png"), photo(out / "b.png")
    again = check(out / "panoptic.json").dataset
    assert again.source_image_ids() == {1: 5, 2: 900} and again.source_category_ids() == {1: 3, 2: 18}
