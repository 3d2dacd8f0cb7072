from __future__ import annotations

import base64
import json
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as mask_utils
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import convert
from d2tune.annotations.formats import labelme
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import (
    SQUARE,
    TRIANGLE,
    codes,
    labelme_file,
    moved,
    png_base64,
    shape,
)
from tests.annotations.formats.labelme_folders import mask_of, read, read_shapes

# Shapes -------------------------------------------------------------------------------------------------------------


def test_an_oriented_rectangle_keeps_its_four_corners(tmp_path: Path) -> None:
    corners = [[20, 5], [35, 20], [20, 35], [5, 20]]
    dataset = read_shapes(tmp_path, shape(corners, kind="oriented_rectangle"))
    assert dataset.instances[0].segmentation[0].tolist() == corners
    assert codes(dataset) == []
    assert codes(read_shapes(tmp_path, shape(corners[:3], kind="oriented_rectangle"))) == [
        ("error", "wrong_point_count", 0)
    ]


def test_a_shape_of_unknown_type_is_skipped_or_read_as_a_polygon(tmp_path: Path) -> None:
    kinds = enumerate(("star", 7, None))
    star, seven, plain = (shape(moved(TRIANGLE, 10 * number), kind=kind) for number, kind in kinds)
    short = shape([[1, 1], [9, 9]], kind="box")
    dataset = read_shapes(tmp_path, star, seven, plain, short, shape(TRIANGLE, "__ignore__", kind="star"))
    assert codes(dataset) == [
        ("warning", "unknown_shape_type", 0),
        ("warning", "unknown_shape_type", 1),
        ("warning", "unsupported_shape_type", 3),
        ("info", "ignored_label", 4),
    ]
    assert [instance.shapes for instance in dataset.instances] == [(2,)]
    as_polygons = read_shapes(tmp_path, star, seven, plain, short, unknown_shapes="polygon")
    assert [instance.area_px2 for instance in as_polygons.instances] == [300, 300, 300]
    assert codes(as_polygons)[:2] == codes(dataset)[:2]
    assert "read as a polygon of its 3 points" in as_polygons.findings[0].message


RECTANGLE = [[10, 10], [30, 10], [30, 25], [10, 25]]


@pytest.mark.parametrize("start", range(4))
@pytest.mark.parametrize("order", [RECTANGLE, RECTANGLE[::-1], [RECTANGLE[at] for at in (0, 2, 1, 3)]])
def test_four_corners_of_a_rectangle_are_read_in_any_order(tmp_path: Path, order: Any, start: int) -> None:
    corners = order[start:] + order[:start]
    dataset = read_shapes(tmp_path, shape(corners, kind="rectangle"))
    assert (codes(dataset), dataset.instances[0].bbox_xywh, dataset.instances[0].area_px2) == (
        [],
        (10, 10, 20, 15),
        300,
    )


def test_four_points_that_are_not_a_rectangle_are_a_polygon(tmp_path: Path) -> None:
    kite = [[30, 10], [40, 20], [30, 30], [20, 20]]
    nearly = [[10.004, 10], [30, 10.003], [30, 25], [10, 25]]
    dataset = read_shapes(tmp_path, shape(kite, kind="rectangle"), shape(nearly, kind="rectangle"))
    assert [instance.area_px2 for instance in dataset.instances] == [200, 300]
    assert dataset.instances[0].segmentation[0].tolist() == kite
    closed = [*RECTANGLE, RECTANGLE[0]]
    assert read_shapes(tmp_path, shape(closed, kind="rectangle")).instances[0].area_px2 == 300
    for points in (RECTANGLE[:1], RECTANGLE[:3], [*RECTANGLE, [0, 0]]):
        dataset = read_shapes(tmp_path, shape(points, kind="rectangle"))
        assert codes(dataset) == [("error", "wrong_point_count", 0)]
        assert f"2 or 4 points, this shape has {len(points)}" in dataset.findings[0].message


