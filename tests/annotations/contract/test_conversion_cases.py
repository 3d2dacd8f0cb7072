"""Every worked case of the shared folder: what is read, the findings, and what is written."""

from __future__ import annotations

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pycocotools.mask as coco_mask
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import FindingsError, check, convert
from d2tune.annotations.model.options import ReadOptions
from tests.shared_files import SHARED

CASES = sorted(path.name for path in (SHARED / "conversion_cases").iterdir())
PAINTED = ("semantic", "panoptic", "separated_sem_seg")
READ_OPTIONS = {field.name for field in dataclasses.fields(ReadOptions)}


def answers(name: str) -> dict[str, Any]:
    expected: dict[str, Any] = json.loads((SHARED / "conversion_cases" / name / "expected.json").read_text("utf-8"))
    return expected


def case(name: str, tmp_path: Path) -> tuple[Path, dict[str, Any], str, ReadOptions]:
    """A copy of a case without its answers, the answers, the format and the options."""
    source = tmp_path / "source"
    shutil.copytree(SHARED / "conversion_cases" / name, source)
    expected = answers(name)
    (source / "expected.json").unlink()
    options = dict(expected["options"])
    expected["strict"] = options.pop("strict", False)
    format = options.pop("format", "auto")
    if "stuff" in options:
        options["stuff"] = options["stuff"].split(",")
    assert set(options) <= READ_OPTIONS
    return source, expected, format, ReadOptions(labels=expected["labels"], **options)


