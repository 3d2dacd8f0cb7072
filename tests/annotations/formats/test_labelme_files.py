"""Labelme files and their images: how they are read, restored and written."""

from __future__ import annotations

import base64
import json
import zlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage
from PIL import ImageOps

from d2tune.annotations.formats import labelme
from d2tune.annotations.geometry.masks import encode_mask, to_rle
from d2tune.annotations.model.dataset import Category, Dataset, Image, Instance
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import (
    SQUARE,
    TRIANGLE,
    codes,
    labelme_file,
    labelme_value,
    photo,
    shape,
)
from tests.annotations.formats.labelme_folders import mask_of, read

# Files and images -------------------------------------------------------------------------------------------------


def test_a_bad_file_hides_no_other_file_and_can_be_excluded(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    labelme_file(tmp_path / "b.json", shape([[1, 1], [5, float("nan")], [9, 1]]), shape(SQUARE))
    labelme_file(tmp_path / "c.json", shape(SQUARE), size=(64, 48))
    (tmp_path / "c.json").write_text('{"version": "5.0",\n "shapes": [', "utf-8")
    labelme_file(tmp_path / "d.json", shape(SQUARE))
    dataset = read(tmp_path)
    assert [(f.file, f.code, f.line) for f in dataset.findings] == [
        ("b.json", "non_finite_coordinate", None),
        ("c.json", "bad_json", 2),
    ]
    assert "ends in the middle" in dataset.findings[1].message
    left = read(tmp_path, skip_bad=True)
    assert left.errors() == ()
    assert [finding.file for finding in left.findings] == ["b.json", "c.json"]
    assert [image.file_name for image in left.images] == ["a.png", "d.png"]


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "empty"),
        (b"{]", "not valid JSON"),
        (b"[" * 100_000, "nested"),
        (b'{"shapes": [' + b"9" * 10_000 + b"]}", "too many digits"),
        (b"\xff\xff\xff\xff", "neither UTF-8 nor GB18030"),
    ],
)
def test_broken_json_is_an_error(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "a.json").write_bytes(content)
    (finding,) = read(tmp_path).findings
    assert (finding.level, finding.code, finding.file) == ("error", "bad_json", "a.json")
    assert message in finding.message


def test_files_that_are_not_utf8_are_read_with_a_warning(tmp_path: Path) -> None:
    photo(tmp_path / "a.png")
    text = json.dumps(labelme_value(shape(SQUARE, "红绿灯")), ensure_ascii=False)
    (tmp_path / "a.json").write_bytes(text.encode("gb18030"))
    dataset = read(tmp_path)
    assert codes(dataset) == [("warning", "not_utf8", None)]
    assert dataset.class_names == ("红绿灯",)
    (tmp_path / "a.json").write_bytes(text.encode("utf-8-sig"))
    assert codes(read(tmp_path)) == []


@pytest.mark.parametrize("value", [[], {}, 7, None, {"shapes": 3}, {"images": [], "annotations": [], "shapes": []}])
def test_other_json_is_skipped_with_a_warning(tmp_path: Path, value: Any) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    (tmp_path / "package.json").write_text(json.dumps(value), "utf-8")
    dataset = read(tmp_path)
    assert [(f.level, f.code, f.file) for f in dataset.findings] == [("warning", "not_labelme", "package.json")]
    assert len(dataset.instances) == 1


@pytest.mark.parametrize("orientation", range(1, 9))
def test_sizes_are_those_of_the_rotated_image(tmp_path: Path, orientation: int) -> None:
    for suffix in (".jpg", ".png", ".tif", ".webp"):
        path = photo(tmp_path / f"a{suffix}", orientation=orientation)
        with PilImage.open(path) as stored:
            width_px, height_px = ImageOps.exif_transpose(stored).size
        labelme_file(tmp_path / "a.json", shape(SQUARE), draw=False, image=path.name, size=(width_px, height_px))
        dataset = read(tmp_path)
        assert (dataset.images[0].width_px, dataset.images[0].height_px) == (width_px, height_px)
        assert dataset.errors() == ()
        path.unlink()


def test_an_orientation_behind_the_pixels_of_a_png_counts(tmp_path: Path) -> None:
    content = photo(tmp_path / "a.png", orientation=6).read_bytes()
    start = content.index(b"eXIf") - 4
    stop = start + 12 + int.from_bytes(content[start : start + 4], "big")
    end = content.index(b"IEND") - 4
    (tmp_path / "a.png").write_bytes(content[:start] + content[stop:end] + content[start:stop] + content[end:])
    labelme_file(tmp_path / "a.json", shape(SQUARE), draw=False, size=(48, 64))
    assert codes(read(tmp_path)) == []