@pytest.mark.parametrize(
    ("kind", "points", "area_px2"),
    [
        ("rotation", [[20, 10], [40, 20], [35, 30], [15, 20]], 250),
        ("quadrilateral", [[10, 10], [30, 10], [30, 30], [10, 20]], 300),
        ("Oriented Rectangle", [[20, 10], [40, 20], [35, 30], [15, 20]], 250),
        ("Polygon", TRIANGLE, 300),
        (" RECTANGLE ", [[10, 10], [30, 25]], 300),
        ("", TRIANGLE, 300),
    ],
)
def test_types_of_other_tools_and_spellings_are_read(tmp_path: Path, kind: str, points: Any, area_px2: int) -> None:
    dataset = read_shapes(tmp_path, shape(points, kind=kind, difficult=True))
    assert codes(dataset) == []
    assert dataset.instances[0].area_px2 == pytest.approx(area_px2, abs=10)
    assert dataset.instances[0].difficult
    if len(points) > 2:
        reference = mask_utils.frPyObjects([np.array(points, dtype=float).reshape(-1).tolist()], 48, 64)
        assert dataset.instances[0].area_px2 == mask_utils.area(reference)[0]


def test_types_of_other_tools_are_written_as_labelme_takes_them(tmp_path: Path) -> None:
    kite = [[30, 10], [40, 20], [30, 30], [20, 20]]
    given = [
        shape(RECTANGLE, "box", "rectangle", difficult=True),
        shape(kite, "kite", "rectangle"),
        shape(kite, "ship", "rotation", direction=0.5),
        shape(kite, "sign", "quadrilateral"),
        shape(SQUARE, "cell", "Polygon"),
    ]
    labelme_file(tmp_path / "src" / "a.json", *given)
    convert(tmp_path / "src", out=tmp_path / "out", to="labelme")
    shapes = json.loads((tmp_path / "out" / "a.json").read_text("utf-8"))["shapes"]
    assert [(new["shape_type"], new["points"]) for new in shapes] == [
        ("rectangle", [[10, 10], [30, 25]]),
        ("polygon", kite),
        ("oriented_rectangle", kite),
        ("polygon", kite),
        ("polygon", SQUARE),
    ]
    assert (shapes[0]["difficult"], shapes[2]["direction"]) == (True, 0.5)
    before, after = (labelme.read(tmp_path / name, ReadOptions(image_root=tmp_path / "src")) for name in ("src", "out"))
    assert [one.area_px2 for one in before.instances] == [one.area_px2 for one in after.instances]


@pytest.mark.parametrize("broken", [None, 7, "polygon", []])
def test_a_shape_that_is_not_an_object_is_an_error(tmp_path: Path, broken: Any) -> None:
    dataset = read_shapes(tmp_path, broken, shape(TRIANGLE))
    assert codes(dataset) == [("error", "bad_shape", 0)]
    assert len(dataset.instances) == 1


@pytest.mark.parametrize(
    ("center", "wanted"),
    [((15, 24), []), ((14, 24), [("warning", "clipped", 0)]), ((-16, 24), [("warning", "outside_image", 0)])],
)
def test_a_circle_is_clipped_only_where_the_disk_sticks_out(
    tmp_path: Path, center: tuple[int, int], wanted: list[Any]
) -> None:
    x, y = center
    dataset = read_shapes(tmp_path, shape([[x, y], [x + 15, y]], kind="circle"))
    assert codes(dataset) == wanted
    assert all(part.min() >= 0 for instance in dataset.instances for part in instance.segmentation)


def test_a_huge_coordinate_is_clipped(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, shape([[10, 10], [1e9, 10], [1e9, 20], [10, 20]]))
    assert codes(dataset) == [("warning", "clipped", 0)]
    assert dataset.instances[0].bbox_xywh == (10, 10, 54, 10)
    assert dataset.instances[0].area_px2 == 540


def test_a_shape_between_pixel_centers_is_dropped(tmp_path: Path) -> None:
    sliver = [[10.0, 10.6], [30.0, 10.6], [30.0, 10.7], [10.0, 10.7]]
    dataset = read_shapes(tmp_path, shape(sliver), shape(SQUARE))
    assert codes(dataset) == [("warning", "rasterizes_empty", 0)]
    assert len(dataset.instances) == 1 and len(dataset.images) == 1


