"""YOLO's label files: layouts, lines, classes; areas are of whole pixels on 64 x 48 px images."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from d2tune.annotations.convert import check, convert, read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo

SQUARE = "0 0.15625 0.20833333 0.46875 0.20833333 0.46875 0.625 0.15625 0.625"
"""Corners at 10 and 30 px: 400 px2."""

BOX = "1 0.5 0.5 0.5 0.25"
"""32 x 12 px around the center: 384 px2."""

NAMES = "names: [car, van]\n"


def data_set(root: Path, files: dict[str, str]) -> Path:
    """Write label files and ``data.yaml``; a file named as an image is a photo."""
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith((".jpg", ".png")):
            photo(path)
        else:
            path.write_text(text, "utf-8")
    return root


def areas(dataset: Any) -> list[float]:
    return [instance.area_px2 for instance in dataset.instances]


@pytest.mark.parametrize(
    ("image", "label"),
    [
        ("images/train/a.jpg", "labels/train/a.txt"),
        ("train/images/a.jpg", "train/labels/a.txt"),
        ("images/a.jpg", "labels/a.txt"),
        ("a.jpg", "a.txt"),
        ("a.b.jpg", "a.b.txt"),
        ("obj_train_data/a.jpg", "obj_train_data/a.txt"),
        ("JPEGImages/a.png", "labels/a.txt"),
    ],
)
@pytest.mark.parametrize("described", [True, False])
def test_layouts(tmp_path: Path, image: str, label: str, described: bool) -> None:
    written = ("data.yaml", f"path: /x\ntrain: x\n{NAMES}") if described else ("classes.txt", "car\nvan")
    data_set(tmp_path, {image: "", label: f"{SQUARE}\n{BOX}\n", written[0]: written[1]})
    dataset = read_dataset(tmp_path)
    assert [one.file_name for one in dataset.images] == [image] and dataset.class_names == ("car", "van")
    assert areas(dataset) == pytest.approx([400, 384]) and [one.is_box for one in dataset.instances] == [False, True]
    assert dataset.instances[1].bbox_xywh == pytest.approx((16, 18, 32, 12))
    assert codes(dataset) == [("info", "box_as_mask", None)]


@pytest.mark.parametrize("source", ["images/train", "train/images", "."])
def test_the_folder_of_a_split(tmp_path: Path, source: str) -> None:
    label = "labels/train" if source == "images/train" else "train/labels"
    image = source if source != "." else "train/images"
    data_set(tmp_path, {f"{image}/a.jpg": "", f"{label}/a.txt": SQUARE, "data.yaml": f"train: x\n{NAMES}"})
    result = check(tmp_path / source)
    assert areas(result.dataset) == pytest.approx([400]) and not result.findings
    assert result.dataset.class_names == ("car", "van")


def test_an_image_without_a_label_file_is_a_negative_where_others_have_one(tmp_path: Path) -> None:
    files = {"images/train/a.jpg": "", "images/train/b.jpg": "", "images/train/c.jpg": "", "images/test/d.jpg": ""}
    labels = {"labels/train/a.txt": SQUARE, "labels/train/c.txt": "\n", "data.yaml": f"train: x\n{NAMES}"}
    dataset = read_dataset(data_set(tmp_path, files | labels))
    assert [one.file_name for one in dataset.images] == [f"images/train/{stem}.jpg" for stem in "abc"]
    notes = {finding.file: finding.message for finding in dataset.findings}
    assert "is a negative" in notes["images/train/b.jpg"] and "excluded" in notes["images/test/d.jpg"]


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        ("names: {0: car, 2: van}\n", ("car", "van")),
        ("names: {'0': car, '2': van}\n", ("car", "van")),
        ("names: [car, bus, van]\n", ("car", "bus", "van")),
    ],
)
def test_class_names(tmp_path: Path, names: str, expected: tuple[str, ...]) -> None:
    lines = SQUARE + "\n2 0.5 0.5 0.5 0.25\n"
    dataset = read_dataset(data_set(tmp_path, {"a.jpg": "", "a.txt": lines, "data.yaml": f"train: x\n{names}"}))
    assert dataset.class_names == expected
    by_id = {category.id: category.name for category in dataset.categories}
    assert [by_id[one.category_id] for one in dataset.instances] == [expected[0], expected[-1]]
    given = read_dataset(tmp_path, options=ReadOptions(labels=tuple(reversed(expected))))
    assert [one.category_id for one in given.instances] == [len(expected), 1]


def test_numbers_are_places_among_the_labels_where_there_are_no_names(tmp_path: Path) -> None:
    data_set(tmp_path, {"images/a.jpg": "", "labels/a.txt": SQUARE})
    assert read_dataset(tmp_path).class_names == ("0",)
    (tmp_path / "data.yaml").write_text("nc: 1\ntrain: x\n")
    assert read_dataset(tmp_path).class_names == ("0",)
    assert read_dataset(tmp_path, options=ReadOptions(labels=("car",))).counts() == {"car": 1}


@pytest.mark.parametrize(
    ("line", "level", "code", "words"),
    [
        ("7 0.5 0.5 0.5 0.25", "error", "unknown_label", "class 7 is not among the 2 names of data.yaml"),
        ("car 0.5 0.5 0.5 0.25", "error", "unknown_label", "expected a whole number"),
        ("-1 0.5 0.5 0.5 0.25", "error", "unknown_label", "expected a whole number"),
        ("nan 0.5 0.5 0.5 0.25", "error", "unknown_label", "expected a whole number"),
        ("0 0.5 0.5 0.5", "error", "bad_point", "3 numbers"),
        ("0 0.5 0.5 x 0.25", "error", "bad_point", "two numbers"),
        ("0 0.5 0.5 nan 0.25", "error", "non_finite_coordinate", "nan"),
        ("0 20 20 10 10", "error", "bad_point", "expected shares of the image between 0 and 1"),
        ("0 0.5 0.5 0 0.25", "warning", "zero_area", "no area"),
        ("0 0.9 0.5 0.4 0.25", "warning", "clipped", "extends beyond"),
        ("0 0.1 0.1 0.2 0.1 0.1 0.1", "warning", "zero_area", "no area"),
    ],
)
def test_lines_that_are_invalid(tmp_path: Path, line: str, level: str, code: str, words: str) -> None:
    files = {"images/a.jpg": "", "labels/a.txt": f"{SQUARE}\n{line}\n", "data.yaml": f"train: x\n{NAMES}"}
    findings = [one for one in check(data_set(tmp_path, files)).findings if one.level != "info"]
    (finding,) = findings
    assert (finding.level, finding.code, finding.shape, finding.file) == (level, code, 1, "labels/a.txt")
    assert words in finding.message


def test_rounding_beyond_the_border_does_not_clip(tmp_path: Path) -> None:
    line = "0 -0.000004 0 1.000004 0 1.000004 1 -0.000004 1"
    result = check(data_set(tmp_path, {"images/a.jpg": "", "labels/a.txt": line, "data.yaml": f"train: x\n{NAMES}"}))
    assert areas(result.dataset) == [64 * 48] and not result.findings


def test_scores_and_keypoints(tmp_path: Path) -> None:
    lines = f"{SQUARE} 0.75\n{BOX} 0.5\n"
    data_set(tmp_path / "a", {"images/a.jpg": "", "labels/a.txt": lines, "data.yaml": f"train: x\n{NAMES}"})
    dataset = read_dataset(tmp_path / "a")
    assert [one.score for one in dataset.instances] == [0.75, 0.5] and areas(dataset) == pytest.approx([400, 384])
    pose = "train: x\nkpt_shape: [2, 3]\n" + NAMES
    lines = "1 0.5 0.5 0.5 0.25 0.4 0.4 2 0.6 0.6 1\n"
    data_set(tmp_path / "b", {"images/a.jpg": "", "labels/a.txt": lines, "data.yaml": pose})
    assert areas(read_dataset(tmp_path / "b")) == pytest.approx([384])


def test_images_that_are_missing_or_ambiguous(tmp_path: Path) -> None:
    files = {"images/a.jpg": "", "images/a.png": "", "labels/a.txt": SQUARE, "labels/b.txt": SQUARE}
    findings = check(data_set(tmp_path, files | {"data.yaml": f"train: x\n{NAMES}"})).findings
    assert {(one.code, one.file) for one in findings if one.level == "error"} == {
        ("image_ambiguous", "labels/a.txt"),
        ("image_missing", "labels/b.txt"),
    }


def test_images_apart_from_the_labels(tmp_path: Path) -> None:
    data_set(tmp_path, {"photos/x/a.jpg": "", "set/labels/x/a.txt": SQUARE, "set/data.yaml": f"train: x\n{NAMES}"})
    dataset = read_dataset(tmp_path / "set", options=ReadOptions(image_root=tmp_path / "photos"))
    assert [one.file_name for one in dataset.images] == ["x/a.jpg"] and areas(dataset) == pytest.approx([400])


def test_a_description_alone_names_the_folder_of_the_images(tmp_path: Path) -> None:
    data_set(tmp_path, {"data.yaml": f"path: ../coco8\ntrain: images/train\nval: images/val\n{NAMES}"})
    with pytest.raises(DataError, match=r"no label files of YOLO.*data\.yaml names \.\./coco8/images/train"):
        check(tmp_path)


def test_other_text_files_are_not_labels(tmp_path: Path) -> None:
    files = {
        "images/a.jpg": "",
        "labels/a.txt": SQUARE,
        "labels/classes.txt": "car\n",
        "README.dataset.txt": "a data set\n",
        "train.txt": "images/a.jpg\n",
    }
    result = check(data_set(tmp_path, files))
    assert not result.findings and result.dataset.class_names == ("car",)


def test_other_yaml_files_describe_nothing(tmp_path: Path) -> None:
    files = {"images/a.jpg": "", "labels/a.txt": SQUARE, "project.yaml": "task: instance\ndata: {root: .}\n"}
    files |= {"broken.yaml": "names: [", "list.yaml": "- a\n", "names.yaml": f"nc: 2\n{NAMES}"}
    assert read_dataset(data_set(tmp_path, files)).class_names == ("car", "van")


def test_reading_what_was_converted_to_coco(tmp_path: Path) -> None:
    files = {"images/a.jpg": "", "labels/a.txt": f"{SQUARE}\n{BOX}\n", "data.yaml": f"train: x\n{NAMES}"}
    data_set(tmp_path, files)
    convert(tmp_path, out=tmp_path / "coco.json")
    again = read_dataset(tmp_path / "coco.json")
    assert areas(again) == pytest.approx([400, 384]) and [one.id for one in again.categories] == [1, 2]


@pytest.mark.parametrize("names", ["names: [cat, dog]\n", "names: {0: cat, 1: dog}\n"])
def test_a_yaml_file_with_names_alone_names_the_classes(tmp_path: Path, names: str) -> None:
    photo(tmp_path / "images" / "a.jpg")
    (tmp_path / "labels").mkdir()
    (tmp_path / "labels" / "a.txt").write_text("1 0.25 0.25 0.5 0.25 0.5 0.5\n")
    (tmp_path / "data.yaml").write_text(names)
    dataset = read_dataset(tmp_path)
    assert dataset.class_names == ("cat", "dog") and dataset.counts() == {"cat": 0, "dog": 1}