def test_a_size_of_the_unrotated_image_names_the_orientation(tmp_path: Path) -> None:
    photo(tmp_path / "a.jpg", orientation=6)
    labelme_file(tmp_path / "a.json", shape(SQUARE), draw=False, image="a.jpg", size=(64, 48))
    dataset = read(tmp_path)
    assert codes(dataset) == [("error", "size_swapped_exif", None)]
    assert "EXIF orientation 6" in dataset.findings[0].message
    labelme_file(tmp_path / "a.json", shape(SQUARE), draw=False, image="a.jpg", size=(65, 48))
    assert codes(read(tmp_path)) == [("error", "size_mismatch", None)]


@pytest.mark.parametrize("stated", [("64", "48"), (64.0, 48.0), (None, None), (0, 0), (True, 1), ("x", [])])
def test_stated_sizes_are_read_leniently(tmp_path: Path, stated: tuple[Any, Any]) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE), imageWidth=stated[0], imageHeight=stated[1])
    assert codes(read(tmp_path)) == []


def test_two_files_for_one_image_are_an_error(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE), image="x.png")
    labelme_file(tmp_path / "b.json", shape(TRIANGLE), image="x.png")
    dataset = read(tmp_path)
    assert [(f.file, f.code, f.also) for f in dataset.findings] == [("b.json", "duplicate_image", ("a.json",))]
    assert len(dataset.images) == 1


def test_an_image_that_cannot_be_read_is_an_error(tmp_path: Path) -> None:
    whole = photo(tmp_path / "whole.png").read_bytes()
    for name, content in (("empty", b""), ("text", b"hello"), ("cut", whole[:20])):
        labelme_file(tmp_path / f"{name}.json", shape(SQUARE), draw=False)
        (tmp_path / f"{name}.png").write_bytes(content)
    huge = bytearray(whole)
    huge[16:24] = b"\x00\x01\x00\x00\x00\x01\x00\x00"  # a header that claims 65536 x 65536
    huge[29:33] = zlib.crc32(huge[12:29]).to_bytes(4, "big")
    labelme_file(tmp_path / "huge.json", shape(SQUARE), draw=False)
    (tmp_path / "huge.png").write_bytes(huge)
    dataset = read(tmp_path)
    errors = [(f.file, f.code) for f in dataset.errors()]
    assert errors == [(f"{name}.json", "image_unreadable") for name in ("cut", "empty", "huge", "text")]
    assert "size of the image is invalid" in dataset.errors()[2].message


def test_images_without_annotation_are_named_and_may_be_negatives(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    photo(tmp_path / "sub" / "b.jpg")
    dataset = read(tmp_path)
    assert [(f.level, f.code, f.file) for f in dataset.findings] == [("info", "unlabeled_image", "sub/b.jpg")]
    assert len(dataset.images) == 1
    both = read(tmp_path, include_unlabeled=True)
    assert [image.file_name for image in both.images] == ["a.png", "sub/b.jpg"]
    assert [len(ones) for ones in both.by_image().values()] == [1, 0]


def test_images_outside_the_root_are_refused_unless_allowed(tmp_path: Path) -> None:
    photo(tmp_path / "secret" / "s.png")
    labelme_file(tmp_path / "data" / "a.json", shape(SQUARE), draw=False, image="..\\secret\\s.png")
    (tmp_path / "data" / "link.png").symlink_to(tmp_path / "secret" / "s.png")
    labelme_file(tmp_path / "data" / "b.json", shape(SQUARE), draw=False, image="link.png")
    absolute = str(tmp_path / "secret" / "s.png")
    labelme_file(tmp_path / "data" / "c.json", shape(SQUARE), draw=False, image=absolute)
    dataset = read(tmp_path / "data")
    assert [(f.file, f.code) for f in dataset.errors()] == [(f"{n}.json", "image_missing") for n in "abc"]
    assert all("outside the data root" in finding.message for finding in dataset.errors())
    labelme_file(tmp_path / "data" / "a.json", shape(SQUARE), draw=False, image="../secret/s.png")
    (tmp_path / "data" / "b.json").unlink()
    (tmp_path / "data" / "c.json").unlink()
    allowed = read(tmp_path / "data", allow_outside=True)
    assert [image.file_name for image in allowed.images] == ["../secret/s.png"]
    rooted = read(tmp_path / "data", image_root=tmp_path)
    assert [image.file_name for image in rooted.images] == ["secret/s.png"]


def test_images_are_read_from_the_image_root(tmp_path: Path) -> None:
    photo(tmp_path / "photos" / "x" / "a.png")
    labelme_file(tmp_path / "ann" / "a.json", shape(SQUARE), draw=False, image="x/a.png")
    dataset = read(tmp_path / "ann", image_root=tmp_path / "photos")
    assert [(image.file_name, image.annotation_file) for image in dataset.images] == [("x/a.png", "a.json")]
    with pytest.raises(DataError, match="image root"):
        read(tmp_path / "ann", image_root=tmp_path / "nowhere")


def test_a_missing_image_names_the_path_tried_and_one_like_it(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE), draw=False, image="D:\\photos\\IMG_0017.png")
    photo(tmp_path / "x" / "IMG_0071.png")
    (finding,) = read(tmp_path).errors()
    assert finding.code == "image_missing"
    assert "D:/photos/IMG_0017.png" in finding.message and f"below {tmp_path}" in finding.message
    assert finding.hint == "the nearest name is x/IMG_0071.png"