def test_a_keyhole_polygon_keeps_its_hole_without_a_warning(tmp_path: Path) -> None:
    keyhole = [[5, 4], [45, 4], [45, 44], [5, 44], [5, 4], [15, 14], [15, 34], [35, 34], [35, 14], [15, 14]]
    dataset = read_shapes(tmp_path, shape(keyhole))
    assert codes(dataset) == []
    assert dataset.instances[0].area_px2 == 1200
    assert not dataset.has_rle


# Masks --------------------------------------------------------------------------------------------------------------


def mask_shape(pixels: Any, x: float, y: float, *, corner: tuple[float, float] | None = None, **more: Any) -> Any:
    rows, columns = np.shape(pixels)
    corners = [[x, y], list(corner or (x + columns - 1, y + rows - 1))]
    return shape(corners, kind="mask", mask=png_base64(pixels), **more)


def test_a_mask_without_holes_becomes_polygons_along_its_pixels(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, mask_shape([[1, 1], [1, 0]], 5, 6))
    assert [part.tolist() for part in dataset.instances[0].segmentation] == [
        [[5, 6], [7, 6], [7, 7], [6, 7], [6, 8], [5, 8]]
    ]
    assert (dataset.instances[0].area_px2, dataset.instances[0].bbox_xywh) == (3, (5, 6, 2, 2))


def test_a_mask_with_a_hole_becomes_run_lengths_and_no_crowd(tmp_path: Path) -> None:
    ring = np.ones((4, 5))
    ring[1, 2] = 0
    dataset = read_shapes(tmp_path, mask_shape(ring, 59, 10))
    assert dataset.has_rle and not dataset.instances[0].iscrowd
    wanted = np.zeros((48, 64), dtype=bool)
    wanted[10:14, 59:64] = ring
    assert np.array_equal(mask_of(dataset), wanted)


def test_a_mask_of_another_size_than_its_corners_wins_with_a_warning(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, mask_shape(np.ones((3, 4)), 5, 6, corner=(20, 20)))
    assert codes(dataset) == [("warning", "mask_bbox_mismatch", 0)]
    assert dataset.instances[0].bbox_xywh == (5, 6, 4, 3)
    fractional = read_shapes(tmp_path, mask_shape(np.ones((3, 4)), 4.5, 6.5, corner=(20, 20.5)))
    assert codes(fractional) == []
    assert fractional.instances[0].bbox_xywh == (4, 6, 4, 3)  # halves round to even


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "I;16"])
def test_masks_of_every_png_mode_mean_the_same(tmp_path: Path, mode: str) -> None:
    gray = PilImage.fromarray(np.array([[0, 255, 255], [0, 0, 255]], dtype=np.uint8))
    if mode == "I;16":
        gray.convert("I").convert("I;16").save(tmp_path / "mask.png")
    else:
        gray.convert(mode).save(tmp_path / "mask.png")
    data = base64.b64encode((tmp_path / "mask.png").read_bytes()).decode()
    (tmp_path / "mask.png").unlink()
    dataset = read_shapes(tmp_path, shape([[2, 3], [4, 4]], kind="mask", mask=data))
    assert np.argwhere(mask_of(dataset)).tolist() == [[3, 3], [3, 4], [4, 4]]


@pytest.mark.parametrize(
    "data", ["not base64", 7, base64.b64encode(b"\xff\xd8\xff\xe0 no png").decode(), "iVBORw0KGgo="]
)
def test_a_mask_that_is_not_a_png_is_an_error(tmp_path: Path, data: Any) -> None:
    dataset = read_shapes(tmp_path, shape([[2, 3], [4, 4]], kind="mask", mask=data))
    assert codes(dataset) == [("error", "mask_undecodable", 0)]


def test_empty_and_outside_masks_are_dropped(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, mask_shape(np.zeros((3, 3)), 5, 5), mask_shape(np.ones((3, 3)), 64, 5))
    assert codes(dataset) == [("warning", "rasterizes_empty", 0), ("warning", "outside_image", 1)]


