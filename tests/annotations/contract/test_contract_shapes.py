"""What the conversion contract says of shapes, beyond the worked cases; expected values derived by hand."""

from __future__ import annotations

import base64
import io
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import shapely
from PIL import Image as PilImage

from d2tune.annotations.convert import check
from d2tune.annotations.formats import labelme
from d2tune.annotations.geometry.polygons import (
    clean_points,
    clip_polygon,
    has_no_area,
    polygons_bbox_xywh,
    self_intersects,
)
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, png_base64, shape

BLOCK = png_base64(np.ones((4, 5)))  # 5 px wide, 4 px high


def read(folder: Path, *shapes: Any, **options: Any) -> Dataset:
    labelme_file(folder / "a.json", *shapes)
    return labelme.read(folder, ReadOptions(**options))


def square(x: int, y: int, side_px: int, **more: Any) -> dict[str, Any]:
    corners = [[x, y], [x + side_px, y], [x + side_px, y + side_px], [x, y + side_px]]
    return shape(corners, more.pop("label", "cow"), **more)


@pytest.mark.parametrize(
    ("points", "kind", "wanted"),
    [
        # All outside the 64 x 48 px image, or touching its border from outside only.
        ([[70, 10], [80, 10], [80, 20]], "polygon", "outside_image"),
        ([[64, 10], [80, 10], [80, 20]], "polygon", "outside_image"),
        ([[70, 10], [90, 30]], "rectangle", "outside_image"),
        ([[-50, 24], [-45, 24]], "circle", "outside_image"),
        # The box around the triangle overlaps the image, the triangle itself passes the corner: x + y <= -10.
        ([[-30, 20], [20, -30], [-30, -30]], "polygon", "outside_image"),
        ([[10, 10], [30, 10]], "polygon", "too_few_points"),
        ([], "polygon", "too_few_points"),
        # Three points, two places; four points, two places: they enclose nothing.
        ([[10, 10], [10, 10], [30, 10]], "polygon", "zero_area"),
        ([[10, 10], [30, 10], [10, 10], [30, 10]], "polygon", "zero_area"),
        ([[10, 10], [10, 20]], "rectangle", "zero_area"),
        ([[10, 10], [10, 10]], "rectangle", "zero_area"),
        # Between the centers of two columns (10.5 and 11.5).
        ([[10.6, 10], [11.4, 10], [11.4, 40], [10.6, 40]], "polygon", "rasterizes_empty"),
        ([[32, 24], [32.01, 24]], "circle", "rasterizes_empty"),
    ],
)
def test_what_is_dropped_leaves_its_image(tmp_path: Path, points: Any, kind: str, wanted: str) -> None:
    dataset = read(tmp_path, shape(points, kind=kind))
    assert codes(dataset) == [("warning", wanted, 0)]
    assert (len(dataset.images), dataset.instances, dataset.class_names) == (1, (), ("cat",))


@pytest.mark.parametrize(
    ("points", "wanted"),
    [
        ([[10, 10], [float("inf"), 10], [10, 40]], "non_finite_coordinate"),
        ([[10, 10], [1e308, 10], [10, 40]], "bad_point"),
        ([[10, 10], [10**400, 10], [10, 40]], "bad_point"),
        ([[10, 10], [True, 10], [10, 40]], "bad_point"),
        ([[10, 10], ["30", 10], [10, 40]], "bad_point"),
        ([[10, 10, 1], [30, 10, 1], [10, 40, 1]], "bad_point"),
    ],
)
def test_invalid_points_are_errors(tmp_path: Path, points: Any, wanted: str) -> None:
    assert codes(read(tmp_path, shape(SQUARE), shape(points))) == [("error", wanted, 1)]


