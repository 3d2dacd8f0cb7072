"""What ``check`` says about the values and the files of images, and what datasets keep of it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import tifffile
from PIL import Image as PilImage

from d2tune.annotations.convert import convert, read_dataset
from d2tune.annotations.io.photos import findings as photo_findings
from d2tune.annotations.io.photos import reading as photos
from d2tune.annotations.io.photos.reading import read_photo_of
from d2tune.annotations.model.options import ReadOptions
from d2tune.checking import check
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, photo, shape

GRAY = np.tile(np.linspace(0, 65535, 64), (48, 1)).astype(np.uint16)


def annotated(folder: Path, name: str, pixels: np.ndarray, **options: Any) -> Path:
    """An image as a TIFF with a Labelme file."""
    labelme_file(folder / f"{name}.json", shape(TRIANGLE), image=f"{name}.tif", draw=False)
    tifffile.imwrite(folder / f"{name}.tif", pixels, **options)
    return folder / f"{name}.tif"


def noted(folder: Path, **options: Any) -> Counter[str]:
    findings = check(folder, options=ReadOptions(**options))[0].findings
    return Counter(f"{finding.level} {finding.code}" for finding in findings)


def test_what_is_done_is_given_once_with_the_number_of_images(tmp_path: Path) -> None:
    for number in range(3):
        annotated(tmp_path, f"deep{number}", GRAY)
    for number in range(2):
        annotated(tmp_path, f"float{number}", (GRAY / 65535).astype(np.float32))
    photo(tmp_path / "plain.jpg")
    labelme_file(tmp_path / "plain.json", shape(TRIANGLE), image="plain.jpg", draw=False)
    findings = {finding.message: finding for finding in check(tmp_path)[0].findings}
    assert set(findings) == {
        "16-bit values are divided by 257 (3 images), the same in training, evaluation and prediction",
        "float values from 0 to 1 are multiplied by 255 (2 images), the same in training, evaluation and prediction",
    }
    assert {(finding.level, finding.code) for finding in findings.values()} == {("info", "image_scaled")}


def test_finding_it_decodes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    annotated(tmp_path, "a", GRAY)
    labelme_file(tmp_path / "b.json", shape(TRIANGLE), draw=False)
    cv2.imwrite(str(tmp_path / "b.png"), GRAY)

    def decode(*arguments: object, **options: Any) -> None:
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(photo_findings, "read_photo", decode)
    monkeypatch.setattr(photo_findings, "read_values", decode)
    monkeypatch.setattr(photos, "read_tiff", decode)
    monkeypatch.setattr(PilImage.Image, "load", decode)
    assert noted(tmp_path) == {"info image_scaled": 1}


def test_all_images_of_a_dataset_are_divided_by_the_largest_range(tmp_path: Path) -> None:
    annotated(tmp_path, "a", GRAY >> 6, extratags=[(281, "H", 1, 1023, True)])
    annotated(tmp_path, "b", GRAY >> 4, extratags=[(281, "H", 1, 4095, True)])
    (result,) = check(tmp_path)
    assert Counter(f"{finding.level} {finding.code}" for finding in result.findings) == {
        "info image_scaled": 1,
        "warning image_range_differs": 1,
    }
    first, second = (read_photo_of(image) for image in result.dataset.images)
    np.testing.assert_array_equal(first[..., 0], np.floor((GRAY >> 6) / 4095 * 255 + 0.5))
    np.testing.assert_array_equal(second[..., 0], np.floor((GRAY >> 4) / 4095 * 255 + 0.5))


def test_one_stated_range_is_taken_without_a_warning(tmp_path: Path) -> None:
    for name in "ab":
        annotated(tmp_path, name, GRAY >> 4, extratags=[(281, "H", 1, 4095, True)])
    (finding,) = check(tmp_path)[0].findings
    assert finding.message.startswith("16-bit values are divided by 4095 / 255 (2 images)")


def test_a_stated_range_that_does_not_hold_is_not_taken(tmp_path: Path) -> None:
    annotated(tmp_path, "a", GRAY, extratags=[(281, "H", 1, 255, True)])
    (result,) = check(tmp_path)
    (warning,) = (finding for finding in result.findings if finding.level == "warning")
    assert "states values up to 255 and has values up to 65535" in warning.message
    np.testing.assert_array_equal(read_photo_of(result.dataset.images[0])[..., 0], np.floor(GRAY / 257 + 0.5))


@pytest.mark.parametrize("depth", ["header", "structure", "decoded"])
def test_values_out_of_range_are_an_error_with_the_range(tmp_path: Path, depth: Any) -> None:
    annotated(tmp_path, "a", np.full((48, 64), 7.5, np.float32))
    annotated(tmp_path, "b", GRAY)
    (error,) = read_dataset(tmp_path, options=ReadOptions(image_checks=depth)).errors()
    assert (error.code, error.file) == ("image_out_of_range", "a.tif")
    assert "found 7.5 to 7.5; expected 0 to 1" in error.message
    with pytest.raises(DataError, match="image_out_of_range"):
        convert(tmp_path, out=tmp_path / "out.json")
    assert not (tmp_path / "out.json").exists()


def test_skip_bad_excludes_images_and_their_shapes(tmp_path: Path) -> None:
    for name in "abc":
        labelme_file(tmp_path / f"{name}.json", shape(TRIANGLE), shape(SQUARE), image=f"{name}.jpg")
    content = (tmp_path / "b.jpg").read_bytes()
    (tmp_path / "b.jpg").write_bytes(content[:-20])
    assert noted(tmp_path) == {"error image_unreadable": 1}
    (result,) = check(tmp_path, options=ReadOptions(skip_bad=True))
    assert [image.file_name for image in result.dataset.images] == ["a.jpg", "c.jpg"]
    assert [(instance.id, instance.image_id) for instance in result.dataset.instances] == [
        (1, 1),
        (2, 1),
        (3, 2),
        (4, 2),
    ]
    (finding,) = result.findings
    assert (finding.level, finding.code, finding.file) == ("warning", "image_unreadable", "b.jpg")
    fates = [(row.image, row.fate, row.instances) for row in result.dataset.ledger]
    assert fates == [
        ("a.jpg", "kept", (1,)),
        ("a.jpg", "kept", (2,)),
        ("b.jpg", "dropped", ()),
        ("b.jpg", "dropped", ()),
        ("c.jpg", "kept", (3,)),
        ("c.jpg", "kept", (4,)),
    ]


def test_color_models_and_frames_are_given(tmp_path: Path) -> None:
    for name in ("cmyk.jpg", "frames.gif"):
        labelme_file(tmp_path / f"{name[:-4]}.json", shape(TRIANGLE), image=name, draw=False)
    PilImage.new("CMYK", (64, 48), (10, 20, 30, 40)).save(tmp_path / "cmyk.jpg")
    frames = [PilImage.new("L", (64, 48), value) for value in (10, 200)]
    frames[0].save(tmp_path / "frames.gif", save_all=True, append_images=frames[1:])
    assert noted(tmp_path) == {"info image_converted": 1, "info image_has_frames": 1}


def test_images_that_are_too_large_are_a_warning_of_check_and_an_error_of_projects(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(TRIANGLE), size=(30_000, 20_000), draw=False)
    PilImage.new("1", (30_000, 20_000)).save(tmp_path / "a.png")
    assert noted(tmp_path) == {"warning image_too_large": 1}
    assert noted(tmp_path, image_checks="decoded") == {"error image_too_large": 1}
    message = check(tmp_path)[0].findings[0].message
    assert "more than 400 megapixels; divide it and its annotations into tiles" in message