# Groups -------------------------------------------------------------------------------------------------------------


def square(x: float, y: float, side: float) -> list[list[float]]:
    return [[x, y], [x + side, y], [x + side, y + side], [x, y + side]]


def test_a_nested_part_is_united_with_a_warning(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, shape(square(15, 14, 20), group_id=1), shape(square(5, 4, 40), group_id=1))
    assert codes(dataset) == [("warning", "group_part_nested", 0)]
    assert dataset.findings[0].also == (1,)
    assert dataset.instances[0].area_px2 == 1600
    assert dataset.instances[0].shapes == (0, 1)


def test_nested_parts_as_holes_take_turns_with_islands(tmp_path: Path) -> None:
    shapes = [shape(square(5 + step, 4 + step, 40 - 2 * step), group_id=1) for step in (0, 5, 10)]
    dataset = read_shapes(tmp_path, *reversed(shapes), nested_groups="hole")
    assert codes(dataset) == []
    assert dataset.instances[0].area_px2 == 40**2 - 30**2 + 20**2
    assert not dataset.instances[0].iscrowd


def test_two_equal_parts_are_nested_once(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, shape(SQUARE, group_id=1), shape(SQUARE, group_id=1))
    assert codes(dataset) == [("warning", "group_part_nested", 1)]
    assert dataset.instances[0].area_px2 == 100


def test_a_union_with_a_mask_is_run_lengths(tmp_path: Path) -> None:
    dataset = read_shapes(
        tmp_path, shape(square(0, 0, 10), group_id=4), mask_shape(np.ones((10, 10)), 5, 0, group_id=4)
    )
    assert isinstance(dataset.instances[0].segmentation, Rle)
    assert (dataset.instances[0].area_px2, dataset.instances[0].bbox_xywh) == (150, (0, 0, 15, 10))


def test_a_dropped_part_keeps_the_remaining_parts_of_its_group(tmp_path: Path) -> None:
    dataset = read_shapes(tmp_path, shape(square(70, 70, 5), group_id=4), shape(SQUARE, group_id=4))
    assert codes(dataset) == [("warning", "outside_image", 0)]
    assert dataset.instances[0].shapes == (1,)


def test_loose_types_are_coerced_with_warnings(tmp_path: Path) -> None:
    dataset = read_shapes(
        tmp_path,
        shape(square(0, 0, 5), label=7, group_id="0"),
        shape(square(10, 0, 5), label="7", group_id=0),
        shape(square(20, 0, 5), label="7", group_id=0.0),
        shape(square(30, 0, 5), label="7", group_id="left"),
        shape(square(40, 0, 5), label="7", group_id="left"),
        shape(square(50, 0, 5), label="7", group_id=[1]),
    )
    assert codes(dataset) == [
        ("warning", "label_not_string", 0),
        ("warning", "group_id_not_int", 0),
        ("warning", "group_id_not_int", 2),
        ("warning", "group_id_not_int", 3),
        ("warning", "group_id_not_int", 4),
        ("warning", "group_id_not_int", 5),
    ]
    assert [instance.shapes for instance in dataset.instances] == [(0, 1, 2), (3, 4), (5,)]
    assert dataset.class_names == ("7",)


def test_flags_make_crowds_and_predictions(tmp_path: Path) -> None:
    dataset = read_shapes(
        tmp_path,
        shape(SQUARE, flags={"iscrowd": True}),
        shape(moved(SQUARE, 10), flags={"iscrowd": 1}),
        shape(moved(SQUARE, 20), flags={"prediction": True}, score=0.75),
        shape(moved(SQUARE, 30), flags=None),
    )
    assert [instance.iscrowd for instance in dataset.instances] == [True, False, False, False]
    assert [instance.score for instance in dataset.instances] == [None, None, 0.75, None]
    assert len(read(tmp_path, no_predictions=True).instances) == 3


# Labels -------------------------------------------------------------------------------------------------------------


