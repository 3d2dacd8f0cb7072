from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest

from d2tune.annotations.formats import via
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo


def region(attributes: Any = None, **shape: Any) -> dict[str, Any]:
    return {"shape_attributes": shape, "region_attributes": {"class": "cat"} if attributes is None else attributes}


def polygon(x: list[float], y: list[float], attributes: Any = None) -> dict[str, Any]:
    return region(attributes, name="polygon", all_points_x=x, all_points_y=y)


TRIANGLE = polygon([10, 30, 10, 10], [10, 10, 40, 10])
RECT = region(name="rect", x=10, y=20, width=20, height=15)


def entry(name: str, regions: Any) -> dict[str, Any]:
    return {"filename": name, "size": 1, "regions": regions, "file_attributes": {}}


def read(folder: Path, value: Any, **options: Any) -> Dataset:
    folder.mkdir(exist_ok=True)
    if not (folder / "a.png").exists():
        photo(folder / "a.png")
    (folder / "via.json").write_text(json.dumps(value), "utf-8")
    return via.read(folder, ReadOptions(**options))


@pytest.mark.parametrize(
    "value",
    [
        {"a.png1": entry("a.png", {"0": RECT, "1": TRIANGLE})},
        {"a.png1": entry("a.png", [RECT, TRIANGLE])},
        {"_via_settings": {}, "_via_img_metadata": {"a.png1": entry("a.png", [RECT, TRIANGLE])}},
    ],
)
def test_versions_1_and_2_are_the_same(tmp_path: Path, value: Any) -> None:
    dataset = read(tmp_path, value)
    assert dataset.findings == ()
    assert [instance.bbox_xywh for instance in dataset.instances] == [(10, 20, 20, 15), (10, 10, 20, 30)]
    assert [instance.area_px2 for instance in dataset.instances] == [300, 300]
    assert [len(instance.segmentation[0]) for instance in dataset.instances] == [4, 3]


def test_round_regions(tmp_path: Path) -> None:
    circle = region(name="circle", cx=32, cy=24, r=15)
    ellipse = region(name="ellipse", cx=32, cy=24, rx=20, ry=5, theta=math.pi / 6)
    dataset = read(tmp_path, {"a": entry("a.png", [circle, ellipse])})
    assert dataset.instances[0].area_px2 == pytest.approx(math.pi * 225, rel=0.02)
    assert dataset.instances[1].area_px2 == pytest.approx(math.pi * 100, rel=0.03)
    # The extent of a turned ellipse: sqrt((a cos)^2 + (b sin)^2) to each side.
    half = math.hypot(20 * math.cos(math.pi / 6), 5 * math.sin(math.pi / 6))
    assert dataset.instances[1].bbox_xywh[2] == pytest.approx(2 * half, abs=0.2)
    assert dataset.instances[1].segmentation[0][0] == pytest.approx(
        [32 + 20 * math.cos(math.pi / 6), 24 + 20 * math.sin(math.pi / 6)], abs=0.1
    )


def test_regions_without_area_and_broken_ones(tmp_path: Path) -> None:
    regions = [
        region(name="polyline", all_points_x=[1, 2], all_points_y=[1, 2]),
        region(name="point", cx=1, cy=2),
        polygon([1, 2, 3], [1, 2]),
        region(name="rect", x=1, y=2, width=None, height=3),
        region(name="circle", cx=5, cy=5, r=0),
        region(name="rect", x=1, y=2, width=float("inf"), height=3),
        {"shape_attributes": None, "region_attributes": None},
        7,
    ]
    assert codes(read(tmp_path, {"a": entry("a.png", regions)})) == [
        ("warning", "unsupported_shape_type", 0),
        ("warning", "unsupported_shape_type", 1),
        ("error", "bad_point", 2),
        ("error", "bad_point", 3),
        ("warning", "zero_area", 4),
        ("error", "non_finite_coordinate", 5),
        ("warning", "unsupported_shape_type", 6),
        ("warning", "unsupported_shape_type", 7),
    ]


def test_the_pixel_offset_moves_every_coordinate(tmp_path: Path) -> None:
    dataset = read(tmp_path, {"a": entry("a.png", [RECT, TRIANGLE])}, pixel_offset=0.5)
    assert [instance.bbox_xywh for instance in dataset.instances] == [(10.5, 20.5, 20, 15), (10.5, 10.5, 20, 30)]


