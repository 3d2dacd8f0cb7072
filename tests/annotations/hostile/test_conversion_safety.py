"""What a conversion must not lose: a person's files, a second part's findings, classes, names."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from d2tune import api
from d2tune.annotations.convert import FindingsError, check, convert, read_dataset, write_findings
from d2tune.annotations.model.ledger import write_ledger
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, photo, shape


@pytest.mark.parametrize("option", ["findings_path", "ledger_path"])
def test_reports_never_replace_a_drawing(tmp_path: Path, option: str) -> None:
    drawing = labelme_file(tmp_path / "in" / "a.json", shape(SQUARE))
    before = drawing.read_bytes()
    with pytest.raises(DataError, match="not of this kind, and is not overwritten"):
        convert(tmp_path / "in", out=tmp_path / "out", **{option: drawing})
    assert drawing.read_bytes() == before and not (tmp_path / "out").exists()


def test_earlier_reports_are_replaced(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE), shape([[1, 1]], kind="point"))
    result = check(tmp_path)
    for path in (tmp_path / "x" / "ledger.csv", tmp_path / "x" / "ledger.json"):
        for rows in (result.dataset.ledger, result.dataset.ledger[:1]):
            write_ledger(path, rows)
    for findings in (result.findings, ()):
        write_findings(tmp_path / "x" / "findings.json", findings)
    assert json.loads((tmp_path / "x" / "findings.json").read_text("utf-8")) == []
    assert len(json.loads((tmp_path / "x" / "ledger.json").read_text("utf-8"))) == 1


def project(folder: Path, *, broken: tuple[str, ...]) -> Path:
    for part in ("train", "val"):
        labelme_file(folder / "data" / part / "a.json", shape(SQUARE, "cat"), shape(TRIANGLE, "cat"))
        if part in broken:
            labelme_file(folder / "data" / part / "b.json", shape([[1, 2]], "cat", "rectangle"))
    path = folder / "p.yaml"
    path.write_text("data: {root: data}\nclasses: [cat]\nweights: scratch\n", "utf-8")
    return path


def test_a_project_writes_no_split_where_another_has_errors(tmp_path: Path) -> None:
    path = project(tmp_path, broken=("val",))
    with pytest.raises(FindingsError):
        api.convert(path)
    assert not (tmp_path / "data" / "coco").exists()


def test_errors_of_a_split_do_not_hide_those_of_another(tmp_path: Path) -> None:
    path = project(tmp_path, broken=("train", "val"))
    with pytest.raises(FindingsError) as caught:
        api.convert(path, findings_path=tmp_path / "f.json", ledger_path=tmp_path / "l.csv")
    assert [finding.code for finding in caught.value.findings] == ["wrong_point_count"] * 2
    assert len(json.loads((tmp_path / "f.json").read_text("utf-8"))) == 2
    with (tmp_path / "l.csv").open(newline="") as stream:
        assert len(list(csv.DictReader(stream))) == 6


def test_options_beside_a_project_hold_for_both_parts(tmp_path: Path) -> None:
    path = project(tmp_path, broken=())
    for part in ("train", "val"):
        labelme_file(tmp_path / "data" / part / "b.json", shape(SQUARE, "cat", flags={"prediction": True}))
    kept, dropped = (
        sum(len(result.dataset.instances) for result in api.convert(path, out=tmp_path / name, overrides=overrides))
        for name, overrides in (("kept", {}), ("dropped", {"no_predictions": True}))
    )
    assert (kept, dropped) == (6, 4)
    path.write_text(path.read_text("utf-8").replace("{root: data}", "{root: data, predictions: drop}"), "utf-8")
    assert sum(len(result.dataset.instances) for result in api.convert(path, out=tmp_path / "said")) == 4


def test_a_dialect_without_classes_refuses_several(tmp_path: Path) -> None:
    labelme_file(tmp_path / "in" / "a.json", shape(SQUARE, "cat"), shape(TRIANGLE, "dog"))
    with pytest.raises(DataError, match="names no class, and the annotations have several"):
        convert(tmp_path / "in", out=tmp_path / "out", to="rle", options=ReadOptions(preset="airbus"))
    dropped = ReadOptions(preset="airbus", rename={"dog": None})
    assert convert(tmp_path / "in", out=tmp_path / "out", to="rle", options=dropped).paths


def test_a_carriage_return_in_a_name_survives_the_csv(tmp_path: Path) -> None:
    labelme_file(tmp_path / "in" / "a\rb.json", shape(SQUARE, "cat"))
    options = ReadOptions(preset="severstal")
    (path,) = convert(tmp_path / "in", out=tmp_path / "out", to="rle", options=options).paths
    again = read_dataset(path, format="rle", options=ReadOptions(preset="severstal", image_root=tmp_path / "in"))
    assert [image.file_name for image in again.images] == ["a\rb.png"] and len(again.instances) == 1


def test_coco_labels_in_the_old_style_lose_their_numbers(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    rows = [{"id": number, "image_id": 1, "category_id": number, "bbox": [number, 1, 9, 9]} for number in (1, 2)]
    coco = {
        "images": [{"id": 1, "file_name": "a.png", "width": 64, "height": 48}],
        "annotations": rows,
        "categories": [{"id": 1, "name": "person-1"}, {"id": 2, "name": "person-2"}],
    }
    (tmp_path / "a.json").write_text(json.dumps(coco), "utf-8")
    dataset = read_dataset(tmp_path / "a.json", options=ReadOptions(instance_suffix="strip"))
    assert dataset.class_names == ("person",) and len(dataset.instances) == 2


@pytest.mark.parametrize("layout", ["beside", "apart"])
def test_own_label_images_are_read_back_with_their_classes(tmp_path: Path, layout: str) -> None:
    source = tmp_path / "images"
    labelme_file(source / "a.json", shape(SQUARE, "cat"), shape([[30, 20], [50, 20], [50, 40]], "sky"))
    masks = tmp_path / "masks"
    convert(source, out=masks, to="semantic", options=ReadOptions(stuff=("sky",)))
    if layout == "beside":
        (source / "a.json").unlink()
        dataset = read_dataset(tmp_path, format="masks")
    else:
        dataset = read_dataset(masks, format="masks", options=ReadOptions(image_root=source))
    assert [(category.name, category.isthing) for category in dataset.categories] == [("cat", True), ("sky", False)]
    assert [(instance.category_id, instance.area_px2) for instance in dataset.instances] == [
        (1, 100),
        (2, pytest.approx(200, abs=15)),
    ]
    assert not dataset.errors()


@pytest.mark.parametrize("offset", [float("nan"), float("inf"), 1e300, 2])
def test_a_pixel_offset_beyond_1_is_refused(tmp_path: Path, offset: float) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    with pytest.raises(DataError, match="pixel offset must be between -1 and 1"):
        read_dataset(tmp_path, options=ReadOptions(pixel_offset=offset))


def test_a_folder_format_is_not_written_to_a_file(tmp_path: Path) -> None:
    labelme_file(tmp_path / "in" / "a.json", shape(SQUARE))
    with pytest.raises(DataError, match="written to a folder"):
        convert(tmp_path / "in", out=tmp_path / "x.json", to="labelme")
    assert np.all([path.name == "in" for path in tmp_path.iterdir()])
