"""CVAT for images 1.1; right values by hand, on 64 x 48 px images."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest

from d2tune.annotations.convert import check, convert, read_dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo

POLYGON = '<polygon label="car" points="10,10;30,10;30,30;10,30" z_order="0"/>'


def cvat(folder: Path, *images: str, labels: str = "", image: str = "images/a.png") -> Path:
    photo(folder / image)
    meta = f"<meta><task><labels>{labels}</labels></task></meta>"
    inner = "".join(images)
    (folder / "annotations.xml").write_text(
        f'<?xml version="1.0" encoding="utf-8"?><annotations><version>1.1</version>{meta}{inner}</annotations>', "utf-8"
    )
    return folder


def image(*shapes: str, name: str = "a.png", number: int = 7, more: str = "") -> str:
    return f'<image id="{number}" name="{name}" width="64" height="48" {more}>{"".join(shapes)}</image>'


@pytest.mark.parametrize(
    ("shape", "area_px2", "bbox"),
    [
        (POLYGON, 400, (10, 10, 20, 20)),
        ('<box label="car" xtl="10" ytl="20" xbr="30" ybr="40"/>', 400, (10, 20, 20, 20)),
        # 20 x 10 px around (20, 20), rotated by 90 degrees
        ('<box label="car" xtl="10" ytl="15" xbr="30" ybr="25" rotation="90"/>', 200, (15, 10, 10, 20)),
        ('<mask label="car" rle="2, 4, 4, 2" left="40" top="10" width="4" height="3"/>', 6, (40, 10, 4, 3)),
        ('<mask label="car" rle="0,12" left="62" top="46" width="4" height="3"/>', 4, (62, 46, 2, 2)),
    ],
)
def test_shapes_with_an_area(tmp_path: Path, shape: str, area_px2: float, bbox: tuple[float, ...]) -> None:
    (instance,) = read_dataset(cvat(tmp_path, image(shape))).instances
    assert instance.area_px2 == area_px2 and instance.bbox_xywh == pytest.approx(bbox)


def test_rotated_boxes_and_ellipses_turn_clockwise(tmp_path: Path) -> None:
    box = '<box label="car" xtl="10" ytl="15" xbr="30" ybr="25" rotation="30.0"/>'
    ellipse = '<ellipse label="van" cx="40" cy="24" rx="12" ry="6" rotation="90"/>'
    dataset = read_dataset(cvat(tmp_path, image(box, ellipse)))
    corners = np.array(dataset.instances[0].segmentation[0])
    cos, sin = math.cos(math.radians(30)), math.sin(math.radians(30))
    # the upper left corner (-10, -5) from the center (20, 20), x to the right and y down
    assert corners[0] == pytest.approx([20 - 10 * cos + 5 * sin, 20 - 10 * sin - 5 * cos])
    assert dataset.instances[0].is_box is False
    assert dataset.instances[1].bbox_xywh == pytest.approx((34, 12, 12, 24), abs=0.2)
    assert dataset.instances[1].area_px2 == pytest.approx(math.pi * 72, rel=0.02)


def test_mask_rows_start_with_background(tmp_path: Path) -> None:
    mask = '<mask label="car" rle="2, 4, 4, 2" left="40" top="10" width="4" height="3"/>'
    convert(cvat(tmp_path / "a", image(mask)), to="semantic", out=tmp_path / "out")
    from PIL import Image

    (path,) = (tmp_path / "out").rglob("*.png")
    pixels = np.asarray(Image.open(path))[10:13, 40:44] == 0
    assert pixels.tolist() == [[False, False, True, True], [True, True, False, False], [False, False, True, True]]


def test_shapes_without_an_area_are_warnings(tmp_path: Path) -> None:
    shapes = [f'<{tag} label="car" points="1,1;9,9"/>' for tag in ("polyline", "points")]
    shapes += ['<skeleton label="car"/>', '<cuboid label="car"/>', '<tag label="car"/>', POLYGON]
    dataset = read_dataset(cvat(tmp_path, image(*shapes)))
    assert codes(dataset) == [
        *(("warning", "unsupported_shape_type", index) for index in range(4)),
        ("info", "no_spatial_extent", 4),
    ]
    assert len(dataset.instances) == 1 and len(dataset.ledger) == 6


def test_groups_labels_ids_and_order(tmp_path: Path) -> None:
    far = '<polygon label="car" points="40,10;50,10;50,20" group_id="3"/>'
    near = '<polygon label="car" points="10,10;20,10;20,20" group_id="3"/>'
    apart = '<polygon label="car" points="10,30;20,30;20,40" group_id="0"/>'
    other = '<polygon label="van" points="30,30;40,30;40,40" group_id="3"/>'
    labels = "".join(f"<label><name>{name}</name></label>" for name in ("van", "bus", "car"))
    empty = image(name="b.png", number=9)
    photo(tmp_path / "images" / "b.png")
    dataset = read_dataset(cvat(tmp_path, image(far, near, apart, other), empty, labels=labels))
    assert dataset.class_names == ("van", "bus", "car") and len(dataset.instances) == 3
    assert [one.source_id for one in dataset.images] == [7, 9]
    assert [len(one.segmentation) for one in dataset.instances] == [2, 1, 1]


def test_higher_shapes_cover_lower_ones(tmp_path: Path) -> None:
    high = POLYGON.replace('z_order="0"', 'z_order="5"')
    low = '<box label="van" xtl="0" ytl="0" xbr="64" ybr="48" z_order="1"/>'
    convert(cvat(tmp_path / "a", image(high, low)), to="semantic", out=tmp_path / "out")
    from PIL import Image

    (path,) = (tmp_path / "out").rglob("*.png")
    pixels = np.asarray(Image.open(path))
    assert (pixels == 0).sum() == 400 and (pixels == 1).sum() == 64 * 48 - 400


@pytest.mark.parametrize("place", ["images/train/a.png", "images/a.png", "a.png"])
def test_places_of_images(tmp_path: Path, place: str) -> None:
    result = check(cvat(tmp_path, image(POLYGON, more='subset="train"'), image=place))
    assert not result.findings and result.dataset.images[0].file_name == place


def test_tracks_of_a_video_are_refused_by_name(tmp_path: Path) -> None:
    track = '<track id="0" label="car"><box frame="0" xtl="1" ytl="1" xbr="9" ybr="9" outside="0"/></track>'
    findings = check(cvat(tmp_path, track)).findings
    (error,) = [finding for finding in findings if finding.level == "error"]
    assert (
        error.code == "several_frames" and "tracks of a video" in error.message and "CVAT for images" in str(error.hint)
    )
    with pytest.raises(DataError, match="tracks of a video"):
        convert(tmp_path, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


@pytest.mark.parametrize(
    ("shape", "code"),
    [
        ('<polygon label="car" points="10,10;x,10;30,30"/>', "bad_point"),
        ('<polygon label="car" points="10,10;nan,10;30,30"/>', "non_finite_coordinate"),
        ('<polygon label="car"/>', "too_few_points"),
        ('<box label="car" xtl="10" ytl="20" xbr="30"/>', "bad_point"),
        ('<box label="car" xtl="10" ytl="20" xbr="30" ybr="30" rotation="x"/>', "bad_point"),
        ('<ellipse label="car" cx="1e999" cy="2" rx="3" ry="4"/>', "non_finite_coordinate"),
        ('<ellipse label="car" cx="10" cy="20" rx="0" ry="4"/>', "zero_area"),
        ('<mask label="car" rle="2, 4" left="40" top="10" width="4" height="3"/>', "bad_rle"),
        ('<mask label="car" rle="2, -4, 14" left="40" top="10" width="4" height="3"/>', "bad_rle"),
        ('<mask label="car" rle="" left="40" top="10" width="0" height="0"/>', "bad_rle"),
        ('<polygon points="10,10;30,10;30,30"/>', "bad_shape"),
    ],
)
def test_invalid_shapes_are_findings(tmp_path: Path, shape: str, code: str) -> None:
    dataset = read_dataset(cvat(tmp_path, image(POLYGON, shape)))
    assert [(code_, index) for _, code_, index in codes(dataset)] == [(code, 1)] and len(dataset.instances) == 1


def test_other_sizes_and_damaged_files_are_errors(tmp_path: Path) -> None:
    dataset = read_dataset(cvat(tmp_path / "a", image(POLYGON).replace('"64"', '"65"')))
    assert [finding.code for finding in dataset.errors()] == ["size_mismatch"]
    assert dataset.ledger[0].fate == "dropped"
    photo(tmp_path / "b" / "a.png")
    (tmp_path / "b" / "annotations.xml").write_text("<annotations><image")
    assert [finding.code for finding in read_dataset(tmp_path / "b").errors()] == ["bad_xml"]
    assert len(read_dataset(cvat(tmp_path / "c", image(POLYGON)), options=ReadOptions(labels=["van"])).errors()) == 1