@pytest.mark.parametrize(
    ("points", "area_px2", "bbox", "parts"),
    [
        # The hypotenuse from (10, 40) runs 1e9 px to the right: inside of the image the top edge of what is left
        # sinks by 54 / 1e9 * 30 px only, so that 54 x 30 px remain.
        ([[10, 10], [1e9, 10], [10, 40]], 1620, (10, 10, 54, 30), 1),
        # x + y <= 10 in the corner of the image: half of a 10 x 10 px square; its 45 pixel centers have x + y < 10.
        ([[-10, 20], [20, -10], [-10, -10]], 45, (0, 0, 10, 10), 1),
        # A U that lies open to the left border: two bars of 20 x 10 px.
        ([[-10, 5], [20, 5], [20, 15], [-5, 15], [-5, 25], [20, 25], [20, 35], [-10, 35]], 400, (0, 5, 20, 30), 2),
    ],
)
def test_clipped_polygons(tmp_path: Path, points: Any, area_px2: float, bbox: tuple[float, ...], parts: int) -> None:
    dataset = read(tmp_path, shape(points))
    assert codes(dataset) == [("warning", "clipped", 0)]
    (instance,) = dataset.instances
    assert instance.area_px2 == area_px2 and instance.bbox_xywh == pytest.approx(bbox, abs=0.01)
    assert len(instance.coco_segmentation()) == parts


def test_an_outline_that_crosses_itself_outside_is_taken_apart_and_a_bow_tie_is_not() -> None:
    # Two bars, 5 to 15 and 25 to 35 px down, whose outline crosses itself at (-15, 20): 30 x 10 px of each are left.
    points = np.array([[30, 15], [30, 5], [-10, 5], [-20, 35], [30, 35], [30, 25], [-10, 25], [-20, 15]], dtype=float)
    parts = sorted(clip_polygon(points, width_px=64, height_px=48), key=lambda part: part[:, 1].min())
    boxes = [(*part.min(axis=0).tolist(), *part.max(axis=0).tolist()) for part in parts]
    assert boxes == [(0, 5, 30, 15), (0, 25, 30, 35)]
    # The edges cross at (10, 20), on the image: a bow-tie stays one polygon.
    tie = np.array([[-20.0, 5.0], [40.0, 35.0], [40.0, 5.0], [-20.0, 35.0]])
    assert len(clip_polygon(tie, width_px=64, height_px=48)) == 1


def test_boxes_of_clipped_outlines_are_those_of_their_areas() -> None:
    """The box of a clipped outline is that of its even-odd fill, although the outline crosses itself."""
    rng = np.random.default_rng(7)
    photo = shapely.box(0, 0, 64, 48)
    compared = wide = 0
    for _ in range(1500):
        points = clean_points(rng.integers(-20, 85, size=(int(rng.integers(4, 8)), 2)).astype(float))
        if len(points) < 3 or has_no_area(points) or not self_intersects(points):
            continue
        filled = shapely.make_valid(shapely.Polygon(points)).intersection(photo)
        regions = [region for region in shapely.get_parts(filled) if region.area > 1e-9]
        parts = clip_polygon(points, width_px=64, height_px=48)
        if not regions or not parts:
            continue
        left, top, width, height = polygons_bbox_xywh(parts)
        bounds = shapely.MultiPolygon(regions).bounds
        compared += 1
        wide += not np.allclose([left, top, left + width, top + height], bounds, atol=0.01)
    assert compared > 500
    assert wide <= compared / 500  # parts that overlap must stay one outline, whose seams may run along the border


def test_a_keyhole_that_is_clipped_keeps_its_hole(tmp_path: Path) -> None:
    # 45 x 40 px are left of the outer square, less the hole of 20 x 20 px.
    keyhole = [[-5, 5], [45, 5], [45, 45], [-5, 45], [-5, 5], [15, 15], [15, 35], [35, 35], [35, 15], [15, 15]]
    dataset = read(tmp_path, shape(keyhole))
    assert codes(dataset) == [("warning", "clipped", 0)]
    assert dataset.instances[0].area_px2 == 1400 and dataset.instances[0].bbox_xywh == (0, 5, 45, 40)


@pytest.mark.parametrize(
    ("data", "area_px2"),
    [
        (BLOCK, 20),
        ("\n".join(BLOCK[at : at + 20] for at in range(0, len(BLOCK), 20)), 20),
        (f"data:image/png;base64,{BLOCK}", 20),
        ("data:image/png;base64,", None),
        (BLOCK[:40], None),
        ("not base64!", None),
        (7, None),
    ],
)
def test_masks_in_base64(tmp_path: Path, data: Any, area_px2: float | None) -> None:
    dataset = read(tmp_path, shape([[5, 5], [9, 8]], kind="mask", mask=data))
    if area_px2 is None:
        assert codes(dataset) == [("error", "mask_undecodable", 0)]
    else:
        assert dataset.findings == () and dataset.instances[0].area_px2 == area_px2


