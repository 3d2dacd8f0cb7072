"""Label Studio's exports; right values by hand, brush masks from an encoder of their own, on 64 x 48 px images."""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2tune.annotations.convert import check, convert, read_dataset
from d2tune.annotations.formats.tools.packed_runs import PackedRunsError, unpack
from d2tune.annotations.geometry.masks import decode_mask, to_raw
from d2tune.annotations.model.options import ReadOptions
from d2tune.annotations.model.types import Rle
from d2tune.errors import DataError
from tests.annotations.builders import codes, photo, png_base64

SQUARE = [[12.5, 25], [50, 25], [50, 75], [12.5, 75]]
"""8 to 32 px by 12 to 36 px: 576 px2."""


class Bits:
    """A stream of bits, written as text."""

    def __init__(self) -> None:
        self.text = ""

    def add(self, number: int, width: int) -> None:
        self.text += format(number, f"0{width}b")

    def content(self) -> bytes:
        padded = self.text + "0" * (-len(self.text) % 8)
        return bytes(int(padded[at : at + 8], 2) for at in range(0, len(padded), 8))


def packed(values: list[int], *, width: int = 8, widths: tuple[int, int, int, int] = (3, 4, 8, 16)) -> bytes:
    """Packed run lengths: equal values as runs, single ones together, each with the smallest width that holds it."""
    bits = Bits()
    bits.add(len(values), 32)
    bits.add(width - 1, 5)
    for one in widths:
        bits.add(one - 1, 4)

    def block(is_run: int, numbers: list[int], count: int) -> None:
        kind = next(kind for kind, one in enumerate(widths) if count <= 2**one)
        bits.add(is_run, 1)
        bits.add(kind, 2)
        bits.add(count - 1, widths[kind])
        for number in numbers:
            bits.add(number, width)

    at, largest = 0, 2 ** widths[-1]
    while at < len(values):
        stop = at
        while stop < len(values) and values[stop] == values[at] and stop - at < largest:
            stop += 1
        if stop - at > 1:
            block(1, values[at : at + 1], stop - at)
            at = stop
            continue
        while stop < len(values) and (stop + 1 == len(values) or values[stop] != values[stop + 1]) and stop - at < 8:
            stop += 1
        block(0, values[at:stop], stop - at)
        at = stop
    return bits.content()


def brush(mask: Any) -> list[int]:
    """A mask ``(H, W)`` as Label Studio has it: red, green, blue and opacity of each pixel."""
    values = np.repeat(np.asarray(mask, dtype=np.uint8).reshape(-1) * 255, 4)
    return list(packed(values.tolist()))


def result(value: dict[str, Any], kind: str, **more: Any) -> dict[str, Any]:
    size = {"original_width": 64, "original_height": 48, "image_rotation": 0}
    return size | {"id": "r1", "type": kind, "value": value, "from_name": "label", "to_name": "image"} | more


def task(*results: Any, image: str = "a.png", number: int = 5, **more: Any) -> dict[str, Any]:
    return {"id": number, "data": {"image": image}, "annotations": [{"id": 1, "result": list(results)}]} | more


def export(folder: Path, *tasks: Any) -> Path:
    photo(folder / "a.png")
    (folder / "project-1.json").write_text(json.dumps(list(tasks)), "utf-8")
    return folder


