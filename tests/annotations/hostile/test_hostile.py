"""Broken and hostile files end in findings, never in an exception."""

from __future__ import annotations

import copy
import json
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from d2tune.annotations.formats import coco, labelme, panoptic, rle_csv, via, voc
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_value, photo, png_base64, shape

LABELME = labelme_value(
    shape(TRIANGLE, group_id=1),
    shape(SQUARE, group_id=1),
    shape([[32, 24], [41, 36]], "ball", "circle"),
    shape([[5, 6], [7, 8]], "cell", "mask", mask=png_base64(np.eye(3))),
    shape([[1, 1], [9, 9]], "box", "rectangle"),
    imageData=None,
)
COCO = {
    "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
    "annotations": [
        {"id": 1, "image_id": 1, "category_id": 1, "bbox": [1, 2, 9, 9], "segmentation": [[1, 1, 20, 1, 20, 20]]},
        {
            "id": 2,
            "image_id": 1,
            "category_id": 1,
            "segmentation": {"size": [48, 64], "counts": "g:4\\100MeN1[120000Y\\2"},
        },
    ],
    "categories": [{"id": 1, "name": "cat"}],
}
PANOPTIC = {
    "images": [{"id": 5, "file_name": "a.png", "width": 64, "height": 48}],
    # The image serves as its own PNG: all of it has the color (90, 120, 30).
    "annotations": [
        {
            "image_id": 5,
            "file_name": "a.png",
            "segments_info": [{"id": 90 + 256 * 120 + 65536 * 30, "category_id": 4, "area": 99, "iscrowd": 0}],
        }
    ],
    "categories": [{"id": 4, "name": "sky", "isthing": 0}],
}
VIA = {
    "a.png1": {
        "filename": "a.png",
        "regions": {
            "0": {
                "shape_attributes": {"name": "circle", "cx": 9, "cy": 9, "r": 4},
                "region_attributes": {"c": {"x": True}},
            },
            "1": {
                "shape_attributes": {"name": "polygon", "all_points_x": [1, 9, 9], "all_points_y": [1, 1, 9]},
                "region_attributes": {"c": "y"},
            },
        },
    }
}
VIA3 = {
    "attribute": {"1": {"aname": "Class", "options": {"0": "cat"}}},
    "file": {"1": {"fid": 1, "fname": "a.png"}},
    "view": {"1": {"fid_list": [1]}},
    "metadata": {
        "1_a": {"vid": "1", "xy": [2, 1, 1, 9, 9], "av": {"1": "0"}},
        "1_b": {"vid": "1", "xy": [7, 1, 1, 9, 1, 9, 9]},
    },
}

rubbish = st.sampled_from(
    [
        *(None, True, False, 0, -1, 1.5, 1e9, 1e300, float("nan"), float("inf"), 10**400, -(10**30)),
        *("", "x", "0", "\0", "\ud800", "../../etc/passwd", "polygon", "mask", "circle", "a" * 5000),
        *(
            [],
            {},
            [[]],
            [[1]],
            [[1, 2, 3]],
            {"a": 1},
            [None],
            [0, 0, 0],
            [[0, 0]] * 3,
            [[1e308, -1e308], [5, 5], [9, 1]],
        ),
    ]
)


def places(value: Any, path: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The paths of everything inside of a JSON value."""
    members = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    paths = []
    for key, member in members:
        paths += [(*path, key), *places(member, (*path, key))]
    return paths


@st.composite
def mutated(draw: st.DrawFn, value: Any) -> Any:
    """The value with one to three places deleted, doubled or replaced by rubbish."""
    value = copy.deepcopy(value)
    for _ in range(draw(st.integers(1, 3))):
        *above, key = draw(st.sampled_from(places(value) or [("x",)]))
        node = value
        for step in above:
            node = node[step]
        if not isinstance(node, (dict, list)) or key == "x":
            continue
        match draw(st.sampled_from(["delete", "double", "replace", "replace"])):
            case "delete":
                del node[key]
            case "double" if isinstance(node, list):
                node.append(copy.deepcopy(node[key]))
            case _:
                node[key] = copy.deepcopy(draw(rubbish))
    return value


def survive(value: Any, read: Callable[[Path, ReadOptions], Dataset], **options: Any) -> None:
    with tempfile.TemporaryDirectory() as folder:
        photo(Path(folder) / "a.png", color=(90, 120, 30))
        (Path(folder) / "a.json").write_text(json.dumps(value), "utf-8")
        options |= {"restore_dir": Path(folder) / "restored", "class_name": "thing"}
        try:
            dataset = read(Path(folder) / "a.json", ReadOptions(**options))
        except DataError as error:
            assert "\n" not in str(error)
            return
        for finding in dataset.findings:
            assert finding.message and json.dumps(finding.to_json(), allow_nan=False)
        json.dumps(coco.to_coco(dataset), allow_nan=False)
        for instance in dataset.instances:
            assert instance.area_px2 > 0
            x, y, width, height = instance.bbox_xywh
            assert 0 <= x <= x + width <= 64 and 0 <= y <= y + height <= 48
        labelme.write(dataset, Path(folder) / "out", originals=Path(folder))
        assert Path(folder).joinpath("a.png").is_file()


@settings(deadline=None, max_examples=250)
@given(mutated(LABELME), st.sampled_from(["union", "hole"]), st.sampled_from(["keep", "strip"]))
def test_mutated_labelme(value: Any, nested: str, suffix: str) -> None:
    survive(value, labelme.read, nested_groups=nested, instance_suffix=suffix)


@settings(deadline=None, max_examples=150)
@given(mutated(COCO))
def test_mutated_coco(value: Any) -> None:
    survive(value, coco.read)


@settings(deadline=None, max_examples=100)
@given(mutated(PANOPTIC))
def test_mutated_panoptic(value: Any) -> None:
    survive(value, panoptic.read)


@settings(deadline=None, max_examples=100)
@given(mutated(VIA) | mutated(VIA3))
def test_mutated_via(value: Any) -> None:
    survive(value, via.read)


@settings(deadline=None, max_examples=100)
@given(st.binary(max_size=60), st.integers(0, 400))
def test_cut_and_overwritten_bytes(noise: bytes, at: int) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        content = photo(folder / "a.png", color=(90, 120, 30)).read_bytes()
        (folder / "a.png").write_bytes(content[:at] + noise)
        text = json.dumps(LABELME).encode()
        (folder / "a.json").write_bytes(text[:at] + noise + text[at + len(noise) :])
        labelme.read(folder, ReadOptions(restore_dir=folder / "out"))
        (folder / "a.xml").write_bytes(
            b"<annotation><object><name>" + noise + b"</name></object></annotation>"[: at % 40]
        )
        voc.read(folder, ReadOptions())
        (folder / "a.csv").write_bytes(b"ImageId,EncodedPixels\na.png,1 1" + noise)
        rle_csv.read(folder, ReadOptions(preset="airbus", class_name="ship"))


def test_a_drawing_of_50000_vertices_is_read(tmp_path: Path) -> None:
    angle = np.linspace(0, 2 * np.pi, 50_000, endpoint=False)
    points = np.stack([32 + 20 * np.cos(angle), 24 + 20 * np.sin(angle)], axis=1).tolist()
    photo(tmp_path / "a.png", color=(90, 120, 30))
    (tmp_path / "a.json").write_text(json.dumps(labelme_value(shape(points))), "utf-8")
    (instance,) = labelme.read(tmp_path, ReadOptions()).instances
    assert instance.area_px2 == pytest.approx(np.pi * 400, rel=0.02)
