"""Folders as people have them."""

from __future__ import annotations

from pathlib import Path

import pytest

from d2tune.annotations.convert import check, read_dataset
from d2tune.annotations.formats import coco
from d2tune.annotations.model.options import ReadOptions
from tests.shared_files import SHARED

DATA = SHARED / "data"
BOARDS = {"Arduino_Nano", "ESP8266", "Heltec_ESP32_Lora", "Raspberry_Pi_3"}

# Images, instances, and findings other than `info` as (code, shape), counted in the JSON files by hand.
ZOO = {
    "01_labelme_v4.0.0_rectangle_nodata": (1, 2, []),
    "03_labelme_v4.0.0_polygon_nodata_gid": (1, 3, []),
    "05_labelme_v5.7.0_circle-line-linestrip-mask-point-polygon-rectangle_nodata": (
        1,
        5,
        [("unsupported_shape_type", 4), ("unsupported_shape_type", 5), ("unsupported_shape_type", 6)],
    ),
    "08_labelme_v5.2.0.post4_polygon-rectangle_data": (1, 5, [("image_restored_from_imageData", None)]),
    "10_labelme_v5.3.1_rectangle_data": (1, 4, []),
    "17_labelme_vnone_rectangle_nodata": (1, 2, []),
    "20_labelme_vnone_noshapetype_nodata": (1, 9, [("self_intersection", 0), ("self_intersection", 1)]),
    "21_labelme_v3.5.0_circle-line-linestrip-point-polygon-rectangle_nodata": (
        1,
        4,
        [("unsupported_shape_type", 4), ("unsupported_shape_type", 5), ("unsupported_shape_type", 6)],
    ),
    "22_labelme_vnone_noshapetype_data": (1, 4, [("image_restored_from_imageData", None)]),
    "24_labelme_v3.22.0_polygon_nodata_gid": (1, 3, []),
    "50_v4.4.0_exif6_wh_swapped": (1, 15, []),
    "52_v4.4.0_image_file_absent_imageData_only": (1, 2, [("image_restored_from_imageData", None)]),
    "53_v4.2.9_chip_polygon": (1, 1, []),
    "55_v4.2.10_windows_backslash_imagePath": (3, 33, [("image_found_elsewhere", None)] * 3),
}


def test_the_zoo_is_complete() -> None:
    assert {path.name for path in (DATA / "labelme_zoo").iterdir()} == set(ZOO)


@pytest.mark.parametrize("name", sorted(ZOO))
def test_every_labelme_dialect_is_read(name: str) -> None:
    images, instances, findings = ZOO[name]
    result = check(DATA / "labelme_zoo" / name)
    assert (len(result.dataset.images), len(result.dataset.instances)) == (images, instances)
    assert [(f.code, f.shape) for f in result.findings if f.level != "info"] == findings


def test_a_rotated_photo_has_its_displayed_size() -> None:
    (image,) = check(DATA / "labelme_zoo" / "50_v4.4.0_exif6_wh_swapped").dataset.images
    assert (image.width_px, image.height_px) == (3024, 4032)


@pytest.mark.parametrize(("part", "images", "instances"), [("train", 61, 255), ("val", 13, 50)])
def test_the_balloons(tmp_path: Path, part: str, images: int, instances: int) -> None:
    folder = DATA / "balloon" / part
    dataset = read_dataset(folder, options=ReadOptions(class_name="balloon"))
    assert (len(dataset.images), len(dataset.instances), dataset.findings) == (images, instances, ())
    assert dataset.class_names == ("balloon",)
    assert not dataset.has_rle
    (path,) = coco.write(dataset, tmp_path)
    again = coco.read(path, ReadOptions(image_root=folder))
    assert again.findings == () and again.content_hash() == dataset.content_hash()


@pytest.mark.parametrize(("part", "images", "instances"), [("train", 142, 171), ("test", 7, 7)])
def test_the_microcontrollers(part: str, images: int, instances: int) -> None:
    dataset = read_dataset(DATA / "microcontrollers" / part)
    assert (len(dataset.images), len(dataset.instances), dataset.findings) == (images, instances, ())
    assert set(dataset.class_names) == BOARDS
