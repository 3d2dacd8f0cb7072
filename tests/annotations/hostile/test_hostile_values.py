"""Numbers, texts and amounts that no annotator makes, each by its name."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune.annotations.formats import labelme
from d2tune.annotations.geometry.masks import decode_mask, rasterize, rle_area_px2
from d2tune.annotations.geometry.nesting import CrowdedGroupError, nesting
from d2tune.annotations.geometry.polygons import rectangle_points
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, labelme_value, photo, shape
from tests.annotations.hostile.guarded import Outcome, guarded, tried

HUGE = "1" + "0" * 5000


def labelme_text(folder: Path, text: str) -> Path:
    photo(folder / "a.png")
    (folder / "a.json").write_text(text, "utf-8")
    return folder


def with_number(template: Any, number: str) -> str:
    """JSON text with a number that Python would not write in the place of every "@"."""
    return json.dumps(template).replace('"@"', number)


SHAPES = {
    "polygon": shape([[-1, "@"], ["@", 5], [5, 9]]),
    "rectangle": shape([[1, 1], ["@", "@"]], kind="rectangle"),
    "circle": shape([[5, 5], ["@", 5]], kind="circle"),
    "far circle": shape([["@", "@"], [5, 5]], kind="circle"),
    "oriented": shape([[1, 1], ["@", 1], ["@", 9], [1, 9]], kind="oriented_rectangle"),
    "mask": shape([["@", 1], [9, 9]], kind="mask", mask="iVBORw0KGgo="),
    "point": shape([["@", "@"]], kind="point"),
}


@pytest.mark.parametrize("number", ["1e9", "-1e9", "1e308", "-1e308", HUGE, "NaN", "Infinity", "-Infinity"])
def test_far_and_unreal_coordinates_of_every_shape(tmp_path: Path, number: str) -> None:
    for name, row in SHAPES.items():
        source = labelme_text(tmp_path / name, with_number(labelme_value(row), number))
        dataset = labelme.read(source, ReadOptions())
        for instance in dataset.instances:
            x, y, width, height = instance.bbox_xywh
            assert 0 <= x <= x + width <= 64 and 0 <= y <= y + height <= 48 and instance.area_px2 > 0
        assert dataset.findings
    assert tried(source).seconds < 2


def test_a_circle_with_a_radius_of_a_billion_covers_the_image(tmp_path: Path) -> None:
    labelme_file(tmp_path / "set" / "a.json", shape([[5, 5], [1e9, 5]], kind="circle"))
    outcome = tried(tmp_path / "set")
    assert (outcome.instances, outcome.codes) == (1, ["clipped"])
    (row,) = json.loads((tmp_path / "set-out" / "annotations.json").read_bytes())["annotations"]
    assert row["area"] == 64 * 48


@pytest.mark.parametrize("number", ["1e9", "-1e9", "1e308", HUGE, "NaN", "Infinity", "1e-320"])
def test_far_and_unreal_numbers_in_via(tmp_path: Path, number: str) -> None:
    kinds = {"ellipse": ("cx", "cy", "rx", "ry", "theta"), "circle": ("cx", "cy", "r")}
    kinds["rect"] = ("x", "y", "width", "height")
    regions = [
        {"shape_attributes": {"name": kind, **dict.fromkeys(keys, 5), key: "@"}, "region_attributes": {"k": "cat"}}
        for kind, keys in kinds.items()
        for key in keys
    ]
    photo(tmp_path / "set" / "a.png")
    value = {"a.png1": {"filename": "a.png", "regions": regions}}
    (tmp_path / "set" / "via.json").write_text(with_number(value, number))
    outcome = tried(tmp_path / "set", format="via")
    assert outcome.codes or number == "1e-320"


@pytest.mark.parametrize("place", ["group_id", "imageHeight", "version", "own"])
@pytest.mark.parametrize("number", [HUGE, "9" * 4000, "NaN", "-Infinity", "1e400"])
def test_unreal_numbers_elsewhere_in_labelme(tmp_path: Path, place: str, number: str) -> None:
    value = labelme_value(shape(SQUARE, group_id="@") if place == "group_id" else shape(SQUARE))
    if place != "group_id":
        value[place] = "@"
    source = labelme_text(tmp_path / "set", with_number(value, number))
    for to in ("coco", "labelme"):
        outcome = tried(source, to=to, out=tmp_path / to)
        assert outcome.images == 1 or outcome.codes


@pytest.mark.parametrize(
    "place", ["image id", "image_id", "category id", "category_id", "size", "counts", "width", "bbox"]
)
@pytest.mark.parametrize("number", [HUGE, "9" * 4000, "NaN", "-1", "1e400"])
def test_unreal_numbers_in_coco(tmp_path: Path, place: str, number: str) -> None:
    rle = {"size": [48, "@" if place == "size" else 64], "counts": ["@" if place == "counts" else 100, 20, 2952]}
    one = {"image_id": 1, "category_id": 1, "segmentation": rle, place: "@"}
    two = {"image_id": 1, "category_id": 1, "bbox": ["@" if place == "bbox" else 1, 1, 5, 5]}
    value = {
        "images": [{"id": "@" if place == "image id" else 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": [one, two],
        "categories": [{"id": "@" if place == "category id" else 1, "name": "cat"}],
    }
    if place == "width":
        value["images"][0]["width"] = "@"
    source = labelme_text(tmp_path / "set", with_number(value, number))
    outcome = tried(source, format="coco")
    assert outcome.error or outcome.instances


@pytest.mark.parametrize("part", [[1, 2, 30, 40], [1, 2], [1, 2, 3, 4, 5], [5, 5, 5, 5, 5, 5]])
def test_lists_that_pycocotools_reads_as_boxes(tmp_path: Path, part: list[int]) -> None:
    """Two points are a box to pycocotools, which would become an area that nobody drew."""
    value = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": [part]}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    outcome = tried(labelme_text(tmp_path / "set", json.dumps(value)))
    assert outcome.instances == 0
    assert set(outcome.codes) & {"too_few_points", "bad_point", "zero_area"}


def ring(count: int, *, turns: float = 1.0, inner: float = 1.0, side: int = 1000) -> list[list[float]]:
    """Points on a circle, a spiral, or a star whose edges cross."""
    angle = np.linspace(0, 2 * np.pi * turns, count, endpoint=False)
    radius = np.linspace(inner, 1.0, count) * side * 0.45
    points = np.stack([side / 2 + radius * np.cos(angle), side / 2 + radius * np.sin(angle)], axis=1)
    outline: list[list[float]] = points.tolist()
    return outline


def comb(count: int, side: int = 1000) -> list[list[float]]:
    rows = np.arange(count)
    points = np.stack([rows % 2 * (side - 10.0), rows * (side / count)], axis=1)
    outline: list[list[float]] = np.concatenate([points, [[-10.0, side], [-10.0, 0]]]).tolist()
    return outline


OUTLINES = {
    "circle": (ring, True),
    "circle that sticks out": (lambda count: [[x + 300, y] for x, y in ring(count)], True),
    "wave": (lambda count: [[x, y / 2] for x, y in ring(count)], True),
    "spiral": (lambda count: ring(count, turns=20, inner=0.1) + ring(count, turns=20, inner=0.12)[::-1], False),
    "star": (lambda count: ring(count, turns=count / 2 - 0.5), False),
    "star that sticks out": (lambda count: [[x + 300, y] for x, y in ring(count, turns=count / 2 - 0.5)], False),
    "comb": (comb, False),
    "comb that sticks out": (lambda count: [[x + 500, y] for x, y in comb(count)], False),
    "noise": (lambda count: (np.random.default_rng(0).random((count, 2)) * 1000).tolist(), False),
}


@pytest.mark.extended
@pytest.mark.parametrize("kind", OUTLINES)
def test_an_outline_of_a_million_points(tmp_path: Path, kind: str) -> None:
    """pycocotools crashes on the long ones; whatever can be drawn with a sane length is read."""
    draw, is_sane = OUTLINES[kind]
    labelme_file(tmp_path / "set" / "a.json", shape(draw(1_000_000)), size=(1000, 1000))
    outcome = guarded(tmp_path / "set", seconds=20, megabytes=900)
    assert outcome.instances == (1 if is_sane else 0)
    assert ("outline_too_complex" in outcome.codes) is not is_sane


@pytest.mark.parametrize("count", [1_000, 3_000])
@pytest.mark.parametrize("kind", ["spiral", "star", "comb", "noise"])
def test_an_outline_of_thousands_of_points_is_read(tmp_path: Path, kind: str, count: int) -> None:
    labelme_file(tmp_path / "set" / "a.json", shape(OUTLINES[kind][0](count)), size=(1000, 1000))
    assert tried(tmp_path / "set").instances == 1


@pytest.mark.extended
def test_a_hundred_thousand_shapes_in_a_file(tmp_path: Path) -> None:
    shapes = [shape([[x, y], [x + 3, y], [x, y + 3]]) for x in range(0, 1250, 5) for y in range(0, 2000, 5)]
    assert len(shapes) == 100_000
    labelme_file(tmp_path / "set" / "a.json", *shapes, size=(1250, 2000))
    outcome = guarded(tmp_path / "set", seconds=60, megabytes=900)
    assert outcome.instances == 100_000


@pytest.mark.slow
def test_a_hundred_thousand_shapes_in_a_group(tmp_path: Path) -> None:
    shapes = [shape([[x, y], [x + 3, y], [x, y + 3]], group_id=1) for x in range(0, 1250, 5) for y in range(0, 2000, 5)]
    labelme_file(tmp_path / "set" / "a.json", *shapes, size=(1250, 2000))
    outcome = guarded(tmp_path / "set", seconds=60, megabytes=900)
    assert (outcome.instances, outcome.codes) == (1, [])


@pytest.mark.extended
@pytest.mark.parametrize("nested", ["union", "hole"])
def test_a_hundred_thousand_shapes_of_a_group_on_top_of_one_another(tmp_path: Path, nested: str) -> None:
    labelme_file(tmp_path / "set" / "a.json", *[shape(SQUARE, group_id=1)] * 100_000)
    outcome = guarded(tmp_path / "set", seconds=60, megabytes=900, nested_groups=nested)
    assert outcome.codes == ["group_too_large"]


@pytest.mark.parametrize("seed", range(20))
def test_nesting_is_what_comparing_all_with_all_gives(seed: int) -> None:
    rng = np.random.default_rng(seed)
    size = {"width_px": 200, "height_px": 160}
    rles = []
    for _ in range(60):
        corner, extent = rng.integers(0, 120, 2), rng.integers(1, [2, 9, 40, 80][seed % 4], 2)
        outline = rectangle_points(corner.tolist(), np.minimum(corner + extent, [200, 160]).tolist())
        if rng.random() < 0.5:
            outline = outline[:3]
        rles += [rle for rle in rasterize([outline], **size) if rle_area_px2(rle)]
    masks = [decode_mask(rle) for rle in rles]
    areas = [float(mask.sum()) for mask in masks]
    expected = [
        [
            outer
            for outer in range(len(masks))
            if (areas[outer] > areas[inner] or (areas[outer] == areas[inner] and outer < inner))
            and not (masks[inner] & ~masks[outer]).any()
        ]
        for inner in range(len(masks))
    ]
    assert nesting(rles, areas) == expected


def test_a_crowded_group_is_refused_rather_than_misread() -> None:
    rle = rasterize([rectangle_points((5, 5), (9, 9))], width_px=20, height_px=20)[0]
    assert nesting([rle] * 400, [16.0] * 400)[399] == list(range(399))
    with pytest.raises(CrowdedGroupError, match="500 parts"):
        nesting([rle] * 500, [16.0] * 500)


@pytest.mark.parametrize("brackets", ["[", '{"a":'])
@pytest.mark.parametrize("kind", ["labelme", "via", "coco", "panoptic", "auto"])
def test_a_hundred_thousand_brackets(tmp_path: Path, brackets: str, kind: str) -> None:
    text = '{"shapes": [], "imagePath": "a.png", "own": ' + brackets * 100_000
    assert guarded(labelme_text(tmp_path / "set", text), format=kind).error


@pytest.mark.parametrize("levels", [99, 101, 300, 480, 900, 960])
@pytest.mark.parametrize("place", ["top", "shape", "flags", "points", "label", "group_id"])
def test_values_nested_deep(tmp_path: Path, levels: int, place: str) -> None:
    deep = "[" * levels + "]" * levels
    row = shape(SQUARE, kind="line") if place == "points" else shape(SQUARE)
    value = labelme_value(row)
    if place == "top":
        value["own"] = "@"
    else:
        row["own" if place == "shape" else place] = {"a": "@"} if place == "flags" else "@"
    for to in ("coco", "labelme"):
        outcome = tried(labelme_text(tmp_path / "set", with_number(value, deep)), to=to, out=tmp_path / to)
        assert outcome.error or (outcome.images == 1 and levels < 101)


def xml_file(folder: Path, text: str) -> Path:
    photo(folder / "a.jpg")
    (folder / "a.xml").write_text(text, "utf-8")
    return folder


def test_xml_that_multiplies_itself(tmp_path: Path) -> None:
    entities = "".join(f'<!ENTITY e{n} "{f"&e{n - 1};" * 10}">' for n in range(1, 10))
    text = f'<!DOCTYPE a [<!ENTITY e0 "lol">{entities}]><annotation><filename>&e9;</filename></annotation>'
    outcome = guarded(xml_file(tmp_path / "set", text), format="voc")
    assert "bad_xml" in outcome.codes


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "utf-16-be"])
def test_xml_that_reads_other_files(tmp_path: Path, encoding: str) -> None:
    (tmp_path / "secret.txt").write_text("hidden word")
    entity = f'<!DOCTYPE a [<!ENTITY x SYSTEM "file://{tmp_path}/secret.txt">]>'
    text = f"{entity}<annotation><filename>a.jpg</filename><object><name>&x;</name></object></annotation>"
    source = xml_file(tmp_path / "set", "")
    declared = f'<?xml version="1.0" encoding="{encoding[:6]}"?>'
    (source / "a.xml").write_bytes((declared + text).encode(encoding))
    outcome = tried(source, format="voc")
    assert "bad_xml" in outcome.codes
    assert "hidden" not in str(outcome.error)


@pytest.mark.parametrize("closed", [True, False])
def test_xml_nested_deep(tmp_path: Path, closed: bool) -> None:
    text = "<annotation>" + "<a>" * 100_000 + ("</a>" * 100_000 + "</annotation>" if closed else "")
    outcome = guarded(xml_file(tmp_path / "set", text), format="voc")
    assert outcome.images == 1 if closed else "bad_xml" in outcome.codes


ODD_LABELS = {
    "surrogate": "\ud800cat",
    "escape": "\x1b[2J\x1b]0;title\x07red",
    "line end": "a\nb\r\nc\u2028d\x85e",
    "control": "a\0b\x7f\x9b31m",
    "right to left": "\u202etac",
    "long": "x" * 100_000,
    "emoji": "\U0001f600",
    "formula": "=1+1",
}


@pytest.mark.parametrize("label", ODD_LABELS.values(), ids=ODD_LABELS)
def test_odd_labels_pass_through_every_writer(tmp_path: Path, label: str) -> None:
    source = tmp_path / "set"
    labelme_file(source / "a.json", shape(TRIANGLE, label), shape(SQUARE, label + " "), **{label: label})
    for to in ("coco", "labelme", "semantic", "panoptic", "rle"):
        outcome = tried(source, to=to, out=tmp_path / to, preset="severstal")
        assert outcome.error is None or (to == "rle" and "UTF-8" in outcome.error)
        for path in (tmp_path / to).rglob("*.json") if (tmp_path / to).exists() else ():
            json.loads(path.read_text("utf-8"))
    category = json.loads((tmp_path / "coco" / "annotations.json").read_text("utf-8"))["categories"][0]
    assert category["name"] == label


COMMANDS = """
import json, sys
from d2tune.cli import main
sys.exit(max(main(words) for words in json.load(sys.stdin)))
"""
"""Runs commands one after the other, and ends with the highest of their statuses."""


def d2tune(*commands: list[str | Path], **environment: str) -> subprocess.CompletedProcess[bytes]:
    """Run commands in one process."""
    words = json.dumps([[str(word) for word in command] for command in commands]).encode()
    command = [sys.executable, "-c", COMMANDS]
    return subprocess.run(
        command, input=words, capture_output=True, env=os.environ | environment, timeout=60, check=False
    )


def test_odd_labels_do_nothing_to_the_terminal(tmp_path: Path) -> None:
    """Neither does a terminal that knows ASCII alone stop the command."""
    for number, label in enumerate(ODD_LABELS.values()):
        file = tmp_path / f"{number}" / "a.json"
        labelme_file(file, shape(TRIANGLE, f"é {label} "), shape(TRIANGLE, kind=label))
    plain = {"PYTHONIOENCODING": "ascii", "LANG": "C", "LC_ALL": "C", "PYTHONUTF8": "0"}
    for environment in (plain, {"PYTHONIOENCODING": "utf-8"}):
        findings = [tmp_path / f"{number}.json" for number in range(len(ODD_LABELS))]
        done = d2tune(*(["check", file.with_suffix(""), "--findings", file] for file in findings), **environment)
        assert done.returncode == 0, done.stderr
        assert b"Traceback" not in done.stderr
        text = (done.stdout + done.stderr).decode("utf-8")
        assert all(letter.isprintable() or letter in "\n " for letter in text)
        for file in findings:
            assert json.loads(file.read_text("utf-8"))
            file.unlink()


def test_the_error_line_is_one_line_without_control_characters(tmp_path: Path) -> None:
    labelme_file(tmp_path / "set" / "a.json", shape(TRIANGLE, "\x1b[31mcat\nfish"))
    (tmp_path / "labels.txt").write_text("dog")
    done = d2tune(["convert", tmp_path / "set", "--out", tmp_path / "out", "--labels", tmp_path / "labels.txt"])
    assert done.returncode == 1
    assert b"\x1b" not in done.stdout + done.stderr
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.extended
def test_ten_thousand_labels(tmp_path: Path) -> None:
    shapes = [shape(TRIANGLE, f"label {number}") for number in range(10_000)]
    labelme_file(tmp_path / "set" / "a.json", *shapes)
    outcome = tried(tmp_path / "set", seconds=10)
    assert outcome.instances == 10_000
    assert tried(tmp_path / "set", to="semantic", seconds=10, out=tmp_path / "png").error


def csv_file(folder: Path, text: bytes, *, side: int = 64) -> Path:
    photo(folder / "a.png", side, side)
    (folder / "t.csv").write_bytes(text)
    return folder


def read_csv(source: Path, **bounds: Any) -> Outcome:
    return guarded(source, format="rle", preset="airbus", class_name="ship", **bounds)


def test_a_table_with_a_million_runs(tmp_path: Path) -> None:
    runs = b" ".join(b"%d 1" % (2 * number + 1) for number in range(1_000_000))
    source = csv_file(tmp_path / "set", b"ImageId,EncodedPixels\na.png," + runs + b"\n", side=1500)
    outcome = read_csv(source, seconds=10)
    assert (outcome.instances, outcome.error) == (1, None)


def test_a_table_line_of_ten_megabytes(tmp_path: Path) -> None:
    source = csv_file(tmp_path / "set", b"ImageId,EncodedPixels\na.png," + b"7" * 10_000_000 + b"\n")
    assert "bad_rle" in read_csv(source).codes


ODD_TABLES = {
    "nul": b"ImageId,EncodedPixels\na.png,1 \0 5\n",
    "quote": b'ImageId,EncodedPixels\na.png,"1 5\n' * 50,
    "quoted header": b'"ImageId,EncodedPixels\na.png,1 5\n',
    "no end": b"ImageId,EncodedPixels\na.png,1 5 9",
    "returns": b"ImageId,EncodedPixels\ra.png,1 0\r",
    "many columns": b"ImageId,EncodedPixels\n" + b"x," * 1_000_000,
    "huge number": b"ImageId,EncodedPixels\na.png,1 " + b"9" * 5000 + b"\n",
    "unicode digits": "ImageId,EncodedPixels\na.png,\u0661 \u0662\n".encode(),
    "escape": b"ImageId,EncodedPixels\n\x1b[31m.png,1 5\n",
}


@pytest.mark.parametrize("text", ODD_TABLES.values(), ids=ODD_TABLES)
def test_odd_tables(tmp_path: Path, text: bytes) -> None:
    assert read_csv(csv_file(tmp_path / "set", text)).error


@pytest.mark.slow
def test_run_lengths_with_a_million_counts(tmp_path: Path) -> None:
    side = 1500
    counts = [1] * 1_000_000 + [side * side - 1_000_000]
    value = {
        "images": [{"id": 1, "file_name": "a.png"}],
        "annotations": [{"image_id": 1, "category_id": 1, "segmentation": {"size": [side, side], "counts": counts}}],
        "categories": [{"id": 1, "name": "cat"}],
    }
    source = labelme_text(tmp_path / "set", json.dumps(value))
    photo(source / "a.png", side, side)
    outcome = guarded(source, seconds=10)
    assert (outcome.instances, outcome.error) == (1, None)


@pytest.mark.extended
def test_a_file_of_200_megabytes(tmp_path: Path) -> None:
    text = json.dumps(labelme_value(shape(TRIANGLE)))[:-1] + ', "own": "' + "x" * 200_000_000 + '"}'
    outcome = guarded(labelme_text(tmp_path / "set", text), seconds=10, megabytes=1500)
    assert outcome.instances == 1


def test_a_label_with_a_surrogate_is_named_in_the_findings(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(TRIANGLE, "\ud800"), shape(SQUARE, " \udfff"))
    dataset = labelme.read(tmp_path, ReadOptions(labels=["cat"]))
    assert [code for _, code, _ in codes(dataset)] == ["unknown_label", "label_whitespace", "unknown_label"]


def test_holes_that_cover_all_of_a_group(tmp_path: Path) -> None:
    """The second of two equal parts is a hole that takes all of the first."""
    labelme_file(tmp_path / "a.json", shape(TRIANGLE, group_id=1), shape(TRIANGLE, group_id=1), shape(SQUARE))
    dataset = labelme.read(tmp_path, ReadOptions(nested_groups="hole"))
    assert [instance.shapes for instance in dataset.instances] == [(2,)]
    assert codes(dataset) == [("warning", "rasterizes_empty", 0), ("warning", "rasterizes_empty", 1)]
    assert [row.fate for row in dataset.ledger] == ["dropped", "dropped", "kept"]