def restored(tmp_path: Path, image: Any, data: str, **more: Any) -> Dataset:
    labelme_file(tmp_path / "src" / "x" / "a.json", shape(SQUARE), draw=False, imageData=data, imagePath=image)
    return read(tmp_path / "src", restore_dir=tmp_path / "out", **more)


@pytest.mark.parametrize(
    ("image", "file_name"),
    [
        ("b.png", "x/b.png"),
        ("b.jpg", "x/b.png"),
        ("a.json", "x/a.png"),
        ("..\\..\\..\\b.png", "x/b.png"),
        ("C:\\photos\\b.png", "x/b.png"),
        (None, "x/a.png"),
    ],
)
def test_images_are_restored_with_their_own_suffix_inside_the_folder(
    tmp_path: Path, image: Any, file_name: str
) -> None:
    content = photo(tmp_path / "photo.png").read_bytes()
    dataset = restored(tmp_path, image, base64.b64encode(content).decode())
    assert codes(dataset) == [("warning", "image_restored_from_imageData", None)]
    assert dataset.images[0].file_name == file_name
    assert dataset.images[0].path == tmp_path / "out" / file_name
    assert (tmp_path / "out" / file_name).read_bytes() == content
    assert len(dataset.instances) == 1


def test_images_are_not_restored_without_a_folder_or_from_rubbish(tmp_path: Path) -> None:
    data = base64.b64encode(photo(tmp_path / "photo.png").read_bytes()).decode()
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE), draw=False, imageData=data)
    assert codes(read(tmp_path / "src")) == [("error", "image_missing", None)]
    for rubbish in ("?", base64.b64encode(b"rubbish").decode(), base64.b64encode(b"\x89PNG\r\n\x1a\n").decode()):
        labelme_file(tmp_path / "src" / "a.json", shape(SQUARE), draw=False, imageData=rubbish)
        assert codes(read(tmp_path / "src", restore_dir=tmp_path / "out")) == [("error", "image_missing", None)]
    assert not (tmp_path / "out").exists()


def test_a_single_file_can_be_read(tmp_path: Path) -> None:
    labelme_file(tmp_path / "a.json", shape(SQUARE))
    labelme_file(tmp_path / "b.json", shape(SQUARE))
    dataset = labelme.read(tmp_path / "b.json", ReadOptions())
    assert [image.file_name for image in dataset.images] == ["b.png"]
    with pytest.raises(DataError, match="no such file"):
        labelme.read(tmp_path / "c.json", ReadOptions())


# Writing ------------------------------------------------------------------------------------------------------------


def predicted(tmp_path: Path, *masks: np.ndarray) -> Dataset:
    height_px, width_px = masks[0].shape
    path = photo(tmp_path / "photos" / "x" / "a.png", width_px, height_px)
    instances = []
    for number, mask in enumerate(masks, start=1):
        rle = to_rle(encode_mask(mask))
        instances.append(Instance(number, 1, 1, rle, (0, 0, 1, 1), float(mask.sum()), score=0.8734))
    return Dataset((Image(1, "x/a.png", width_px, height_px, path),), (Category(1, "cell"),), tuple(instances))


