"""One list of image suffixes, and the formats that are named with the way out."""

from __future__ import annotations

import io
import re
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image as PilImage

from d2tune.annotations.convert import check, detect_format
from d2tune.annotations.io.images import ImageError, read_header
from d2tune.annotations.io.suffixes import (
    IMAGE_SUFFIXES,
    SUFFIXES_BY_USE,
    is_image_name,
    magic_suffix,
    unreadable_content,
    unreadable_hint,
    unreadable_hint_of,
)
from d2tune.errors import DataError
from d2tune.inference.images import find_images
from tests.annotations.builders import TRIANGLE, labelme_file, shape
from tests.annotations.io.files import add_tiff_tag
from tests.shared_files import SHARED

STRANGERS = SHARED / "strangers"
HEIC = b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(200)


def test_names_in_any_case() -> None:
    listed = "jpg jpeg jpe jfif png bmp dib gif tif tiff webp ppm pgm pbm pnm jp2 avif".split()  # noqa: SIM905
    assert {f".{suffix}" for suffix in listed} == IMAGE_SUFFIXES
    for suffix in listed:
        assert is_image_name(f"a.{suffix}")
        assert is_image_name(f"folder.x/a.b.{suffix.upper()}")
    for name in ("a", ".jpg", "a.jpg.txt", "a.heic", "a.svg", "a.npy", "jpg"):
        assert not is_image_name(name)
    assert {suffix.lower() for suffix in SUFFIXES_BY_USE} == IMAGE_SUFFIXES


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("IMG_1.HEIC", "HEIC"),
        ("a.heif", "HEIC"),
        ("a.CR2", "camera raw"),
        ("a.nef", "camera raw"),
        ("a.arw", "camera raw"),
        ("a.dng", "camera raw"),
        ("a.psd", "Photoshop"),
        ("a.svg", "SVG"),
    ],
)
def test_formats_that_are_not_read_are_named(tmp_path: Path, name: str, kind: str) -> None:
    hint = unreadable_hint(name)
    assert hint is not None
    assert kind in hint
    assert "convert it to JPEG" in hint
    PilImage.new("RGB", (8, 8)).save(tmp_path / name, "TIFF")  # raw files are TIFFs with a small preview
    with pytest.raises(ImageError, match=kind):
        read_header(tmp_path / name)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (HEIC, "HEIC"),
        (b"\0\0\0\x1cftypmif1\0\0\0\0mif1heic" + bytes(50), "HEIC"),
        (b"\0\0\0\x18ftypcrx \0\0\0\x01crx isom", "camera raw"),
        (b"II*\0\x10\0\0\0CR\2\0" + bytes(50), "camera raw"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(50), "camera raw"),
        (b"8BPS\0\1" + bytes(50), "Photoshop"),
        (b'<?xml version="1.0"?>\n<!-- x --><svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "PostScript"),
        (b"%PDF-1.7\n", "PDF"),
    ],
)
def test_they_are_recognized_by_their_content(tmp_path: Path, content: bytes, kind: str) -> None:
    (tmp_path / "a.jpg").write_bytes(content)
    with pytest.raises(ImageError, match=f"{kind} images are not read"):
        read_header(tmp_path / "a.jpg")


def test_the_preview_of_a_raw_file_is_not_taken_for_the_photo(tmp_path: Path) -> None:
    tags = [(271, "s", 0, "NIKON CORPORATION", True)]
    preview = np.zeros((12, 16, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", preview, photometric="rgb", subfiletype=1, extratags=tags)
    assert read_header(tmp_path / "a.tif").width_px == 16
    add_tiff_tag(tmp_path / "a.tif", 330, 8)
    with pytest.raises(ImageError, match="camera raw"):
        read_header(tmp_path / "a.tif")
    PilImage.new("RGB", (16, 12)).save(tmp_path / "b.tif", tiffinfo={271: "Epson"})
    assert read_header(tmp_path / "b.tif").width_px == 16


def test_avif_is_not_taken_for_heic() -> None:
    content = (STRANGERS / "44_avif_heic" / "a.avif").read_bytes()
    assert unreadable_content(content[:64]) is None
    assert unreadable_content(b"\0\0\0\x1cftypavif\0\0\0\0avifmif1miaf") is None


def test_a_folder_of_nothing_else_says_so(tmp_path: Path) -> None:
    for number in range(3):
        (tmp_path / f"{number}.HEIC").write_bytes(HEIC)
    for action in (detect_format, check, find_images):
        with pytest.raises(DataError, match="3 HEIC files; HEIC images are not read; convert it to JPEG"):
            action(tmp_path)
    assert unreadable_hint_of(["a.jpg", "b.txt"]) is None


def test_predicting_names_what_it_passes_over(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    for name in ("a.JFIF", "b.avif", "c.gif", "d.ppm", "e.jpg"):
        PilImage.new("RGB", (8, 8)).save(tmp_path / name, {".JFIF": "JPEG"}.get(Path(name).suffix))
    (tmp_path / "f.heic").write_bytes(HEIC)
    _, images = find_images(tmp_path)
    assert [path.name for path in images] == ["a.JFIF", "b.avif", "c.gif", "d.ppm", "e.jpg"]
    assert "HEIC images are not read" in caplog.text


def test_an_annotation_that_names_one_says_what_to_do(tmp_path: Path) -> None:
    (tmp_path / "photo.heic").write_bytes(HEIC)
    labelme_file(tmp_path / "photo.json", shape(TRIANGLE), image="photo.heic", draw=False)
    (finding,) = check(tmp_path).dataset.errors()
    assert finding.code == "image_unreadable"
    assert "HEIC images are not read; convert it to JPEG" in finding.message


def test_there_is_no_other_list_of_suffixes() -> None:
    """No other place names JPEG, PNG and a third format beside one another, but for the drivers of GDAL."""
    package = Path(__file__).parents[3] / "d2tune"
    listed = re.compile(r"""(?:["']\.?(?:jpe?g|png|webp|tiff?|bmp|gif)["'][\s,:)(]*){3}""", re.IGNORECASE)
    hits = {
        path.relative_to(package).as_posix()
        for path in package.rglob("*.py")
        for run in listed.finditer(path.read_text(encoding="utf-8"))
        if "png" in run[0].lower() and "jp" in run[0].lower()
    }
    assert hits == {"annotations/io/suffixes.py", "annotations/io/rasters.py"}


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "AVIF", "JPEG2000"])
def test_the_suffix_of_a_content(kind: str) -> None:
    stream = io.BytesIO()
    PilImage.new("RGB", (16, 8)).save(stream, kind)
    suffix = magic_suffix(stream.getvalue())
    assert suffix is not None
    assert PilImage.registered_extensions()[suffix] == kind


def test_no_image_has_no_suffix() -> None:
    assert magic_suffix(b"") is None
    assert magic_suffix(b"hello, this is text") is None
    assert magic_suffix(HEIC) is None
