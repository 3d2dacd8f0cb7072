import dataclasses
import json
import os

import numpy as np
import pytest

from d2tune.annotations.convert import checked, detect_format
from d2tune.annotations.model.dataset import Image
from d2tune.annotations.model.options import ReadOptions
from d2tune.report.check_page.exhibits import Exhibits, text_around, view_of
from d2tune.report.check_page.page import check_page
from d2tune.report.check_page.raw_shapes import RawShape, raw_shapes, runs_mask
from d2tune.report.check_page.survey import Checked
from d2tune.report.thumbnails import Album, Sketch
from tests.report.datasets import saved
from tests.shared_files import SHARED

CASES = sorted(path for path in (SHARED / "conversion_cases").iterdir() if path.is_dir())


@pytest.mark.parametrize(
    ("extent", "size", "is_far"),
    [
        (None, (400, 300), False),
        ((100, 100, 110, 105), (400, 300), False),
        ((-50, 10, 40, 60), (400, 300), False),
        ((450, 10, 500, 60), (400, 300), False),
        ((0, 0, 400, 300), (400, 300), False),
        ((1e9, 1e9, 1e9 + 5, 1e9 + 5), (400, 300), True),
        ((5, 5, 6, 6), (20, 3000), False),
    ],
)
def test_views(extent, size, is_far):
    image = Image(1, "a.png", *size)
    view, far = view_of(image, extent)
    assert far == is_far
    assert (view[2] - view[0]) / (view[3] - view[1]) == pytest.approx(4 / 3)
    if extent is not None and not far:
        assert view[0] <= extent[0] and view[1] <= extent[1] and view[2] >= extent[2] and view[3] >= extent[3]
    assert view[0] < size[0] and view[1] < size[1] and view[2] > 0 and view[3] > 0, "the image must be in view"


def test_a_view_of_a_shape_inside_stays_on_the_image():
    view, _ = view_of(Image(1, "a.png", 400, 300), (2, 2, 30, 20))
    assert view[0] == 0 and view[1] == 0


def write(path, value):
    path.write_text(value if isinstance(value, str) else json.dumps(value), encoding="utf-8")
    return path


def coco(annotation):
    images = [{"id": 7, "file_name": "p.png"}]
    return {"images": images, "annotations": [{"image_id": 7} | annotation], "categories": []}


def via(shape):
    return {"k": {"filename": "p.png", "regions": [{"shape_attributes": shape}]}}


SQUARE = [[10, 10], [20, 10], [20, 20], [10, 20]]


@pytest.mark.parametrize(
    ("name", "content", "key", "image_name", "box"),
    [
        ("a.json", {"shapes": [{"points": SQUARE}], "imagePath": "p.png"}, 0, "p.png", (10, 10, 20, 20)),
        ("a.json", {"shapes": [{"points": SQUARE[::2], "shape_type": "rectangle"}]}, 0, None, (10, 10, 20, 20)),
        ("a.json", coco({"segmentation": [10, 10, 20, 10, 20, 20]}), 0, "p.png", (10, 10, 20, 20)),
        ("a.json", coco({"segmentation": [SQUARE], "image_id": "7"}), 0, "p.png", (10, 10, 20, 20)),
        ("a.json", coco({"segmentation": SQUARE, "image_id": 7.0}), 0, "p.png", (10, 10, 20, 20)),
        ("a.json", coco({"segmentation": [[]], "bbox": [10, 10, 10, 10]}), 0, "p.png", (10, 10, 20, 20)),
        ("a.json", {"shapes": [{"points": [[9, 9], [9, 12]], "shape_type": "circle"}]}, 0, None, (6, 6, 12, 12)),
        ("a.json", {"shapes": [{"points": [[1, 2], [5, 2]], "shape_type": "line"}]}, 0, None, (1, 2, 5, 2)),
        ("a.json", '{"shapes": [{"points": [[1, 2], [NaN, 2], [5, 1e400], [7, 9]]}]}', 0, None, (1, 2, 7, 9)),
        (
            "a.json",
            coco({"bbox": [3, 4, 10, 20]}),
            0,
            "p.png",
            (3, 4, 13, 24),
        ),
        (
            "a.json",
            coco({"segmentation": [[1, 1, 5, 1, 5, 9]]}),
            0,
            "p.png",
            (1, 1, 5, 9),
        ),
        (
            "a.json",
            via({"name": "circle", "cx": 9, "cy": 9, "r": 3}),
            0,
            "p.png",
            (6, 6, 12, 12),
        ),
        (
            "a.json",
            via({"name": "rect", "x": 1, "y": 2, "width": 3, "height": 4}),
            0,
            "p.png",
            (1, 2, 4, 6),
        ),
        (
            "a.xml",
            "<annotation><filename>p.png</filename><object><bndbox><xmin>3</xmin><ymin>4</ymin><xmax>9</xmax><ymax>8</ymax>"
            "</bndbox></object></annotation>",
            0,
            "p.png",
            (2, 3, 9, 8),
        ),
    ],
    ids=[
        "polygon",
        "rectangle",
        *(f"loose {at}" for at in range(4)),
        "circle",
        "line",
        "not finite",
        "box",
        "flat",
        "VIA circle",
        "VIA rect",
        "VOC",
    ],
)
def test_raw_shapes(tmp_path, name, content, key, image_name, box):
    shape = raw_shapes(write(tmp_path / name, content))[key]()
    assert shape.image_name == image_name
    assert Sketch(shape.outlines, shape.lines).extent() == pytest.approx(box, abs=0.12)


