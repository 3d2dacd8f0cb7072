"""Images, paths and files that are not what they seem, each by its name."""

from __future__ import annotations

import base64
import io
import json
import os
import struct
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from tests.annotations.builders import SQUARE, TRIANGLE, labelme_file, labelme_value, photo, shape
from tests.annotations.hostile.guarded import guarded, tried
from tests.cases import on_demand

MPX = 1_000_000


def png_header(width: int, height: int, *, bit_depth: int = 8, color: int = 0) -> bytes:
    """The start of a PNG that claims a size and holds nothing."""
    fields = struct.pack(">IIBBBBB", width, height, bit_depth, color, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", fields)


def chunk(name: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))


def png_of_one_value(width: int, height: int, *, bit_depth: int = 1, color: int = 0, value: int = 255) -> bytes:
    """A whole PNG of one value: hundreds of megabytes of pixels in some kilobytes."""
    row_bytes = (width * bit_depth * {0: 1, 2: 3, 6: 4}[color] + 7) // 8
    packer = zlib.compressobj(1)
    row = b"\0" + bytes([value]) * row_bytes
    packed = b"".join(packer.compress(row) for _ in range(height)) + packer.flush()
    return png_header(width, height, bit_depth=bit_depth, color=color) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


def write(path: Path, value: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(value if isinstance(value, bytes) else json.dumps(value).encode())
    return path


def mask_shape(png: bytes, first: tuple[int, int] = (0, 0)) -> dict[str, Any]:
    text = base64.b64encode(png).decode()
    return shape([list(first), [first[0] + 9, first[1] + 9]], "cell", "mask", mask=text)


def test_bomb_as_the_image(tmp_path: Path) -> None:
    source = tmp_path / "set"
    write(source / "a.json", labelme_value(shape(TRIANGLE), imageHeight=None, imageWidth=None))
    write(source / "a.png", png_of_one_value(40_000, 40_000))
    outcome = guarded(source)
    assert outcome.codes == ["image_unreadable"]
    assert "pixels" in str(outcome.error)


@pytest.mark.parametrize(("width", "height"), [(60_000, 60_000), (2**31 - 1, 2**31 - 1), (2**31 - 1, 1)])
def test_a_header_that_claims_a_giant_is_refused(tmp_path: Path, width: int, height: int) -> None:
    source = tmp_path / "set"
    write(source / "a.json", labelme_value(shape(TRIANGLE), imageHeight=height, imageWidth=width))
    write(source / "a.png", png_header(width, height) + chunk(b"IDAT", b""))
    assert tried(source).codes == ["image_unreadable"]


def test_images_up_to_a_gigapixel_are_measured_and_not_decoded(tmp_path: Path) -> None:
    source = tmp_path / "set"
    write(source / "a.json", labelme_value(shape(TRIANGLE), size=(30_000, 30_000)))
    write(source / "a.png", png_of_one_value(30_000, 30_000))
    outcome = guarded(source)
    assert (outcome.error, outcome.instances) == (None, 1)
    source = tmp_path / "larger"
    write(source / "a.json", labelme_value(shape(TRIANGLE), size=(32_769, 32_769)))
    write(source / "a.png", png_of_one_value(32_769, 32_769))
    outcome = guarded(source)
    assert outcome.codes == ["image_unreadable"]
    assert "more than 1,073,741,824 pixels" in str(outcome.error)


@pytest.mark.parametrize("to", ["coco", "labelme"])
def test_shapes_on_an_image_of_170_megapixels(tmp_path: Path, to: str) -> None:
    """The largest image that is read: shapes on it take the memory of their outlines, not of the image."""
    source = tmp_path / "set"
    corners = [[0, 0], [13_000, 0], [13_000, 13_000], [0, 12_999]]
    circle = shape([[6000, 6000], [9000, 9000]], "disk", "circle")
    write(source / "a.json", labelme_value(shape(corners), circle, size=(13_000, 13_000)))
    write(source / "a.png", png_header(13_000, 13_000) + chunk(b"IDAT", b""))
    outcome = guarded(source, to=to)
    assert (outcome.error, outcome.instances) == (None, 2)


BOMBS = on_demand([(9_400, 8, 0), (9_400, 8, 2), (9_400, 8, 6), (20_000, 1, 0)], (9_400, 8, 0), (20_000, 1, 0))


@pytest.mark.parametrize(("side", "bit_depth", "color"), BOMBS)
def test_bomb_as_a_mask_shape(tmp_path: Path, side: int, bit_depth: int, color: int) -> None:
    png = png_of_one_value(side, side, bit_depth=bit_depth, color=color)
    source = tmp_path / "set"
    labelme_file(source / "a.json", mask_shape(png))
    outcome = guarded(source)
    refused = side > 9_400 or color != 0
    assert outcome.codes == (["mask_undecodable"] if refused else ["mask_bbox_mismatch"])
    assert outcome.instances == (0 if refused else 1)


def test_bomb_as_image_data(tmp_path: Path) -> None:
    png = base64.b64encode(png_of_one_value(40_000, 40_000)).decode()
    source = tmp_path / "set"
    write(source / "a.json", labelme_value(shape(TRIANGLE), imageData=png))
    outcome = guarded(source)
    assert outcome.codes == ["image_missing"]
    assert "more than 1,073,741,824 pixels" in str(outcome.error)


@pytest.mark.parametrize("side", on_demand([13_000, 20_000], 20_000))
def test_bomb_as_a_mask_in_a_folder(tmp_path: Path, side: int) -> None:
    photo(tmp_path / "set" / "images" / "a.jpg")
    write(tmp_path / "set" / "masks" / "a.png", png_of_one_value(side, side, bit_depth=8))
    outcome = guarded(tmp_path / "set", format="masks", class_name="cat")
    assert outcome.codes == ["size_mismatch" if side == 13_000 else "mask_undecodable"]


@pytest.mark.parametrize("name", on_demand([b"zTXt", b"iTXt", b"iCCP"], b"iCCP"))
def test_bomb_in_a_text_or_color_profile_of_a_png(tmp_path: Path, name: bytes) -> None:
    packed = zlib.compress(b"\0" * 300_000_000, 9)
    middle = {b"zTXt": b"k\0\0", b"iTXt": b"k\0\1\0\0\0", b"iCCP": b"p\0\0"}[name]
    source = tmp_path / "set"
    whole = photo(tmp_path / "whole.png").read_bytes()
    write(source / "a.json", labelme_value(shape(TRIANGLE)))
    write(source / "a.png", whole[:33] + chunk(name, middle + packed) + whole[33:])
    outcome = guarded(source)
    assert outcome.images == 1 or outcome.codes == ["image_unreadable"]


def test_a_late_exif_block_that_claims_two_gigabytes(tmp_path: Path) -> None:
    source = tmp_path / "set"
    labelme_file(source / "a.json", shape(TRIANGLE))
    whole = (source / "a.png").read_bytes()
    write(source / "a.png", whole[:-12] + struct.pack(">I", 2**31 - 1) + b"eXIf" + b"II*\0")
    assert tried(source).images == 1


def noise_png(side: int) -> bytes:
    """A chequered mask, which compresses to nothing and has an outline around every second pixel."""
    rows, columns = np.mgrid[:side, :side]
    stream = io.BytesIO()
    PilImage.fromarray((rows + columns) % 2 == 0).save(stream, "PNG")
    return stream.getvalue()


def test_a_chequered_mask_is_kept_as_runs(tmp_path: Path) -> None:
    source = tmp_path / "set"
    labelme_file(source / "a.json", mask_shape(noise_png(4000)), size=(4000, 4000))
    outcome = guarded(source)
    assert outcome.error is None and outcome.instances == 1
    assert "mask_ragged" in outcome.codes
    (row,) = json.loads((tmp_path / "set-out" / "annotations.json").read_bytes())["annotations"]
    assert row["area"] == 8_000_000 and row["segmentation"]["size"] == [4000, 4000]


def test_runs_of_a_whole_image_of_80_megapixels(tmp_path: Path) -> None:
    side = 9_000
    rle = {"size": [side, side], "counts": [1, side * side - 2, 1]}
    rows = [{"id": 1, "image_id": 1, "category_id": 1, "segmentation": rle}]
    images = [{"id": 1, "file_name": "a.png", "width": side, "height": side}]
    write(
        tmp_path / "set" / "a.json",
        {"images": images, "annotations": rows, "categories": [{"id": 1, "name": "cat"}]},
    )
    write(tmp_path / "set" / "a.png", png_header(side, side) + chunk(b"IDAT", b""))
    assert guarded(tmp_path / "set").instances == 1


OUTSIDE = {
    "absolute": "/etc/passwd",
    "dots": "../../../../../../../../etc/passwd",
    "backslashes": "..\\..\\secret.png",
    "near": "../secret.png",
    "unc": "\\\\host\\share\\a.png",
    "drive": "C:\\Users\\a.png",
    "device": "/dev/zero",
    "descriptor": "/dev/stdin",
    "process": "/proc/self/mem",
    "nul": "a\0.png",
    "only nul": "\0",
    "itself": ".",
    "above": "..",
    "slash": "/",
    "long name": "a" * 256 + ".png",
    "long path": "a/" * 3000 + "a.png",
    "surrogate": "\ud800.png",
    "line end": "a\n.png",
    "through a file": "a.json/../../secret.png",
}


@pytest.mark.parametrize("text", OUTSIDE.values(), ids=OUTSIDE)
def test_an_image_outside_the_data_root(tmp_path: Path, text: str) -> None:
    photo(tmp_path / "secret.png")
    write(tmp_path / "set" / "a.json", labelme_value(shape(TRIANGLE), image=text))
    assert tried(tmp_path / "set").codes == ["image_missing"]


@pytest.mark.parametrize("text", OUTSIDE.values(), ids=OUTSIDE)
@pytest.mark.parametrize("to", ["coco", "labelme"])
def test_an_image_in_image_data_stays_in_the_output(tmp_path: Path, text: str, to: str) -> None:
    png = base64.b64encode(photo(tmp_path / "b.png").read_bytes()).decode()
    photo(tmp_path / "secret.png")
    write(tmp_path / "set" / "a.json", labelme_value(shape(TRIANGLE), image=text, imageData=png))
    before = sorted(path for path in tmp_path.rglob("*"))
    out = tmp_path / "made" / "here"
    outcome = tried(tmp_path / "set", out=out, to=to)
    new = [path for path in tmp_path.rglob("*") if path not in before and path.is_file()]
    assert all(path.is_relative_to(out) for path in new)
    assert outcome.images == 1 or outcome.error


@pytest.mark.parametrize("include", [True, False])
def test_pipes_are_not_waited_for(tmp_path: Path, include: bool) -> None:
    labelme_file(tmp_path / "set" / "z.json", shape(TRIANGLE))
    for name in ("a.png", "a.json", "b.csv", "c.xml", "class_dict.csv"):
        os.mkfifo(tmp_path / "set" / name)
    assert tried(tmp_path / "set", include_unlabeled=include).images == 1


@pytest.mark.parametrize("kind", ["labelme", "via", "coco", "panoptic", "voc", "rle", "auto"])
@pytest.mark.parametrize("what", ["pipe", "device"])
def test_a_pipe_or_device_as_the_source(tmp_path: Path, kind: str, what: str) -> None:
    source = Path("/dev/zero")
    if what == "pipe":
        source = tmp_path / "a.json"
        os.mkfifo(source)
    options = {"preset": "airbus", "class_name": "ship"} if kind == "rle" else {}
    assert tried(source, format=kind, out=tmp_path / "out", **options).error


def test_an_image_that_is_a_pipe(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.json", labelme_value(shape(TRIANGLE)))
    os.mkfifo(tmp_path / "set" / "a.png")
    assert tried(tmp_path / "set").codes == ["image_missing"]


def test_a_folder_as_the_image(tmp_path: Path) -> None:
    write(tmp_path / "set" / "a.json", labelme_value(shape(TRIANGLE)))
    (tmp_path / "set" / "a.png").mkdir()
    assert tried(tmp_path / "set").codes == ["image_missing"]


def test_links_that_go_round(tmp_path: Path) -> None:
    source = tmp_path / "set"
    write(source / "a.json", labelme_value(shape(TRIANGLE)))
    (source / "a.png").symlink_to(source / "b.png")
    (source / "b.png").symlink_to(source / "a.png")
    (source / "again").symlink_to(source)
    (source / "round.json").symlink_to(source / "round.json")
    outcome = tried(source)
    assert set(outcome.codes) - {"unlabeled_image"} == {"bad_json", "image_missing"}


def test_a_folder_that_holds_itself(tmp_path: Path) -> None:
    labelme_file(tmp_path / "set" / "a.json", shape(TRIANGLE))
    (tmp_path / "set" / "deep").mkdir()
    (tmp_path / "set" / "deep" / "up").symlink_to(tmp_path / "set")
    outcome = tried(tmp_path / "set")
    assert (outcome.images, outcome.codes) == (1, [])


@pytest.mark.parametrize("linked", ["file", "folder"])
def test_a_link_out_of_the_data_root(tmp_path: Path, linked: str) -> None:
    photo(tmp_path / "elsewhere" / "a.png")
    source = tmp_path / "set"
    source.mkdir()
    if linked == "file":
        (source / "a.png").symlink_to(tmp_path / "elsewhere" / "a.png")
    else:
        (source / "images").symlink_to(tmp_path / "elsewhere")
    write(source / "a.json", labelme_value(shape(TRIANGLE), image="a.png" if linked == "file" else "images/a.png"))
    assert "image_missing" in tried(source).codes
    assert tried(source, allow_outside=True).images == 1


@pytest.mark.parametrize("name", ["a.json", "a.png"])
def test_a_file_that_cannot_be_read(tmp_path: Path, name: str) -> None:
    """A link to nowhere stands for a file without permission, which stops no administrator."""
    labelme_file(tmp_path / "set" / "a.json", shape(TRIANGLE))
    (tmp_path / "set" / name).unlink()
    (tmp_path / "set" / name).symlink_to(tmp_path / "nowhere")
    assert set(tried(tmp_path / "set").codes) >= {"bad_json" if name == "a.json" else "image_missing"}


def test_a_file_without_permission(tmp_path: Path) -> None:
    path = labelme_file(tmp_path / "set" / "a.json", shape(TRIANGLE))
    path.chmod(0)
    outcome = tried(tmp_path / "set")
    assert outcome.codes == ([] if os.access(path, os.R_OK) else ["bad_json"])


def test_a_folder_called_like_a_file(tmp_path: Path) -> None:
    labelme_file(tmp_path / "set" / "a.json", shape(TRIANGLE))
    for name in ("b.json", "c.png", "d.csv", "e.xml"):
        (tmp_path / "set" / name).mkdir()
    assert tried(tmp_path / "set").codes == []


@pytest.mark.parametrize("to", ["coco", "labelme", "semantic", "panoptic"])
def test_names_of_the_greatest_length(tmp_path: Path, to: str) -> None:
    """A name of 255 bytes is sound; what is written beside may need a longer one, and then says so."""
    name = "a" * 251
    folder = tmp_path / "set" / Path(*["f" * 200] * 4)
    labelme_file(folder / f"{name[:-1]}.json", shape(TRIANGLE), image=f"{name}.png")
    outcome = tried(tmp_path / "set", to=to)
    assert outcome.error is None or "too long" in outcome.error


def test_a_name_that_is_not_unicode(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9.png")
    photo(tmp_path / "set" / name)
    write(tmp_path / "set" / os.fsdecode(b"caf\xe9.json"), labelme_value(shape(SQUARE), image=name))
    for to in ("coco", "labelme", "semantic", "panoptic", "rle"):
        outcome = tried(tmp_path / "set", to=to, out=tmp_path / to, preset="airbus")
        assert outcome.error is None
    images = json.loads((tmp_path / "coco" / "annotations.json").read_text("utf-8"))["images"]
    assert (tmp_path / "set" / images[0]["file_name"]).is_file()


@pytest.mark.parametrize("kind", ["json", "csv", "xml"])
def test_a_file_beyond_the_limit_is_not_read(tmp_path: Path, kind: str) -> None:
    """A file with a hole has any size and takes no disk."""
    photo(tmp_path / "set" / "a.png")
    with (tmp_path / "set" / f"a.{kind}").open("wb") as stream:
        stream.truncate(50 * 10**9)
    formats = {"json": "labelme", "csv": "rle", "xml": "voc"}
    outcome = tried(tmp_path / "set", format=formats[kind], preset="airbus", class_name="ship")
    assert {"bad_json", "bad_rle", "bad_xml"} & set(outcome.codes)
    assert "50.0 GB" in str(outcome.error)


def test_a_refused_conversion_leaves_no_restored_image(tmp_path: Path) -> None:
    """Run-length CSV needs a dialect, which is found out when the image was already taken out of imageData."""
    png = base64.b64encode(photo(tmp_path / "b.png").read_bytes()).decode()
    write(tmp_path / "set" / "a.json", labelme_value(shape(TRIANGLE), imageData=png))
    outcome = tried(tmp_path / "set", to="rle")
    assert "dialect" in str(outcome.error)
    assert not (tmp_path / "set-out").exists()


@pytest.mark.parametrize("name", ["a" * 256, "a/" * 3000, "\0", "..", "/etc/passwd", "\ud800", ""])
def test_odd_names_of_panoptic_masks(tmp_path: Path, name: str) -> None:
    photo(tmp_path / "set" / "a.jpg")
    rows = [{"image_id": 1, "file_name": name, "segments_info": [{"id": 1, "category_id": 1}]}]
    images = [{"id": 1, "file_name": "a.jpg", "width": 64, "height": 48}]
    categories = [{"id": 1, "name": "cat"}]
    write(tmp_path / "set" / "set.json", {"images": images, "annotations": rows, "categories": categories})
    assert "mask_missing" in tried(tmp_path / "set", format="panoptic").codes


def test_a_voc_file_whose_image_could_have_no_such_name(tmp_path: Path) -> None:
    """The name of the XML file has room for ".xml", but not for ".jpeg"."""
    write(tmp_path / "set" / f"{'a' * 251}.xml", b"<annotation></annotation>")
    assert "image_missing" in tried(tmp_path / "set", format="voc").codes