def disk(x: float, y: float, radius: float) -> np.ndarray:
    rows, columns = np.mgrid[:90, :120] + 0.5
    return np.hypot(columns - x, rows - y) <= radius


def test_predictions_are_written_as_labelme_reads_them(tmp_path: Path) -> None:
    two = disk(20, 20, 12) | disk(60, 60, 12)
    ring = disk(90, 30, 20) & ~disk(90, 30, 8)
    (path,) = labelme.write(predicted(tmp_path, disk(30, 60, 15), two, ring), tmp_path / "out")
    assert path == tmp_path / "out" / "x" / "a.json"
    value = json.loads(path.read_text("utf-8"))
    assert list(value) == ["version", "flags", "shapes", "imagePath", "imageData", "imageHeight", "imageWidth"]
    assert (value["imageData"], value["imageHeight"], value["imageWidth"]) == (None, 90, 120)
    assert (path.parent / value["imagePath"]).resolve() == tmp_path / "photos" / "x" / "a.png"
    first, second, third, fourth = value["shapes"]
    assert first["description"] == "score=0.873" and first["score"] == 0.8734
    assert all(row["flags"] == {"prediction": True} for row in value["shapes"])
    assert first["group_id"] is None and second["group_id"] == third["group_id"] == 0
    assert len(first["points"]) < 40
    assert (fourth["shape_type"], fourth["points"]) == ("mask", [[70, 10], [109, 49]])

    back = labelme.read(tmp_path / "out", ReadOptions(image_root=tmp_path / "photos"))
    assert back.findings == ()
    assert [instance.score for instance in back.instances] == [0.8734] * 3
    for index, wanted in zip(range(3), (disk(30, 60, 15), two, ring), strict=True):
        mask = mask_of(back, index)
        assert (mask & wanted).sum() / (mask | wanted).sum() > 0.95
    assert np.array_equal(mask_of(back, 2), ring)


def test_an_existing_file_is_not_overwritten(tmp_path: Path) -> None:
    dataset = predicted(tmp_path, disk(30, 60, 15))
    (tmp_path / "out" / "x").mkdir(parents=True)
    (tmp_path / "out" / "x" / "a.json").write_text("by hand")
    for force in (False, True):
        with pytest.raises(DataError, match=r"already there.*d2tune did not write it as annotations"):
            labelme.write(dataset, tmp_path / "out", force=force)
    assert (tmp_path / "out" / "x" / "a.json").read_text() == "by hand"
    labelme.write(dataset, tmp_path / "own")
    with pytest.raises(DataError, match=r"already there.*--force"):
        labelme.write(dataset, tmp_path / "own")
    labelme.write(dataset, tmp_path / "own", force=True)


def test_images_that_differ_by_suffix_get_files_of_their_own(tmp_path: Path) -> None:
    images = tuple(Image(number, f"a.{suffix}", 64, 48) for number, suffix in enumerate(("jpg", "png"), start=1))
    paths = labelme.write(Dataset(images, (), ()), tmp_path)
    assert [path.name for path in paths] == ["a.jpg.json", "a.png.json"]


def test_a_round_trip_keeps_every_key_that_a_human_wrote(tmp_path: Path) -> None:
    source = tmp_path / "src"
    shapes = [
        shape(SQUARE, "cat", group_id=3, description="old", flags={"blurred": True}, color="red"),
        shape([[1, 1], [9, 9]], "seam", "line", width=2),
        shape([[32, 24], [41, 36]], "ball", "circle"),
        shape(TRIANGLE, "__ignore__"),
        {"label": "cat", "points": TRIANGLE, "line_color": None, "flags": None},
        shape([[70, 70], [80, 70], [80, 80]], "cat"),
    ]
    labelme_file(source / "a.json", *shapes, flags={"checked": True}, reviewer="Ada")
    dataset = labelme.read(source, ReadOptions())
    (path,) = labelme.write(dataset, tmp_path / "out", originals=source)
    value = json.loads(path.read_text("utf-8"))
    assert value["reviewer"] == "Ada" and value["flags"] == {"checked": True}
    assert value["shapes"][:4] == shapes[:4]
    assert value["shapes"][4] == shape(TRIANGLE, line_color=None)
    assert value["shapes"][5] == shapes[5]  # outside of the image: of no use to training, but a human drew it
    again = labelme.read(tmp_path / "out", ReadOptions(image_root=source))
    assert [instance.coco_segmentation() for instance in again.instances] == [
        instance.coco_segmentation() for instance in dataset.instances
    ]