def test_categories_are_the_sorted_labels_or_follow_the_list(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE, "dog"), shape(TRIANGLE, "cat"))
    assert [(c.id, c.name) for c in read(tmp_path).categories] == [(1, "cat"), (2, "dog")]
    listed = read(tmp_path, labels=["__ignore__", "_background_", "emu", "dog", "cat"])
    assert [(c.id, c.name) for c in listed.categories] == [(1, "emu"), (2, "dog"), (3, "cat")]
    assert [instance.category_id for instance in listed.instances] == [2, 3]
    assert listed.counts() == {"emu": 0, "dog": 1, "cat": 1}


def test_an_unknown_label_names_the_nearest_and_hides_no_finding(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE, "perosn"), shape(TRIANGLE, "dog"))
    labelme_file(tmp_path / "b.json", shape(SQUARE, "xyz"))
    dataset = read(tmp_path, labels=["person", "dog"])
    assert [(f.file, f.code, f.hint) for f in dataset.findings] == [
        ("a.json", "unknown_label", "person"),
        ("b.json", "unknown_label", None),
    ]
    with pytest.raises(DataError, match=r"a\.json: shape 0: .*'perosn'.*and 1 more.*Did you mean 'person'"):
        dataset.raise_on_errors()


def test_labels_that_differ_by_case_stay_apart_with_one_warning(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE, "cat"), shape(moved(SQUARE, 9), "Cat"), shape(TRIANGLE, "Cat"))
    dataset = read(tmp_path)
    assert codes(dataset) == [("warning", "labels_differ_by_case", 1)]
    assert dataset.class_names == ("Cat", "cat")


@pytest.mark.parametrize("label", ["", "  ", None, True, ["cat"], {}])
def test_a_shape_without_a_usable_label_is_an_error(tmp_path: Path, label: Any) -> None:
    noted = codes(read_shapes(tmp_path, shape(SQUARE, label)))
    assert ("error", "bad_shape", 0) in noted


def test_renaming_joins_and_leaves_out(tmp_path: Path) -> None:
    rows = shape(SQUARE, "kitten"), shape(moved(SQUARE, 9), "cat"), shape(SQUARE, "junk")
    labelme_file(tmp_path / "a.json", *rows)
    dataset = read(tmp_path, rename={"kitten": "cat", "junk": None})
    assert dataset.counts() == {"cat": 2}
    assert codes(dataset) == [("info", "ignored_label", 2)]


def test_the_old_instance_suffix_is_stripped_but_not_from_whole_names(tmp_path: Path) -> None:
    labelme_file(
        tmp_path / "a.json",
        shape(SQUARE, "person-1"),
        shape(TRIANGLE, "person-1"),
        shape(SQUARE, "f-16"),
        shape(SQUARE, "x-"),
    )
    dataset = read(tmp_path, instance_suffix="strip", labels=["person", "f-16", "x-"])
    assert [(instance.category_id, instance.shapes) for instance in dataset.instances] == [
        (1, (0, 1)),
        (2, (2,)),
        (3, (3,)),
    ]


@pytest.mark.parametrize("label", ["red\ncar", "\x1b[31mcar", "\ud800car", "car\u202e", "a\u2028b"])
def test_labels_with_control_characters_are_noted_once_in_a_file(tmp_path: Path, label: str) -> None:
    dataset = read_shapes(tmp_path, shape(TRIANGLE, label), shape(SQUARE, label))
    assert codes(dataset) == [("warning", "label_not_printable", 0)]
    assert dataset.counts() == {label: 2}
    renamed = read_shapes(tmp_path, shape(TRIANGLE, label), rename={label: "car"})
    assert (codes(renamed), renamed.counts()) == ([], {"car": 1})


def test_labels_in_other_scripts_and_with_odd_blanks_are_not_noted(tmp_path: Path) -> None:
    names = ["汽车", "voiture\u00a0rouge", "Ä b", "😀"]
    dataset = read_shapes(tmp_path, *(shape(moved(TRIANGLE, at), name) for at, name in enumerate(names)))
    assert codes(dataset) == []