def test_where_the_class_comes_from(tmp_path: Path) -> None:
    def names(*attributes: Any, **options: Any) -> list[Any]:
        regions = [polygon([10 + x, 30 + x, 10 + x], [10, 10, 40], one) for x, one in enumerate(attributes)]
        dataset = read(tmp_path, {"a": entry("a.png", regions)}, **options)
        of = {category.id: category.name for category in dataset.categories}
        return [of[instance.category_id] for instance in dataset.instances] + [f.code for f in dataset.findings]

    assert names({"kind": "dog"}) == ["dog"]
    assert names({"kind": {"dog": True, "cat": False}}) == ["dog"]
    assert names({"kind": {"dog": True, "cat": True}}) == ["no_class"]
    assert names({"kind": "dog", "color": "red"}) == ["no_class"]
    assert names({"kind": "dog", "color": "red"}, class_attribute="color") == ["red"]
    assert names({}, {"kind": ""}, {"kind": "dog"}, class_name="thing") == ["thing", "thing", "dog"]
    assert names({}) == ["no_class"]
    assert names({"kind": 3}) == ["3", "label_not_string"]
    with pytest.raises(DataError, match=r"'colur'.*Did you mean 'color'"):
        names({"color": "red"}, class_attribute="colur")


def test_findings_count_regions_over_the_whole_file(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    bad = polygon([1, 2], [1, 2])
    dataset = read(tmp_path, {"a": entry("a.png", [RECT, TRIANGLE]), "b": entry("b.png", [RECT, bad])})
    assert codes(dataset) == [("warning", "too_few_points", 3)]
    assert [instance.shapes for instance in dataset.instances] == [(0,), (1,), (2,)]


def test_images_missing_twice_or_not_spoken_of(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    dataset = read(tmp_path, {"1": entry("a.png", []), "2": entry("a.png", [RECT]), "3": entry("gone.png", [RECT])})
    assert sorted((f.level, f.code, f.file) for f in dataset.findings) == [
        ("error", "duplicate_image", "via.json"),
        ("error", "image_missing", "via.json"),
        ("info", "unlabeled_image", "b.png"),
    ]
    skipped = read(tmp_path, {"1": entry("a.png", [RECT]), "3": entry("gone.png", [RECT])}, skip_bad=True)
    assert skipped.errors() == () and len(skipped.images) == 1


def version_3(*rows: dict[str, Any], attribute: Any = None, views: Any = None) -> dict[str, Any]:
    options = {"1": {"aname": "Class", "options": {"0": "cat", "1": "dog"}}}
    return {
        "project": {},
        "attribute": options if attribute is None else attribute,
        "file": {"1": {"fid": 1, "fname": "a.png", "type": 2, "src": "a.png"}, "2": {"fid": 2, "fname": "b.png"}},
        "view": {"1": {"fid_list": [1]}} if views is None else views,
        "metadata": {f"1_{number}": {"vid": "1", "z": []} | row for number, row in enumerate(rows)},
    }


def test_version_3_shapes(tmp_path: Path) -> None:
    cat, dog = {"av": {"1": "0"}}, {"av": {"1": "1"}}
    dataset = read(
        tmp_path,
        version_3(
            {"xy": [2, 10, 20, 20, 15], **cat},
            {"xy": [3, 32, 24, 15], **dog},
            {"xy": [4, 32, 24, 20, 5], **dog},
            {"xy": [7, 10, 10, 30, 10, 10, 40], **cat},
            {"xy": [1, 5, 5], **cat},
            {"xy": [5, 1, 1, 9, 9], **cat},
            {"xy": [6, 1, 1, 9, 9, 20, 3], **cat},
            {"xy": [], **dog},
            {"xy": [7, 10, 10, 30, 10, 10], **cat},
            {"xy": [2, 10, 20, 20], **cat},
        ),
    )
    assert codes(dataset) == [
        *(("warning", "unsupported_shape_type", index) for index in (4, 5, 6)),
        ("info", "no_spatial_extent", 7),
        ("error", "bad_point", 8),
        ("error", "wrong_point_count", 9),
    ]
    assert dataset.counts() == {"cat": 2, "dog": 2}
    assert dataset.instances[0].bbox_xywh == (10, 20, 20, 15)
    assert dataset.instances[2].area_px2 == pytest.approx(math.pi * 100, rel=0.03)


def test_version_3_views_attributes_and_negatives(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    attribute = {"1": {"aname": "note"}, "2": {"aname": "Class", "options": {"7": "cat", "8": "dog"}}}
    rows = [{"vid": "9", "xy": [2, 1, 1, 9, 9], "av": {"1": "seen", "2": "8"}}]
    value = version_3(*rows, attribute=attribute, views={"9": {"fid_list": ["2"]}, "1": {"fid_list": [1]}})
    dataset = read(tmp_path, value, class_attribute="Class")
    assert dataset.class_names == ("dog",)
    assert [(image.file_name, len(dataset.by_image()[image.id])) for image in dataset.images] == [
        ("a.png", 0),
        ("b.png", 1),
    ]


def test_a_folder_may_have_several_files_and_other_json(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    (tmp_path / "more.json").write_text(json.dumps({"b": entry("b.png", [RECT])}), "utf-8")
    (tmp_path / "other.json").write_text("[]", "utf-8")
    (tmp_path / "cut.json").write_text("{", "utf-8")
    dataset = read(tmp_path, {"a": entry("a.png", [RECT])})
    assert [(f.file, f.code) for f in dataset.findings] == [("cut.json", "bad_json"), ("other.json", "not_via")]
    assert len(dataset.instances) == 2


def test_of_several_attributes_the_one_with_the_classes_is_read(tmp_path: Path) -> None:
    def read_regions(*attributes: Any, **options: Any) -> tuple[dict[str, int], list[tuple[str, str, int | None]]]:
        regions = [polygon([10 + x, 30 + x, 10 + x], [10, 10, 40], one) for x, one in enumerate(attributes)]
        dataset = read(tmp_path, {"a": entry("a.png", regions)}, **options)
        return dataset.counts(), codes(dataset)

    two = {"type": "balloon", "blur": "no"}, {"type": "car", "blur": "yes"}
    one_class: Any = {"labels": ("balloon",), "only_class": "balloon"}
    assert read_regions(*two, **one_class) == ({"balloon": 1}, [("error", "unknown_label", 1)])
    assert read_regions(*two, labels=("balloon", "car")) == ({"balloon": 1, "car": 1}, [])
    assert read_regions(*two, labels=("red",), rename={"yes": "red", "no": None}) == (
        {"red": 1},
        [("info", "ignored_label", 0)],
    )
    boxes = {"type": {"balloon": True}, "good": {"frontal": True}}
    assert read_regions(boxes, **one_class) == ({"balloon": 1}, [])
    for several in ((*two, {"type": "", "blur": "balloon"}), ({"a": "x", "b": "y"},)):
        counts, noted = read_regions(*several, **one_class)
        assert counts == {"balloon": 0} and set(noted) == {("error", "no_class", at) for at in range(len(several))}


def test_the_only_class_is_that_of_regions_only_where_none_names_a_class(tmp_path: Path) -> None:
    def noted(*attributes: Any, **options: Any) -> tuple[dict[str, int], list[str]]:
        regions = [polygon([10 + x, 30 + x, 10 + x], [10, 10, 40], one) for x, one in enumerate(attributes)]
        dataset = read(tmp_path, {"a": entry("a.png", regions)}, labels=("cat",), only_class="cat", **options)
        return dataset.counts(), [finding.code for finding in dataset.findings]

    assert noted({}, {}) == ({"cat": 2}, [])
    assert noted({"kind": ""}, {"kind": None}) == ({"cat": 2}, [])
    assert noted({"kind": ""}, {"kind": "cat"}) == ({"cat": 1}, ["no_class"])
    assert noted({"kind": ""}, {"kind": "cat"}, class_name="cat") == ({"cat": 2}, [])
    assert noted({"kind": "", "color": "red"}, class_attribute="kind") == ({"cat": 1}, [])


def test_normalized_coordinates_are_scaled_by_the_size_of_the_image(tmp_path: Path) -> None:
    """On 64 x 48 px: a rectangle of 32 x 24 px, half of one, an ellipse with radii 16 and 12 px, a circle of 8 px."""
    regions = [
        region(name="rect", x=0.125, y=0.25, width=0.5, height=0.5),
        polygon([0, 0.5, 0], [0, 0, 0.5]),
        region(name="ellipse", cx=0.5, cy=0.5, rx=0.25, ry=0.25, theta=0),
        region(name="circle", cx=0.5, cy=0.5, r=0.125),
    ]
    dataset = read(tmp_path, {"a": entry("a.png", regions)})
    assert codes(dataset) == [("warning", "normalized_coordinates", None)]
    exact_px2 = [32 * 24, 32 * 24 / 2, math.pi * 16 * 12, math.pi * 8 * 8]
    assert [instance.area_px2 for instance in dataset.instances] == pytest.approx(exact_px2, rel=0.04)
    assert dataset.instances[0].bbox_xywh == (8, 12, 32, 24)
    for pixels in ([0.0, 1.0, 1.0, 0.0], [0.5, 1.5, 0.5]):
        in_pixels = read(tmp_path, {"a": entry("a.png", [polygon(pixels, sorted(pixels))])})
        assert "normalized_coordinates" not in str(codes(in_pixels))


def test_findings_name_the_image(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    bad = polygon([1, 2], [1, 2])
    images = {"a": entry("a.png", [RECT]), "b": entry("b.png", [bad]), "c": entry("gone.png", [RECT])}
    findings = read(tmp_path, images).findings
    assert [(finding.code, finding.image) for finding in findings] == [
        ("image_missing", "gone.png"),
        ("too_few_points", "b.png"),
    ]
    assert findings[1].place() == "via.json: shape 1 (b.png)"
    assert findings[1].to_json()["image"] == "b.png"
