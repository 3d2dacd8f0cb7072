"""Objects that are annotated twice, objects at the same place, and boxes around outlines."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune.annotations.convert import check
from d2tune.annotations.formats import labelme
from d2tune.annotations.formats.semantic import paint
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, moved, png_base64, shape

BOX = [SQUARE[0], SQUARE[2]]
MASK = png_base64(np.ones((10, 10), dtype=np.uint8))


def read(folder: Path, *shapes: Any, **options: Any) -> Dataset:
    labelme_file(folder / "a.json", *shapes)
    return labelme.read(folder, ReadOptions(**options))


@pytest.mark.parametrize(
    "again",
    [
        shape(SQUARE),
        shape(SQUARE[2:] + SQUARE[:2]),
        shape(SQUARE[::-1]),
        shape([*SQUARE, SQUARE[0]]),
        shape([SQUARE[0], [10, 5], *SQUARE[1:]]),
        shape([[x + 0.1, y + 0.1] for x, y in SQUARE]),
        shape(BOX, kind="rectangle"),
        shape([SQUARE[0], [14, 14]], kind="mask", mask=MASK),
    ],
)
def test_the_same_pixels_of_the_same_class_are_one_object(tmp_path: Path, again: Any) -> None:
    dataset = read(tmp_path, shape(SQUARE), again, shape(moved(SQUARE, 20)))
    assert codes(dataset) == [("warning", "duplicate_shape", 1)]
    assert dataset.findings[0].also == (0,)
    assert [(instance.id, instance.shapes, instance.area_px2) for instance in dataset.instances] == [
        (1, (0,), 100),
        (2, (2,), 100),
    ]
    assert [(row.shape, row.fate, row.instances) for row in dataset.ledger] == [
        (0, "kept", (1,)),
        (1, "dropped", ()),
        (2, "kept", (2,)),
    ]
    assert "same pixels as shape 0" in dataset.ledger[1].why


def test_three_copies_leave_one(tmp_path: Path) -> None:
    dataset = read(tmp_path, *(shape(TRIANGLE) for _ in range(3)))
    assert codes(dataset) == [("warning", "duplicate_shape", 1), ("warning", "duplicate_shape", 2)]
    assert [instance.shapes for instance in dataset.instances] == [(0,)]


def test_objects_of_other_classes_at_the_same_place_both_stay(tmp_path: Path) -> None:
    dataset = read(tmp_path, shape(SQUARE, "car"), shape(SQUARE, "van"), shape(SQUARE, "car"), shape(TRIANGLE, "van"))
    assert codes(dataset) == [("warning", "duplicate_shape", 0), ("info", "same_place", 2)]
    assert dataset.counts() == {"car": 1, "van": 2}


def test_dropping_a_copy_leaves_label_maps_as_they_are(tmp_path: Path) -> None:
    """The van lies over the first car and below its copy, so the copy is on top with it and without it."""
    dataset = read(tmp_path, shape(SQUARE, "car"), shape(SQUARE, "van"), shape(SQUARE, "car"))
    top = paint(dataset.instances, width_px=64, height_px=48)
    shown = {dataset.categories[dataset.instances[index].category_id - 1].name for index in np.unique(top[top >= 0])}
    assert shown == {"car"}


@pytest.mark.parametrize(
    "other",
    [
        shape(moved(SQUARE, 1)),
        shape(TRIANGLE),
        shape(SQUARE, flags={"iscrowd": True}),
        shape([SQUARE[0], SQUARE[1], SQUARE[2]]),
    ],
)
def test_other_pixels_and_crowds_are_not_copies(tmp_path: Path, other: Any) -> None:
    dataset = read(tmp_path, shape(SQUARE), other)
    assert codes(dataset) == [] and len(dataset.instances) == 2


def test_copies_of_groups_are_found_and_all_their_shapes_dropped(tmp_path: Path) -> None:
    first = [shape(SQUARE, group_id=1), shape(moved(SQUARE, 20), group_id=1)]
    again = [shape(moved(SQUARE, 20), group_id=2), shape(SQUARE, group_id=2)]
    dataset = read(tmp_path, *first, *again)
    assert codes(dataset) == [("warning", "duplicate_shape", 2)]
    assert [instance.shapes for instance in dataset.instances] == [(0, 1)]
    assert [row.fate for row in dataset.ledger] == ["merged", "merged", "dropped", "dropped"]


def test_many_objects_of_one_size_are_not_compared_with_each_other(tmp_path: Path) -> None:
    places = [(x, y) for x in range(0, 50, 2) for y in range(0, 30, 2)]
    tiles = [shape([[x, y], [x + 2, y], [x + 2, y + 2], [x, y + 2]]) for x, y in places]
    dataset = read(tmp_path, *tiles, tiles[7])
    assert codes(dataset) == [("warning", "duplicate_shape", len(tiles))]
    assert dataset.findings[0].also == (7,)
    assert len(dataset.instances) == len(tiles)


def test_a_box_around_an_outline_of_the_same_class_is_noted(tmp_path: Path) -> None:
    around = [[10, 10], [30, 40]]
    dataset = read(tmp_path, shape(TRIANGLE, "cat"), shape(around, "cat", kind="rectangle"))
    assert codes(dataset) == [("warning", "box_of_shape", 1)] and dataset.findings[0].also == (0,)
    assert [instance.is_box for instance in dataset.instances] == [False, True]
    for label, corners in (("dog", around), ("cat", [[10, 10], [33, 40]])):
        assert codes(read(tmp_path, shape(TRIANGLE, "cat"), shape(corners, label, kind="rectangle"))) == []


def test_rectangles_drawn_from_different_corners_are_two_objects(tmp_path: Path) -> None:
    dataset = read(tmp_path, shape(BOX, kind="rectangle"), shape(BOX[::-1], kind="rectangle"))
    assert codes(dataset) == [] and len(dataset.instances) == 2
    dataset = read(tmp_path, shape(BOX, kind="rectangle"), shape(BOX, kind="rectangle"))
    assert codes(dataset) == [("warning", "duplicate_shape", 1)]


def test_copies_in_run_length_tables_are_found(tmp_path: Path) -> None:
    from tests.annotations.builders import photo

    photo(tmp_path / "a.png", 6, 4)
    (tmp_path / "m.csv").write_text("ImageId,EncodedPixels\na.png,1 3\na.png,5 3\na.png,1 3\n")
    result = check(tmp_path, options=ReadOptions(preset="airbus", class_name="ship"))
    assert [(finding.level, finding.code) for finding in result.findings] == [("warning", "duplicate_shape")]
    assert result.dataset.counts() == {"ship": 2}