@pytest.mark.parametrize(
    ("corners", "bbox", "code"),
    [
        ([[5, 5], [9, 8]], (5, 5, 5, 4), None),
        ([[5, 5], [9, 9]], (5, 5, 5, 4), "mask_bbox_mismatch"),
        ([[5, 5], [10, 9]], (5, 5, 5, 4), "mask_bbox_mismatch"),  # as if the corner were exclusive
        ([[2.5, 3.5], [6.5, 6.5]], (2, 4, 5, 4), None),  # half to even
        ([[0.5, 1.5], [9.25, 6.5]], (0, 2, 5, 4), None),  # fractional corners predict no size
        ([[62, 46], [66, 49]], (62, 46, 2, 2), None),
        ([[-3, -2], [1, 1]], (0, 0, 2, 2), None),
        ([[64, 5], [68, 8]], None, "outside_image"),
        ([[-5, 5], [-1, 8]], None, "outside_image"),
        ([[10**9, 5], [10**9 + 4, 8]], None, "outside_image"),
    ],
)
def test_the_position_of_a_mask(tmp_path: Path, corners: Any, bbox: tuple[float, ...] | None, code: str | None) -> None:
    dataset = read(tmp_path, shape(corners, kind="mask", mask=BLOCK))
    assert codes(dataset) == ([("warning", code, 0)] if code else [])
    assert [instance.bbox_xywh for instance in dataset.instances] == ([bbox] if bbox else [])


def test_a_nested_part_names_all_parts_around_it(tmp_path: Path) -> None:
    outer, middle, inner = square(5, 4, 40, group_id=1), square(15, 14, 20, group_id=1), square(20, 18, 5, group_id=1)
    dataset = read(tmp_path, inner, middle, outer)
    assert [(f.code, f.shape, f.also) for f in dataset.findings] == [
        ("group_part_nested", 0, (1, 2)),
        ("group_part_nested", 1, (2,)),
    ]
    assert dataset.instances[0].area_px2 == 1600
    punched = read(tmp_path, inner, middle, outer, nested_groups="hole")
    assert punched.findings == () and punched.instances[0].area_px2 == 1600 - 400 + 25


def test_a_group_may_mix_masks_polygons_and_loose_numbers(tmp_path: Path) -> None:
    mask = shape([[5, 5], [9, 8]], "cow", "mask", mask=BLOCK, group_id="0")
    # 20 px of the mask and 100 px of the square share the pixels 8 and 9 across, 7 and 8 down.
    dataset = read(tmp_path, mask, square(8, 7, 10, group_id=0), square(30, 30, 2, group_id=0.0))
    assert codes(dataset) == [("warning", "group_id_not_int", 0), ("warning", "group_id_not_int", 2)]
    (instance,) = dataset.instances
    assert (instance.area_px2, instance.shapes, instance.iscrowd) == (20 + 100 - 4 + 4, (0, 1, 2), False)
    assert isinstance(instance.coco_segmentation(), dict)


def test_a_crowd_of_two_parts_is_one_run_length_mask(tmp_path: Path) -> None:
    parts = square(5, 5, 10, group_id=1), square(30, 5, 10, group_id=1, flags={"iscrowd": True})
    (instance,) = read(tmp_path, *parts).instances
    assert instance.iscrowd and instance.area_px2 == 200 and isinstance(instance.coco_segmentation(), dict)
    assert not read(tmp_path, square(5, 5, 10, flags={"iscrowd": "true"})).instances[0].iscrowd