def test_raw_runs_are_drawn_as_far_as_they_can_be(tmp_path):
    shapes = raw_shapes(write(tmp_path / "a.csv", "img,rle_mask\np.png,2 3 8 1 99 5 7\n"))
    mask = runs_mask(shapes[2](), width_px=6, height_px=4)
    assert mask.tolist() == [
        [False, True, True, True, False, False],
        [False, True] + [False] * 4,
        [False] * 6,
        [False] * 6,
    ]
    down = runs_mask(RawShape(runs="2 3"), width_px=6, height_px=4)
    assert np.argwhere(down).tolist() == [[1, 0], [2, 0], [3, 0]]


@pytest.mark.parametrize("content", ["{", "[]", "null", '{"shapes": [1, null, {"points": 3}]}', "\xff"])
def test_raw_shapes_never_raise(tmp_path, content):
    for make in raw_shapes(write(tmp_path / "a.json", content)).values():
        assert make().outlines == ()
    assert raw_shapes(tmp_path / "missing.json") == {}


def test_lines_of_a_file_around_a_place(tmp_path):
    path = write(tmp_path / "a.json", "one\ntwo\nthree" + "x" * 500 + "!\nfour\nfive\nsix")
    lines = text_around(path, 3, 506)
    assert [line.number for line in lines] == [1, 2, 3, 4, 5]
    (it,) = [line for line in lines if line.is_it]
    assert it.text[it.caret] == "!" and it.text.startswith("…") and len(it.text) < 100
    assert text_around(tmp_path / "missing", 1, 1) == ()


def read_case(case):
    expected = json.loads((case / "expected.json").read_text(encoding="utf-8"))
    options = dict(expected["options"])
    form = options.pop("format", None) or detect_format(case)
    known = {field.name for field in dataclasses.fields(ReadOptions)}
    options["stuff"] = tuple(options.get("stuff", "").split(",")) if options.get("stuff") else ()
    return form, ReadOptions(
        **{key: value for key, value in options.items() if key in known},
        labels=tuple(expected["labels"]) if expected.get("labels") else None,
    )


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_every_finding_that_names_a_shape_shows_it(case):
    form, options = read_case(case)
    with checked(case, format=form, options=options) as result:
        source = Checked(case, result.dataset, result.findings)
        shown = [Exhibits(source, Album(10**7)).show(finding) for finding in result.findings]
        page = check_page([source], title=case.name)
    for exhibit in shown:
        finding = exhibit.finding
        if finding.code == "no_spatial_extent":
            continue
        if finding.shape is not None:
            assert exhibit.frame is not None, finding
            assert any(outline.kind.startswith("culprit") for outline in exhibit.frame.outlines), finding
        elif finding.line is not None:
            assert any(line.is_it for line in exhibit.lines), finding
    assert page.count("<figcaption>") >= min(12, len(shown))


def test_a_line_about_a_missing_image_shows_no_other_one(tmp_path):
    saved(tmp_path / "a.png", np.zeros((9, 9), np.uint8))
    write(tmp_path / "train.csv", "ImageId,EncodedPixels\na.png,1 3\ngone.png,1 3\n")
    with checked(tmp_path, format="rle", options=ReadOptions(preset="airbus", class_name="ship")) as result:
        (finding,) = result.findings
        exhibit = Exhibits(Checked(tmp_path, result.dataset, result.findings), Album(10**6)).show(finding)
    assert finding.code == "image_missing" and exhibit.frame is None
    assert [line.text for line in exhibit.lines if line.is_it] == ["gone.png,1 3"]


def test_a_file_that_was_changed_is_read_again(tmp_path):
    path = write(tmp_path / "a.json", {"shapes": [{"points": SQUARE}], "imagePath": "p.png"})
    assert raw_shapes(path)[0]().outlines[0].max() == 20
    write(path, {"shapes": [{"points": [[0, 0], [5, 0], [5, 5]]}], "imagePath": "p.png"})
    os.utime(path, ns=(0, 1))
    assert raw_shapes(path)[0]().outlines[0].max() == 5
