"""The last section of the conversion contract through the real command."""

from __future__ import annotations

import contextlib
import io
import json
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.cli import main
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, photo, shape

OUTER = [[5, 4], [45, 4], [45, 44], [5, 44]]
INNER = [[15, 14], [35, 14], [35, 34], [15, 34]]


@dataclass(frozen=True)
class Done:
    """What a command left behind."""

    stdout: str
    stderr: str


def d2tune(*words: object, status: int = 0) -> Done:
    """Run the command in this process, which is quick."""
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        actual = main([*map(str, words)])
    assert actual == status, out.getvalue() + err.getvalue()
    return Done(out.getvalue(), err.getvalue())


def process(*words: object, status: int = 0) -> Done:
    """Run the installed command in a process of its own."""
    command = [str(Path(sys.executable).with_name("d2tune")), *map(str, words)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == status, done.stdout + done.stderr
    assert "Traceback" not in done.stderr
    return Done(done.stdout, done.stderr)


def via_folder(folder: Path) -> Path:
    rect = {"name": "rect", "x": 10, "y": 20, "width": 20, "height": 20}
    rows = [{"shape_attributes": rect, "region_attributes": {"kind": {"dog": True}, "color": "red"}}]
    rows.append({"shape_attributes": rect | {"x": 35}, "region_attributes": {}})
    photo(folder / "a.png")
    (folder / "v.json").write_text(json.dumps({"a.png9": {"filename": "a.png", "size": 9, "regions": rows}}))
    return folder


def csv_folder(folder: Path) -> Path:
    photo(folder / "a.png", 6, 4)
    (folder / "m.csv").write_text("ImageId,EncodedPixels\na.png,1 1 24 1\n")
    return folder


def group_folder(folder: Path) -> Path:
    labelme_file(folder / "a.json", shape(OUTER, group_id=1), shape(INNER, group_id=1))
    return folder


def suffix_folder(folder: Path) -> Path:
    labelme_file(folder / "a.json", shape(TRIANGLE, "person-1"), shape(SQUARE, "person-1"))
    return folder


def outside_folder(folder: Path) -> Path:
    labelme_file(folder / "a.json", shape(TRIANGLE), image="../elsewhere/p.png", draw=False)
    photo(folder.parent / "elsewhere" / "p.png")
    return folder


def apart_folder(folder: Path) -> Path:
    labelme_file(folder / "a.json", shape(TRIANGLE), image="p.png", draw=False)
    photo(folder.parent / "elsewhere" / "p.png")
    return folder


def predicted_folder(folder: Path) -> Path:
    labelme_file(folder / "a.json", shape(TRIANGLE), shape(SQUARE, flags={"prediction": True}))
    return folder


def unlabeled_folder(folder: Path) -> Path:
    labelme_file(folder / "a.json", shape(TRIANGLE))
    photo(folder / "b.png")
    return folder


def color_folder(folder: Path) -> Path:
    photo(folder / "images" / "a.jpg")
    pixels = np.zeros((48, 64, 3), dtype=np.uint8)
    pixels[5:15, 5:15] = (250, 0, 0)
    (folder / "masks").mkdir()
    PilImage.fromarray(pixels).save(folder / "masks" / "a.png")
    (folder.parent / "colors.csv").write_text("name,r,g,b\nroof,250,0,0\n")
    return folder


# What each option makes of the categories and areas; None: an error without the option.
OPTIONS: list[tuple[Any, list[str], Any, Any]] = [
    (group_folder, ["--nested-groups", "hole"], ["cat 1600"], ["cat 1200"]),
    # The triangle of 300 px and the square of 100 px share 25 px when they are one person.
    (suffix_folder, ["--instance-suffix", "strip"], ["person-1 300", "person-1 100"], ["person 375"]),
    (outside_folder, ["--allow-outside"], None, ["cat 300"]),
    (apart_folder, ["--image-root", "{above}"], None, ["cat 300"]),
    (apart_folder, ["--image-root", "{above}/elsewhere"], None, ["cat 300"]),
    (predicted_folder, ["--no-predictions"], ["cat 300", "cat 100"], ["cat 300"]),
    (unlabeled_folder, ["--include-unlabeled"], ["cat 300"], ["cat 300"]),
    (via_folder, ["--class-attribute", "kind", "--class-name", "thing"], None, ["dog 400", "thing 400"]),
    (via_folder, ["--format", "via", "--class-name", "thing"], None, ["thing 400", "thing 400"]),
    (csv_folder, ["--preset", "airbus", "--class-name", "ship"], None, ["ship 2"]),
    (csv_folder, ["--preset=airbus", "--class-name=ship", "--split-components"], None, ["ship 1", "ship 1"]),
    (color_folder, ["--format", "masks", "--color-map", "{above}/colors.csv"], None, ["roof 100"]),
]


@pytest.mark.parametrize(("make", "words", "plain", "wanted"), OPTIONS)
def test_every_way_of_reading_works_in_convert_and_check(
    tmp_path: Path, make: Any, words: list[str], plain: list[str] | None, wanted: list[str] | None
) -> None:
    source = make(tmp_path / "source")
    words = [word.format(above=tmp_path) for word in words]
    for options, answer in ((words, wanted), ([], plain)):
        out = tmp_path / f"out{len(options)}.json"
        d2tune("convert", source, "--out", out, *options, status=0 if answer else 1)
        d2tune("check", source, *options, status=0 if answer else 1)
        assert out.exists() == bool(answer)
        if answer:
            value = json.loads(out.read_text("utf-8"))
            names = {row["id"]: row["name"] for row in value["categories"]}
            rows = [f"{names[row['category_id']]} {row['area']}" for row in value["annotations"]]
            assert rows == answer
            assert len(value["images"]) == 1 + ("--include-unlabeled" in options)


def test_the_pixel_offset_of_the_balloon_tutorial(tmp_path: Path) -> None:
    via_folder(tmp_path / "source")
    d2tune("convert", tmp_path / "source", "--class-name", "b", "--pixel-offset", "0.5", "--out", tmp_path / "o.json")
    rows = json.loads((tmp_path / "o.json").read_text())["annotations"]
    assert [row["bbox"] for row in rows] == [[10.5, 20.5, 20, 20], [35.5, 20.5, 20, 20]]


@pytest.mark.parametrize(
    ("to", "files"),
    [
        ("coco", ["annotations.json"]),
        ("labelme", ["a.json"]),
        ("semantic", ["a.png", "categories.json"]),
        ("panoptic", ["instances.json", "panoptic.json", "panoptic/a.png", "stuff/a.png"]),
        ("rle", ["masks.csv"]),
    ],
)
def test_every_target_with_labels_and_stuff(tmp_path: Path, to: str, files: list[str]) -> None:
    labelme_file(tmp_path / "source" / "a.json", shape(OUTER, "sky"), shape(INNER, "car"))
    (tmp_path / "labels.txt").write_text("__ignore__\n_background_\nsky\ncar\nunused\n")
    words = ["--labels", tmp_path / "labels.txt", "--stuff", "sky, unused", "--preset", "severstal", "--to", to]
    out = tmp_path / "out"
    d2tune("convert", tmp_path / "source", *words, "--out", out)
    written = [path for path in out.rglob("*") if path.is_file() and path.name != ".d2tune-outputs.jsonl"]
    assert sorted(path.relative_to(out).as_posix() for path in written) == files
    if to == "coco":
        value = json.loads((out / "annotations.json").read_text())
        assert [tuple(row.values()) for row in value["categories"]] == [(1, "sky", 0), (2, "car", 1), (3, "unused", 0)]
        assert [row["category_id"] for row in value["annotations"]] == [2]
    # What is there is not overwritten, but the same COCO bytes may be written again.
    again = d2tune("convert", tmp_path / "source", *words, "--out", out, status=0 if to == "coco" else 1)
    assert to == "coco" or "--force" in again.stderr
    d2tune("convert", tmp_path / "source", *words, "--out", out, "--force")


@pytest.mark.slow
def test_errors_warnings_strict_and_leaving_out(tmp_path: Path) -> None:
    source = tmp_path / "source"
    labelme_file(source / "a.json", shape(TRIANGLE, "cat "))
    labelme_file(source / "b.json", shape([[1, 2], [3, float("nan")], [4, 4]]))
    (source / "c.json").write_text('{"shapes": [\n  {]')
    out, findings = tmp_path / "out", tmp_path / "findings.json"

    done = process("convert", source, "--out", out, "--findings", findings, status=1)
    assert not out.exists() and len(done.stderr.strip().splitlines()) == 1
    rows = json.loads(findings.read_text("utf-8"))
    assert [(row["level"], row["code"], row["file"], row["shape"]) for row in rows] == [
        ("warning", "label_whitespace", "a.json", 0),
        ("error", "non_finite_coordinate", "b.json", 0),
        ("error", "bad_json", "c.json", None),
    ]
    assert (rows[2]["line"], rows[2]["column"]) == (2, 4)
    checked = d2tune("check", source, "--findings", tmp_path / "again.json", status=1)
    assert (tmp_path / "again.json").read_bytes() == findings.read_bytes() and "bad_json" in checked.stdout

    left = d2tune("convert", source, "--out", out, "--skip-bad", "--findings", findings)
    assert "b.json" in left.stdout and "c.json" in left.stdout
    assert {row["level"] for row in json.loads(findings.read_text("utf-8"))} == {"warning"}
    value = json.loads((out / "annotations.json").read_text("utf-8"))
    assert [row["file_name"] for row in value["images"]] == ["a.png"]
    d2tune("check", source, "--skip-bad")
    for name in ("b.json", "b.png", "c.json"):
        (source / name).unlink()
    d2tune("check", source)
    d2tune("check", source, "--strict", status=1)
    d2tune("convert", source, "--out", tmp_path / "strict", "--strict", status=1)
    assert not (tmp_path / "strict").exists()


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["{source}", "--format", "labelmee"], "Did you mean 'labelme'"),
        (["{source}", "--stuff", "sky"], "stuff class"),
        (["{source}", "--labels", "gone.txt"], "gone.txt"),
        (["{source}/gone"], "no such file or folder"),
        (["{source}", "--format", "rle"], "--preset"),
        (["{source}", "--image-root", "gone"], "image root"),
        (["{source}", "--format", "coco"], "COCO"),
        (["{source}", "--color-map", "gone.csv", "--format", "masks"], "gone.csv"),
    ],
)
def test_a_mistake_is_one_line(tmp_path: Path, words: list[str], message: str) -> None:
    labelme_file(tmp_path / "a.json", shape(TRIANGLE))
    words = [word.format(source=tmp_path) for word in words]
    for done in (
        d2tune("check", *words, status=1),
        d2tune("convert", *words, "--out", tmp_path / "out", status=1),
    ):
        assert len(done.stderr.strip().splitlines()) == 1 and message in done.stderr
    assert not (tmp_path / "out").exists()