@given(
    st.lists(st.integers(0, 15), max_size=60).flatmap(
        lambda values: st.lists(st.integers(1, 40), min_size=len(values), max_size=len(values)).map(
            lambda counts: [value for value, count in zip(values, counts, strict=True) for _ in range(count)]
        )
    )
)
@settings(deadline=None, max_examples=60)
def test_packed_run_lengths(values: list[int]) -> None:
    content = packed(values, width=4, widths=(1, 2, 3, 5))
    assert unpack(content, limit=len(values)).tolist() == values
    if values:
        with pytest.raises(PackedRunsError):
            unpack(content[: len(content) // 2], limit=len(values))
        with pytest.raises(PackedRunsError, match="expected"):
            unpack(content, limit=len(values) - 1)


def test_packed_run_lengths_by_hand() -> None:
    # 5 values of 8 bits; widths 1, 2, 3, 4; a run of 4 times 255 (width 2: 11), then the single value 7 (width 1: 0)
    header = format(5, "032b") + format(7, "05b") + "".join(format(one, "04b") for one in (0, 1, 2, 3))
    bits = header + "1" + "01" + "11" + "11111111" + "0" + "00" + "0" + "00000111"
    bits += "0" * (-len(bits) % 8)
    content = bytes(int(bits[at : at + 8], 2) for at in range(0, len(bits), 8))
    assert unpack(content, limit=5).tolist() == [255, 255, 255, 255, 7]
    with pytest.raises(PackedRunsError):
        unpack(b"\0\0", limit=5)


@pytest.mark.parametrize(
    ("value", "kind", "area_px2", "bbox"),
    [
        ({"points": SQUARE, "polygonlabels": ["car"], "closed": True}, "polygonlabels", 576, (8, 12, 24, 24)),
        (
            {"x": 25, "y": 25, "width": 50, "height": 50, "rectanglelabels": ["car"]},
            "rectanglelabels",
            768,
            (16, 12, 32, 24),
        ),
        # 32 x 12 px, rotated by 90 degrees around the upper left corner (32, 12): to the left and down
        (
            {"x": 50, "y": 25, "width": 50, "height": 25, "rotation": 90, "rectanglelabels": ["car"]},
            "rectanglelabels",
            384,
            (20, 12, 12, 32),
        ),
    ],
)
def test_coordinates_are_percent(
    tmp_path: Path, value: dict[str, Any], kind: str, area_px2: float, bbox: tuple[float, ...]
) -> None:
    dataset = read_dataset(export(tmp_path, task(result(value, kind))))
    (instance,) = dataset.instances
    assert instance.area_px2 == area_px2 and instance.bbox_xywh == pytest.approx(bbox)
    assert dataset.images[0].source_id == 5 and dataset.class_names == ("car",)
    minimal = value | {"original_width": 64, "original_height": 48}
    rows = [{"image": "a.png", "id": 5, "label": [minimal], "annotator": 1, "annotation_id": 2}]
    (again,) = read_dataset(export(tmp_path / "min", *rows)).instances
    assert again.area_px2 == area_px2 and again.bbox_xywh == instance.bbox_xywh


def test_ellipses(tmp_path: Path) -> None:
    value = {"x": 50, "y": 50, "radiusX": 18.75, "radiusY": 12.5, "rotation": 90, "ellipselabels": ["car"]}
    (instance,) = read_dataset(export(tmp_path, task(result(value, "ellipselabels")))).instances
    assert instance.bbox_xywh == pytest.approx((26, 12, 12, 24), abs=0.2)  # radii of 12 and 6 px
    assert instance.area_px2 == pytest.approx(math.pi * 72, rel=0.02)


def test_brush_and_bit_masks(tmp_path: Path) -> None:
    mask = np.zeros((48, 64), dtype=bool)
    mask[5:20, 7:33] = True
    mask[9:12, 10:14] = False
    mask[40, 60] = True
    value = {"format": "rle", "rle": brush(mask), "brushlabels": ["car"]}
    url = {"imageDataURL": f"data:image/png;base64,{png_base64(mask.astype(np.uint8) * 255)}", "bitmasklabels": ["car"]}
    for name, (one, kind) in {"brush": (value, "brushlabels"), "bits": (url, "bitmasklabels")}.items():
        (instance,) = read_dataset(export(tmp_path / name, task(result(one, kind)))).instances
        assert isinstance(instance.segmentation, Rle) and not instance.iscrowd
        assert np.array_equal(decode_mask(to_raw(instance.segmentation)), mask)


@pytest.mark.parametrize(
    ("value", "kind", "expected"),
    [
        ({"format": "rle", "rle": [1, 2, 3], "brushlabels": ["car"]}, "brushlabels", ("error", "bad_rle")),
        ({"format": "rle", "rle": [0, 300], "brushlabels": ["car"]}, "brushlabels", ("error", "bad_rle")),
        ({"rle": list(packed([0] * 16)), "brushlabels": ["car"]}, "brushlabels", ("error", "bad_rle")),
        ({"imageDataURL": "data:,x", "bitmasklabels": ["car"]}, "bitmasklabels", ("error", "mask_undecodable")),
        (
            {"x": 1, "y": 2, "width": 0.5, "keypointlabels": ["car"]},
            "keypointlabels",
            ("warning", "unsupported_shape_type"),
        ),
        ({"vertices": [], "vectorlabels": ["car"]}, "vectorlabels", ("warning", "unsupported_shape_type")),
        ({"choices": ["good"]}, "choices", ("info", "no_spatial_extent")),
        ({"strange": 1}, "strange", ("warning", "unknown_shape_type")),
        ({"points": [[1, 2], [3]], "polygonlabels": ["car"]}, "polygonlabels", ("error", "bad_point")),
        (
            {"x": "1", "y": 2, "width": 5, "height": 5, "rectanglelabels": ["car"]},
            "rectanglelabels",
            ("error", "bad_point"),
        ),
        ({"points": SQUARE}, "polygon", ("error", "bad_shape")),
    ],
)
def test_regions_that_are_not_read(tmp_path: Path, value: dict[str, Any], kind: str, expected: tuple[str, str]) -> None:
    good = result({"points": SQUARE, "polygonlabels": ["car"]}, "polygonlabels", id="g")
    dataset = read_dataset(export(tmp_path, task(good, result(value, kind))))
    assert codes(dataset) == [(*expected, 1)] and len(dataset.instances) == 1
    assert dataset.findings[0].image == "a.png"


def test_classes_in_a_result_of_their_own(tmp_path: Path) -> None:
    polygon = result({"points": SQUARE}, "polygon")
    labels = result({"points": SQUARE, "labels": ["van"]}, "labels")
    relation = {"type": "relation", "from_id": "r1", "to_id": "r2"}
    dataset = read_dataset(export(tmp_path, task(polygon, labels, relation)))
    assert dataset.counts() == {"van": 1} and not dataset.findings


def test_of_several_classes_of_a_region_the_first_is_read_with_a_warning(tmp_path: Path) -> None:
    plain = result({"points": SQUARE, "polygonlabels": ["car"]}, "polygonlabels")
    other = [[one + 5 for one in point] for point in SQUARE]
    double = result({"points": other, "polygonlabels": ["van", "bus"]}, "polygonlabels")
    dataset = read_dataset(export(tmp_path, task(plain, double)))
    assert dataset.counts() == {"car": 1, "van": 1}
    assert codes(dataset) == [("warning", "several_classes", 1)]
    assert "van, bus" in dataset.findings[0].message


def test_several_annotations_of_a_task(tmp_path: Path) -> None:
    def annotation(number: int, label: str, **more: Any) -> dict[str, Any]:
        return {"id": number, "result": [result({"points": SQUARE, "polygonlabels": [label]}, "polygonlabels")]} | more

    rows = [
        annotation(1, "old", updated_at="2024-01-01T00:00:00Z"),
        annotation(2, "new", updated_at="2024-02-01T00:00:00Z"),
        annotation(3, "canceled", updated_at="2024-03-01T00:00:00Z", was_cancelled=True),
    ]
    dataset = read_dataset(export(tmp_path, task(annotations=rows)))
    assert dataset.counts() == {"new": 1} and codes(dataset) == [("warning", "several_annotations", None)]
    assert "2 annotations" in dataset.findings[0].message
    rows[0]["ground_truth"] = True
    assert read_dataset(export(tmp_path, task(annotations=rows))).counts() == {"old": 1}


def test_tasks_without_an_annotation_are_unlabeled_and_empty_ones_negatives(tmp_path: Path) -> None:
    photo(tmp_path / "b.png")
    square = result({"points": SQUARE, "polygonlabels": ["car"]}, "polygonlabels")
    photo(tmp_path / "c.png")
    tasks = [task(square), task(image="b.png", number=6), task(image="c.png", number=7, annotations=[])]
    dataset = read_dataset(export(tmp_path, *tasks))
    assert [one.file_name for one in dataset.images] == ["a.png", "b.png"]
    assert [(one.code, one.file) for one in dataset.findings] == [("unlabeled_image", "c.png")]
    assert len(read_dataset(tmp_path, options=ReadOptions(include_unlabeled=True)).images) == 3


@pytest.mark.parametrize(
    ("named", "detours"),
    [
        ("a.png", 0),
        ("/data/upload/3/a.png", 1),
        ("/data/upload/3/0f9d1b2c-a.png", 1),
        ("/data/local-files/?d=set/a.png", 1),
        ("http://host/x/a.png?token=1", 1),
        ("s3://bucket/set/a.png", 1),
    ],
)
def test_paths_of_media_servers(tmp_path: Path, named: str, detours: int) -> None:
    square = result({"points": SQUARE, "polygonlabels": ["car"]}, "polygonlabels")
    result_ = check(export(tmp_path, task(square, image=named)))
    assert [finding.code for finding in result_.findings] == ["image_found_elsewhere"] * detours
    assert result_.dataset.images[0].file_name == "a.png"


def test_other_sizes_and_rotated_images_are_errors(tmp_path: Path) -> None:
    polygon = {"points": SQUARE, "polygonlabels": ["car"]}
    wrong = result(polygon, "polygonlabels", original_width=65)
    assert [one.code for one in read_dataset(export(tmp_path, task(wrong))).errors()] == ["size_mismatch"]
    turned = result(polygon, "polygonlabels", image_rotation=90)
    assert [one.code for one in read_dataset(export(tmp_path, task(turned))).errors()] == ["image_rotated"]


def test_tasks_alone_are_not_annotations(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="Label Studio tasks without annotations"):
        convert(export(tmp_path, {"id": 1, "data": {"image": "a.png"}}), out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()
