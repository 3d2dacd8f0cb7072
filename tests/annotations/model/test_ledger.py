"""Every shape has one row with its fate."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from d2tune.annotations.convert import FindingsError, check, convert, read_dataset
from d2tune.annotations.model.ledger import COLUMNS, LedgerRow, summary, write_ledger
from d2tune.annotations.model.options import ReadOptions
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_value, photo, png_base64, shape
from tests.shared_files import SHARED


def read(tmp_path: Path, *shapes: dict[str, Any], top: dict[str, Any] | None = None, **options: Any) -> list[LedgerRow]:
    photo(tmp_path / "a.png")
    (tmp_path / "a.json").write_text(json.dumps(labelme_value(*shapes, **(top or {}))), "utf-8")
    return list(read_dataset(tmp_path, options=ReadOptions(**options)).ledger)


def test_one_row_for_every_shape_in_the_order_of_the_file(tmp_path: Path) -> None:
    rows = read(
        tmp_path,
        shape(SQUARE, "box"),
        shape([[-5, 10], [20, 10], [20, 30], [-5, 30]], "box"),
        shape([[1, 1], [9, 9]], "edge", "line"),
        shape(TRIANGLE, "cat", group_id=1),
        shape([[40, 20], [50, 20], [50, 30]], "cat", group_id=1),
        shape([[100, 100], [120, 100], [120, 120]], "box"),
        shape(SQUARE, "__ignore__"),
        shape([[1, float("nan")], [2, 2], [3, 1]], "box"),
        shape([[5, 6], [7, 8]], "cell", "mask", mask=png_base64(np.eye(3))),
    )
    assert [(row.shape, row.fate, row.codes, row.instances) for row in rows] == [
        (0, "kept", (), (1,)),
        (1, "clipped", ("clipped",), (2,)),
        (2, "dropped", ("unsupported_shape_type",), ()),
        (3, "merged", (), (3,)),
        (4, "merged", (), (3,)),
        (5, "dropped", ("outside_image",), ()),
        (6, "dropped", ("ignored_label",), ()),
        (7, "dropped", ("non_finite_coordinate",), ()),
        (8, "kept", (), (4,)),
    ]
    assert {row.file for row in rows} == {"a.json"} and {row.image for row in rows} == {"a.png"}
    assert rows[0].why == "used as annotated"
    assert rows[1].why == "the shape extends beyond the 64 x 48 px image and was clipped"
    assert rows[3].why == "one of the 2 shapes of instance 3"
    assert rows[5].why == "the shape lies outside the 64 x 48 px image; dropped"
    assert summary(rows) == "9 shapes: 2 kept, 1 clipped, 2 merged, 4 dropped"


def test_a_shape_with_a_harmless_warning_is_kept_and_names_the_warning(tmp_path: Path) -> None:
    (row,) = read(tmp_path, shape(SQUARE, " box "))
    assert (row.fate, row.label, row.codes, row.why) == ("kept", "box", ("label_whitespace",), "used as annotated")


def test_skipped_predictions_have_a_reason(tmp_path: Path) -> None:
    rows = read(tmp_path, shape(SQUARE, flags={"prediction": True}), shape(TRIANGLE), no_predictions=True)
    assert [(row.fate, row.why) for row in rows] == [
        ("dropped", "flagged as a prediction"),
        ("kept", "used as annotated"),
    ]


def test_all_shapes_of_a_file_with_errors_have_rows(tmp_path: Path) -> None:
    rows = read(tmp_path, shape(SQUARE), shape(TRIANGLE), top={"imageWidth": 99})
    assert [(row.shape, row.fate) for row in rows] == [(0, "dropped"), (1, "dropped")]
    assert rows[0].why == "the file states 99 x 48 px, the image has 64 x 48"


def test_skip_bad_drops_the_good_shapes_of_a_bad_file_too(tmp_path: Path) -> None:
    rows = read(tmp_path, shape(SQUARE), shape([[1, 2]], kind="rectangle"), skip_bad=True)
    assert [row.fate for row in rows] == ["dropped", "dropped"]
    assert rows[0].why == "the file is excluded"
    assert rows[1].why.startswith("a shape of type rectangle needs 2 or 4 points, this shape has 1")


def test_the_second_file_of_an_image_is_dropped(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    for name in ("a.json", "b.json"):
        (tmp_path / name).write_text(json.dumps(labelme_value(shape(SQUARE))), "utf-8")
    rows = read_dataset(tmp_path).ledger
    assert [(row.file, row.fate) for row in rows] == [("a.json", "kept"), ("b.json", "dropped")]
    assert "already annotated in a.json" in rows[1].why


def test_masks_that_are_split_name_all_their_instances(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    (tmp_path / "a.csv").write_text("ImageId,EncodedPixels\na.png,1 2 100 2\na.png,7 x\n", "utf-8")
    options = ReadOptions(preset="airbus", class_name="ship", split_components=True)
    rows = read_dataset(tmp_path, options=options).ledger
    assert [(row.shape, row.line, row.fate, row.instances) for row in rows] == [
        (0, None, "kept", (1, 2)),
        (None, 3, "dropped", ()),
    ]
    assert rows[0].why == "split into 2 instances"


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_ledger_files(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / "in"
    source.mkdir()
    read(source, shape(SQUARE), shape([[1, 1]], kind="point"), shape(SQUARE, 'a,"b"\n<c>'))
    path = tmp_path / f"ledger{suffix}"
    convert(source, out=tmp_path / "out", ledger_path=path)
    text = path.read_text("utf-8")
    rows = json.loads(text) if suffix == ".json" else list(csv.DictReader(text.splitlines(keepends=True)))
    assert all(tuple(row) == COLUMNS for row in rows)
    assert [row["fate"] for row in rows] == ["kept", "dropped", "kept"]
    assert rows[2]["label"] == 'a,"b"\n<c>'
    assert rows[1]["codes"] == (["unsupported_shape_type"] if suffix == ".json" else "unsupported_shape_type")


def test_the_ledger_is_written_when_there_are_errors(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    read(source, shape(SQUARE), shape([[1, 2]], kind="rectangle"))
    with pytest.raises(FindingsError) as caught:
        convert(source, out=tmp_path / "out", ledger_path=tmp_path / "ledger.json")
    assert [row.fate for row in caught.value.ledger] == ["kept", "dropped"]
    assert len(json.loads((tmp_path / "ledger.json").read_text("utf-8"))) == 2
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["balloon/train", "microcontrollers/train", "labelme_zoo"])
def test_real_folders_account_for_every_shape(name: str) -> None:
    source = SHARED / "data" / name
    result = check(source, options=ReadOptions(class_name="balloon"))
    used = [row for row in result.dataset.ledger if row.fate != "dropped"]
    assert {number for row in used for number in row.instances} == {
        instance.id for instance in result.dataset.instances
    }
    assert sum(len(instance.shapes) for instance in result.dataset.instances) == sum(len(row.instances) for row in used)
    shapes = 0
    for path in source.rglob("*.json"):
        value = json.loads(path.read_bytes().decode("utf-8-sig", errors="replace"))
        if "shapes" in value:
            shapes += len(value["shapes"])
        else:
            shapes += sum(len(entry["regions"]) for entry in value.values())
    assert len(result.dataset.ledger) == shapes


@pytest.mark.parametrize("label", ["=1+1", '=HYPERLINK("http://x")', "+1", "-1", "@a", "a", "a=1", "'=1"])
def test_no_cell_of_the_table_is_a_formula(label: str, tmp_path: Path) -> None:
    rows = [LedgerRow(file=f"{label}.json", fate="kept", shape=-1, image=label, label=label)]
    write_ledger(tmp_path / "l.csv", rows)
    with (tmp_path / "l.csv").open(encoding="utf-8", newline="") as stream:
        (row,) = csv.DictReader(stream)
    prefix = "'" if label[0] in "=+-@" else ""
    assert (row["label"], row["image"], row["file"]) == (prefix + label, prefix + label, f"{prefix}{label}.json")
    assert row["shape"] == "-1", "numbers stay numbers"
    write_ledger(tmp_path / "l.json", rows)
    assert json.loads((tmp_path / "l.json").read_text("utf-8"))[0]["label"] == label
    write_ledger(tmp_path / "l.csv", rows)