def issues(rows: list[dict[str, Any]], like: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """What the rows say of file, place, level and code, as far as the answers speak of it."""
    keys = ["shape", *(key for key in ("line", "column") if any(row.get(key) is not None for row in like))]
    places = [tuple(-1 if row.get(key) is None else row[key] for key in keys) for row in rows]
    return sorted((row["file"], place, row["level"], row["code"]) for row, place in zip(rows, places, strict=True))


@pytest.mark.parametrize("name", CASES)
def test_findings_and_images_are_as_expected(name: str, tmp_path: Path) -> None:
    source, expected, format, options = case(name, tmp_path)
    result = check(source, format=format, options=options, strict=expected["strict"])
    rows = [finding.to_json() for finding in result.findings]
    assert issues(rows, expected["issues"]) == issues(expected["issues"], expected["issues"])
    for issue in expected["issues"]:
        expected_row = {key: issue[key] for key in ("code", "file", "hint", "also") if key in issue}
        assert any(expected_row.items() <= row.items() for row in rows)
    images = [{"file_name": i.file_name, "width": i.width_px, "height": i.height_px} for i in result.dataset.images]
    assert images == expected["images"]


@pytest.mark.parametrize("name", CASES)
def test_format_is_recognized(name: str, tmp_path: Path) -> None:
    source, _expected, format, options = case(name, tmp_path)
    named = check(source, format="labelme" if format == "auto" else format, options=options)
    assert check(source, options=options).dataset.content_hash() == named.dataset.content_hash()


@pytest.mark.parametrize("name", CASES)
def test_coco_is_as_expected(name: str, tmp_path: Path) -> None:
    source, expected, format, options = case(name, tmp_path)
    out = tmp_path / "out"
    if expected["outcome"] == "error":
        with pytest.raises(FindingsError):
            convert(source, out=out, format=format, options=options, strict=expected["strict"])
        assert not out.exists()
        return
    convert(source, out=out, format=format, options=options, strict=expected["strict"])
    coco = json.loads((out / "annotations.json").read_text("utf-8"))
    assert coco["categories"] == expected["categories"]
    assert [row["id"] for row in coco["annotations"]] == list(range(1, len(coco["annotations"]) + 1))
    name_of = {row["id"]: row["name"] for row in coco["categories"]}
    file_of = {row["id"]: row for row in coco["images"]}
    assert len(coco["annotations"]) == len(expected["annotations"])
    for row, wanted in zip(coco["annotations"], expected["annotations"], strict=True):
        image = file_of[row["image_id"]]
        assert (image["file_name"], name_of[row["category_id"]]) == (wanted["image"], wanted["category"])
        assert row["iscrowd"] == wanted["iscrowd"]
        assert row.get("difficult", 0) == wanted.get("difficult", 0)
        assert row["bbox"] == pytest.approx(wanted["bbox"], abs=wanted.get("bbox_tol", 0.01))
        compare_pixels(row, wanted, image)


def compare_pixels(row: dict[str, Any], wanted: dict[str, Any], image: dict[str, Any]) -> None:
    height_px, width_px = image["height"], image["width"]
    segmentation = row["segmentation"]
    if isinstance(segmentation, dict):
        assert wanted["segmentation_kind"].startswith("rle")
        mask = coco_mask.decode(segmentation)
    else:
        mask = coco_mask.decode(coco_mask.merge(coco_mask.frPyObjects(segmentation, height_px, width_px)))
    assert row["area"] == mask.sum()
    if "area_rel_tol" in wanted:
        assert row["area"] == pytest.approx(wanted["area_exact"], rel=wanted["area_rel_tol"])
    else:
        assert row["area"] == pytest.approx(wanted.get("area_px_pycocotools", wanted["area_exact"]), abs=1)
    if "n_parts" in wanted:
        assert len(segmentation) == wanted["n_parts"]
    if "polygons" in wanted:
        assert [np.reshape(part, (-1, 2)).tolist() for part in segmentation] == wanted["polygons"]
    if "rle" in wanted:
        assert np.array_equal(mask, coco_mask.decode(wanted["rle"]))
    if "min_iou_vs_disk" in wanted:
        y, x = np.mgrid[:height_px, :width_px] + 0.5
        disk = np.hypot(x - 32, y - 24) <= 15
        assert disk.sum() == wanted["disk_px"]
        assert (mask & disk).sum() / (mask | disk).sum() >= wanted["min_iou_vs_disk"]
        assert len(segmentation[0]) / 2 >= wanted["min_vertices"]


@pytest.mark.parametrize("name", [name for name in CASES if any(key in answers(name) for key in PAINTED)])
def test_semantic_and_panoptic_are_as_expected(name: str, tmp_path: Path) -> None:
    source, expected, format, options = case(name, tmp_path)
    (image,) = expected["images"]
    stem = Path(image["file_name"]).with_suffix(".png")
    convert(source, to="semantic", out=tmp_path / "semantic", format=format, options=options)
    convert(source, to="panoptic", out=tmp_path / "panoptic", format=format, options=options)
    if "semantic" in expected:
        compare_labels(tmp_path / "semantic" / stem, expected["semantic"])
    if "separated_sem_seg" in expected:
        compare_labels(tmp_path / "panoptic" / "stuff" / stem, expected["separated_sem_seg"])
    if "panoptic" in expected:
        compare_segments(tmp_path / "panoptic", expected["panoptic"])


def compare_labels(path: Path, wanted: dict[str, Any]) -> None:
    with PilImage.open(path) as photo:
        assert photo.mode == wanted["mode"]
        labels = np.asarray(photo)
    values, counts = np.unique(labels, return_counts=True)
    pixels = dict(zip(map(str, values.tolist()), counts.tolist(), strict=True))
    assert pixels == {value: count for value, count in wanted["pixel_counts"].items() if count}
    for place, value in wanted.get("at", {}).items():
        x, y = json.loads(place)
        assert labels[y, x] == value


def compare_segments(folder: Path, wanted: dict[str, Any]) -> None:
    table = json.loads((folder / "panoptic.json").read_text("utf-8"))
    (annotation,) = table["annotations"]
    assert annotation["file_name"] == wanted["png"]
    assert [{k: v for k, v in row.items() if k != "id"} for row in annotation["segments_info"]] == wanted[
        "segments_info"
    ]
    with PilImage.open(folder / "panoptic" / annotation["file_name"]) as photo:
        assert photo.mode == wanted["mode"]
        ids = np.asarray(photo).astype(int) @ np.array([1, 256, 65536])
    assert (ids == 0).sum() == wanted["void_px"]
    for row in annotation["segments_info"]:
        assert (ids == row["id"]).sum() == row["area"]


@pytest.mark.parametrize("name", [name for name in CASES if "void_px" in answers(name)])
def test_ignored_pixels_are_not_a_class(name: str, tmp_path: Path) -> None:
    source, expected, format, options = case(name, tmp_path)
    (image,) = expected["images"]
    stem = Path(image["file_name"]).with_suffix(".png")
    convert(source, to="semantic", out=tmp_path / "semantic", format=format, options=options)
    with PilImage.open(source / "SegmentationClass" / stem) as classes:
        ignored = np.asarray(classes) == 255
    with PilImage.open(tmp_path / "semantic" / stem) as photo:
        assert photo.mode == "L"
        labels = np.asarray(photo)
    assert ignored.sum() == expected["void_px"] and (labels[ignored] == 255).all()
    assert (labels != 255).sum() == sum(row["area_exact"] for row in expected["annotations"])
