from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image as PilImage

from d2tune.annotations.convert import convert
from d2tune.annotations.formats import masks
from d2tune.annotations.model.dataset import Dataset
from d2tune.annotations.model.options import ReadOptions
from d2tune.errors import DataError
from tests.annotations.builders import SQUARE, TRIANGLE, codes, labelme_file, photo, shape
from tests.shared_files import SHARED


def read(folder: Path, values: Any, **options: Any) -> Dataset:
    pixels = np.asarray(values, dtype=np.uint8)
    photo(folder / "images" / "a.jpg", pixels.shape[1], pixels.shape[0])
    (folder / "masks").mkdir(exist_ok=True)
    PilImage.fromarray(pixels).save(folder / "masks" / "a.png")
    return masks.read(folder, ReadOptions(**options))


@pytest.mark.parametrize(
    ("photo", "mask"),
    [
        ("train/image/0.png", "train/label/0.png"),
        ("JPEGImages/480p/car/00000.jpg", "Annotations/480p/car/00000.png"),
        ("a.jpg", "a_mask.png"),
        ("images/x/a.png", "masks/x/a_gt.png"),
    ],
)
def test_photos_and_masks_are_paired_by_the_role_of_their_folders(photo: str, mask: str) -> None:
    assert masks.pairs([photo, mask, "notes.txt", "other/b.jpg"]) == {mask: photo}


def test_binary_masks(tmp_path: Path) -> None:
    dataset = read(tmp_path, [[0, 255, 0, 7], [0, 255, 0, 0]], class_name="cell")
    assert dataset.counts() == {"cell": 1} and dataset.instances[0].area_px2 == 3
    assert read(tmp_path, [[0, 255, 0, 7]], class_name="cell", split_components=True).counts() == {"cell": 2}
    assert read(tmp_path, [[0, 255]], labels=["_background_", "cell"]).counts() == {"cell": 1}
    assert codes(read(tmp_path, [[0, 255]])) == [("error", "no_class", None)]
    empty = read(tmp_path, [[0, 0]], class_name="cell")
    assert (len(empty.images), empty.instances) == (1, ())


def test_index_masks_follow_the_labels_from_0(tmp_path: Path) -> None:
    values = [[0, 1, 2, 255]]
    assert read(tmp_path, values).class_names == ("1", "2")
    assert read(tmp_path, values, labels=["_background_", "road", "car"]).counts() == {"road": 1, "car": 1}
    assert read(tmp_path, values, labels=["sky", "road", "car"]).counts() == {"sky": 1, "road": 1, "car": 1}
    assert codes(read(tmp_path, values, labels=["sky", "road"])) == [("error", "unknown_label", 2)]


def test_color_masks_need_a_table(tmp_path: Path) -> None:
    values = [[[255, 0, 0], [0, 0, 255], [0, 0, 0], [9, 9, 9]]]
    assert {code for _, code, _ in codes(read(tmp_path, values))} == {"unknown_label"}
    with pytest.raises(DataError) as caught:
        read(tmp_path, values).raise_on_errors()
    line = caught.value.one_line()
    assert "(0, 0, 255) has no class; name it in class_dict.csv" in line and "Did you mean" not in line
    (tmp_path / "class_dict.csv").write_text("name,r,g,b\nroad,255,0,0\ncar,0,0,255\nvoid,9,9,9\n")
    assert read(tmp_path, values).counts() == {"car": 1, "road": 1}
    (tmp_path / "class_dict.csv").unlink()
    (tmp_path / "labelmap.txt").write_text(
        "# label:color_rgb:parts:actions\nroad:255,0,0::\ncar:0,0,255::\nx:9,9,9::\n"
    )
    assert read(tmp_path, values).counts() == {"car": 1, "road": 1, "x": 1}


def test_masks_of_another_size_and_masks_without_a_photo(tmp_path: Path) -> None:
    read(tmp_path, [[0, 255]], class_name="cell")
    photo(tmp_path / "images" / "a.jpg", 5, 5)
    photo(tmp_path / "images" / "b.jpg", 5, 5)
    photo(tmp_path / "masks" / "c.png", 5, 5)
    dataset = masks.read(tmp_path, ReadOptions(class_name="cell"))
    assert [(f.level, f.code, f.file) for f in dataset.findings] == [
        ("info", "unlabeled_image", "images/b.jpg"),
        ("error", "size_mismatch", "masks/a.png"),
    ]


def test_our_own_semantic_images_read_back(tmp_path: Path) -> None:
    labelme_file(tmp_path / "src" / "a.json", shape(SQUARE, "cat"), shape(TRIANGLE, "dog"))
    convert(tmp_path / "src", to="semantic", out=tmp_path / "back" / "masks")
    photo(tmp_path / "back" / "images" / "a.png")
    dataset = masks.read(tmp_path / "back", ReadOptions(labels=["cat", "dog"]))
    # The triangle, drawn last, covers what it shares with the square: pixels (10..14, 10..14).
    assert [instance.area_px2 for instance in dataset.instances] == [100 - 25, 300]


def test_the_membrane_set(tmp_path: Path) -> None:
    dataset = masks.read(SHARED / "data" / "membrane", ReadOptions(class_name="inside"))
    assert (len(dataset.images), len(dataset.instances), dataset.findings) == (30, 30, ())
    with PilImage.open(SHARED / "data" / "membrane" / dataset.images[0].annotation_file) as image_:
        assert dataset.instances[0].area_px2 == (np.asarray(image_) > 0).sum()


def test_the_car_video() -> None:
    dataset = masks.read(SHARED / "data" / "car_video", ReadOptions(class_name="car"))
    assert (len(dataset.images), len(dataset.instances), dataset.findings) == (40, 40, ())