@pytest.mark.parametrize("orientation", range(1, 9))
def test_every_exif_orientation(tmp_path: Path, orientation: int) -> None:
    exif = PilImage.Exif()
    exif[0x0112] = orientation
    turned = orientation >= 5  # 5 to 8 lay an image on its side, 1 to 4 do not
    shown = (48, 64) if turned else (64, 48)
    for size, is_right in ((shown, True), (shown[::-1], False)):
        labelme_file(tmp_path / "a.json", shape(TRIANGLE), image="a.jpg", size=size, draw=False)
        PilImage.new("RGB", (64, 48)).save(tmp_path / "a.jpg", exif=exif)
        dataset = labelme.read(tmp_path, ReadOptions())
        assert [(image.width_px, image.height_px) for image in dataset.images] == [shown]
        wrong = "size_swapped_exif" if turned else "size_mismatch"
        assert codes(dataset) == ([] if is_right else [("error", wrong, None)])
        assert is_right or not turned or f"orientation {orientation} " in dataset.findings[0].message


@pytest.mark.parametrize("form", ["PNG", "JPEG", "BMP", "WEBP", "GIF", "TIFF"])
@pytest.mark.parametrize("prefix", ["", "data:image/x;base64,"])
def test_embedded_images_get_the_suffix_of_their_first_bytes(tmp_path: Path, form: str, prefix: str) -> None:
    stream = io.BytesIO()
    PilImage.new("RGB", (64, 48)).save(stream, form)
    data = prefix + base64.b64encode(stream.getvalue()).decode()
    labelme_file(tmp_path / "a.json", shape(TRIANGLE), image="gone.xyz", draw=False, imageData=data)
    result = check(tmp_path)
    assert codes(result.dataset) == [("warning", "image_restored_from_imageData", None)]
    suffix = {"JPEG": "jpg", "TIFF": "tif"}.get(form, form.lower())
    assert [image.file_name for image in result.dataset.images] == [f"gone.{suffix}"]


@pytest.mark.parametrize("data", ["xxxx", "data:image/png;base64,", base64.b64encode(b"no image").decode(), 5])
def test_a_missing_image_without_image_data_names_the_path(tmp_path: Path, data: Any) -> None:
    labelme_file(tmp_path / "a.json", shape(TRIANGLE), image="..\\x\\gone.png", draw=False, imageData=data)
    (finding,) = check(tmp_path).findings
    assert (finding.level, finding.code) == ("error", "image_missing")
    assert str(tmp_path.parent / "x" / "gone.png") in finding.message


def test_labels_in_two_files_that_differ_by_case(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", square(5, 5, 3, label="Cat"))
    labelme_file(tmp_path / "b.json", square(5, 5, 3, label="cat"), square(9, 9, 3, label="cat"))
    dataset = labelme.read(tmp_path, ReadOptions())
    assert [(f.code, f.file, f.shape, f.also) for f in dataset.findings] == [
        ("labels_differ_by_case", "b.json", 0, ("a.json",))
    ]
    assert dataset.class_names == ("Cat", "cat")
    unknown = labelme.read(tmp_path, ReadOptions(labels=["cat"]))
    assert [(f.code, f.file, f.hint) for f in unknown.findings] == [("unknown_label", "a.json", "cat")]


def test_two_files_that_differ_by_case_for_one_image(tmp_path: Path) -> None:
    labelme_file(tmp_path / "A.json", shape(SQUARE), image="a.png")
    labelme_file(tmp_path / "a.json", shape(SQUARE), image="a.png")
    dataset = labelme.read(tmp_path, ReadOptions())
    assert [(f.level, f.code, f.file, f.also) for f in dataset.findings] == [
        ("error", "duplicate_image", "a.json", ("A.json",))
    ]
    assert [image.file_name for image in dataset.images] == ["a.png"]


@pytest.mark.parametrize("kind", [None, "missing"])
@pytest.mark.parametrize("version", [None, "2.8.1", "7.0.0", 5])
def test_versions_and_missing_types_are_read_alike(tmp_path: Path, kind: str | None, version: Any) -> None:
    row = shape(TRIANGLE, kind=kind)
    if kind == "missing":
        del row["shape_type"], row["flags"], row["group_id"], row["description"], row["mask"]
    labelme_file(tmp_path / "a.json", row, version=version, flags=None)
    dataset = labelme.read(tmp_path, ReadOptions())
    assert dataset.findings == () and dataset.instances[0].area_px2 == 300
